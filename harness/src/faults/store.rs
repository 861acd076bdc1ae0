//! A store whose calls go as a plan has them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, Admission, Appended, Arrival, AttemptUse, Beat, Buried, Bury, Claim, ClaimOutbox, ClaimParked,
    ClaimedOutbox, Cursor, DeadId, DeadLetter, DeadLetterChange, DeadLetterFilter, DeadLetterQueries,
    DeadLetterStats, DeadLetterStore, DeadLetterTally, Edit, Edited, Failure, GroupName, Hold, InboxEntry,
    InboxFilter, InboxParts, InboxQueries, InboxStats, InboxStore, Incarnation, LivingNode, Marked,
    MembershipStore, Message, MessageId, NodeEntry, NodeFacts, OutboxEntry, OutboxFilter, OutboxParts,
    OutboxQueries, OutboxStats, OutboxStore, Owner, Page, Park, ParkLimits, Parked, ParkedRow, ParkedStore,
    Pulse, PulseStore, Redrive, Redriven, Registration, Result, Settled, Store, StoreId, StoreParts,
    UnitOfWorkStore,
};

use super::{Faults, FaultyTx, Op};

/// Any store, with calls that fail, are slow, happen twice, or lose their answer.
///
/// Queries fail before they are made. Its identity is that of the store within.
#[derive(Clone, Debug)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Faults,
}

impl<S: Store> FaultyStore<S> {
    /// This store, under these faults.
    #[must_use]
    pub fn new(inner: S, faults: &Faults) -> Self {
        Self {
            inner,
            faults: faults.clone(),
        }
    }
}

#[async_trait]
impl<S: Store> UnitOfWorkStore for FaultyStore<S> {
    type Tx = FaultyTx<S::Tx>;

    fn store_id(&self) -> StoreId {
        self.inner.store_id()
    }

    async fn begin(&self) -> Result<Self::Tx> {
        let begun = self.faults.call_once(Op::any("begin"), self.inner.begin()).await;
        Ok(FaultyTx::new(begun?, &self.faults))
    }

