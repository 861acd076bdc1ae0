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
    /// What this process was given.
    own: usize,
    /// What the store wants instead, for as long as it does.
    controlled: Option<usize>,
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
            state: Mutex::new(State {
                own: limit,
                controlled: None,
                limit,
                debt: 0,
            }),
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

    /// Changes the limit of this process, which counts unless the store wants another. What runs is let finish: a lower
    /// limit takes effect as permits come back.
    pub(crate) fn set_limit(&self, new: usize) {
        self.0.with(|state| {
            state.own = new;
            state.follow(&self.0.semaphore);
        });
    }

    /// Sets what the store wants instead of the limit of this process; `None` gives that back.
    pub(crate) fn control(&self, wanted: Option<usize>) {
        self.0.with(|state| {
            state.controlled = wanted;
            state.follow(&self.0.semaphore);
        });
    }

    fn permit(&self, permit: OwnedSemaphorePermit) -> Permit {
        Permit {
            permit: Some(permit),
            shared: self.0.clone(),
        }
    }
}

impl State {
    /// Makes the limit what it should be.
    fn follow(&mut self, semaphore: &Semaphore) {
        let new = self.controlled.unwrap_or(self.own);
        if new > self.limit {
            let more = new - self.limit;
            let forgiven = more.min(self.debt);
            self.debt -= forgiven;
            semaphore.add_permits(more - forgiven);
        } else {
            let surplus = self.limit - new;
            self.debt += surplus - semaphore.forget_permits(surplus);
        }
        self.limit = new;
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

    #[test]
    fn should_go_back_to_its_own_limit_when_the_store_wants_none_any_more() {
        let permits = Permits::new(3);
        permits.control(Some(1));
        assert_eq!(free(&permits).len(), 1);
        permits.set_limit(5);
        assert_eq!(permits.limit(), 1, "the store goes first");
        permits.control(Some(4));
        assert_eq!(free(&permits).len(), 4);
        permits.control(None);
        assert_eq!(free(&permits).len(), 5);
        permits.control(None);
        assert_eq!(free(&permits).len(), 5);
    }
}
