//! Why a subscription is paused.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, PoisonError},
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
    changed: Notify,
}

impl Pauses {
    pub(crate) fn insert(&self, reason: PauseReason) {
        self.change(|reasons| reasons.insert(reason));
    }

    pub(crate) fn remove(&self, reason: PauseReason) {
        self.change(|reasons| reasons.remove(&reason));
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
