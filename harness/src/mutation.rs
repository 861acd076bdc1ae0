//! Planted bugs: decorators at the driver seam that a case must notice.
//!
//! A mutation knows nothing of the cases; it is a bug that a provider might really have. Each case names those that
//! it catches, and the self test holds it to that.

pub(crate) mod transport;

use async_trait::async_trait;
use headless_abstractions::{GroupName, Result, TopicName};

use crate::fixture::{Fixture, Namespace, TransportFixture, TransportNode, Unavailable};

macro_rules! mutations {
    ($($list:ident { $(#[doc = $doc:literal] $name:ident,)* })*) => {
        /// A bug that a provider might have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Mutation {
            $($(#[doc = $doc] $name,)*)*
        }

        impl Mutation {
            $(
                #[doc = concat!("The mutations of the ", stringify!($list), " list.")]
                pub(crate) const $list: &[Self] = &[$(Self::$name),*];
            )*
        }
    };
}

mutations! {
    TRANSPORT {
        /// The first delivery and each third after it are acked and never handed out.
        DropDelivery,
        /// Each message is sent twice.
        DuplicateDelivery,
        /// An ack is answered and not done.
        LoseAck,
        /// Deliveries are acked as soon as they are received.
        AckOnReceive,
        /// An ack settles everything that was delivered before it, too.
        AckByPrefix,
        /// What one receive returns comes in the reverse order.
        ReorderDeliveries,
        /// The messages of a batch are sent in the reverse order.
        ReverseBatch,
        /// Each message of a batch is sent by itself, whatever became of the one before.
        IgnorePrefix,
        /// Header values that are empty are left out.
        DropEmptyHeader,
        /// Characters beyond ASCII in header values become question marks.
        MangleUnicode,
        /// Envelope fields past id, key and type do not travel.
        DropEnvelope,
        /// Payloads travel as text.
        PayloadAsText,
        /// A message with an empty payload is taken for none.
        SkipEmptyPayload,
        /// A payload over the limit is cut to it.
        IgnorePayloadLimit,
        /// The limit that is applied is one byte below the one that is declared.
        PayloadLimitOffByOne,
        /// A message that failed is reported as accepted.
        SwallowSendError,
        /// The answers of a batch come in the reverse order.
        MisalignAnswers,
        /// A message without a group is reported as accepted.
        LieAboutRouting,
        /// A topic's `required` is forgotten.
        ForgetRequired,
        /// After closing, calls hang.
        HangAfterClose,
        /// Closing a second time is an error.
        CloseOnce,
        /// Closing a handle or a subscriber leaves its deliveries where they are.
        CloseKeepsDeliveries,
        /// A dropped subscriber stays a member.
        LeakMember,
        /// Declaring a known group again empties it.
        DeclareEmptiesGroups,
        /// Declaring a known topic again is a conflict.
        DeclareNotIdempotent,
        /// A refused declaration is reported as done.
        SwallowDeclareError,
        /// What of a refused declaration was possible is made.
        DeclareInPart,
        /// A group begins when its first member comes.
        GroupsBeginLate,
        /// A group begins now, wherever it was to begin.
        IgnoreStartFrom,
        /// A group of one instance is a lasting one.
        IgnorePerInstance,
        /// Removing a group answers and does nothing.
        IgnoreRemoveGroup,
        /// The lag leaves unsettled deliveries out.
        LagWithoutUnsettled,
        /// The endpoint shows a password.
        LeakSecret,
        /// The facts of a handle change while it lives.
        UnsteadyInfo,
        /// Ping answers whatever the state.
        PingAlwaysAnswers,
        /// A flag that is off is declared on.
        LieAboutCapability,
        /// A subscription to what was not declared is accepted.
        SubscribeToAnything,
        /// All groups of a topic are one.
        MixGroups,
        /// Only the first topic of a subscription is read.
        IgnoreExtraTopics,
        /// The prefetch has no effect.
        IgnorePrefetch,
        /// `max` has no effect.
        IgnoreMax,
        /// A receive sits out its whole wait.
        SleepThroughWait,
        /// A receive that finds nothing waits far beyond its wait.
        IgnoreWait,
        /// Deliveries that a dropped receive had in hand are forgotten.
        LoseOnCancel,
        /// Receiving and settling exclude each other.
        SettleBehindReceive,
        /// Nothing is delivered while anything is unsettled.
        BlockWhileUnsettled,
        /// A reject is a requeue.
        RejectRequeues,
        /// A requeue drops the message.
        RequeueDrops,
        /// A requeue sends a copy to the end.
        RequeueToTail,
        /// A requeue's delay is forgotten.
        IgnoreRequeueDelay,
        /// A message's delay is forgotten.
        IgnoreDelay,
        /// A message's expiry is forgotten.
        IgnoreExpiry,
        /// A message's priority is forgotten.
        IgnorePriority,
        /// An extension is answered and not done.
        IgnoreExtend,
        /// An extension renews the hold on partitions.
        ExtendHoldsPartitions,
        /// Every delivery is called the first.
        ForgetDeliveryCount,
        /// A settlement takes effect, whoever holds the delivery now.
        SettleOthers,
        /// A token that means nothing is settled with success.
        SettleAnything,
        /// Token values are used again.
        ReuseToken,
        /// Pause has no effect.
        PauseIgnored,
        /// What comes while paused is dropped.
        PauseDrops,
        /// Revocations are not reported.
        HideRevocations,
        /// A receive that takes nothing does not renew the hold on partitions.
        ForgetRenewal,
        /// Partitions are counted from one.
        WrongPartition,
    }
}

/// A fixture with a mutation planted at its driver seam; with none it changes nothing.
#[derive(Debug)]
pub(crate) struct Mutated<F> {
    pub(crate) inner: F,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) transport: transport::Shared,
}

impl<F: Fixture> Mutated<F> {
    pub(crate) fn new(inner: F, mutation: Option<Mutation>) -> Self {
        Self {
            inner,
            mutation,
            transport: transport::Shared::default(),
        }
    }
}

#[async_trait]
impl<F: Fixture> Fixture for Mutated<F> {
    const VIRTUAL_TIME: bool = F::VIRTUAL_TIME;
    const LEASE: std::time::Duration = F::LEASE;
    const PATIENCE: std::time::Duration = F::PATIENCE;
    const QUIET: std::time::Duration = F::QUIET;

    async fn open(namespace: Namespace) -> Result<Self, Unavailable> {
        Ok(Self::new(F::open(namespace).await?, None))
    }

    fn version(&self) -> String {
        self.inner.version()
    }

    async fn restart_server(&self) -> Result<bool> {
        self.inner.restart_server().await
    }

    async fn drop_namespace(self) -> Result<()> {
        self.inner.drop_namespace().await
    }
}

#[async_trait]
impl<F: TransportFixture> TransportFixture for Mutated<F> {
    async fn node(&self) -> Result<TransportNode> {
        let node = self.inner.node().await?;
        Ok(match self.mutation {
            Some(mutation) => node.map(|driver| transport::mutant(driver, mutation, &self.transport)),
            None => node,
        })
    }

    async fn send_foreign(&self, topic: &TopicName, payload: &[u8]) -> Result<bool> {
        self.inner.send_foreign(topic, payload).await
    }

    async fn group_exists(&self, group: &GroupName) -> Result<Option<bool>> {
        self.inner.group_exists(group).await
    }
}
