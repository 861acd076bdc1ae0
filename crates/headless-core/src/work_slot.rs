//! What became of the one unit of work of a handler call, as its caller sees it.

use std::sync::{Arc, Mutex, PoisonError};

use headless_abstractions::OwnedTx;

/// How far the unit of work of a handler call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkProgress {
    /// None was begun.
    Unused,
    /// It was begun and has not ended.
    Open,
    /// Its commit was asked for and has not answered: it may have happened.
    Committing,
    /// It was committed.
    Committed,
    /// Its commit failed; it may have happened if the error said so.
    CommitFailed {
        /// Whether it may have happened.
        outcome_unknown: bool,
    },
    /// It was rolled back, or handed back to be rolled back.
    RolledBack,
}

/// What a handler call and its unit of work share: a unit of work that is dropped hands its transaction back here, so
/// that the caller can await the rollback before it settles anything.
#[derive(Clone, Debug)]
pub struct WorkSlot(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    progress: WorkProgress,
    dropped: Option<Box<dyn OwnedTx>>,
}

impl WorkSlot {
    /// A slot whose unit of work has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            progress: WorkProgress::Unused,
            dropped: None,
        })))
    }

    /// Reserves the slot; false if it was reserved before.
    #[must_use]
    pub fn reserve(&self) -> bool {
        self.with(|inner| {
            let first = inner.progress == WorkProgress::Unused;
            if first {
                inner.progress = WorkProgress::Open;
            }
            first
        })
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> WorkProgress {
        self.with(|inner| inner.progress)
    }

    /// The transaction that was dropped without an end, to be rolled back by the caller.
    #[must_use]
    pub fn take_dropped(&self) -> Option<Box<dyn OwnedTx>> {
        self.with(|inner| inner.dropped.take())
    }

    pub(crate) fn set(&self, progress: WorkProgress) {
        self.with(|inner| inner.progress = progress);
    }

    pub(crate) fn hand_back(&self, tx: Box<dyn OwnedTx>) {
        self.with(|inner| {
            inner.progress = WorkProgress::RolledBack;
            inner.dropped = Some(tx);
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        // Each change is a plain store: the state is valid after any panic.
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for WorkSlot {
    fn default() -> Self {
        Self::new()
    }
}
