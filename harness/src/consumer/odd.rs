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
    Settled, Settlement, Store, StoreId, StoreParts, StoreTx, Subscriber, Subscription, Topology, Transport,
    TransportInfo, UnitOfWorkStore,
};
use tokio::sync::{Notify, Semaphore};

/// A transport whose subscribers fail to resume some times, or whose messages come malformed.
#[derive(Clone, Debug)]
pub(super) struct OddTransport {
    inner: Arc<dyn Transport>,
    pub(super) failing_resumes: Arc<AtomicU32>,
    malformed: bool,
}

impl OddTransport {
    /// The next so many resumes fail.
    pub(super) fn failing_to_resume(inner: Arc<dyn Transport>, times: u32) -> Self {
        Self {
            inner,
            failing_resumes: Arc::new(AtomicU32::new(times)),
            malformed: false,
        }
    }

    /// Every delivery has something wrong with its envelope.
    pub(super) fn malforming(inner: Arc<dyn Transport>) -> Self {
        Self {
            inner,
            failing_resumes: Arc::default(),
            malformed: true,
        }
    }
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
            odd: self.clone(),
        }))
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        self.inner.remove_group(group).await
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        self.inner.lag(group).await
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
    odd: OddTransport,
}

#[async_trait]
impl Subscriber for OddSubscriber {
    async fn receive(&self, max: usize, wait: Duration) -> Result<Received> {
        let mut received = self.inner.receive(max, wait).await?;
        if self.odd.malformed {
            for delivery in &mut received.deliveries {
                delivery.malformed = Some(Error::invalid("hl-tenant is 300 bytes, the limit is 256"));
            }
        }
        Ok(received)
    }

    async fn settle(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        self.inner.settle(batch).await
    }

    async fn extend(&self, tokens: &[DeliveryToken], by: Duration) -> Vec<Result<()>> {
        self.inner.extend(tokens, by).await
    }

    async fn pause(&self) -> Result<()> {
        self.inner.pause().await
    }

    async fn resume(&self) -> Result<()> {
        let fails = self
            .odd
            .failing_resumes
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
        match fails {
            Ok(_) => Err(Error::new(ErrorKind::Unavailable, "the broker does not answer")),
            Err(_) => self.inner.resume().await,
        }
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
