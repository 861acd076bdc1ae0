//! Wake-ups within a process: hints that there may be work. Every one of them may be lost; polling finds the work.

use std::sync::Arc;

use tokio::sync::Notify;

/// One kind of wake-up. Several while nobody waits are one.
#[derive(Debug, Default)]
pub struct Signal(Notify);

impl Signal {
    /// Wakes the one who waits, or the next one who will.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Returns at the next wake-up, or at once if there was one that nobody waited for.
    ///
    /// # Cancel safety
    /// Dropping the future loses no wake-up.
    pub async fn woken(&self) {
        self.0.notified().await;
    }
}

/// The wake-ups of one runtime.
#[derive(Clone, Debug, Default)]
pub struct Wakeups(Arc<Kinds>);

#[derive(Debug, Default)]
struct Kinds {
    outbox: Signal,
    parked: Signal,
}

impl Wakeups {
    /// No wake-up pending.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Messages may be waiting in the outbox.
    #[must_use]
    pub fn outbox(&self) -> &Signal {
        &self.0.outbox
    }

    /// Messages may be due in the park.
    #[must_use]
    pub fn parked(&self) -> &Signal {
        &self.0.parked
    }
}
