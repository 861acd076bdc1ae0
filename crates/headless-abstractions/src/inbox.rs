//! What a group has done with a message: the record that makes effects happen once.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::{
    AttemptUse, Claim, Epoch, GroupName, IdempotencyKey, Message, MessageId, Owner, PartitionKey, Result,
    Settled, TopicName,
};

/// A message as one group meets it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arrival {
    /// The group.
    pub group: GroupName,
    /// The message.
    pub id: MessageId,
    /// Its topic.
    pub topic: TopicName,
    /// Its key, where the group keeps the order of keys; otherwise `None`, so that no key of it ever waits.
    pub key: Option<PartitionKey>,
    /// Its business operation.
    pub idempotency_key: Option<IdempotencyKey>,
}

impl Arrival {
    /// `message` as `group` meets it; its key matters only where the group is `ordered`.
    #[must_use]
    pub fn of(group: &GroupName, message: &Message, ordered: bool) -> Self {
        Self {
            group: group.clone(),
            id: message.id,
            topic: message.topic.clone(),
            key: if ordered { message.key.clone() } else { None },
            idempotency_key: message.idempotency_key.clone(),
        }
    }
}

/// What a transition says it holds. The store refuses it when that is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "drivers match it whole")]
pub enum Hold {
    /// Nothing: no row of this group and id exists yet.
    Absent,
    /// The running row, as admitted or claimed.
    Running {
        /// By whom.
        owner: Owner,
        /// With this epoch.
        epoch: Epoch,
    },
}

/// Where a message stands with a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the state machine is closed: drivers and core match it whole"
)]
pub enum InboxState {
    /// With an owner, under a lease.
    Running,
    /// Waiting for its next round, or for an earlier message.
    Parked,
    /// Done. Terminal.
    Processed,
    /// Dead-lettered. Only an operator's redrive leaves it.
    Dead,
    /// Dropped on purpose. Terminal.
    Discarded,
}

impl InboxState {
    /// Whether no worker ever moves it again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Processed | Self::Dead | Self::Discarded)
    }
}

/// What [`InboxStore::admit`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "core matches it whole")]
pub enum Admission {
    /// Run it: the row is yours.
    Run {
        /// The epoch of your hold.
        epoch: Epoch,
        /// How many rounds it has had, this one included.
        rounds: u32,
    },
    /// The group is done with it, or has it parked; or another message of its idempotency key was processed (then
    /// the state is `Processed`). Acknowledge the delivery.
    Settled(InboxState),
    /// It runs elsewhere. Hold the delivery and ask again.
    Busy {
        /// How long that lease still lasts.
        lease_left: Duration,
    },
    /// An earlier message of its key is parked, or another message of its idempotency key is running or parked.
    /// Park it behind.
    Behind,
}

/// What a mark or a burial answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "core matches it whole")]
pub enum Marked {
    /// Done now, by this call.
    Now,
    /// It was in this state already, or another message of its idempotency key was processed. Nothing was changed.
    Already(InboxState),
    /// It runs elsewhere. Nothing was changed.
    Busy {
        /// How long that lease still lasts; zero when it has ended and the row waits to be admitted again.
        lease_left: Duration,
    },
    /// As [`Admission::Behind`]. Nothing was changed.
    Behind,
    /// The hold that was named is not held. Nothing was changed.
    LeaseLost,
}

