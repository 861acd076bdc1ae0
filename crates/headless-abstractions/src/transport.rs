//! What moves messages: a broker, or something that acts as one.

use std::{fmt::Debug, num::NonZeroUsize, time::Duration};

use async_trait::async_trait;

use crate::{
    Error, GroupName, Message, Owner, Result, Subscriber, TopicName, TopicOrder, Topology,
    TransportCapabilities,
};

/// What a transport says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportInfo {
    /// The provider's name: `memory`, `rabbitmq`.
    pub name: &'static str,
    /// What it can do.
    pub capabilities: TransportCapabilities,
    /// Where it is, without secrets.
    pub endpoint: String,
    /// How long an unattended group's messages are kept; `None` when for as long as there is room.
    pub retention: Option<Duration>,
}

impl TransportInfo {
    /// A transport with these facts and no retention limit.
    #[must_use]
    pub fn new(name: &'static str, capabilities: TransportCapabilities, endpoint: impl Into<String>) -> Self {
        Self {
            name,
            capabilities,
            endpoint: endpoint.into(),
            retention: None,
        }
    }

    /// With this retention.
    #[must_use]
    pub const fn with_retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }
}

/// What became of a message that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "core and drivers match it whole")]
pub enum Sent {
    /// The broker has it, as safely as [`TransportCapabilities::durable`] says.
    Accepted,
    /// No group takes this topic: it was accepted and dropped.
    Unrouted,
}

/// A request to read topics as a member of a group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Subscription {
    /// The group; declared before for each of the topics.
    pub group: GroupName,
    /// The topics; at least one, each declared before. Ordered and unordered ones may be mixed.
    pub topics: Vec<TopicName>,
    /// Who reads. Unique among the live subscriptions of the group.
    pub member: Owner,
    /// The most unsettled deliveries: of each partition of an ordered topic, and of all unordered topics together.
    /// Default 100.
    pub prefetch: NonZeroUsize,
    /// How long an unsettled delivery stays with this member without [`Subscriber::extend`], and how long the
    /// member's hold on its partitions lasts without [`Subscriber::receive`]. Default 30 s.
    pub visibility: Duration,
}

impl Subscription {
    /// A subscription to one topic with the defaults.
    #[must_use]
    pub fn new(group: GroupName, topic: TopicName, member: Owner) -> Self {
        const HUNDRED: NonZeroUsize = NonZeroUsize::new(100).unwrap();
        Self {
            group,
            topics: vec![topic],
            member,
            prefetch: HUNDRED,
            visibility: Duration::from_secs(30),
        }
    }

    /// To this topic too.
    #[must_use]
    pub fn with_topic(mut self, topic: TopicName) -> Self {
        self.topics.push(topic);
        self
    }

    /// With this bound on unsettled deliveries.
    #[must_use]
    pub const fn with_prefetch(mut self, prefetch: NonZeroUsize) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// With this visibility time; 1 ms or more.
    #[must_use]
    pub const fn with_visibility(mut self, visibility: Duration) -> Self {
        self.visibility = visibility;
        self
    }
}

