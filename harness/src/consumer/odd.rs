//! Drivers that behave in a rare way, on purpose: what they do is within their contract, and core has to cope.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, Appended, Arrival, Claim, ClaimParked, DeliveryToken, Error, ErrorKind, GroupName, Hold, Marked,
    Message, OwnedTx, Owner, Park, ParkLimits, Parked, ParkedRow, ParkedStore, Received, Result, Sent,
    Settled, Settlement, Store, StoreId, StoreParts, StoreTx, Subscriber, Subscription, TopicName,
    TopicOrder, Topology, Transport, TransportInfo, UnitOfWorkStore,
};
use tokio::sync::{Notify, Semaphore};

/// A transport whose calls fail some times, or whose messages come malformed.
#[derive(Clone, Debug)]
pub(super) struct OddTransport {
    inner: Arc<dyn Transport>,
    faults: Faults,
}

/// What is odd, as a case may still change it.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// So many calls fail.
    pub(super) resumes: Arc<AtomicU32>,
    /// So many calls fail, in a way that passes.
    pub(super) receives: Arc<AtomicU32>,
    /// So many calls fail, in a way that needs another subscription.
    pub(super) broken_receives: Arc<AtomicU32>,
    /// So many settlements fail.
    pub(super) settles: Arc<AtomicU32>,
    /// Whether every delivery has something wrong with its envelope.
    pub(super) malformed: bool,
}

impl OddTransport {
    pub(super) fn new(inner: Arc<dyn Transport>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

/// Whether this call is one of those that fail.
fn fails(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
        .is_ok()
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "the broker does not answer")
}

#[async_trait]
impl Transport for OddTransport {
    fn info(&self) -> TransportInfo {
        self.inner.info()
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.inner.declare(topology).await
    }

    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        self.inner.send(batch).await
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        Ok(Box::new(OddSubscriber {
            inner: self.inner.subscribe(to).await?,
            faults: self.faults.clone(),
        }))
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        self.inner.remove_group(group).await
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        self.inner.lag(group).await
    }

    async fn repartition(&self, topic: &TopicName, order: TopicOrder) -> Result<TopicOrder> {
        self.inner.repartition(topic, order).await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[derive(Debug)]
struct OddSubscriber {
    inner: Box<dyn Subscriber>,
    faults: Faults,
}

#[async_trait]
impl Subscriber for OddSubscriber {
    async fn receive(&self, max: usize, wait: Duration) -> Result<Received> {
        if fails(&self.faults.receives) {
            return Err(unavailable());
        }
        if fails(&self.faults.broken_receives) {
            return Err(Error::new(ErrorKind::Closed, "the broker has closed the channel"));
        }
        let mut received = self.inner.receive(max, wait).await?;
        if self.faults.malformed {
            for delivery in &mut received.deliveries {
                delivery.malformed = Some(Error::invalid("hl-tenant is 300 bytes, the limit is 256"));
            }
        }
        Ok(received)
    }

    async fn settle(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        if fails(&self.faults.settles) {
            return batch.iter().map(|_| Err(unavailable())).collect();
        }
        self.inner.settle(batch).await
    }

    async fn extend(&self, tokens: &[DeliveryToken], by: Duration) -> Vec<Result<()>> {
        self.inner.extend(tokens, by).await
    }

    async fn pause(&self) -> Result<()> {
        self.inner.pause().await
    }

    async fn resume(&self) -> Result<()> {
        if fails(&self.faults.resumes) {
            return Err(unavailable());
        }
        self.inner.resume().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// A park in which whoever wants to wait behind another has to wait for leave first.
#[derive(Debug)]
pub(super) struct SlowPark {
    pub(super) inner: Arc<dyn ParkedStore>,
    /// Someone asks.
    pub(super) asked: Arc<Notify>,
    pub(super) leave: Arc<Semaphore>,
}

#[async_trait]
impl ParkedStore for SlowPark {
    async fn park(&self, parks: &[Park], limits: ParkLimits) -> Result<Vec<Parked>> {
        if parks.iter().any(|park| park.only_behind) {
            self.asked.notify_one();
            let _leave = self.leave.acquire().await;
        }
        self.inner.park(parks, limits).await
    }

    async fn claim(&self, request: &ClaimParked) -> Result<Vec<ParkedRow>> {
        self.inner.claim(request).await
    }

    async fn abandon(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        how: &Abandon,
    ) -> Result<Settled> {
        self.inner.abandon(group, owner, claims, how).await
    }

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        self.inner.reap_expired(limit).await
    }
}

/// A store whose transactions take their time to end.
#[derive(Clone, Debug)]
pub(super) struct SlowStore<S> {
    pub(super) inner: S,
    pub(super) pace: Pace,
}

/// How slowly, and what becomes of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Before a rollback takes effect.
    pub(super) rollback: Duration,
    /// After a commit has taken effect, before it answers.
    pub(super) commit: Duration,
    /// Whether the answer of a commit is lost, so that its outcome is unknown.
    pub(super) loses_answers: bool,
}

#[async_trait]
impl<S: Store> UnitOfWorkStore for SlowStore<S> {
    type Tx = SlowTx<S::Tx>;

    fn store_id(&self) -> StoreId {
        self.inner.store_id()
    }

    async fn begin(&self) -> Result<Self::Tx> {
        Ok(SlowTx {
            inner: self.inner.begin().await?,
            pace: self.pace,
        })
    }
}

impl<S: Store> Store for SlowStore<S> {
    fn parts(&self) -> StoreParts {
        self.inner.parts()
    }
}

#[derive(Debug)]
pub(super) struct SlowTx<T> {
    pub(super) inner: T,
    pace: Pace,
}

#[async_trait]
impl<T: OwnedTx> StoreTx for SlowTx<T> {
    async fn append(&mut self, messages: &[Message]) -> Result<Vec<Appended>> {
        self.inner.append(messages).await
    }

    async fn mark_processed(&mut self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        self.inner.mark_processed(marks).await
    }
}

#[async_trait]
impl<T: OwnedTx> OwnedTx for SlowTx<T> {
    async fn commit(self: Box<Self>) -> Result<()> {
        let Self { inner, pace } = *self;
        Box::new(inner).commit().await?;
        tokio::time::sleep(pace.commit).await;
        if pace.loses_answers {
            return Err(Error::new(ErrorKind::Timeout, "no answer").with_outcome_unknown());
        }
        Ok(())
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        let Self { inner, pace } = *self;
        tokio::time::sleep(pace.rollback).await;
        Box::new(inner).rollback().await
    }
}
