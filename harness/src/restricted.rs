//! A transport without any capability: what the suites look like where everything is refused.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Delivery, DeliveryToken, Error, GroupName, Message, Priority, Received, Redelivery, Result, Sent,
    Settlement, StartFrom, Subscriber, Subscription, TopicName, TopicOrder, Topology, Transport,
    TransportCapabilities, TransportInfo,
};

use crate::{
    fixture::{Fixture, Namespace, TransportFixture, TransportNode, Unavailable},
    memory::MemoryFixture,
};

/// The memory provider with every capability turned off, and what can be requested refused.
///
/// The suites must pass on it too, in their refused form.
#[derive(Debug)]
pub struct Restricted(MemoryFixture);

#[async_trait]
impl Fixture for Restricted {
    const VIRTUAL_TIME: bool = MemoryFixture::VIRTUAL_TIME;

    async fn open(namespace: Namespace) -> Result<Self, Unavailable> {
        Ok(Self(MemoryFixture::open(namespace).await?))
    }

    fn version(&self) -> String {
        self.0.version()
    }

    async fn drop_namespace(self) -> Result<()> {
        self.0.drop_namespace().await
    }
}

#[async_trait]
impl TransportFixture for Restricted {
    async fn node(&self) -> Result<TransportNode> {
        let node = TransportFixture::node(&self.0).await?;
        Ok(node.map(|inner| Arc::new(RestrictedTransport(inner))))
    }
}

#[derive(Debug)]
struct RestrictedTransport(Arc<dyn Transport>);

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("{what} is turned off on this transport")).with_provider("restricted")
}

/// Answers the batch: what `refuse` refuses is kept from `accept`, and the answers stay in order.
async fn sifted<T, A>(
    batch: &[T],
    refuse: impl Fn(&T) -> Option<Error>,
    accept: impl AsyncFnOnce(Vec<&T>) -> Vec<Result<A>>,
) -> Vec<Result<A>> {
    let refused: Vec<Option<Error>> = batch.iter().map(refuse).collect();
    let passed = batch
        .iter()
        .zip(&refused)
        .filter(|(_, refused)| refused.is_none());
    let mut answers = accept(passed.map(|(item, _)| item).collect()).await.into_iter();
    refused
        .into_iter()
        .map(|refused| match refused {
            Some(error) => Err(error),
            None => answers.next().unwrap_or_else(|| {
                Err(Error::new(
                    headless_abstractions::ErrorKind::Internal,
                    "an answer is missing",
                ))
            }),
        })
        .collect()
}

#[async_trait]
impl Transport for RestrictedTransport {
    fn info(&self) -> TransportInfo {
        TransportInfo::new(
            "restricted",
            TransportCapabilities::none(),
            self.0.info().endpoint,
        )
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        if topology.topics.iter().any(|topic| topic.order.is_ordered()) {
            return Err(unsupported("`ordering`"));
        }
        for group in &topology.groups {
            if group.start != StartFrom::Now {
                return Err(unsupported("`replay_from_start`"));
            }
            if group.per_instance {
                return Err(unsupported("`per_instance_groups`"));
            }
        }
        self.0.declare(topology).await
    }

    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        let refuse = |message: &Message| {
            if message.deliver_after.is_some() {
                Some(unsupported("`delayed_send`"))
            } else if message.priority != Priority::default() {
                Some(unsupported("`priority`"))
            } else {
                None
            }
        };
        sifted(batch, refuse, async |passed| {
            let passed: Vec<Message> = passed.into_iter().cloned().collect();
            self.0.send(&passed).await
        })
        .await
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        Ok(Box::new(RestrictedSubscriber(self.0.subscribe(to).await?)))
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        self.0.remove_group(group).await
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        self.0.lag(group).await
    }

    async fn repartition(&self, _topic: &TopicName, _order: TopicOrder) -> Result<TopicOrder> {
        Err(unsupported("`repartition`"))
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

#[derive(Debug)]
struct RestrictedSubscriber(Box<dyn Subscriber>);

#[async_trait]
impl Subscriber for RestrictedSubscriber {
    async fn receive(&self, max: usize, wait: Duration) -> Result<Received> {
        let Received {
            deliveries, revoked, ..
        } = self.0.receive(max, wait).await?;
        let without_count = |mut delivery: Delivery| {
            delivery.redelivery = Redelivery::Unknown;
            delivery
        };
        Ok(Received::new(
            deliveries.into_iter().map(without_count).collect(),
            revoked,
        ))
    }

    async fn settle(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        let refuse = |settlement: &Settlement| {
            matches!(settlement, Settlement::Requeue { .. }).then(|| unsupported("`requeue`"))
        };
        sifted(batch, refuse, async |passed| {
            let passed: Vec<Settlement> = passed.into_iter().copied().collect();
            self.0.settle(&passed).await
        })
        .await
    }

    async fn extend(&self, tokens: &[DeliveryToken], _by: Duration) -> Vec<Result<()>> {
        tokens.iter().map(|_| Err(unsupported("`extend`"))).collect()
    }

    async fn pause(&self) -> Result<()> {
        self.0.pause().await
    }

    async fn resume(&self) -> Result<()> {
        self.0.resume().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
