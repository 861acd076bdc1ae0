//! What happens at a point, once, and to the member that reaches it first.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use headless_core::CrashPoint;

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    /// Nothing of the member runs on.
    Abort,
    /// It fails, or its outcome is unknown.
    Error,
    /// The whole member stands still for longer than its leases.
    Delay,
}

impl Action {
    pub(crate) const ALL: [Self; 3] = [Self::Abort, Self::Error, Self::Delay];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Abort => "abort",
            Self::Error => "error",
            Self::Delay => "delay",
        }
    }

    /// Has this happen at a point when this process reaches it for the first time. `reached` is called before the member
    /// is taken away by `end`, or stands still for this long; one that fails goes on, and nobody is told.
    pub(crate) fn at(
        self,
        point: CrashPoint,
        delay: Duration,
        reached: impl Fn() + Send + Sync + 'static,
        end: impl Fn() + Send + Sync + 'static,
    ) {
        let happened = AtomicBool::new(false);
        let told = match self {
            Self::Error => fail::cfg(point.name(), "1*return"),
            Self::Abort | Self::Delay => fail::cfg_callback(point.name(), move || {
                if happened.swap(true, SeqCst) {
                    return;
                }
                reached();
                if self == Self::Abort {
                    end();
                } else {
                    stand_still(delay);
                }
            }),
        };
        told.expect("the action is one of the crate's");
    }
}

/// As a process that is stopped, or that waits for its disk: renewals and heartbeats on this runtime stand still too.
#[expect(clippy::disallowed_methods, reason = "it is to block the runtime")]
fn stand_still(delay: Duration) {
    thread::sleep(delay);
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a trial is made of: each point is broken in one of them that comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Style {
    /// Handlers are given messages one by one.
    Single,
    /// Handlers are given several at a time.
    Batch,
    /// Handlers and the broker take longer than leases, and a member leaves in the middle of its work.
    Leaving,
    /// An operator mends and discards dead letters, and messages go straight to the broker.
    Operator,
    /// What is old is removed.
    Purging,
}

impl Style {
    pub(crate) const ALL: [Self; 5] = [
        Self::Single,
        Self::Batch,
        Self::Leaving,
        Self::Operator,
        Self::Purging,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Batch => "batch",
            Self::Leaving => "leaving",
            Self::Operator => "operator",
            Self::Purging => "purging",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|style| style.name() == name)
    }

    /// The points that are broken for it: of batches those at which batches have a way of their own. What becomes of one of
    /// them alone is as for single messages.
    pub(crate) fn points(self) -> Vec<CrashPoint> {
        let of_others = |point: &CrashPoint| {
            [Self::Leaving, Self::Operator, Self::Purging]
                .iter()
                .any(|style| style.of_its_own().contains(point))
        };
        match self {
            Self::Single => CrashPoint::ALL
                .iter()
                .copied()
                .filter(|point| !of_others(point))
                .collect(),
            _ => self.of_its_own().to_vec(),
        }
    }

    /// What is named for it; single messages come to all the rest.
    const fn of_its_own(self) -> &'static [CrashPoint] {
        match self {
            Self::Single => &[],
            Self::Batch => &[
                CrashPoint::ConsumerReceived,
                CrashPoint::HandlerBeginning,
                CrashPoint::HandlerMarked,
                CrashPoint::HandlerCommitting,
                CrashPoint::HandlerCommitted,
                CrashPoint::ConsumerSettling,
                CrashPoint::ConsumerSettled,
                CrashPoint::InboxAdmitting,
                CrashPoint::InboxAdmitted,
                CrashPoint::InboxMarking,
                CrashPoint::InboxMarked,
            ],
            Self::Leaving => &[
                CrashPoint::RelayRenewing,
                CrashPoint::RelayRenewed,
                CrashPoint::RelayReturning,
                CrashPoint::RelayReturned,
                CrashPoint::ConsumerExtending,
                CrashPoint::ConsumerExtended,
                CrashPoint::InboxRenewing,
                CrashPoint::InboxRenewed,
                CrashPoint::InboxReleasing,
                CrashPoint::InboxReleased,
                CrashPoint::ParkReturning,
                CrashPoint::ParkReturned,
                CrashPoint::StopReleasingOutbox,
                CrashPoint::StopReleasedOutbox,
                CrashPoint::StopReleasingInbox,
                CrashPoint::StopReleasedInbox,
                CrashPoint::StopLeaving,
                CrashPoint::StopLeft,
            ],
            Self::Operator => &[
                CrashPoint::DirectSending,
                CrashPoint::DirectSent,
                CrashPoint::LetterEditing,
                CrashPoint::LetterEdited,
                CrashPoint::LetterRedriving,
                CrashPoint::LetterRedriven,
                CrashPoint::LetterDiscarding,
                CrashPoint::LetterDiscarded,
            ],
            Self::Purging => &[
                CrashPoint::OutboxPurging,
                CrashPoint::OutboxPurged,
                CrashPoint::InboxPurging,
                CrashPoint::InboxPurged,
                CrashPoint::LetterPurging,
                CrashPoint::LetterPurged,
            ],
        }
    }
}

/// One field of the matrix, as it is written on a command line; without an action nothing happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) point: CrashPoint,
    pub(crate) action: Action,
}

impl Spot {
    pub(crate) fn all(style: Style) -> impl Iterator<Item = Self> {
        let of_point = |point: CrashPoint| Action::ALL.into_iter().map(move |action| Self { point, action });
        style.points().into_iter().flat_map(of_point)
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut all = Style::ALL.into_iter().flat_map(Self::all);
        all.find(|spot| spot.to_string() == name)
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.point.name(), self.action)
    }
}
