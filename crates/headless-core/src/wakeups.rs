//! Wake-ups within a process: hints that there may be work. Every one of them may be lost; polling finds the work.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// One kind of wake-up, for any number of listeners. Several while a listener does not wait are one to it.
///
/// Listeners are woken in the order in which they began to wait, so that a simulation can replay it; a watch channel
/// wakes them in a random one.
#[derive(Debug, Default)]
pub struct Signal(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    count: AtomicU64,
    woken: Notify,
}

impl Signal {
    /// Wakes every listener.
    pub fn wake(&self) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        self.0.woken.notify_waiters();
    }

    /// A listener for wake-ups from now on.
    #[must_use]
    pub fn listen(&self) -> Listener {
        Listener {
            seen: self.0.count.load(Ordering::Acquire),
            signal: self.0.clone(),
        }
    }
}

/// Listens to one kind of wake-up.
#[derive(Clone, Debug)]
pub struct Listener {
    signal: Arc<Shared>,
    seen: u64,
}

impl Listener {
    /// Returns at the next wake-up, or at once after one that came since the last return. Never, once nobody can send
    /// one any more.
    ///
    /// # Cancel safety
    /// Dropping the future loses no wake-up.
    pub async fn woken(&mut self) {
        loop {
            // Made before the look, so that it notices a wake-up between the two.
            let woken = self.signal.woken.notified();
            let count = self.signal.count.load(Ordering::Acquire);
            if count != self.seen {
                self.seen = count;
                return;
            }
            woken.await;
        }
    }
}

/// The wake-ups of one runtime.
#[derive(Clone, Debug, Default)]
pub struct Wakeups(Arc<Kinds>);

#[derive(Debug, Default)]
struct Kinds {
    control: Signal,
    heartbeat: Signal,
    outbox: Signal,
    parked: Signal,
    freed: Signal,
}

impl Wakeups {
    /// No wake-up pending.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Operators may want something else.
    #[must_use]
    pub fn control(&self) -> &Signal {
        &self.0.control
    }

    /// This node has something to say that should not wait for its next heartbeat.
    #[must_use]
    pub fn heartbeat(&self) -> &Signal {
        &self.0.heartbeat
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

    /// What others held may be free before its leases have ended: a node was buried.
    #[must_use]
    pub fn freed(&self) -> &Signal {
        &self.0.freed
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn should_wake_once_when_several_came_before_the_wait() {
        let signal = Signal::default();
        let mut listener = signal.listen();
        signal.wake();
        signal.wake();
        listener.woken().await;
        let again = timeout(Duration::from_secs(1), listener.woken()).await;
        assert!(again.is_err(), "both were one");
        signal.wake();
        listener.woken().await;
    }

    #[tokio::test(start_paused = true)]
    async fn should_wake_listeners_in_the_order_of_their_waits() {
        let (signal, order) = (Signal::default(), Arc::new(Mutex::new(Vec::new())));
        let mut tasks = Vec::new();
        for number in 0..50 {
            let (mut listener, order) = (signal.listen(), order.clone());
            tasks.push(tokio::spawn(async move {
                listener.woken().await;
                order.lock().unwrap().push(number);
            }));
        }
        tokio::task::yield_now().await;
        signal.wake();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
    }
}
