//! Planted bugs: decorators at the driver seam that a case must notice.
//!
//! A mutation knows nothing of the cases; it is a bug that a provider might really have. Each case names those that
//! it catches, and the self test holds it to that.

pub(crate) mod store;
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
        /// The type of a message does not travel.
        ForgetType,
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
        /// Closing takes its time.
        CloseLingers,
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
        /// A change of a topic's order that is refused is reported as done.
        SwallowRepartitionError,
        /// A change of a topic's order is answered and not done.
        ForgetRepartition,
        /// A topic's order is changed whatever groups hold of it, which is lost.
        RepartitionLosesWhatWaits,
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
        /// While an extension is under way its member's settlements are told that they are too late.
        ExtensionHidesOthers,
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
        /// A receive does not renew the hold on partitions while anything is unsettled.
        HoldLapsesAtWork,
        /// Partitions are counted from one.
        WrongPartition,
    }
    OUTBOX {
        /// What a transaction appended is not stored when it commits.
        CommitLosesAppend,
        /// What a transaction appends is stored at once, whatever becomes of it.
        AppendOutsideTransaction,
        /// What a transaction appends takes its place when it commits.
        PlaceAtCommit,
        /// A rollback commits.
        RollbackCommits,
        /// A commit that was refused is reported as done.
        SwallowCommitError,
        /// A message whose id is stored is stored once more.
        StoreDuplicates,
        /// Headers and trace context are not kept.
        TruncateEnvelope,
        /// The delay of a message is not kept.
        ForgetDelay,
        /// A delayed row keeps the place of its append.
        DelayKeepsPlace,
        /// Delayed rows are counted among those that are ready.
        DelayedIsReady,
        /// All rows have the same priority.
        FlattenPriority,
        /// A claim takes one row more than it may.
        ClaimOverLimit,
        /// A claim hands out its rows in the reverse order.
        ClaimReversed,
        /// A claim takes leased rows as well.
        ClaimIgnoresLease,
        /// A claim goes past a row of a key that is leased or waits.
        ClaimIgnoresKeys,
        /// A claim of heads takes what follows them, too.
        RunForHead,
        /// A claim of runs takes heads alone.
        HeadForRun,
        /// A limit or lease of zero is taken for a small one.
        AcceptZero,
        /// The claims to acknowledge are forgotten.
        ClaimForgetsAck,
        /// A row has the same epoch in every claim.
        EpochStands,
        /// Leases last a thousand times as long.
        LeaseForever,
        /// Anyone may settle a row who names its epoch.
        DropOwnerCheck,
        /// An owner may settle a row with any epoch.
        DropEpochCheck,
        /// An owner may renew a row with any epoch.
        DropEpochOnRenew,
        /// A row whose lease has ended is lost to its owner though nobody has taken it.
        LateIsLost,
        /// A settling call reports no lost claim.
        HideLost,
        /// An acknowledgement is answered and not done.
        AckForgotten,
        /// A renewal is answered and not done.
        RenewForgotten,
        /// While a renewal is under way its owner's settlements find nothing.
        RenewalHidesBatch,
        /// A claim takes what was over when it began, though it was renewed since.
        ClaimForgetsRenewal,
        /// A row that was given back is ready at once.
        AbandonForgetsDelay,
        /// A row that was given back loses its place in its key.
        AbandonToTail,
        /// An attempt that is given back is consumed.
        AttemptAlwaysCounted,
        /// An attempt that is consumed is given back.
        AttemptNeverCounted,
        /// A row that failed for good leaves no dead letter.
        FailForgetsLetter,
        /// The failures of earlier attempts are not kept.
        ForgetFailures,
        /// Nothing is ever reaped.
        ReapForgotten,
        /// Live leases are reaped, too.
        ReapLive,
        /// Reaping and purging keep to no batch.
        IgnoreBatchLimit,
        /// Releasing an owner is answered and not done.
        ReleaseForgotten,
        /// Releasing an owner releases everyone.
        ReleaseAll,
        /// A purge takes rows that are waiting to be sent.
        PurgeUnfinished,
        /// A filter has no effect.
        FilterIgnored,
        /// A page begins at a count of rows.
        PageByOffset,
        /// The limit and cursor of a page are bent into what fits.
        PageUnchecked,
        /// The pulse never finds work.
        PulseIdle,
        /// A wait for work lasts until there is some.
        WaitOutstays,
        /// Each handle calls its store by another id.
        StoreIdPerHandle,
        /// A redrive is answered and not done.
        RedriveForgotten,
        /// A redriven message goes before what came since.
        RedriveKeepsPlace,
        /// The payload of a redrive, or of an edit, is forgotten.
        EditForgotten,
    }
    INBOX {
        /// An admission takes a row over whose lease lasts.
        AdmitIgnoresLease,
        /// Every round is the first.
        ForgetRounds,
        /// A busy row does not tell how long.
        BusyWithoutTime,
        /// What was processed is run again.
        SkipDedupe,
        /// What is dead or discarded is run again.
        TerminalMovable,
        /// All groups share their rows.
        MixGroupRows,
        /// Idempotency keys have no effect.
        ForgetIdempotencyKey,
        /// An idempotency key is kept by what is dead or discarded.
        OperationOutlivesEnd,
        /// A message that is parked by failure does not reserve its idempotency key.
        ParkFreesOperation,
        /// A message that is parked behind another reserves its idempotency key.
        BehindReserves,
        /// A message does not wait for what is parked of its key.
        ForgetKeyOrder,
        /// Messages without a key stand in one.
        OrderForAll,
        /// What is parked stands in no key.
        ParkForgetsKey,
        /// What is parked is due at once.
        ParkForgetsDelay,
        /// Of a key, the park hands out the head alone.
        RunCutShort,
        /// Topics that are excepted are claimed.
        ExceptIgnored,
        /// The park has no bounds.
        ParkUnbounded,
        /// A message is parked behind nothing.
        KeyFreeParks,
        /// A transaction's marks are made at once, whatever becomes of it.
        MarkOutsideTransaction,
        /// A transaction's marks are made when it commits, unchecked before.
        MarkAtCommit,
        /// A mark is answered and not made.
        MarkForgotten,
        /// A mark that is refused dooms its transaction.
        MarkDooms,
        /// A release shortens the lease and leaves the hold.
        ReleaseKeepsHold,
        /// A burial leaves no dead letter.
        BuryForgetsLetter,
        /// A redriven message is published to every group again.
        RedrivePublishes,
        /// A redriven message keeps its rounds.
        RedriveKeepsRounds,
        /// A redrive keeps to no cap and to no age.
        RedriveUnbounded,
        /// A redrive of what is closed or superseded is reported as done.
        RedriveAgain,
        /// A malformed redrive is bent into what fits.
        RedriveUnchecked,
        /// Discarding a dead letter is answered and not done.
        DiscardForgotten,
        /// An edit takes no notice of another since the letter was seen.
        EditUnseen,
        /// An edit keeps to no cap.
        EditUnbounded,
        /// An edit of what is closed, or not there, is reported as done.
        EditAlwaysDone,
        /// The history of a dead letter leaves edits out.
        EditsUnrecorded,
        /// The history of a dead letter does not say who.
        HistoryForgetsWho,
        /// The history of a dead letter leaves out with what it was redriven.
        HistoryForgetsPayload,
        /// A tally begins with what is rarest.
        TallyUnsorted,
        /// A tally leaves out errors that have numbers in them.
        TallyWholeErrors,
        /// A tally counts together whatever has one cause.
        TallyCausesAlone,
        /// A purge takes what has ended a moment ago.
        PurgeIgnoresAge,
        /// A purge leaves what was admitted and never came again.
        PurgeKeepsStranded,
        /// A purge ends what is running.
        PurgeEndsRunning,
        /// A parked message that waits behind another is shown as due.
        FollowersAreDue,
    }
    MEMBERSHIP {
        /// A node is seen from its first heartbeat on.
        RegisterUnseen,
        /// An owner has the same incarnation for ever.
        IncarnationStands,
        /// What a node says of itself is not kept.
        FactsForgotten,
        /// A heartbeat is answered and not done.
        HeartbeatForgotten,
        /// Every heartbeat is accepted.
        BeatEveryone,
        /// A suspected node is shown as alive.
        SuspicionHidden,
        /// A good-bye is answered and not done.
        LeaveForgotten,
        /// Nobody is ever forgotten.
        ForgetNobody,
        /// Who lives is forgotten, too.
        ForgetLive,
        /// The list of nodes ends with its first page.
        OneNodePage,
        /// Limits and cursors are bent into what fits.
        NodesUnchecked,
        /// A death is told, and frees nothing.
        DeathKeepsClaims,
        /// A death gives the rounds back that had begun.
        DeathReturnsRounds,
        /// A burial frees everyone's claims.
        DeathFreesEveryone,
        /// A burial frees what those hold who never registered, too.
        DeathFreesStrangers,
        /// A burial frees what the suspected hold, too.
        SuspicionFrees,
        /// A death is told by every burial after it.
        DeathToldTwice,
        /// Who registered anew after its death is buried for its former life.
        BuryReborn,
        /// Who registers anew after its death keeps the claims of its former life.
        RebirthKeepsClaims,
        /// Who leaves keeps what it holds.
        LeaveKeepsClaims,
        /// A good-bye of an incarnation that has ended frees what its owner holds now.
        LateLeaveFrees,
        /// What a burial passed over is never looked at again.
        SweepForgotten,
        /// A later look frees what everyone holds.
        SweepFreesEveryone,
        /// A later look at a former life frees what its owner holds now.
        SweepFreesReborn,
        /// A look at the living leaves the suspected out.
        LivingHideSuspected,
        /// A look at the living shows those that have ended, too.
        LivingWithEnded,
    }
    CONTROL {
        /// What is wanted is answered as stored, and not stored.
        ControlForgotten,
        /// A change is stored whatever version it expects.
        ExpectedIgnored,
        /// A conflict does not say with what.
        ConflictBlind,
        /// A conflict moves the revision.
        ConflictCounts,
        /// Every change of a subject has the same version.
        VersionStands,
        /// What was taken back is as if it had never been.
        VersionBeginsAnew,
        /// What is taken back stays.
        RemovalForgotten,
        /// All services share their entries.
        EntriesShared,
        /// A topic of a group stands for the group.
        TopicForgotten,
        /// Who asked is not kept.
        WhoForgotten,
        /// What is beyond the bound of a service is answered as stored.
        ControlUnbounded,
        /// The revision stays where the first change left it.
        RevisionOfFirst,
        /// The revision counts a change that is still to come.
        RevisionAhead,
        /// Each page but the last loses a row.
        CursorSkips,
        /// The list of entries ends with its first page.
        OneControlPage,
        /// Every change was made just now.
        AgeForgotten,
        /// Limits and cursors are bent into what fits.
        ControlUnchecked,
        /// The pulse never shows that operators want something else.
        PulseHidesChanges,
    }
}

/// A fixture with a mutation planted at its driver seam; with none it changes nothing.
#[derive(Debug)]
pub(crate) struct Mutated<F> {
    pub(crate) inner: F,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) transport: transport::Shared,
    pub(crate) store: store::Shared,
}

impl<F: Fixture> Mutated<F> {
    pub(crate) fn new(inner: F, mutation: Option<Mutation>) -> Self {
        Self {
            inner,
            mutation,
            transport: transport::Shared::default(),
            store: store::Shared::default(),
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