    async fn begin_to_mark(&self) -> Result<Self::Tx> {
        let begin = self.inner.begin_to_mark();
        let begun = self.faults.call_once(Op::any("begin to mark"), begin).await;
        Ok(FaultyTx::new(begun?, &self.faults))
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn parts(&self) -> StoreParts {
        let inner = self.inner.parts();
        let mut parts = StoreParts::new(inner.info);
        if let Some(outbox) = inner.outbox {
            parts = parts.with_outbox(Arc::new(Faulty(outbox, self.faults.clone())));
        }
        if let Some(inbox) = inner.inbox {
            parts = parts.with_inbox(Arc::new(Faulty(inbox, self.faults.clone())));
        }
        if let Some(pulse) = inner.pulse {
            parts = parts.with_pulse(Arc::new(Faulty(PulsePart { pulse }, self.faults.clone())));
        }
        if let Some(nodes) = inner.membership {
            parts = parts.with_membership(Arc::new(Faulty(NodesPart { nodes }, self.faults.clone())));
        }
        parts
    }
}

/// A part of a store, and what becomes of its calls.
#[derive(Debug)]
struct Faulty<P>(P, Faults);

#[derive(Debug)]
struct PulsePart {
    pulse: Arc<dyn PulseStore>,
}

#[derive(Debug)]
struct NodesPart {
    nodes: Arc<dyn MembershipStore>,
}

/// Passes every method of a trait on to a field of a part, each with its name and how it may fail.
macro_rules! through {
    ($($trait:ident of $part:ty, $field:ident: {
        $($op:ident $method:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*
    })*) => {$(
        #[async_trait]
        impl $trait for Faulty<$part> {
            $(async fn $method(&self, $($arg: $type),*) -> Result<$answer> {
                let call = || self.0.$field.$method($($arg),*);
                let op = Op::$op(concat!(stringify!($trait), "::", stringify!($method)));
                self.1.call(op, call).await
            })*
        }
    )*};
}

through! {
    OutboxStore of OutboxParts, store: {
        any append(messages: &[Message]) -> Vec<Appended>;
        any claim(request: &ClaimOutbox) -> ClaimedOutbox;
        any ack(owner: Owner, claims: &[Claim]) -> Settled;
        any abandon(owner: Owner, claims: &[Claim], how: &Abandon) -> Settled;
        any fail(owner: Owner, claims: &[Claim], failure: &Failure) -> Settled;
        any renew(owner: Owner, claims: &[Claim], lease: Duration) -> Settled;
        any reap_expired(limit: usize) -> u64;
        any release_owner(owner: Owner) -> u64;
        any purge(older_than: Duration, limit: usize) -> u64;
    }
    OutboxQueries of OutboxParts, queries: {
        before list(filter: &OutboxFilter, after: Option<&Cursor>, limit: usize) -> Page<OutboxEntry>;
        before get(id: MessageId) -> Option<OutboxEntry>;
        before stats() -> OutboxStats;
    }
    InboxStore of InboxParts, inbox: {
        any admit(owner: Owner, lease: Duration, arrivals: &[Arrival]) -> Vec<Admission>;
        any mark(marks: &[(Arrival, Hold)]) -> Vec<Marked>;
        any discard(marks: &[(Arrival, Hold)]) -> Vec<Marked>;
        any renew(group: &GroupName, owner: Owner, claims: &[Claim], lease: Duration) -> Settled;
        any release(group: &GroupName, owner: Owner, claims: &[Claim], attempt: AttemptUse) -> Settled;
        any release_owner(owner: Owner) -> u64;
        any purge(older_than: Duration, limit: usize) -> u64;
    }
    ParkedStore of InboxParts, parked: {
        any park(parks: &[Park], limits: ParkLimits) -> Vec<Parked>;
        any claim(request: &ClaimParked) -> Vec<ParkedRow>;
        any abandon(group: &GroupName, owner: Owner, claims: &[Claim], how: &Abandon) -> Settled;
        any reap_expired(limit: usize) -> u64;
    }
    DeadLetterStore of InboxParts, dead_letters: {
        any bury(burials: &[Bury]) -> Vec<Marked>;
        any redrive(request: &Redrive) -> Vec<Redriven>;
        any edit(request: &Edit) -> Edited;
        any discard(ids: &[DeadId], by: &str) -> u64;
        any purge(older_than: Duration, limit: usize) -> u64;
    }
    InboxQueries of InboxParts, queries: {
        before list(filter: &InboxFilter, after: Option<&Cursor>, limit: usize) -> Page<InboxEntry>;
        before get(group: &GroupName, id: MessageId) -> Option<InboxEntry>;
        before stats(group: Option<&GroupName>) -> InboxStats;
    }
    DeadLetterQueries of InboxParts, dead_letter_queries: {
        before list(filter: &DeadLetterFilter, after: Option<&Cursor>, limit: usize) -> Page<DeadLetter>;
        before get(id: DeadId) -> Option<DeadLetter>;
        before stats() -> Vec<DeadLetterStats>;
        before tally(filter: &DeadLetterFilter, limit: usize) -> Vec<DeadLetterTally>;
        before history(id: DeadId, after: Option<&Cursor>, limit: usize) -> Page<DeadLetterChange>;
    }
    MembershipStore of NodesPart, nodes: {
        any register(registration: &Registration) -> Incarnation;
        any heartbeat(owner: Owner, incarnation: Incarnation, facts: &NodeFacts) -> Beat;
        any leave(owner: Owner, incarnation: Incarnation) -> bool;
        any bury(limit: usize) -> Vec<Buried>;
        any sweep(limit: usize) -> u64;
        any forget(older_than: Duration, limit: usize) -> u64;
        before list(after: Option<&Cursor>, limit: usize) -> Page<NodeEntry>;
        before living(after: Option<&Cursor>, limit: usize) -> Page<LivingNode>;
    }
    PulseStore of PulsePart, pulse: {
        any pulse() -> Pulse;
        before wait_ready(at_most: Duration) -> ();
    }
}
