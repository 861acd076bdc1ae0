//! The transport on virtual time, through its traits.

use std::{collections::BTreeSet, num::NonZeroUsize, time::Duration};

use chrono::DateTime;
use headless_abstractions::{
    Delivery, DeliveryToken, ErrorKind, GroupName, GroupSpec, Message, MessageId, Owner, PartitionKey,
    Partitions, Received, Redelivery, Result, Revoked, Sent, Settlement, Subscriber, Subscription, TopicName,
    TopicOrder, TopicSpec, Topology, Transport,
};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::{Memory, MemoryConfig, clock::TokioClock};

mod links;
mod ordered;
mod sending;
mod unordered;
mod walk;

const NOW: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// The default visibility time, and a little more.
const LAPSE: Duration = Duration::from_secs(31);

fn topic() -> TopicName {
    TopicName::parse("orders").unwrap()
}

fn group() -> GroupName {
    GroupName::parse("billing").unwrap()
}

/// The topology of most cases: one group on one topic.
fn topology(order: TopicOrder) -> Topology {
    Topology::new()
        .with_topic(TopicSpec::new(topic(), order))
        .with_group(GroupSpec::new(group(), topic()))
}

fn partitions(count: u16) -> TopicOrder {
    TopicOrder::Partitioned(Partitions::new(count).unwrap())
}

async fn server(order: TopicOrder) -> Memory {
    server_with(order, MemoryConfig::default()).await
}

async fn server_with(order: TopicOrder, config: MemoryConfig) -> Memory {
    let memory = Memory::with_config(config);
    memory.declare(&topology(order)).await.unwrap();
    memory
}

fn membership(member: u128) -> Subscription {
    Subscription::new(group(), topic(), Owner::from_bits(member))
}

async fn member(memory: &Memory, member: u128) -> Box<dyn Subscriber> {
    memory.subscribe(&membership(member)).await.unwrap()
}

/// The n-th message; its payload is its number.
fn message(n: u32) -> Message {
    let id = MessageId::from_uuid(Uuid::from_u128(u128::from(n)));
    Message::new(id, topic(), DateTime::UNIX_EPOCH, n.to_string().into())
}

fn keyed(n: u32, key: &str) -> Message {
    message(n).with_key(PartitionKey::parse(key).unwrap())
}

fn altered(mut message: Message, alter: impl FnOnce(&mut Message)) -> Message {
    alter(&mut message);
    message
}

async fn send(memory: &Memory, messages: impl IntoIterator<Item = Message>) {
    let batch: Vec<_> = messages.into_iter().collect();
    for answer in memory.send(&batch).await {
        assert_eq!(answer.unwrap(), Sent::Accepted);
    }
}

async fn receive(member: &dyn Subscriber, max: usize) -> Vec<Delivery> {
    let received = member.receive(max, NOW).await.unwrap();
    assert_eq!(received.revoked, []);
    received.deliveries
}

/// For what has to come within two seconds, which is well before any renewal or lease.
async fn promptly<T>(call: impl Future<Output = T>) -> T {
    timeout(2 * SECOND, call)
        .await
        .expect("it should have come at once")
}

fn numbers(deliveries: &[Delivery]) -> Vec<u32> {
    deliveries
        .iter()
        .map(|d| std::str::from_utf8(&d.message.payload).unwrap().parse().unwrap())
        .collect()
}

async fn settle(member: &dyn Subscriber, settlement: Settlement) -> Result<()> {
    member.settle(&[settlement]).await.remove(0)
}

async fn ack_all(member: &dyn Subscriber, deliveries: &[Delivery]) {
    let acks: Vec<_> = deliveries.iter().map(|d| Settlement::Ack(d.token)).collect();
    for answer in member.settle(&acks).await {
        answer.unwrap();
    }
}

const fn requeue(token: DeliveryToken, after: Option<Duration>) -> Settlement {
    Settlement::Requeue { token, after }
}

async fn lag(memory: &Memory) -> u64 {
    memory.lag(&group()).await.unwrap()
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

fn kinds<T: std::fmt::Debug>(results: Vec<Result<T>>) -> Vec<std::result::Result<T, ErrorKind>> {
    results
        .into_iter()
        .map(|result| result.map_err(|error| error.kind()))
        .collect()
}
