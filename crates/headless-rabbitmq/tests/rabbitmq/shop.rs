//! A namespace with a topic and a group, on the server that tests share or on one of their own.

use std::{collections::BTreeSet, time::Duration};

use headless_abstractions::{
    GroupName, GroupSpec, Message, MessageId, Owner, PartitionKey, Partitions, Received, Sent, Settlement,
    Subscriber, Subscription, TopicName, TopicOrder, TopicSpec, Topology, Transport,
};
use headless_harness::{Namespace, Unavailable, services};
use headless_rabbitmq::{RabbitMq, RabbitMqConfig};
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use uuid::Uuid;

/// How long anything may take that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A handle, and what it is about.
pub(crate) struct Shop {
    pub(crate) rabbitmq: RabbitMq,
    pub(crate) config: RabbitMqConfig,
}

pub(crate) fn orders() -> TopicName {
    TopicName::parse("orders").unwrap()
}

pub(crate) fn billing() -> GroupName {
    GroupName::parse("billing").unwrap()
}

/// What is there, or nothing where a test cannot run.
#[expect(clippy::print_stdout, reason = "a test that did not run says so")]
pub(crate) fn there<T>(found: Result<T, Unavailable>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(Unavailable::Absent(why)) if !services::is_required("rabbitmq") => {
            println!("ignored: {why}");
            None
        }
        Err(why) => panic!("{why:?}"),
    }
}

impl Shop {
    /// On the server that tests share.
    pub(crate) async fn open(order: TopicOrder) -> Option<Self> {
        Some(Self::open_at(&there(services::rabbitmq())?, order).await)
    }

    pub(crate) async fn open_at(url: &str, order: TopicOrder) -> Self {
        Self::open_with(config_at(url), order).await
    }

    pub(crate) async fn open_with(config: RabbitMqConfig, order: TopicOrder) -> Self {
        let rabbitmq = RabbitMq::connect_with(config.clone()).await.unwrap();
        let shop = Self { rabbitmq, config };
        shop.declare(order).await;
        shop
    }

    pub(crate) async fn declare(&self, order: TopicOrder) {
        let topology = Topology::new()
            .with_topic(TopicSpec::new(orders(), order))
            .with_group(GroupSpec::new(billing(), orders()));
        self.rabbitmq.declare(&topology).await.unwrap();
    }

    /// The name of something of this namespace on the server.
    pub(crate) fn name(&self, rest: &str) -> lapin::types::ShortString {
        format!("{}{rest}", self.config.namespace.as_str()).into()
    }

    pub(crate) async fn join(&self) -> Box<dyn Subscriber> {
        self.rabbitmq.subscribe(&member_of(billing())).await.unwrap()
    }

    /// How many messages a queue of this namespace holds, of which nobody has any.
    pub(crate) async fn ready(&self, rest: &str) -> u32 {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = self.rabbitmq.client().await.unwrap();
        let queue = channel
            .queue_declare(self.name(rest), passive, FieldTable::default())
            .await
            .unwrap();
        queue.message_count()
    }

    pub(crate) async fn end(self) {
        self.rabbitmq.delete_namespace().await.unwrap();
        self.rabbitmq.close().await.unwrap();
    }
}

/// The settings for a namespace that nobody else has.
pub(crate) fn config_at(url: &str) -> RabbitMqConfig {
    RabbitMqConfig::new(url)
        .unwrap()
        .with_namespace(headless_rabbitmq::Namespace::parse(Namespace::unique().as_str()).unwrap())
        .with_call_timeout(Duration::from_secs(5))
}

/// What a new member of this group asks for.
pub(crate) fn member_of(group: GroupName) -> Subscription {
    Subscription::new(group, orders(), Owner::from_bits(Uuid::new_v4().as_u128()))
}

pub(crate) fn partitioned(count: u16) -> TopicOrder {
    TopicOrder::Partitioned(Partitions::new(count).unwrap())
}

/// A message with this body, of the key that it names.
pub(crate) fn message(body: &str) -> Message {
    let key = body.split(':').next().unwrap();
    Message::new(
        MessageId::from_uuid(Uuid::new_v4()),
        orders(),
        chrono::DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
        body.to_owned().into_bytes().into(),
    )
    .with_key(PartitionKey::parse(key).unwrap())
}

/// Sends each message until it is accepted; answers how often one had to be sent again.
pub(crate) async fn send_all(rabbitmq: &RabbitMq, messages: &[Message]) -> usize {
    let mut again = 0;
    for message in messages {
        let sending = async {
            while !matches!(
                rabbitmq.send(std::slice::from_ref(message)).await[..],
                [Ok(Sent::Accepted)]
            ) {
                again += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, sending).await.unwrap();
    }
    again
}

/// Receives, and acks, until this many different messages were seen; answers their bodies as they first came.
pub(crate) async fn work(member: &dyn Subscriber, count: usize) -> Vec<String> {
    work_until(member, |bodies| bodies.len() >= count).await
}

/// Receives, and acks, until what was seen is enough; answers the bodies as they first came.
pub(crate) async fn work_until(
    member: &dyn Subscriber,
    mut is_enough: impl FnMut(&[String]) -> bool,
) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut bodies = Vec::new();
    let working = async {
        while !is_enough(&bodies) {
            // Errors are a server that is away: the contract is to call again.
            let received = match member.receive(50, Duration::from_millis(200)).await {
                Ok(received) => received,
                Err(error) => {
                    assert!(error.is_retryable(), "{error:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Received::nothing()
                }
            };
            let acks: Vec<_> = received
                .deliveries
                .iter()
                .map(|d| Settlement::Ack(d.token))
                .collect();
            for delivery in received.deliveries {
                if seen.insert(delivery.message.id) {
                    bodies.push(String::from_utf8(delivery.message.payload.to_vec()).unwrap());
                }
            }
            drop(member.settle(&acks).await);
        }
    };
    if tokio::time::timeout(PATIENCE * 2, working).await.is_err() {
        panic!("only {} messages came", bodies.len());
    }
    bodies
}
