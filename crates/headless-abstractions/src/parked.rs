//! Messages that wait for their next round, or behind one that does.

use std::{fmt::Debug, num::NonZeroUsize, time::Duration};

use async_trait::async_trait;

use crate::{
    Abandon, Arrival, AttemptUse, Claim, Failure, GroupName, Hold, InboxState, Message, Owner, Result,
    Settled, TopicName,
};

/// A message to be parked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Park {
    /// The message, stored whole: the broker's copy is acknowledged afterwards.
    pub message: Message,
    /// The message as the group meets it.
    pub arrival: Arrival,
    /// What the caller holds.
    pub hold: Hold,
    /// Not claimable before this much of the store's time has passed.
    pub after: Duration,
    /// Park it only behind another message; answer `KeyFree` when there is none.
    pub only_behind: bool,
    /// Whether the round that ends here counts. From [`Hold::Absent`], `Consume` makes it the first round.
    pub attempt: AttemptUse,
    /// What failed, appended to the row's failures.
    pub failures: Vec<Failure>,
}

impl Park {
    /// Parks a failed message for `after`, the round consumed.
    #[must_use]
    pub const fn failed(
        message: Message,
        arrival: Arrival,
        hold: Hold,
        after: Duration,
        failures: Vec<Failure>,
    ) -> Self {
        Self {
            message,
            arrival,
            hold,
            after,
            only_behind: false,
            attempt: AttemptUse::Consume,
            failures,
        }
    }

    /// Parks a message behind the one that it has to wait for, no round consumed.
    #[must_use]
    pub const fn behind(message: Message, arrival: Arrival, hold: Hold) -> Self {
        Self {
            message,
            arrival,
            hold,
            after: Duration::ZERO,
            only_behind: true,
            attempt: AttemptUse::Return,
            failures: Vec::new(),
        }
    }

    /// With the round given back or consumed.
    #[must_use]
    pub const fn with_attempt(mut self, attempt: AttemptUse) -> Self {
        self.attempt = attempt;
        self
    }
}

/// How much may be parked, what was claimed from the park and is unfinished included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkLimits {
    /// The most parked messages of one key. Default 1 000.
    pub per_key: NonZeroUsize,
    /// The most parked messages of one group. Default 100 000.
    pub per_group: NonZeroUsize,
}

impl ParkLimits {
    /// These bounds.
    #[must_use]
    pub const fn new(per_key: NonZeroUsize, per_group: NonZeroUsize) -> Self {
        Self { per_key, per_group }
    }
}

impl Default for ParkLimits {
    fn default() -> Self {
        const PER_KEY: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
        const PER_GROUP: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();
        Self::new(PER_KEY, PER_GROUP)
    }
}

/// What [`ParkedStore::park`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "core matches it whole")]
pub enum Parked {
    /// Parked now, by this call.
    Now,
    /// It was in this state already, or another message of its idempotency key was processed. Nothing was changed.
    Already(InboxState),
    /// It was to be parked behind another, and there is none any more. Nothing was changed.
    KeyFree,
    /// A bound of [`ParkLimits`] is reached. Nothing was changed.
    Full,
    /// The hold that was named is not held; for [`Hold::Absent`]: it runs elsewhere. Nothing was changed.
    LeaseLost,
}

/// A request to claim parked messages of one group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClaimParked {
    /// For whom.
    pub owner: Owner,
    /// The group.
    pub group: GroupName,
    /// The most messages.
    pub limit: usize,
    /// How long they are held, by the store's clock.
    pub lease: Duration,
    /// Topics of which nothing is claimed: their circuits are open.
    pub except_topics: Vec<TopicName>,
}

impl ClaimParked {
    /// At most `limit` messages of all topics.
    #[must_use]
    pub const fn new(owner: Owner, group: GroupName, limit: usize, lease: Duration) -> Self {
        Self {
            owner,
            group,
            limit,
            lease,
            except_topics: Vec::new(),
        }
    }

    /// Nothing of these topics.
    #[must_use]
    pub fn with_except_topics(mut self, topics: Vec<TopicName>) -> Self {
        self.except_topics = topics;
        self
    }
}

/// A parked message in the hands of a worker.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ParkedRow {
    /// The right to settle it; its hold is `Hold::Running` with the claim's epoch.
    pub claim: Claim,
    /// The message as the group meets it.
    pub arrival: Arrival,
    /// A copy of the message.
    pub message: Message,
    /// How many rounds it has had, this one included.
    pub rounds: u32,
    /// What failed in them.
    pub failures: Vec<Failure>,
}

impl ParkedRow {
    /// This row.
    #[must_use]
    pub const fn new(
        claim: Claim,
        arrival: Arrival,
        message: Message,
        rounds: u32,
        failures: Vec<Failure>,
    ) -> Self {
        Self {
            claim,
            arrival,
            message,
            rounds,
            failures,
        }
    }
}

/// Messages that wait for their next round, or behind one that does. Part of the state machine of
/// [`InboxStore`](crate::InboxStore), over the same rows.
///
/// A message has a *place* in its key (group, topic, key) from when it is first parked until it is finished, through
/// further rounds. The head of a key is its unfinished message with the first place.
#[async_trait]
pub trait ParkedStore: Debug + Send + Sync + 'static {
    /// Parks messages, and answers for each in the order of the batch.
    ///
    /// One that failed reserves its idempotency key; if that is reserved by another unfinished message, it waits
    /// behind that one and reserves nothing. One whose key has an earlier message parked waits behind it.
    ///
    /// Atomicity: each message by itself; the limits may be passed by what runs at once. Blocks for a round trip.
    /// Dropping the future leaves each message parked or not. Repeating it answers `Already(Parked)`.
    ///
    /// A message is taken whatever its size: it has been delivered, and would stand in the way of others otherwise. A limit on what is
    /// published is not one on what is parked.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout` (outcome unknown), `Denied`, `Closed`.
    async fn park(&self, parks: &[Park], limits: ParkLimits) -> Result<Vec<Parked>>;

    /// Claims messages that are due: at most `limit`, the longest due first, each with a fresh epoch and its round
    /// counted. Of a key, its head once that is due, and after it, in order and without a gap, what waits behind it up to
    /// one that has a later time of its own; a key is with one owner at a time.
    ///
    /// A message whose idempotency key another id has processed is finished as processed and not handed out; one
    /// whose idempotency key is reserved by another unfinished message is not handed out, and its key waits.
    ///
    /// Atomicity: one step. Concurrency: claims that run at once are disjoint. Never waits. Blocks for a round trip.
    /// Cancel safety: messages claimed by a dropped call are parked again when the lease ends, the round consumed.
    ///
    /// # Errors
    /// `Invalid` for a limit or lease of zero; `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn claim(&self, request: &ClaimParked) -> Result<Vec<ParkedRow>>;

    /// Gives claimed messages back: parked, in place, not before `how.after`.
    ///
    /// Touches only rows that `owner` holds with the named epoch, and says which it did not find.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout` (outcome unknown), `Denied`, `Closed`.
    async fn abandon(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        how: &Abandon,
    ) -> Result<Settled>;

    /// Parks at most `limit` messages again that were claimed from the park and whose lease has ended, due at once,
    /// the round consumed; returns how many there were. Their former owners' claims are lost from then on.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn reap_expired(&self, limit: usize) -> Result<u64>;
}
