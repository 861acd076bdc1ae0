//! What it means to hold a row: a claim, how it is given back, and what a settling write answers.

use std::time::Duration;

use crate::{Epoch, Failure, MessageId};

/// The right to work on one row, as given by the claim with this epoch.
///
/// A settling write names its owner and its claims, and changes only rows that still match all three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Claim {
    /// The message whose row is claimed.
    pub id: MessageId,
    /// The epoch that the claim was given.
    pub epoch: Epoch,
}

impl Claim {
    /// The claim on `id` with `epoch`.
    #[must_use]
    pub const fn new(id: MessageId, epoch: Epoch) -> Self {
        Self { id, epoch }
    }
}

/// What a settling write answers: which of the named claims it did *not* find.
///
/// A claim is lost when its row has since been claimed by another, reaped, settled or removed. Nothing was changed
/// for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a lost claim means that another owner has the row"]
#[non_exhaustive]
pub struct Settled {
    /// The claims for which nothing was changed, in the order in which they were named.
    pub lost: Vec<Claim>,
}

impl Settled {
    /// Every named claim was settled.
    pub const fn all() -> Self {
        Self { lost: Vec::new() }
    }

    /// All but these were settled.
    pub const fn without(lost: Vec<Claim>) -> Self {
        Self { lost }
    }

    /// Whether every named claim was settled.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty()
    }
}

/// Whether giving a row back consumes the attempt that its claim began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "drivers match it whole: there is no third answer"
)]
pub enum AttemptUse {
    /// The attempt counts: the work was tried.
    Consume,
    /// The attempt is given back: the work was not tried, or could not have succeeded.
    Return,
}

/// How claimed rows go back to ready.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Abandon {
    /// Not claimable again before this much of the store's time has passed.
    pub after: Duration,
    /// Whether the attempt counts.
    pub attempt: AttemptUse,
    /// Why, appended to the row's failures.
    pub failure: Option<Failure>,
}

impl Abandon {
    /// Back to ready at once, the attempt given back.
    #[must_use]
    pub const fn unused() -> Self {
        Self {
            after: Duration::ZERO,
            attempt: AttemptUse::Return,
            failure: None,
        }
    }

    /// Back to ready `after` this time, the attempt consumed by `failure`.
    #[must_use]
    pub const fn failed(after: Duration, failure: Failure) -> Self {
        Self {
            after,
            attempt: AttemptUse::Consume,
            failure: Some(failure),
        }
    }

    /// Not before this much of the store's time has passed.
    #[must_use]
    pub const fn with_after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }
}
