//! A member with a bug.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    Delivery, DeliveryToken, Error, ErrorKind, GroupName, Message, Partition, Received, Redelivery, Result,
    Settlement, Subscriber, Transport,
};

use super::{Holder, LINGERING, Shared, lock};
use crate::{mutation::Mutation, wait::elapse};

#[derive(Debug)]
pub(super) struct MutantSubscriber {
    inner: Arc<dyn Subscriber>,
    transport: Arc<dyn Transport>,
    mutation: Mutation,
    shared: Shared,
    handle_closed: Arc<AtomicBool>,
    closed: AtomicBool,
    paused: AtomicBool,
    /// How many extensions are under way.
    extending: AtomicUsize,
    group: GroupName,
    hands: Mutex<Hands>,
    turn: tokio::sync::Mutex<()>,
}

/// What was delivered by this subscriber.
#[derive(Debug, Default)]
struct Hands {
    seen: u64,
    /// By the token that the case sees: the broker's token, and a copy.
    given: BTreeMap<DeliveryToken, (DeliveryToken, Message)>,
    unsettled: BTreeSet<DeliveryToken>,
}

impl MutantSubscriber {
    pub(super) fn new(
        inner: Arc<dyn Subscriber>,
        transport: Arc<dyn Transport>,
        mutation: Mutation,
        shared: Shared,
        handle_closed: Arc<AtomicBool>,
        group: GroupName,
    ) -> Self {
        Self {
            inner,
            transport,
            mutation,
            shared,
            handle_closed,
            closed: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            extending: AtomicUsize::new(0),
            group,
            hands: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    async fn closed(&self) -> Result<()> {
        let closed = self.closed.load(Ordering::Acquire) || self.handle_closed.load(Ordering::Acquire);
        match self.mutation {
            Mutation::HangAfterClose if closed => pending().await,
            Mutation::CloseKeepsDeliveries if closed => {
                Err(Error::new(ErrorKind::Closed, "this member has left"))
            }
            _ => Ok(()),
        }
    }

    async fn take(&self, max: usize, wait: Duration) -> Result<Received> {
        let unsettled = lock(&self.hands).unsettled.len();
        match self.mutation {
            Mutation::IgnoreMax => self.inner.receive(max + 3, wait).await,
            Mutation::SleepThroughWait => {
                elapse(wait).await;
                self.inner.receive(max, Duration::ZERO).await
            }
            Mutation::IgnoreWait => self.inner.receive(max, wait + Duration::from_secs(3_600)).await,
            Mutation::LoseOnCancel => {
                let received = self.inner.receive(max, wait).await;
                elapse(Duration::from_millis(2)).await;
                received
            }
            Mutation::SettleBehindReceive => {
                let _turn = self.turn.lock().await;
                self.inner.receive(max, wait).await
            }
            Mutation::BlockWhileUnsettled if unsettled > 0 => self.inner.receive(0, wait).await,
            Mutation::PauseDrops if self.paused.load(Ordering::Acquire) => {
                let received = self.inner.receive(max, wait).await?;
                let acks: Vec<_> = received
                    .deliveries
                    .iter()
                    .map(|d| Settlement::Ack(d.token))
                    .collect();
                self.inner
                    .settle(&acks)
                    .await
                    .into_iter()
                    .collect::<Result<()>>()?;
                Ok(Received::new(Vec::new(), received.revoked))
            }
            Mutation::ForgetRenewal if max == 0 || self.paused.load(Ordering::Acquire) => {
                elapse(wait).await;
                Ok(Received::nothing())
            }
            Mutation::HoldLapsesAtWork if unsettled > 0 => {
                elapse(wait).await;
                Ok(Received::nothing())
            }
            _ => self.inner.receive(max, wait).await,
        }
    }

    /// The deliveries as the case is to see them.
    async fn changed(&self, received: Received) -> Result<Received> {
        let Received {
            mut deliveries,
            mut revoked,
            ..
        } = received;
        match self.mutation {
            Mutation::DropDelivery => {
                let mut lost = Vec::new();
                let mut kept = Vec::new();
                for delivery in deliveries {
                    let mut hands = lock(&self.hands);
                    if hands.seen.is_multiple_of(3) {
                        lost.push(Settlement::Ack(delivery.token));
                    } else {
                        kept.push(delivery);
                    }
                    hands.seen += 1;
                }
                deliveries = kept;
                self.inner
                    .settle(&lost)
                    .await
                    .into_iter()
                    .collect::<Result<()>>()?;
            }
            Mutation::AckOnReceive => {
                let acks: Vec<_> = deliveries.iter().map(|d| Settlement::Ack(d.token)).collect();
                self.inner
                    .settle(&acks)
                    .await
                    .into_iter()
                    .collect::<Result<()>>()?;
            }
            Mutation::ReorderDeliveries => deliveries.reverse(),
            Mutation::HideRevocations => revoked.clear(),
            Mutation::WrongPartition => {
                for delivery in &mut deliveries {
                    delivery.partition = delivery.partition.map(|p| Partition::new(p.get() + 1));
                }
            }
            Mutation::ForgetDeliveryCount => {
                for delivery in &mut deliveries {
                    delivery.redelivery = Redelivery::First;
                }
            }
            _ => {}
        }
        for delivery in &mut deliveries {
            self.give(delivery);
        }
        Ok(Received::new(deliveries, revoked))
    }

    fn give(&self, delivery: &mut Delivery) {
        let inner_token = delivery.token;
        let mut hands = lock(&self.hands);
        if self.mutation == Mutation::ReuseToken {
            let lowest = (0..)
                .map(DeliveryToken::new)
                .find(|token| !hands.unsettled.contains(token));
            delivery.token = lowest.unwrap_or(inner_token);
        }
        hands
            .given
            .insert(delivery.token, (inner_token, delivery.message.clone()));
        hands.unsettled.insert(delivery.token);
        drop(hands);
        self.shared.0.unsettled.fetch_add(1, Ordering::AcqRel);
        lock(&self.shared.0.holders).insert(
            (self.group.clone(), delivery.message.id),
            Holder {
                subscriber: self.inner.clone(),
                token: inner_token,
            },
        );
    }

    async fn settle_one(&self, settlement: Settlement) -> Result<()> {
        let given = lock(&self.hands).given.get(&settlement.token()).cloned();
        let Some((token, message)) = given else {
            let answer = self.settle_inner(settlement).await;
            return match self.mutation {
                Mutation::SettleAnything => Ok(()),
                _ => answer,
            };
        };
        let settlement = with_token(settlement, token);
        match (self.mutation, settlement) {
            (Mutation::LoseAck, Settlement::Ack(_)) => Ok(()),
            (Mutation::AckOnReceive, _) => Ok(()),
            (Mutation::AckByPrefix, Settlement::Ack(_)) => self.ack_up_to(token).await,
            (Mutation::RejectRequeues, Settlement::Reject(_)) => {
                self.settle_inner(Settlement::Requeue { token, after: None })
                    .await
            }
            (Mutation::RequeueDrops, Settlement::Requeue { .. }) => {
                self.settle_inner(Settlement::Ack(token)).await
            }
            (Mutation::RequeueToTail, Settlement::Requeue { .. }) => {
                self.settle_inner(Settlement::Ack(token)).await?;
                let sent = self.transport.send(&[message]).await;
                sent.into_iter().try_for_each(|answer| answer.map(drop))
            }
            (Mutation::IgnoreRequeueDelay, Settlement::Requeue { .. }) => {
                self.settle_inner(Settlement::Requeue { token, after: None })
                    .await
            }
            (Mutation::SettleOthers, _) => {
                let answer = self.settle_inner(settlement).await;
                let holder = lock(&self.shared.0.holders)
                    .get(&(self.group.clone(), message.id))
                    .cloned();
                match (answer, holder) {
                    (Err(error), Some(holder)) if error.kind() == ErrorKind::LeaseLost => {
                        settle_single(&*holder.subscriber, with_token(settlement, holder.token)).await
                    }
                    (answer, _) => answer,
                }
            }
            (Mutation::ExtensionHidesOthers, _) if self.extending.load(Ordering::Acquire) > 0 => Err(
                Error::new(ErrorKind::LeaseLost, "the delivery has gone to another"),
            ),
            (Mutation::SettleAnything, _) => {
                // The answer is what the bug swallows.
                let _answer = self.settle_inner(settlement).await;
                Ok(())
            }
            _ => self.settle_inner(settlement).await,
        }
    }

    async fn settle_inner(&self, settlement: Settlement) -> Result<()> {
        settle_single(&*self.inner, settlement).await
    }

    async fn ack_up_to(&self, last: DeliveryToken) -> Result<()> {
        let tokens: Vec<DeliveryToken> = lock(&self.hands)
            .given
            .values()
            .map(|(token, _)| *token)
            .filter(|token| *token < last)
            .collect();
        for token in tokens {
            // One that is settled already answers so.
            let _answer = self.settle_inner(Settlement::Ack(token)).await;
        }
        self.settle_inner(Settlement::Ack(last)).await
    }
}

fn with_token(settlement: Settlement, token: DeliveryToken) -> Settlement {
    match settlement {
        Settlement::Ack(_) => Settlement::Ack(token),
        Settlement::Requeue { after, .. } => Settlement::Requeue { token, after },
        Settlement::Reject(_) => Settlement::Reject(token),
    }
}

async fn settle_single(subscriber: &dyn Subscriber, settlement: Settlement) -> Result<()> {
    subscriber.settle(&[settlement]).await.into_iter().collect()
}

#[async_trait]
impl Subscriber for MutantSubscriber {
    async fn receive(&self, max: usize, wait: Duration) -> Result<Received> {
        self.closed().await?;
        let received = self.take(max, wait).await?;
        self.changed(received).await
    }

    async fn settle(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        let _turn = match self.mutation {
            Mutation::SettleBehindReceive => Some(self.turn.lock().await),
            _ => None,
        };
        let mut answers = Vec::with_capacity(batch.len());
        for settlement in batch {
            let answer = match self.closed().await {
                Ok(()) => self.settle_one(*settlement).await,
                Err(closed) => Err(closed),
            };
            if answer.is_ok() && lock(&self.hands).unsettled.remove(&settlement.token()) {
                self.shared.0.unsettled.fetch_sub(1, Ordering::AcqRel);
            }
            answers.push(answer);
        }
        if self.mutation == Mutation::MisalignAnswers {
            answers.reverse();
        }
        answers
    }

    async fn extend(&self, tokens: &[DeliveryToken], by: Duration) -> Vec<Result<()>> {
        if self.mutation == Mutation::IgnoreExtend {
            return tokens.iter().map(|_| Ok(())).collect();
        }
        if self.mutation == Mutation::ExtendHoldsPartitions {
            let (inner, times) = (self.inner.clone(), 100);
            tokio::spawn(async move {
                for _ in 0..times {
                    // Whatever it answers, it was called.
                    let _renewed = inner.receive(0, by / times).await;
                }
            });
        }
        let inner: Vec<DeliveryToken> = {
            let hands = lock(&self.hands);
            tokens
                .iter()
                .map(|token| hands.given.get(token).map_or(*token, |(inner, _)| *inner))
                .collect()
        };
        self.extending.fetch_add(1, Ordering::AcqRel);
        if self.mutation == Mutation::ExtensionHidesOthers {
            // Long enough that others come between.
            elapse(Duration::from_millis(1)).await;
        }
        let mut answers = self.inner.extend(&inner, by).await;
        self.extending.fetch_sub(1, Ordering::AcqRel);
        if self.mutation == Mutation::MisalignAnswers {
            answers.reverse();
        }
        answers
    }

    async fn pause(&self) -> Result<()> {
        self.closed().await?;
        self.paused.store(true, Ordering::Release);
        match self.mutation {
            Mutation::PauseIgnored | Mutation::PauseDrops => Ok(()),
            _ => self.inner.pause().await,
        }
    }

    async fn resume(&self) -> Result<()> {
        self.closed().await?;
        self.paused.store(false, Ordering::Release);
        self.inner.resume().await
    }

    async fn close(&self) -> Result<()> {
        let again = self.closed.swap(true, Ordering::AcqRel);
        match self.mutation {
            Mutation::CloseOnce if again => Err(Error::new(ErrorKind::Closed, "this member has left")),
            Mutation::CloseKeepsDeliveries => {
                lock(&self.shared.0.kept).push(self.inner.clone());
                Ok(())
            }
            Mutation::CloseLingers => {
                elapse(LINGERING).await;
                self.inner.close().await
            }
            _ => self.inner.close().await,
        }
    }
}

impl Drop for MutantSubscriber {
    fn drop(&mut self) {
        if self.mutation != Mutation::LeakMember {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let inner = self.inner.clone();
            runtime.spawn(async move { while inner.receive(100, Duration::from_secs(1)).await.is_ok() {} });
        }
    }
}
