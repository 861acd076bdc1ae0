//! Wake-ups within a process: hints that there may be work. Every one of them may be lost; polling finds the work.

use std::sync::Arc;

use tokio::sync::watch;

/// One kind of wake-up, for any number of listeners. Several while a listener does not wait are one to it.
#[derive(Debug, Default)]
pub struct Signal(watch::Sender<()>);

impl Signal {
    /// Wakes every listener.
    pub fn wake(&self) {
        self.0.send_replace(());
    }

    /// A listener for wake-ups from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }
}

/// Listens to one kind of wake-up.
#[derive(Clone, Debug)]
pub struct Listener(watch::Receiver<()>);

impl Listener {
    /// Returns at the next wake-up, or at once after one that came since the last return. Never, once nobody can send
    /// one any more.
    ///
    /// # Cancel safety
    /// Dropping the future loses no wake-up.
    pub async fn woken(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
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
