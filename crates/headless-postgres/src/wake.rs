//! Telling one another that there is work: within a handle at once, to other processes by `NOTIFY`.
//!
//! A hint and no more: every one of them may be lost, and the poll finds the work then. Nothing here runs in a caller's
//! transaction, since the server lets one transaction that notifies commit at a time.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use headless_abstractions::{Error, ErrorKind, Result};
use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{Schema, Wake, sql::statements};

mod listener;
mod sender;

statements! {
    Statements {
        notify: "wake/notify",
        ping: "session/ping",
    }
}

/// How long closing waits for the tasks, which end within less once they are told to.
const CLOSING: Duration = Duration::from_secs(5);

/// What there is work in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// The outbox, or the park.
    Store,
    /// A topic of the transport.
    Transport,
}

impl Signal {
    const ALL: [Self; 2] = [Self::Store, Self::Transport];

    /// Its word in a notification. The SQL function `publish` sends it too.
    const fn word(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Transport => "transport",
        }
    }
}

/// The wake-ups of one handle. Its tasks begin with the first call that needs them and end with [`close`](Self::close),
/// or when this is dropped.
pub(crate) struct Waker {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// What the tasks share with the handle.
struct Shared {
    wake: Wake,
    /// Who sends: a handle passes over what it has sent itself.
    own: String,
    channel: String,
    statements: Statements,
    /// For the connection that listens, which is of its own.
    options: PgConnectOptions,
    /// For sending.
    pool: PgPool,
    store: Line,
    transport: Line,
    listening: Arc<AtomicBool>,
    closed: CancellationToken,
}

/// The state of one signal.
#[derive(Debug, Default)]
struct Line {
    /// How often it was given.
    count: watch::Sender<u64>,
    /// How far the last wait that ended had seen.
    seen: AtomicU64,
    /// Holds one request at most, which is what coalesces them.
    request: Notify,
    sending: Arc<AtomicBool>,
}

impl Waker {
    pub(crate) fn new(wake: Wake, schema: &Schema, options: PgConnectOptions, pool: PgPool) -> Self {
        Self {
            shared: Arc::new(Shared {
                wake,
                own: Uuid::new_v4().simple().to_string(),
                channel: format!("headless_{schema}"),
                statements: Statements::new(schema),
                options,
                pool,
                store: Line::default(),
                transport: Line::default(),
                listening: Arc::default(),
                closed: CancellationToken::new(),
            }),
            tasks: TaskTracker::new(),
        }
    }

    /// Says that there is work: waiters of this handle are woken at once, those of others soon. Never blocks.
    ///
    /// Call it after the commit.
    pub(crate) fn notify(&self, signal: Signal) {
        self.shared.give(signal);
        if self.shared.wake == Wake::Off {
            return;
        }
        let line = self.shared.line(signal);
        line.request.notify_one();
        self.start(&line.sending, |shared| sender::run(shared, signal));
    }

    /// Returns when there may be work, at the latest after `at_most`, and at once on a closed handle.
    ///
    /// A hint. What one waiter of a handle is told between two of its waits ends the second at once; several that wait
    /// for the same signal take a [`waiter`](Self::waiter) each, or some of them may sleep through it.
    ///
    /// Cancel safety: dropping the future is harmless.
    pub(crate) async fn wait(&self, signal: Signal, at_most: Duration) {
        let seen = &self.shared.line(signal).seen;
        let now = self
            .wait_beyond(signal, seen.load(Ordering::Acquire), at_most)
            .await;
        seen.fetch_max(now, Ordering::AcqRel);
    }

    /// One who waits for this signal again and again and misses none that is given after this call.
    pub(crate) fn waiter(&self, signal: Signal) -> Waiter {
        Waiter {
            signal,
            seen: *self.shared.line(signal).count.borrow(),
        }
    }

    async fn wait_beyond(&self, signal: Signal, seen: u64, at_most: Duration) -> u64 {
        if self.shared.wake == Wake::On {
            self.start(&self.shared.listening, listener::run);
        }
        let mut count = self.shared.line(signal).count.subscribe();
        tokio::select! {
            biased;
            () = self.shared.closed.cancelled() => {}
            // Its sender is in `shared`, so that it does not end.
            _given = count.wait_for(|count| *count > seen) => {}
            () = tokio::time::sleep(at_most) => {}
        }
        *count.borrow()
    }

    /// Ends the tasks and every wait, once others have been told what there was to tell. Repeating it is harmless.
    ///
    /// # Errors
    /// `Timeout` when a task has not ended in time.
    pub(crate) async fn close(&self) -> Result<()> {
        self.shared.closed.cancel();
        self.tasks.close();
        tokio::time::timeout(CLOSING, self.tasks.wait())
            .await
            .map_err(|_elapsed| {
                Error::new(
                    ErrorKind::Timeout,
                    "a task of the wake-ups has not ended in time: is the runtime blocked?",
                )
            })
    }

    /// Starts a task unless it runs. Its flag falls when it ends, also with its runtime: the next call starts it again.
    fn start<F>(&self, flag: &Arc<AtomicBool>, task: impl FnOnce(Arc<Shared>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.shared.closed.is_cancelled() || flag.load(Ordering::Acquire) {
            return;
        }
        // Without a runtime nobody sends or listens: a hint is lost, no more.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if !flag.swap(true, Ordering::AcqRel) {
            let running = Running(flag.clone());
            let task = task(self.shared.clone());
            let task = async move {
                let _running = running;
                task.await;
            };
            drop(self.tasks.spawn_on(task, &runtime));
        }
    }
}

impl Shared {
    const fn line(&self, signal: Signal) -> &Line {
        match signal {
            Signal::Store => &self.store,
            Signal::Transport => &self.transport,
        }
    }

    /// Wakes the waiters of this handle.
    fn give(&self, signal: Signal) {
        self.line(signal).count.send_modify(|count| *count += 1);
    }
}

/// One who waits for a signal: see [`Waker::waiter`].
#[derive(Debug)]
pub(crate) struct Waiter {
    signal: Signal,
    seen: u64,
}

impl Waiter {
    /// As [`Waker::wait`], of the handle that this was taken from.
    pub(crate) async fn wait(&mut self, waker: &Waker, at_most: Duration) {
        self.seen = waker.wait_beyond(self.signal, self.seen, at_most).await;
    }
}

/// That a task runs.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker")
            .field("wake", &self.shared.wake)
            .field("channel", &self.shared.channel)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
