//! How many handler calls of a group run at once; may change while they do.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The right to run one handler call.
pub(crate) type Permit = OwnedSemaphorePermit;

/// How many handler calls of a group run at once. Fair: who waits longest is next.
#[derive(Debug)]
pub(crate) struct Permits {
    semaphore: Arc<Semaphore>,
    limit: Mutex<usize>,
}

impl Permits {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            semaphore: Arc::new(Semaphore::new(limit)),
            limit: Mutex::new(limit),
        }
    }

    /// Waits for a permit; `None` never in practice, since the semaphore is never closed.
    pub(crate) async fn acquire(&self) -> Option<Permit> {
        self.semaphore.clone().acquire_owned().await.ok()
    }

    /// A permit, if one is free.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        self.semaphore.clone().try_acquire_owned().ok()
    }

    pub(crate) fn limit(&self) -> usize {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limit. What runs is let finish: a lower limit takes effect as permits come back.
    pub(crate) fn set_limit(&self, new: usize) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if new > *limit {
            self.semaphore.add_permits(new - *limit);
        } else {
            let surplus = *limit - new;
            let forgotten = self.semaphore.forget_permits(surplus);
            // What is in use now is forgotten when it comes back: a waiter in line takes it and drops it for good.
            for _ in forgotten..surplus {
                let semaphore = self.semaphore.clone();
                tokio::spawn(async move {
                    if let Ok(permit) = semaphore.acquire_owned().await {
                        permit.forget();
                    }
                });
            }
        }
        *limit = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn should_follow_the_limit_when_it_changes_under_load() {
        let permits = Permits::new(3);
        let mut held: Vec<_> = std::iter::from_fn(|| permits.try_acquire()).collect();
        assert_eq!(held.len(), 3);
        permits.set_limit(1);
        tokio::task::yield_now().await;
        held.truncate(1);
        tokio::task::yield_now().await;
        assert!(
            permits.try_acquire().is_none(),
            "one is in use, and one is allowed"
        );
        held.clear();
        tokio::task::yield_now().await;
        assert_eq!(
            std::iter::from_fn(|| permits.try_acquire())
                .collect::<Vec<_>>()
                .len(),
            1
        );
        permits.set_limit(4);
        assert_eq!(
            std::iter::from_fn(|| permits.try_acquire())
                .collect::<Vec<_>>()
                .len(),
            4
        );
    }
}
