//! Changing dead letters, and what is kept of it.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::DeadId;

/// A request to replace the payload of a dead letter. The one before stays in its history.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Edit {
    /// Which.
    pub id: DeadId,
    /// The payload that it is to have.
    pub payload: Bytes,
    /// Who asks, at most 200 bytes; kept with the record.
    pub by: String,
    /// How often it had been edited when `by` saw it: with another number it is refused. `None` asks for nothing.
    pub seen: Option<u32>,
    /// The most edits of one dead letter, since each keeps a payload. Default 20.
    pub max_edits: u32,
}

impl Edit {
    /// Gives this dead letter another payload at the demand of `by`.
    #[must_use]
    pub fn new(id: DeadId, payload: Bytes, by: impl Into<String>) -> Self {
        Self {
            id,
            payload,
            by: by.into(),
            seen: None,
            max_edits: 20,
        }
    }

    /// Only as long as it has been edited so often, as [`DeadLetter::edits`](crate::DeadLetter::edits) says.
    #[must_use]
    pub const fn with_seen(mut self, edits: u32) -> Self {
        self.seen = Some(edits);
        self
    }

    /// At most this many edits of one dead letter.
    #[must_use]
    pub const fn with_max_edits(mut self, most: u32) -> Self {
        self.max_edits = most;
        self
    }
}

/// What an edit answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "core matches it whole")]
pub enum Edited {
    /// It has the new payload.
    Now,
    /// There is no such dead letter.
    NotFound,
    /// It was redriven or discarded before.
    Closed,
    /// It was edited since it was seen.
    Changed,
    /// It was edited as often as the request allows.
    CapReached,
}

/// One change of a dead letter, as its history tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterChange {
    /// When, by the store's clock.
    pub at: DateTime<Utc>,
    /// Who.
    pub by: String,
    /// What.
    pub what: Change,
}

impl DeadLetterChange {
    /// This change.
    #[must_use]
    pub fn new(at: DateTime<Utc>, by: impl Into<String>, what: Change) -> Self {
        Self {
            at,
            by: by.into(),
            what,
        }
    }
}

/// What was done to a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "drivers and core match it whole")]
pub enum Change {
    /// It was given another payload.
    Edited {
        /// The one before.
        before: Bytes,
    },
    /// It was sent on its way again.
    Redriven {
        /// The payload that it left with, where that is another than the dead letter's.
        with: Option<Bytes>,
    },
    /// It was closed without that.
    Discarded,
}
