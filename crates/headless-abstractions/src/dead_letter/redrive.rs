//! Sending dead letters on their way again.

use std::time::Duration;

use bytes::Bytes;

use crate::DeadId;

/// A request to redrive dead letters.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Redrive {
    /// Which.
    pub ids: Vec<DeadId>,
    /// Who asks, at most 200 bytes; kept with the record.
    pub by: String,
    /// The most redrives of one message. Default 3.
    pub max_redrives: u32,
    /// Dead letters that died longer ago are refused: marks of what they did may have been purged. `None` forces.
    pub max_age: Option<Duration>,
    /// The payload to redrive with, for exactly one id.
    pub payload: Option<Bytes>,
}

impl Redrive {
    /// Redrives these at the demand of `by`, none older than seven days.
    #[must_use]
    pub fn new(ids: Vec<DeadId>, by: impl Into<String>) -> Self {
        let week = Duration::from_hours(7 * 24);
        Self {
            ids,
            by: by.into(),
            max_redrives: 3,
            max_age: Some(week),
            payload: None,
        }
    }

    /// At most this many redrives of one message.
    #[must_use]
    pub const fn with_max_redrives(mut self, most: u32) -> Self {
        self.max_redrives = most;
        self
    }

    /// Refusing what died longer ago; `None` refuses nothing for its age.
    #[must_use]
    pub const fn with_max_age(mut self, age: Option<Duration>) -> Self {
        self.max_age = age;
        self
    }

    /// With this payload instead.
    #[must_use]
    pub fn with_payload(mut self, payload: Bytes) -> Self {
        self.payload = Some(payload);
        self
    }
}

/// What a redrive answers for one dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "core matches it whole")]
pub enum Redriven {
    /// It is on its way again: parked in its group and due, or in the outbox.
    Now,
    /// There is no such dead letter.
    NotFound,
    /// It was redriven or discarded before.
    Closed,
    /// Another message of its idempotency key was processed in the meantime.
    Superseded,
    /// It died longer ago than the request allows.
    TooOld,
    /// It was redriven as often as the request allows.
    CapReached,
}
