//! The server as a transport.

use std::num::NonZeroUsize;

use async_trait::async_trait;
use headless_abstractions::{
    Error, ErrorKind, GroupName, Message, OrderingGuarantee, Result, Sent, Subscriber, Subscription,
    TopicName, Topology, Transport, TransportCapabilities, TransportInfo,
};

use crate::{
    RabbitMq,
    error::{NAME, closed},
    subscriber::RabbitMqSubscriber,
};

mod declare;
mod lag;
mod remove;
mod send;

/// What is on is proved by its cases; what is off, and why, stands in decision 0011.
const fn capabilities(max_payload: NonZeroUsize) -> TransportCapabilities {
    TransportCapabilities::none()
        .with_durable(true)
        .with_ordering(OrderingGuarantee::PerKey)
        .with_accepts_by_prefix(true)
        .with_requeue(true)
        .with_delayed_send(true)
        .with_delivery_count(true)
        .with_fenced_settlement(true)
        .with_extend(true)
        .with_max_payload(max_payload)
}

#[async_trait]
impl Transport for RabbitMq {
    fn info(&self) -> TransportInfo {
        let config = &self.shared.config;
        TransportInfo::new(NAME, capabilities(config.max_payload), config.endpoint())
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        declare::declare(&self.shared, topology).await
    }

    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        send::send(&self.shared, batch).await
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        Ok(Box::new(RabbitMqSubscriber::join(&self.shared, to).await?))
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        remove::remove_group(&self.shared, group).await
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        lag::lag(&self.shared, group).await
    }

    async fn ping(&self) -> Result<()> {
        let shared = &self.shared;
        shared
            .guarded("ping", async {
                // Not the connection that publishes: one that the server holds back does not answer.
                let channel = shared.consume.live(&shared.config).await?.channel().await?;
                channel.end().await;
                Ok(())
            })
            .await
    }

    async fn close(&self) -> Result<()> {
        self.shared.close().await
    }
}

/// One answer of this kind for each.
fn all_closed<T>(count: usize) -> Vec<Result<T>> {
    (0..count).map(|_| Err(closed("send"))).collect()
}

pub(crate) fn unknown_topic(topic: &TopicName) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "the topic was never declared; declare it first",
    )
    .with_resource(format!("topic {topic}"))
}

pub(crate) fn unknown_group(group: &GroupName) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "the group was never declared, or was removed",
    )
    .with_resource(format!("group {group}"))
}

/// The same error once more: whoever it concerns is told by itself.
fn same(error: &Error) -> Error {
    let same = Error::new(error.kind(), error.message().to_owned()).with_advice(error.advice());
    if error.is_outcome_unknown() {
        same.with_outcome_unknown()
    } else {
        same
    }
}

pub(crate) fn runtime_ended(operation: &'static str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the runtime that the call ran on has ended",
    )
    .with_outcome_unknown()
    .with_operation(operation)
    .with_provider(NAME)
}
