//! Why a subscription is paused.

use std::{
    collections::BTreeSet,
    fmt,
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Why a subscription is paused. It resumes when no reason is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PauseReason {
    /// The application asked for it, in this process.
    Operator,
    /// What is wanted in the store asks for it, of every process; or that is not known yet, since the store has not
    /// answered since the start.
    Control,
    /// Its circuit is open.
    Circuit,
    /// As much is parked as may be.
    Backlog,
    /// This node is silent for too long, as the store sees it, or may be: it claims nothing before it is heard again.
    Membership,
    /// A mistake in the configuration that no retry mends; the log and the health say which.
    Configuration,
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "operator",
            Self::Control => "control",
            Self::Circuit => "circuit",
            Self::Backlog => "backlog",
            Self::Membership => "membership",
            Self::Configuration => "configuration",
        })
    }
}

/// The reasons for which a subscription is paused.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    state: Mutex<State>,
    changed: Notify,
    /// As `changed`, for all who wait to make a call.
    opened: Notify,
}

#[derive(Debug, Default)]
struct State {
    reasons: BTreeSet<PauseReason>,
    /// How many messages wait for room in the park: as long as there is one, the backlog is a reason.
    without_room: usize,
}

/// A message that waits for room in the park. The subscription is paused for its backlog until the last of them is
/// dropped.
#[derive(Debug)]
pub(crate) struct WithoutRoom<'a>(&'a Pauses);

impl Drop for WithoutRoom<'_> {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.without_room -= 1;
            state.without_room == 0 && state.reasons.remove(&PauseReason::Backlog)
        });
    }
}

impl Pauses {
    pub(crate) fn insert(&self, reason: PauseReason) {
        self.change(|state| state.reasons.insert(reason));
    }

    pub(crate) fn remove(&self, reason: PauseReason) {
        self.change(|state| state.reasons.remove(&reason));
    }

    /// Pauses for as long as a message waits for room in the park.
    pub(crate) fn without_room(&self) -> WithoutRoom<'_> {
        self.change(|state| {
            state.without_room += 1;
            state.reasons.insert(PauseReason::Backlog)
        });
        WithoutRoom(self)
    }

    pub(crate) fn reasons(&self) -> BTreeSet<PauseReason> {
        self.lock().reasons.clone()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().reasons.is_empty()
    }

    /// Whether nothing that is queued may be started. An open circuit holds its calls by itself.
    pub(crate) fn stop_starting(&self) -> bool {
        self.reasons()
            .iter()
            .any(|reason| *reason != PauseReason::Circuit)
    }

    /// Whether parked messages are left alone. An open circuit admits its probe by itself, and of a full park, to work on it is
    /// what makes room.
    pub(crate) fn stop_pickup(&self) -> bool {
        self.reasons()
            .iter()
            .any(|reason| !matches!(reason, PauseReason::Circuit | PauseReason::Backlog))
    }

    /// Whether no handler is called with what is in hand already. Whether this node may still act on that, its life says.
    pub(crate) fn stop_calls(&self) -> bool {
        self.reasons().iter().any(|reason| {
            matches!(
                reason,
                PauseReason::Operator | PauseReason::Control | PauseReason::Configuration
            )
        })
    }

    /// Whether no handler will be called in this process any more: what is in hand is to be given back.
    pub(crate) fn end_calls(&self) -> bool {
        self.lock().reasons.contains(&PauseReason::Configuration)
    }

    /// Returns once handlers may be called, or will not be any more.
    pub(crate) async fn may_call(&self) {
        loop {
            let mut opened = pin!(self.opened.notified());
            opened.as_mut().enable();
            if !self.stop_calls() || self.end_calls() {
                return;
            }
            opened.await;
        }
    }

    /// Returns after the next change, or at once after one that nobody waited for.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn change(&self, f: impl FnOnce(&mut State) -> bool) {
        if f(&mut self.lock()) {
            self.changed.notify_one();
            self.opened.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
