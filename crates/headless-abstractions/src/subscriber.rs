//! One member of a group: receiving and settling.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::{Error, Message, Partition, Result, TopicName};

/// Names a delivery to the subscriber that made it, and to no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryToken(u64);

impl DeliveryToken {
    /// The token with this value. A subscriber never uses a value twice.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Whether a delivery may have been made before, to whichever member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "core matches it whole")]
pub enum Redelivery {
    /// It was not.
    First,
    /// It was, this many times.
    Again(u32),
    /// The transport cannot tell.
    Unknown,
}

/// A message in the hands of a member, until it is settled.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// Names it in [`Subscriber::settle`].
    pub token: DeliveryToken,
    /// A copy of the message.
    pub message: Message,
    /// Its partition, on an ordered topic.
    pub partition: Option<Partition>,
    /// Whether it may have been delivered before.
    pub redelivery: Redelivery,
    /// What was wrong with its envelope; the affected fields of `message` are then as if they had been absent.
    pub malformed: Option<Error>,
}

impl Delivery {
    /// A first delivery without a partition.
    #[must_use]
    pub const fn new(token: DeliveryToken, message: Message) -> Self {
        Self {
            token,
            message,
            partition: None,
            redelivery: Redelivery::First,
            malformed: None,
        }
    }

    /// From this partition.
    #[must_use]
    pub const fn with_partition(mut self, partition: Partition) -> Self {
        self.partition = Some(partition);
        self
    }

    /// With this redelivery mark.
    #[must_use]
    pub const fn with_redelivery(mut self, redelivery: Redelivery) -> Self {
        self.redelivery = redelivery;
        self
    }

    /// With what was wrong with its envelope.
    #[must_use]
    pub fn with_malformed(mut self, error: Option<Error>) -> Self {
        self.malformed = error;
        self
    }
}

/// A partition that was taken away from this member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Revoked {
    /// Its topic.
    pub topic: TopicName,
    /// Its number.
    pub partition: Partition,
}

impl Revoked {
    /// This partition of this topic.
    #[must_use]
    pub const fn new(topic: TopicName, partition: Partition) -> Self {
        Self { topic, partition }
    }
}

/// What [`Subscriber::receive`] returns.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Received {
    /// New deliveries; of one partition in its order.
    pub deliveries: Vec<Delivery>,
    /// Partitions that this member no longer holds. Their unsettled deliveries, these ones excepted, go to another.
    pub revoked: Vec<Revoked>,
}

impl Received {
    /// Nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self {
            deliveries: Vec::new(),
            revoked: Vec::new(),
        }
    }

    /// These deliveries and revocations.
    #[must_use]
    pub const fn new(deliveries: Vec<Delivery>, revoked: Vec<Revoked>) -> Self {
        Self { deliveries, revoked }
    }

    /// Whether there is neither a delivery nor a revocation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.revoked.is_empty()
    }
}

/// What is to become of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "drivers match it whole: a new way to settle is a new contract"
)]
pub enum Settlement {
    /// The group is done with the message.
    Ack(DeliveryToken),
    /// The message is to be delivered again, to any member, not before `after` has passed if it is given. On an
    /// ordered topic it goes back to its place, and what follows in its partition waits for it.
    Requeue {
        /// The delivery.
        token: DeliveryToken,
        /// The delay; needs `requeue_delay`.
        after: Option<Duration>,
    },
    /// The group refuses the message: it is dropped.
    Reject(DeliveryToken),
}

impl Settlement {
    /// The delivery that it settles.
    #[must_use]
    pub const fn token(self) -> DeliveryToken {
        match self {
            Self::Ack(token) | Self::Requeue { token, .. } | Self::Reject(token) => token,
        }
    }
}

/// One member of a group. `receive` and `settle` run concurrently; so do several settles. One `receive` at a time.
///
/// Dropping a subscriber has the effect of [`close`](Self::close), at the latest once its visibility time has passed.
#[async_trait]
pub trait Subscriber: Debug + Send + Sync + 'static {
    /// Returns at most `max` deliveries, or partitions that were revoked, as soon as there is one of either, and
    /// nothing once `wait` has passed. With `max` 0, or paused, it only reports revocations.
    ///
    /// Every call renews this member's hold on its partitions, so it is called at least every third of the
    /// visibility time, also when nothing can be taken.
    ///
    /// Concurrency: no delivery is with two members, except one whose visibility time has passed. A partition is
    /// with one member at a time and moves only when it was reported as revoked or its holder's visibility time has
    /// passed; the next holder gets what was unsettled, in place, before what was not yet delivered.
    /// Blocks at most `wait`, and a round trip.
    /// Cancel safety: dropping the future loses no delivery and no revocation; the next call has them.
    ///
    /// # Errors
    /// `NotFound` when the group was removed; `Unavailable`, `Timeout` (call again); `Denied`; `Closed`.
    async fn receive(&self, max: usize, wait: Duration) -> Result<Received>;

    /// Settles deliveries and answers for each, in the order of the batch. Any order of tokens is safe.
    ///
    /// A late `Ack` (the delivery has gone to another) may settle the message, since its handler had succeeded; a
    /// late `Requeue` or `Reject` at worst causes one more delivery; none of them loses one. With
    /// `fenced_settlement` each of them changes nothing and answers `LeaseLost`.
    ///
    /// Atomicity: each delivery by itself. Blocks for a round trip.
    /// Cancel safety: dropping the future leaves each delivery settled or not.
    ///
    /// # Errors
    /// For each delivery: `LeaseLost`; `NotFound` for a token that was never given, is settled, was lost so long ago that
    /// it is forgotten (10 000 lost tokens are remembered), or whose group was removed; `Unsupported` for a requeue or a
    /// delay that is not offered (the delivery stays unsettled); `Unavailable`, `Timeout`, `Closed`.
    async fn settle(&self, batch: &[Settlement]) -> Vec<Result<()>>;

    /// Keeps deliveries for another `by` from now, never less than they had, and answers for each. Deliveries of an
    /// ordered topic are held by the member's hold on the partition, and extending them is a success without effect.
    ///
    /// Blocks for a round trip.
    ///
    /// # Errors
    /// For each delivery: `LeaseLost` when it has gone to another; `NotFound`; `Unsupported`; `Unavailable`,
    /// `Timeout`, `Closed`.
    async fn extend(&self, tokens: &[DeliveryToken], by: Duration) -> Vec<Result<()>>;

    /// Stops deliveries until [`resume`](Self::resume). Partitions are kept while `receive` is called. Pausing twice
    /// is harmless.
    ///
    /// # Errors
    /// `NotFound` when the group was removed; `Unavailable`, `Timeout`, `Closed`.
    async fn pause(&self) -> Result<()>;

    /// Goes on with deliveries. Nothing that was published in between is missed or doubled.
    ///
    /// # Errors
    /// `NotFound` when the group was removed; `Unavailable`, `Timeout`, `Closed`.
    async fn resume(&self) -> Result<()>;

    /// Leaves the group: unsettled deliveries come back at once, in place; partitions move. Later calls answer
    /// `Closed`. Repeating it, or closing after the transport was closed, is harmless.
    ///
    /// Blocks for a round trip.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` when leaving could not be agreed with the broker; what is unsettled then comes back
    /// once the visibility time has passed.
    async fn close(&self) -> Result<()>;
}
