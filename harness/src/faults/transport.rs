//! A transport whose calls go as a plan has them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    DeliveryToken, Error, ErrorKind, GroupName, Message, Received, Result, Sent, Settlement, Subscriber,
    Subscription, TopicName, TopicOrder, Topology, Transport, TransportInfo,
};

use super::{Faults, Op, refused_of};

/// Any transport, with calls that fail, are slow, happen twice, or lose their answer.
///
/// Declaring and closing do not fail. What is received is not lost: a receive fails before it has taken anything.
#[derive(Clone, Debug)]
pub struct FaultyTransport {
    inner: Arc<dyn Transport>,
    faults: Faults,
}

impl FaultyTransport {
    /// This transport, under these faults.
    #[must_use]
    pub fn new(inner: impl Transport, faults: &Faults) -> Self {
        Self::over(Arc::new(inner), faults)
    }

    /// As [`new`](Self::new), of a transport whose type is not known.
    #[must_use]
    pub fn over(inner: Arc<dyn Transport>, faults: &Faults) -> Self {
        let faults = faults.clone();
        Self { inner, faults }
    }

    /// Sends what the broker takes of a batch; the rest is refused for now, with what follows of its keys.
    async fn send_some(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        let refused = refused_of(batch, self.faults.chance(), self.faults.rate());
        let taken: Vec<Message> = batch
            .iter()
            .zip(&refused)
            .filter(|(_, refused)| refused.is_none())
            .map(|(message, _)| message.clone())
            .collect();
        let mut answers = self.inner.send(&taken).await.into_iter();
        let unanswered = || {
            Err(Error::new(
                ErrorKind::Internal,
                "the transport did not answer for a message",
            ))
        };
        refused
            .into_iter()
            .map(|refused| match refused {
                Some(error) => Err(error),
                None => answers.next().unwrap_or_else(unanswered),
            })
            .collect()
    }
}

#[async_trait]
impl Transport for FaultyTransport {
    fn info(&self) -> TransportInfo {
        self.inner.info()
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        let declare = || self.inner.declare(topology);
        self.faults.call(Op::never("declare"), declare).await
    }

    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        let send = || self.send_some(batch);
        self.faults.each(Op::any("send"), batch.len(), send).await
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        let subscribe = self.inner.subscribe(to);
        let inner = self.faults.call_once(Op::before("subscribe"), subscribe).await?;
        let faults = self.faults.clone();
        Ok(Box::new(FaultySubscriber { inner, faults }))
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        let remove = || self.inner.remove_group(group);
        self.faults.call(Op::any("remove group"), remove).await
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        self.faults
            .call(Op::before("lag"), || self.inner.lag(group))
            .await
    }

    async fn repartition(&self, topic: &TopicName, order: TopicOrder) -> Result<TopicOrder> {
        let repartition = || self.inner.repartition(topic, order);
        self.faults.call(Op::any("repartition"), repartition).await
    }

    async fn ping(&self) -> Result<()> {
        self.faults.call(Op::before("ping"), || self.inner.ping()).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[derive(Debug)]
struct FaultySubscriber {
    inner: Box<dyn Subscriber>,
    faults: Faults,
}

#[async_trait]
impl Subscriber for FaultySubscriber {
    async fn receive(&self, max: usize, wait: Duration) -> Result<Received> {
        let receive = self.inner.receive(max, wait);
        self.faults.call_once(Op::before("receive"), receive).await
    }

    async fn settle(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        let settle = || self.inner.settle(batch);
        self.faults.each(Op::any("settle"), batch.len(), settle).await
    }

    async fn extend(&self, tokens: &[DeliveryToken], by: Duration) -> Vec<Result<()>> {
        let extend = || self.inner.extend(tokens, by);
        self.faults.each(Op::any("extend"), tokens.len(), extend).await
    }

    async fn pause(&self) -> Result<()> {
        self.faults.call(Op::any("pause"), || self.inner.pause()).await
    }

    async fn resume(&self) -> Result<()> {
        self.faults.call(Op::any("resume"), || self.inner.resume()).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
