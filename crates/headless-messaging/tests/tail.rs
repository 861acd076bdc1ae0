//! Watching a topic.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    ErrorKind, GroupName, GroupSpec, Message, MessageId, PartitionKey, Partitions, StartFrom, TopicName,
    TopicOrder, TopicSpec, Topology, Transport,
};
use headless_core::SeededRandom;
use headless_memory::Memory;
use headless_messaging::Tail;

fn orders() -> TopicName {
    TopicName::parse("orders").unwrap()
}

fn billing() -> GroupName {
    GroupName::parse("billing").unwrap()
}

fn message(n: u8) -> Message {
    let id = MessageId::from_uuid(uuid::Uuid::from_bytes([n; 16]));
    Message::new(id, orders(), DateTime::UNIX_EPOCH, Bytes::from(vec![n]))
        .with_key(PartitionKey::parse("k").unwrap())
}

async fn send(memory: &Memory, numbers: impl IntoIterator<Item = u8>) {
    let batch: Vec<_> = numbers.into_iter().map(message).collect();
    for sent in memory.send(&batch).await {
        sent.unwrap();
    }
}

async fn open(memory: &Memory, start: StartFrom) -> headless_abstractions::Result<Tail> {
    let random = Arc::new(SeededRandom::new(7));
    Tail::open(Arc::new(memory.clone()), random, orders(), start).await
}

async fn shop() -> Memory {
    let memory = Memory::new();
    let order = TopicOrder::Partitioned(Partitions::new(4).unwrap());
    let topology = Topology::new()
        .with_topic(TopicSpec::new(orders(), order))
        .with_group(GroupSpec::new(billing(), orders()));
    memory.declare(&topology).await.unwrap();
    memory
}

#[tokio::test(start_paused = true)]
async fn should_show_every_message_in_order_and_take_none_from_other_groups() {
    let memory = shop().await;
    send(&memory, [1]).await;
    let mut tail = open(&memory, StartFrom::Now).await.unwrap();
    send(&memory, 2..=250).await;
    for n in 2..=250 {
        let seen = tail.next().await.unwrap();
        assert_eq!(seen.message.payload[..], [n]);
        assert!(seen.partition.is_some() && !seen.again && seen.malformed.is_none());
    }
    assert_eq!(memory.lag(&billing()).await.unwrap(), 250);
    assert_eq!(
        memory.lag(tail.group()).await.unwrap(),
        0,
        "they are acknowledged"
    );
    let quiet = tokio::time::timeout(Duration::from_mins(10), tail.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    // The wait that was dropped has lost nothing.
    send(&memory, [251]).await;
    assert_eq!(tail.next().await.unwrap().message.payload[..], [251]);
}

#[tokio::test(start_paused = true)]
async fn should_show_what_is_still_there_when_it_starts_from_the_oldest() {
    let memory = shop().await;
    send(&memory, [1, 2]).await;
    let mut tail = open(&memory, StartFrom::Oldest).await.unwrap();
    for n in [1, 2] {
        assert_eq!(tail.next().await.unwrap().message.payload[..], [n]);
    }
}

#[tokio::test(start_paused = true)]
async fn should_leave_no_group_behind_when_it_is_closed() {
    let memory = shop().await;
    let tail = open(&memory, StartFrom::Now).await.unwrap();
    let group = tail.group().clone();
    assert_eq!(memory.lag(&group).await.unwrap(), 0);
    tail.close().await.unwrap();
    assert_eq!(memory.lag(&group).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn should_leave_no_group_behind_when_it_is_dropped_wherever_it_stands() {
    let memory = shop().await;
    let mut tail = open(&memory, StartFrom::Now).await.unwrap();
    let group = tail.group().clone();
    let given_up = tokio::time::timeout(Duration::from_secs(1), tail.next()).await;
    assert!(given_up.is_err());
    drop(tail);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(memory.lag(&group).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn should_say_so_when_its_group_is_removed_or_its_topic_is_not_there() {
    let memory = shop().await;
    let mut tail = open(&memory, StartFrom::Now).await.unwrap();
    memory.remove_group(tail.group()).await.unwrap();
    assert_eq!(tail.next().await.unwrap_err().kind(), ErrorKind::NotFound);
    let empty = Memory::new();
    let error = open(&empty, StartFrom::Now).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("orders"), "{error}");
}
