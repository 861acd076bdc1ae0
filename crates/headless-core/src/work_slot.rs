//! What became of the one unit of work of a handler call, as its caller sees it.

use std::sync::{Arc, Mutex, PoisonError};

use headless_abstractions::OwnedTx;

/// How far the unit of work of a handler call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkProgress {
    /// None was asked for.
    Unused,
    /// One was asked for and did not come about: another may be begun.
    NotBegun,
    /// It was begun, or is being begun, and has not ended.
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

    /// Reserves the slot for a unit of work that is about to begin; `None` if one was begun before, or is being begun.
    #[must_use]
    pub fn reserve(&self) -> Option<Reservation> {
        self.with(|inner| {
            let free = matches!(inner.progress, WorkProgress::Unused | WorkProgress::NotBegun);
            free.then(|| inner.progress = WorkProgress::Open)
        })?;
        Some(Reservation {
            slot: Some(self.clone()),
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

/// A slot for a unit of work that is about to begin: dropped, it leaves the slot to another.
#[must_use = "a reservation that is dropped leaves the slot to another unit of work"]
#[derive(Debug)]
pub struct Reservation {
    // `None` once it is used.
    slot: Option<WorkSlot>,
}

impl Reservation {
    /// Uses the slot up: its unit of work has begun.
    pub fn use_up(mut self) {
        self.slot = None;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot {
            slot.set(WorkProgress::NotBegun);
        }
    }
}

impl Default for WorkSlot {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_be_free_again_when_a_reservation_is_dropped() {
        let slot = WorkSlot::new();
        let reservation = slot.reserve();
        assert!(reservation.is_some());
        assert!(slot.reserve().is_none(), "while one is being begun");
        drop(reservation);
        assert_eq!(slot.progress(), WorkProgress::NotBegun);
        slot.reserve().unwrap().use_up();
        assert_eq!(slot.progress(), WorkProgress::Open);
        assert!(slot.reserve().is_none(), "once one was begun");
    }

    #[test]
    fn should_stay_used_up_when_its_unit_of_work_has_ended() {
        for end in [
            WorkProgress::Committed,
            WorkProgress::RolledBack,
            WorkProgress::Committing,
        ] {
            let slot = WorkSlot::new();
            slot.reserve().unwrap().use_up();
            slot.set(end);
            assert!(slot.reserve().is_none(), "{end:?}");
        }
    }
}
