//! The memory server as a transport.

use async_trait::async_trait;
use headless_abstractions::{
    Error, GroupName, Message, OrderingGuarantee, Result, Sent, Subscriber, Subscription, TopicName,
    TopicOrder, Topology, Transport, TransportCapabilities, TransportInfo,
};

use crate::{Memory, broker::Turn, link::Link, subscriber::MemorySubscriber};

#[async_trait]
impl Transport for Memory {
    fn info(&self) -> TransportInfo {
        let config = &self.server.config;
        let capabilities = TransportCapabilities::none()
            .with_ordering(OrderingGuarantee::PerKey)
            .with_accepts_by_prefix(true)
            .with_requeue(true)
            .with_requeue_delay(true)
            .with_delayed_send(true)
            .with_delivery_count(true)
            .with_fenced_settlement(true)
            .with_extend(true)
            .with_expiry(true)
            .with_replay_from_start(config.replay_capacity > 0)
            .with_priority(true)
            .with_per_instance_groups(true)
            .with_repartition(true)
            .with_max_payload(config.max_payload);
        TransportInfo::new("memory", capabilities, "memory:")
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.call("declare", |turn| {
            turn.state.declare(topology, &self.link, turn.now)
        })
        .await?
        .map_err(about("declare"))
    }

    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        match self.call("send", |turn| turn.state.send(batch, turn.now)).await {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| answer.map_err(about("send")))
                .collect(),
            Err(_closed) => batch.iter().map(|_| Err(Link::closed("send"))).collect(),
        }
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        let joined = self
            .call("subscribe", |turn| turn.state.subscribe(to, &self.link, turn.now))
            .await?
            .map_err(about("subscribe"))?;
        Ok(Box::new(MemorySubscriber::new(
            self.clone(),
            to.group.clone(),
            joined,
        )))
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        self.call("remove group", |turn| turn.state.remove_group(group))
            .await
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        self.call("lag", |turn| turn.state.lag(group, turn.now))
            .await?
            .map_err(about("lag"))
    }

    async fn repartition(&self, topic: &TopicName, order: TopicOrder) -> Result<TopicOrder> {
        self.call("repartition", |turn| {
            turn.state.repartition(topic, order, turn.now)
        })
        .await?
        .map_err(about("repartition"))
    }

    async fn ping(&self) -> Result<()> {
        self.link.check("ping").await
    }

    async fn close(&self) -> Result<()> {
        if self.server.broker.close(&self.link) {
            self.server.database.end_transactions_of(&self.link);
        }
        // A severed handle does not answer here either.
        if self.link.is_severed() {
            self.link.check("close").await
        } else {
            Ok(())
        }
    }
}

impl Memory {
    async fn call<T>(&self, operation: &'static str, act: impl FnOnce(Turn<'_>) -> T + Send) -> Result<T> {
        self.server.broker.run(&self.link, operation, act).await
    }
}

/// Completes an error with where it happened.
pub(crate) fn about(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.with_operation(operation).with_provider("memory")
}
