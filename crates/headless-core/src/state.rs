//! Application state by type.

use std::{
    any::{Any, TypeId},
    collections::BTreeMap,
    fmt,
    sync::Arc,
};

/// Application state by type: what handlers and units of work look up.
///
/// ```
/// use headless_core::State;
///
/// let state = State::new().with(7_u32).with("name".to_owned());
/// assert_eq!(state.get::<u32>().as_deref(), Some(&7));
/// assert!(state.get::<u64>().is_none());
/// ```
#[derive(Clone, Default)]
pub struct State(Arc<BTreeMap<TypeId, Entry>>);

#[derive(Clone)]
struct Entry {
    type_name: &'static str,
    value: Arc<dyn Any + Send + Sync>,
}

impl State {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this value, replacing one of the same type.
    #[must_use]
    pub fn with<T: Any + Send + Sync>(mut self, value: T) -> Self {
        let entry = Entry {
            type_name: std::any::type_name::<T>(),
            value: Arc::new(value),
        };
        Arc::make_mut(&mut self.0).insert(TypeId::of::<T>(), entry);
        self
    }

    /// The value of this type.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0
            .get(&TypeId::of::<T>())
            .and_then(|entry| entry.value.clone().downcast().ok())
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.0.values().map(|entry| entry.type_name))
            .finish()
    }
}
