//! The connection between one handle and the server.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU8, Ordering},
};

use headless_abstractions::{Error, ErrorKind, Result};
use tokio::sync::Notify;

use crate::store::Seen;

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const SEVERED: u8 = 2;

/// The connection between one handle and the server: open, closed by its holder, or severed as by a crash.
#[derive(Debug, Default)]
pub(crate) struct Link {
    state: AtomicU8,
    changed: Notify,
    seen: Mutex<Seen>,
}

impl Link {
    /// Succeeds while open, answers `Closed` when closed, and never answers once severed.
    ///
    /// Call it at the start of every driver call, and again after each wait within one. Now and then it yields, as a
    /// call of a distant server would: calls that always answer at once never starve other tasks of the thread.
    pub(crate) async fn check(&self, operation: &'static str) -> Result<()> {
        tokio::task::coop::consume_budget().await;
        match self.state.load(Ordering::Acquire) {
            OPEN => Ok(()),
            CLOSED => Err(Self::closed(operation)),
            _ => std::future::pending().await,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    pub(crate) fn is_severed(&self) -> bool {
        self.state.load(Ordering::Acquire) == SEVERED
    }

    /// What the last wait through this connection has seen of the store.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once the link is no longer open.
    pub(crate) async fn ended(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.is_open() {
                return;
            }
            changed.await;
        }
    }

    /// Closes an open link; says whether it was open.
    pub(crate) fn close(&self) -> bool {
        self.end(CLOSED)
    }

    /// Severs an open link; says whether it was open.
    pub(crate) fn sever(&self) -> bool {
        self.end(SEVERED)
    }

    fn end(&self, state: u8) -> bool {
        let was_open = self
            .state
            .compare_exchange(OPEN, state, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        self.changed.notify_waiters();
        was_open
    }

    /// The error of a handle that was closed.
    pub(crate) fn closed(operation: &'static str) -> Error {
        Error::new(ErrorKind::Closed, "this handle was closed")
            .with_operation(operation)
            .with_provider("memory")
    }
}
