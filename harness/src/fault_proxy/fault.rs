//! What a proxy is told to do, and what it counts for that.

use std::{
    num::NonZero,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    Pass,
    Latency(Duration),
    Drip {
        bytes: NonZero<usize>,
        pause: Duration,
    },
    Reset,
    BlackHole,
    HalfOpen {
        /// The first connection that is not concerned.
        before: u64,
    },
    Cut(Counted),
    /// As a reset, with a good-bye.
    Close,
    Stall(Direction),
    Commit(CommitFault),
}

/// What becomes of the next COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitFault {
    Drop,
    LoseAnswer,
}

/// Whose bytes are counted for a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    All,
    Requests,
    Answers,
}

/// Where bytes are going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToServer,
    ToClient,
}

impl Counted {
    fn has(self, direction: Direction) -> bool {
        match self {
            Self::All => true,
            Self::Requests => direction == Direction::ToServer,
            Self::Answers => direction == Direction::ToClient,
        }
    }
}

/// What may pass of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    All,
    /// So many of them, and then the connection is closed.
    First(usize),
}

/// The fault of now, and those who wait for another.
#[derive(Debug, Default)]
pub(super) struct Faults {
    fault: watch::Sender<Fault>,
    /// What may still pass before the cut.
    left: Mutex<u64>,
    accepted: AtomicU64,
    /// The first connection that no reset has hit: one is not undone by the next command.
    whole_from: AtomicU64,
    /// The first connection that no good-bye has hit.
    open_from: AtomicU64,
    open: AtomicUsize,
}

impl Faults {
    pub(super) fn set(&self, fault: Fault) {
        let _left = self.left();
        self.fault.send_replace(fault);
    }

    pub(super) fn reset(&self) {
        self.whole_from.store(self.next_connection(), Ordering::SeqCst);
        self.set(Fault::Reset);
    }

    /// Whether this connection was there at a reset.
    pub(super) fn has_reset(&self, connection: u64) -> bool {
        connection < self.whole_from.load(Ordering::SeqCst)
    }

    pub(super) fn close(&self) {
        self.open_from.store(self.next_connection(), Ordering::SeqCst);
        self.set(Fault::Close);
    }

    /// Whether this connection was there at a good-bye.
    pub(super) fn has_closed(&self, connection: u64) -> bool {
        connection < self.open_from.load(Ordering::SeqCst)
    }

    /// What is to become of a COMMIT that has arrived. It ends the fault.
    pub(super) fn commit(&self) -> Option<CommitFault> {
        let _left = self.left();
        let Fault::Commit(fault) = *self.fault.borrow() else {
            return None;
        };
        self.fault.send_replace(Fault::Pass);
        Some(fault)
    }

    pub(super) fn now(&self) -> Fault {
        *self.fault.borrow()
    }

    pub(super) fn cut_after(&self, counted: Counted, bytes: u64) {
        let mut left = self.left();
        *left = bytes;
        self.fault.send_replace(Fault::Cut(counted));
    }

    pub(super) fn watch(&self) -> watch::Receiver<Fault> {
        self.fault.subscribe()
    }

    /// How much may pass of bytes that arrive while a cut is due. The cut ends the fault.
    pub(super) fn pass(&self, direction: Direction, bytes: usize) -> Share {
        let mut left = self.left();
        // A command may have come in between.
        let Fault::Cut(counted) = *self.fault.borrow() else {
            return Share::All;
        };
        if !counted.has(direction) {
            return Share::All;
        }
        match usize::try_from(*left) {
            Ok(few) if few < bytes => {
                self.fault.send_replace(Fault::Pass);
                Share::First(few)
            }
            _ => {
                *left -= bytes as u64;
                Share::All
            }
        }
    }

    /// The number of the next connection.
    pub(super) fn next_connection(&self) -> u64 {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(super) fn connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// A new connection's number.
    pub(super) fn accept(&self) -> u64 {
        self.open.fetch_add(1, Ordering::SeqCst);
        self.accepted.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn ended(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    fn left(&self) -> MutexGuard<'_, u64> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_cut_once_when_the_bytes_have_passed() {
        let faults = Faults::default();
        faults.cut_after(Counted::All, 10);
        assert_eq!(faults.pass(Direction::ToServer, 6), Share::All);
        assert_eq!(faults.pass(Direction::ToClient, 4), Share::All);
        assert_eq!(faults.pass(Direction::ToServer, 3), Share::First(0));
        assert_eq!(faults.pass(Direction::ToServer, 3), Share::All);
        assert_eq!(*faults.watch().borrow(), Fault::Pass);
    }

    #[test]
    fn should_count_one_direction_when_told_so() {
        let faults = Faults::default();
        faults.cut_after(Counted::Answers, 1);
        assert_eq!(faults.pass(Direction::ToServer, 100), Share::All);
        assert_eq!(faults.pass(Direction::ToClient, 100), Share::First(1));
    }
}
