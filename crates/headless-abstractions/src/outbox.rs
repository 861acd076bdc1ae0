//! Where published messages wait until a relay has sent them.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::{Abandon, Claim, Failure, Message, Owner, Result, Settled};

/// What became of a message that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "drivers and core match it whole")]
pub enum Appended {
    /// It was stored.
    Stored,
    /// A message with its id is stored already; nothing was changed.
    Duplicate,
}

/// How many messages of one key a claim may hand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "drivers match it whole")]
pub enum InFlight {
    /// The head of a key alone: for transports that may accept a later message before an earlier one.
    OnePerKey,
    /// A run from the head of a key, in order, without a gap: for transports that `accepts_by_prefix`.
    RunPerKey,
}

/// A request to claim rows of the outbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClaimOutbox {
    /// For whom.
    pub owner: Owner,
    /// The most rows.
    pub limit: usize,
    /// How long they are held, by the store's clock.
    pub lease: Duration,
    /// How many messages of one key.
    pub in_flight: InFlight,
    /// Claims of the last batch to acknowledge first, in the same step where the store can.
    pub ack: Vec<Claim>,
}

impl ClaimOutbox {
    /// At most `limit` rows for `owner`, held for `lease`, one of each key, with nothing to acknowledge.
    #[must_use]
    pub const fn new(owner: Owner, limit: usize, lease: Duration) -> Self {
        Self {
            owner,
            limit,
            lease,
            in_flight: InFlight::OnePerKey,
            ack: Vec::new(),
        }
    }

    /// With this many messages of one key.
    #[must_use]
    pub const fn with_in_flight(mut self, in_flight: InFlight) -> Self {
        self.in_flight = in_flight;
        self
    }

    /// Acknowledging these claims first.
    #[must_use]
    pub fn with_ack(mut self, ack: Vec<Claim>) -> Self {
        self.ack = ack;
        self
    }
}

/// A row of the outbox in the hands of a relay.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutboxRow {
    /// The right to settle it.
    pub claim: Claim,
    /// A copy of the message; its delay, which is over, is taken off.
    pub message: Message,
    /// How many attempts were consumed before this one. One that ended with its lease was not: nobody knows that it
    /// failed.
    pub attempts: u32,
}

impl OutboxRow {
    /// This row.
    #[must_use]
    pub const fn new(claim: Claim, message: Message, attempts: u32) -> Self {
        Self {
            claim,
            message,
            attempts,
        }
    }
}

/// What [`OutboxStore::claim`] returns.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ClaimedOutbox {
    /// The claimed rows; those of one key in its order.
    pub rows: Vec<OutboxRow>,
    /// What became of the claims to acknowledge.
    pub acked: Settled,
}

impl ClaimedOutbox {
    /// These rows.
    #[must_use]
    pub const fn new(rows: Vec<OutboxRow>, acked: Settled) -> Self {
        Self { rows, acked }
    }
}

/// Where published messages wait until a relay has sent them.
///
/// A row is *delayed* (its `deliver_after` has not passed since it was stored), *ready*, *leased* or *retrying*
/// (abandoned with a time). A leased row whose lease has ended is ready. "Key" means topic and partition key.
///
/// **Order of one key.** Within a transaction, rows have the order of `append`; and if transaction A had committed
/// before B appended, A's rows come before B's. A keyed row is handed out only when every earlier row of its key has
/// been settled or is handed out before it in the same claim; leased and retrying rows count as earlier rows. While a row
/// of a key is leased nothing else of it is handed out, not even an earlier one that was committed late. A
/// delayed row has no place in its key until it is due: the claim then gives it a fresh, latest one.
///
/// Leases are written and compared by the store's clock.
#[async_trait]
pub trait OutboxStore: Debug + Send + Sync + 'static {
    /// Stores messages in a transaction of its own. Within a unit of work, see [`StoreTx::append`](crate::StoreTx::append).
    ///
    /// Atomicity: all or none. A message whose id is stored already, or appears earlier in the batch, is a `Duplicate`.
    /// Blocks for a round trip. Dropping the future leaves all or none stored.
    ///
    /// # Errors
    /// `TooLarge` or `Invalid` for what the store cannot hold; `Unavailable` when the outbox is full or the store is
    /// away; `Timeout` (outcome unknown); `Denied`, `Closed`.
    async fn append(&self, messages: &[Message]) -> Result<Vec<Appended>>;

    /// Acknowledges what the request names, then claims ready rows: at most `limit`, higher priorities first, then
    /// oldest first, each with a fresh epoch. They are returned in that order, those of one key in its own.
    ///
    /// Which rows of different keys, or with a key and without, are chosen for a batch that does not hold them all may
    /// be coarser: a store may keep them in groups, begin with the group whose first row is the oldest, and let the
    /// priority of rows with a key decide no more than their order within the batch. No row waits for ever for others
    /// that came later.
    ///
    /// Atomicity: the claim is one step, and so is each acknowledgement. Concurrency: claims that run at once are
    /// disjoint, and a key is with one owner at a time. Its cost does not grow with rows that are finished.
    /// Never waits for rows to appear or for locked ones. Blocks for a round trip.
    /// Cancel safety: rows claimed by a dropped call come back when the lease ends.
    ///
    /// # Errors
    /// `Invalid` for a limit or lease of zero; `Unavailable`, `Timeout`, `Denied`, `Closed`. A failed claim may have
    /// acknowledged; acknowledging again is harmless.
    async fn claim(&self, request: &ClaimOutbox) -> Result<ClaimedOutbox>;

    /// Settles rows that were sent: they leave the outbox.
    ///
    /// As every settling call: touches only rows that `owner` holds with the named epoch, says which it did not find,
    /// and repeating it changes nothing. Atomicity: one step. Blocks for a round trip.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout` (outcome unknown), `Denied`, `Closed`.
    async fn ack(&self, owner: Owner, claims: &[Claim]) -> Result<Settled>;

    /// Gives rows back: ready again, not before `how.after`, in their place in their key, which waits for them.
    ///
    /// A settling call, see [`ack`](Self::ack).
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    async fn abandon(&self, owner: Owner, claims: &[Claim], how: &Abandon) -> Result<Settled>;

    /// Ends rows that cannot be sent: in the same step each becomes a dead letter of origin
    /// [`Relay`](crate::Origin::Relay), and its key goes on.
    ///
    /// A settling call, see [`ack`](Self::ack).
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    async fn fail(&self, owner: Owner, claims: &[Claim], failure: &Failure) -> Result<Settled>;

    /// Holds rows for another `lease` from now.
    ///
    /// A settling call, see [`ack`](Self::ack). A row whose lease has ended but that nobody has claimed since is
    /// held again.
    ///
    /// # Errors
    /// As [`ack`](Self::ack), and `Invalid` for a lease of zero.
    async fn renew(&self, owner: Owner, claims: &[Claim], lease: Duration) -> Result<Settled>;

    /// Makes at most `limit` rows whose lease has ended ready, and returns how many there were. Their former
    /// owners' claims are lost from then on. Live leases are not touched.
    ///
    /// Concurrency: several reapers at once are harmless. Blocks for a round trip.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn reap_expired(&self, limit: usize) -> Result<u64>;

    /// Makes all rows of `owner` ready at once, returning how many there were: at its shutdown, or its death. The
    /// attempt is given back, and its claims are lost from then on.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn release_owner(&self, owner: Owner) -> Result<u64>;

    /// Removes at most `limit` finished rows that are kept as history and at least this old, and returns how many
    /// there were. A store without history answers 0. Holds no lock for longer than such a batch.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64>;
}