/// What a group has done with a message: the record that makes effects happen once.
///
/// A row belongs to a group and a message id. Its states and transitions:
///
/// | from | by | to |
/// | --- | --- | --- |
/// | absent | [`admit`](Self::admit) · mark · park · bury · discard | running · processed · parked · dead · discarded |
/// | running | mark · park · bury · discard | processed · parked · dead · discarded |
/// | running, its lease ended, from a delivery | [`admit`](Self::admit) | running, for the new owner |
/// | running, its lease ended, from the park | anyone | parked |
/// | running, its lease ended long ago, from a delivery | [`purge`](Self::purge) | absent |
/// | parked | [`ParkedStore::claim`](crate::ParkedStore::claim) | running |
/// | dead | [`DeadLetterStore::redrive`](crate::DeadLetterStore::redrive) | parked |
///
/// Nothing else moves a row, and none becomes absent before it is purged. Every transition names its [`Hold`].
///
/// **Idempotency key.** (group, key) is reserved for one id: from when its message is admitted, marked or parked by
/// failure, until it is dead or discarded, or purged. A message that waits *behind* another reserves nothing, also when it has
/// failed before or was given back: otherwise two keys could wait for each other. While the key is
/// reserved by another id, a message is `Behind` it; once that one is processed, the message is `Already` /
/// `Settled` as processed, and the parked claim finishes it as processed without handing it out.
///
/// **Key order.** A message of a key (group, topic, key) with an earlier row that is parked, or claimed from the park
/// and unfinished, is `Behind`, whatever hold it names: a row that was admitted before the earlier one was parked is so
/// too. Marks of one batch do not stand in each other's way.
///
/// Leases are written and compared by the store's clock. An open unit of work that marked a row holds it, and its
/// idempotency key: other calls answer `Busy` for them, with a positive time as a hint, or wait, at most for the store's
/// lock time-out. Its owner can renew it; what gives rows back or reaps them passes it over.
#[async_trait]
pub trait InboxStore: Debug + Send + Sync + 'static {
    /// Admits messages to be run, and answers for each in the order of the batch.
    ///
    /// A round is counted when it is admitted, before the work. A row whose lease has ended and that came from a
    /// delivery is taken over with a higher epoch; its rounds stay counted. The same row twice in one batch: the
    /// second is `Busy`.
    ///
    /// Atomicity: each message by itself. Concurrency: of any number of calls for one row, one gets `Run`.
    /// Blocks for a round trip. Cancel safety: rows admitted by a dropped call become free when the lease ends.
    ///
    /// # Errors
    /// `Invalid` for a lease of zero; `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn admit(&self, owner: Owner, lease: Duration, arrivals: &[Arrival]) -> Result<Vec<Admission>>;

    /// Marks messages as processed, and answers for each in the order of the batch. Within a unit of work, see
    /// [`StoreTx::mark_processed`](crate::StoreTx::mark_processed).
    ///
    /// A running hold that still matches is good even if its lease has ended, since nobody has taken it over.
    /// A row that is running under another hold is `Busy` for [`Hold::Absent`] and `LeaseLost` for a running one; one
    /// from the park whose lease has ended may also be found parked. To a running hold `Already` names terminal states
    /// alone.
    ///
    /// Atomicity: each message by itself. Blocks for a round trip. Repeating it answers `Already(Processed)`.
    /// Dropping the future leaves each message marked or not.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout` (outcome unknown), `Denied`, `Closed`.
    async fn mark(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>>;

    /// Marks messages as dropped on purpose, and answers for each as [`mark`](Self::mark) does, but never `Behind`: what
    /// is dropped waits for nothing. Their idempotency keys are free from then on.
    ///
    /// # Errors
    /// As [`mark`](Self::mark).
    async fn discard(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>>;

    /// Holds running rows, admitted or claimed from the park, for another `lease` from now.
    ///
    /// Touches only rows that `owner` holds with the named epoch, and says which it did not find. A row whose lease
    /// has ended but that nobody has taken since is held again. It never waits for a row that an open unit of work
    /// holds, and counts it as held: one long transaction must not starve the other renewals.
    ///
    /// # Errors
    /// `Invalid` for a lease of zero; `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn renew(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        lease: Duration,
    ) -> Result<Settled>;

    /// Ends the leases of running rows now and raises their epochs: an admitted row can be admitted at once, one
    /// from the park is parked and due. With [`AttemptUse::Return`] the round is given back.
    ///
    /// Touches only rows that `owner` holds with the named epoch, and says which it did not find.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn release(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        attempt: AttemptUse,
    ) -> Result<Settled>;

    /// [`release`](Self::release)s all rows of `owner` in all groups, giving the rounds back, and returns how many
    /// there were.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn release_owner(&self, owner: Owner) -> Result<u64>;

    /// Removes at most `limit` rows, in any order, and returns how many there were: those processed or discarded at
    /// least this long ago, and those running from a delivery whose lease ended, or was released, at least this long
    /// ago. The delivery of the latter never came again: the transport dropped it, and nothing else would end them.
    ///
    /// Their idempotency keys are free from then on, and what waits for one can be claimed. A message delivered again
    /// after that is a new one; a hold on its row is `LeaseLost`.
    ///
    /// Atomicity: each row by itself. Concurrency: it waits for nobody and passes over what an open unit of work holds.
    /// Blocks for a round trip. Dropping the future leaves each row removed or not.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64>;
}
