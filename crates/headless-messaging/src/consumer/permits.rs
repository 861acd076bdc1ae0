//! How many handler calls of a group run at once; may change while they do.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many handler calls of a group run at once. Fair: who waits longest is next.
#[derive(Clone, Debug)]
pub(crate) struct Permits(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    semaphore: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    /// How many permits that are in use are to be kept when they come back, since the limit was lowered meanwhile.
    debt: usize,
}

/// The right to run one handler call.
#[derive(Debug)]
pub(crate) struct Permit {
    // `None` only within `drop`.
    permit: Option<OwnedSemaphorePermit>,
    shared: Arc<Shared>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        self.shared.with(|state| {
            if state.debt > 0 {
                state.debt -= 1;
                permit.forget();
            }
        });
    }
}

impl Permits {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Shared {
            semaphore: Arc::new(Semaphore::new(limit)),
            state: Mutex::new(State { limit, debt: 0 }),
        }))
    }

    /// Waits for a permit; `None` never in practice, since the semaphore is never closed.
    pub(crate) async fn acquire(&self) -> Option<Permit> {
        let permit = self.0.semaphore.clone().acquire_owned().await.ok()?;
        Some(self.permit(permit))
    }

    /// A permit, if one is free.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        let permit = self.0.semaphore.clone().try_acquire_owned().ok()?;
        Some(self.permit(permit))
    }

    pub(crate) fn limit(&self) -> usize {
        self.0.with(|state| state.limit)
    }

    /// How many are in use.
    pub(crate) fn in_use(&self) -> usize {
        self.0.with(|state| {
            let all = state.limit.saturating_add(state.debt);
            all.saturating_sub(self.0.semaphore.available_permits())
        })
    }

    /// Changes the limit. What runs is let finish: a lower limit takes effect as permits come back.
    pub(crate) fn set_limit(&self, new: usize) {
        self.0.with(|state| {
            if new > state.limit {
                let more = new - state.limit;
                let forgiven = more.min(state.debt);
                state.debt -= forgiven;
                self.0.semaphore.add_permits(more - forgiven);
            } else {
                let surplus = state.limit - new;
                state.debt += surplus - self.0.semaphore.forget_permits(surplus);
            }
            state.limit = new;
        });
    }

    fn permit(&self, permit: OwnedSemaphorePermit) -> Permit {
        Permit {
            permit: Some(permit),
            shared: self.0.clone(),
        }
    }
}

impl Shared {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(permits: &Permits) -> Vec<Permit> {
        std::iter::from_fn(|| permits.try_acquire()).collect()
    }

    #[test]
    fn should_follow_the_limit_when_it_changes_under_load() {
        let permits = Permits::new(3);
        let mut held = free(&permits);
        assert_eq!(held.len(), 3);
        permits.set_limit(1);
        held.truncate(1);
        assert!(permits.try_acquire().is_none(), "one is held and one is allowed");
        held.clear();
        assert_eq!(free(&permits).len(), 1);
        permits.set_limit(4);
        assert_eq!(free(&permits).len(), 4);
    }

    #[test]
    fn should_forgive_the_debt_when_the_limit_is_raised_again() {
        let permits = Permits::new(3);
        let held = free(&permits);
        permits.set_limit(1);
        permits.set_limit(2);
        assert!(permits.try_acquire().is_none());
        drop(held);
        assert_eq!(free(&permits).len(), 2);
    }
}
