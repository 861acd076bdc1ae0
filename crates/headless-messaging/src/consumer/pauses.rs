//! Why a subscription is paused.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// Why a subscription is paused. It resumes when no reason is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PauseReason {
    /// An operator asked for it.
    Operator,
    /// Its circuit is open.
    Circuit,
    /// As much is parked as may be.
    Backlog,
    /// A mistake in the configuration that no retry mends; the log and the health say which.
    Configuration,
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator",
            Self::Circuit => "circuit",
            Self::Backlog => "backlog",
            Self::Configuration => "configuration",
        })
    }
}

/// The reasons for which a subscription is paused.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    reasons: Mutex<BTreeSet<PauseReason>>,
    /// How many messages wait for room in the park.
    without_room: AtomicUsize,
    changed: Notify,
}

/// A message that waits for room in the park. The subscription is paused for its backlog until the last of them is
/// dropped.
#[derive(Debug)]
pub(crate) struct WithoutRoom<'a>(&'a Pauses);

impl Drop for WithoutRoom<'_> {
    fn drop(&mut self) {
        if self.0.without_room.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.remove(PauseReason::Backlog);
        }
    }
}

impl Pauses {
    pub(crate) fn insert(&self, reason: PauseReason) {
        self.change(|reasons| reasons.insert(reason));
    }

    pub(crate) fn remove(&self, reason: PauseReason) {
        self.change(|reasons| reasons.remove(&reason));
    }

    /// Pauses for as long as a message waits for room in the park.
    pub(crate) fn without_room(&self) -> WithoutRoom<'_> {
        self.without_room.fetch_add(1, Ordering::AcqRel);
        self.insert(PauseReason::Backlog);
        WithoutRoom(self)
    }

    pub(crate) fn reasons(&self) -> BTreeSet<PauseReason> {
        self.reasons
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reasons
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Whether nothing that is queued may be started. An open circuit holds its calls by itself.
    pub(crate) fn stop_starting(&self) -> bool {
        self.reasons()
            .iter()
            .any(|reason| *reason != PauseReason::Circuit)
    }

    /// Whether parked messages are left alone. A full park is not: to work on it is what makes room.
    pub(crate) fn stop_pickup(&self) -> bool {
        self.reasons()
            .iter()
            .any(|reason| *reason != PauseReason::Backlog)
    }

    /// Returns after the next change, or at once after one that nobody waited for.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn change(&self, f: impl FnOnce(&mut BTreeSet<PauseReason>) -> bool) {
        if f(&mut self.reasons.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.changed.notify_one();
        }
    }
}