/// What moves messages: a broker, or something that acts as one.
///
/// A topic's message goes to every group that was declared on it before it was sent; the members of one group share
/// it. One call does one thing: no retries, no backoff. A handle may be used by many tasks at once.
#[async_trait]
pub trait Transport: Debug + Send + Sync + 'static {
    /// The provider's facts. They do not change while the handle lives.
    ///
    /// Never blocks.
    fn info(&self) -> TransportInfo;

    /// Makes the topics and groups exist. A group misses nothing that is sent after this has returned.
    ///
    /// Atomicity: each topic and each group by itself; repeating it, whole or in part, changes nothing.
    /// Concurrency: any number of processes may declare the same at once.
    /// Blocks for a few round trips. Dropping the future leaves some of it declared.
    ///
    /// # Errors
    /// `Conflict` for a topic that exists with another order or partition count, naming both and what to do: the command
    /// `headless topics repartition`, or another topic where `repartition` is off; `Unsupported` for what a capability rules out; `NotFound` for a group on a topic
    /// that is neither named nor known; `Unavailable`, `Timeout`, `Denied`, `Closed`. Nothing of a request that is
    /// refused as `Conflict`, `Unsupported` or `NotFound` was made.
    async fn declare(&self, topology: &Topology) -> Result<()>;

    /// Sends a batch and answers for each message, in the order of the batch, once the broker has confirmed or
    /// refused it.
    ///
    /// Atomicity: each message by itself; one that is refused does not keep its neighbours back, unless
    /// `accepts_by_prefix` says so for its key. The messages of one topic and key are accepted in the batch's order.
    /// A delayed message of an ordered topic takes its place in its partition when it is due. With `accepts_by_prefix` a
    /// refusal of any kind counts as the failure of its key.
    /// Concurrency: several sends may be under way; between them there is no order.
    /// Blocks until the last message is answered for: within the provider's time-out.
    /// Dropping the future leaves each message either sent or not: their outcome is unknown.
    ///
    /// # Errors
    /// For each message: `TooLarge` over the payload limit, before any I/O; `Invalid` for an ordered topic without a key or a
    /// priority on one, before it is sent; `Unsupported` for a delay or a priority that is not offered;
    /// `NotFound` for a topic that was never declared, or that is required and without a group; `Conflict` for a
    /// message kept back by an earlier one of its key; `Unavailable` (with outcome unknown where the broker may have
    /// it), `Timeout` (outcome unknown), `Denied`, `Closed`.
    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>>;

    /// Joins a group as one of its members.
    ///
    /// Concurrency: any number of members, in any number of processes.
    /// Blocks for a few round trips. Dropping the future leaves no member behind for longer than the visibility time.
    ///
    /// # Errors
    /// `NotFound` for a topic or group that was not declared; `Invalid` without topics or with a visibility time of
    /// zero; `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>>;

    /// Ends a group on all its topics, with the messages that wait for it. Its live members answer `NotFound` from
    /// then on. Repeating it changes nothing.
    ///
    /// Blocks for a few round trips.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn remove_group(&self, group: &GroupName) -> Result<()>;

    /// How many messages wait for this group or are unsettled, over all its topics. Exact when nothing moves.
    ///
    /// Blocks for one round trip.
    ///
    /// # Errors
    /// `NotFound` for an unknown group; `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn lag(&self, group: &GroupName) -> Result<u64>;

    /// Gives a topic another order, or another count of partitions, once nothing of it is on the transport; answers with
    /// the order that it had. With the order that it has, nothing changes. Needs `repartition`.
    ///
    /// It is done only while no group has a message of the topic that waits, is delayed or is unsettled. So whatever is
    /// sent by the new order comes after everything that was sent by the old one has been settled, and each key keeps its order.
    /// Other handles' sends go by the new order too, whatever they knew, and so does a delayed message that is sent afterwards. Groups
    /// stay, and so do their members: these are told of the partitions that they held as revoked, and share the new ones.
    /// What was sent before is not there any more for a group that begins with the oldest message.
    ///
    /// Atomicity: the look and the change are one step. No message is accepted in between; one that was accepted before is
    /// seen. Repeating it changes nothing.
    /// Concurrency: with sends, settlements and declarations from anywhere. Of several at once each is done or refused by
    /// itself, one after the other.
    /// Blocks for a few round trips; sends that are under way are waited for, within the provider's time-out.
    /// Dropping the future leaves it done or not.
    ///
    /// # Errors
    /// `NotFound` for an unknown topic; `Conflict` with advice to try again while groups hold messages of the topic,
    /// naming them and how many ([`Error::undrained`]); `Unsupported` where `repartition` is off, and for an ordered topic where
    /// `ordering` is; `Unavailable`, `Timeout` (outcome unknown where it may be done), `Denied`, `Closed`. Nothing is changed by
    /// a request that is refused.
    async fn repartition(&self, topic: &TopicName, order: TopicOrder) -> Result<TopicOrder> {
        let _ = order;
        Err(Error::unsupported(
            "repartition is off: declare another topic with the order that is wanted, and move to it",
        )
        .with_operation("repartition")
        .with_provider(self.info().name)
        .with_resource(format!("topic {topic}")))
    }

    /// Succeeds if the broker answers now.
    ///
    /// Blocks for one round trip, within the provider's time-out.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn ping(&self) -> Result<()>;

    /// Closes this handle and its subscribers: their unsettled deliveries come back. Every later call answers
    /// `Closed` and never hangs. Repeating it, also at once from several tasks, is harmless.
    ///
    /// Blocks until confirms that are under way have come or failed, within the provider's time-out.
    ///
    /// # Errors
    /// `Unavailable` or `Timeout` when closing could not be agreed with the broker; the handle is closed all the same.
    async fn close(&self) -> Result<()>;
}
