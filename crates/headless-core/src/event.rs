//! What applications publish and handle.

use std::borrow::Cow;

use serde::{Serialize, de::DeserializeOwned};

/// Something that happened: a type with a topic.
///
/// ```
/// use std::borrow::Cow;
/// use headless_core::Event;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct OrderPlaced { order: String, total: u32 }
///
/// impl Event for OrderPlaced {
///     const TOPIC: &'static str = "orders.placed";
///     fn key(&self) -> Option<Cow<'_, str>> { Some(Cow::Borrowed(&self.order)) }
/// }
/// ```
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The topic that it is published on.
    const TOPIC: &'static str;

    /// What it is called among the types of its topic. By default the topic's name.
    const TYPE: &'static str = Self::TOPIC;

    /// The key whose messages keep their order. An ordered topic refuses an event without one.
    fn key(&self) -> Option<Cow<'_, str>> {
        None
    }

    /// The business operation that it stands for: a group acts on one event per idempotency key.
    fn idempotency_key(&self) -> Option<Cow<'_, str>> {
        None
    }
}
