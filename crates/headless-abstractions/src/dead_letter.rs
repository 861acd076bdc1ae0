//! Messages that nothing but an operator moves again.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::{Arrival, DeadId, Failure, GroupName, Hold, Marked, Message, Result};

mod edit;
mod filter;
mod queries;
mod redrive;

pub use edit::{Change, DeadLetterChange, Edit, Edited};
pub use filter::DeadLetterFilter;
pub use queries::{DeadLetterQueries, DeadLetterStats, DeadLetterTally};
pub use redrive::{Redrive, Redriven};

/// Where a message died.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "drivers and core match it whole")]
pub enum Origin {
    /// In this group: it was received, and could not be handled.
    Group(GroupName),
    /// In the relay: it was published, and could not be sent.
    Relay,
}

/// A message to be dead-lettered.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bury {
    /// The message, stored whole.
    pub message: Message,
    /// The message as the group meets it.
    pub arrival: Arrival,
    /// What the caller holds.
    pub hold: Hold,
    /// What failed in the last round, appended to the row's failures. At least one.
    pub failures: Vec<Failure>,
}

impl Bury {
    /// Buries this message.
    #[must_use]
    pub const fn new(message: Message, arrival: Arrival, hold: Hold, failures: Vec<Failure>) -> Self {
        Self {
            message,
            arrival,
            hold,
            failures,
        }
    }
}

/// A dead letter as an operator sees it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its own id.
    pub id: DeadId,
    /// Where it died.
    pub origin: Origin,
    /// The message as it was when it died, but for a payload that was edited since: its history keeps the one before.
    pub message: Message,
    /// Every attempt's failure, the last one the cause.
    pub failures: Vec<Failure>,
    /// How many rounds it had had.
    pub rounds: u32,
    /// When it died, by the store's clock.
    pub buried_at: DateTime<Utc>,
    /// How often its message was redriven before it died this time.
    pub redrives: u32,
    /// The dead letter that it was redriven from; that one keeps the message as it was before the redrive.
    pub previous: Option<DeadId>,
    /// How often its payload was edited.
    pub edits: u32,
    /// Who redrove it, and when. It has left the park of the dead then, and stays as a record.
    pub redriven: Option<(String, DateTime<Utc>)>,
    /// Who discarded it, and when.
    pub discarded: Option<(String, DateTime<Utc>)>,
}

impl DeadLetter {
    /// A dead letter that was neither redriven nor discarded.
    #[must_use]
    pub const fn new(id: DeadId, origin: Origin, message: Message, buried_at: DateTime<Utc>) -> Self {
        Self {
            id,
            origin,
            message,
            failures: Vec::new(),
            rounds: 0,
            buried_at,
            redrives: 0,
            previous: None,
            edits: 0,
            redriven: None,
            discarded: None,
        }
    }

    /// Whether it is dead still: neither redriven nor discarded.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.redriven.is_none() && self.discarded.is_none()
    }
}

/// Messages that nothing but an operator moves again. Part of the state machine of
/// [`InboxStore`](crate::InboxStore), over the same rows.
#[async_trait]
pub trait DeadLetterStore: Debug + Send + Sync + 'static {
    /// Dead-letters messages of groups, and answers for each in the order of the batch. Their idempotency keys are
    /// free from then on, and their keys go on.
    ///
    /// Atomicity: each message by itself: its row is dead if and only if its dead letter exists. Blocks for a round
    /// trip. Dropping the future leaves each message buried or not. Repeating it answers `Already(Dead)`. A message is taken whatever
    /// its size, as by [`ParkedStore::park`](crate::ParkedStore::park).
    ///
    /// # Errors
    /// `Invalid` for a burial without a failure; `Unavailable`, `Timeout` (outcome unknown), `Denied`, `Closed`.
    async fn bury(&self, burials: &[Bury]) -> Result<Vec<Marked>>;

    /// Sends dead letters on their way again, and answers for each in the order of the request. One of a group
    /// becomes parked in that group alone, due at once, with a fresh, latest place in its key, a higher epoch, its rounds
    /// at zero and no failures, which stay with the record; one of the relay goes back into the outbox with a fresh place. The dead letter stays as a record.
    ///
    /// Atomicity: each by itself. Concurrency: of any number of calls for one, one gets `Now`. Blocks for a round trip.
    ///
    /// # Errors
    /// `Invalid` for a payload with other than one id, or a `by` that is empty or over 200 bytes; `TooLarge` for a payload
    /// that the store cannot hold; `Conflict` for a payload of the request, or one that was edited, where the message was
    /// published again and waits in the outbox, since it would go without it; `Unavailable`,
    /// `Timeout` (outcome unknown), `Denied`, `Closed`.
    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>>;

    /// Gives an open dead letter another payload, with which a redrive then sends it; its history keeps the one before.
    ///
    /// Atomicity: payload and history change together. Concurrency: of any number of edits of what all have seen the same
    /// way, one gets `Now`. Blocks for a round trip. After dropping the future it is edited or not; repeating it where it
    /// says what was seen is harmless.
    ///
    /// # Errors
    /// `Invalid` for a `by` that is empty or over 200 bytes; `TooLarge` for a payload that the store cannot hold;
    /// `Unavailable`, `Timeout` (outcome unknown), `Denied`, `Closed`.
    async fn edit(&self, request: &Edit) -> Result<Edited>;

    /// Closes dead letters without redriving them, and returns how many were open. They stay as a record, and their
    /// groups' rows stay dead.
    ///
    /// # Errors
    /// As [`redrive`](Self::redrive).
    async fn discard(&self, ids: &[DeadId], by: &str) -> Result<u64>;

    /// Removes at most `limit` dead letters, open or not, that died at least this long ago, and their groups' rows with
    /// them where those are dead still; returns how many there were.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64>;
}
