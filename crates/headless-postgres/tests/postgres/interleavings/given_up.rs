//! Calls that are given up, while the server waits for somebody's lock on their behalf: it gives them up too.

use std::{num::NonZero, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    ErrorKind, GroupName, GroupSpec, Message, MessageId, OutboxStore, OwnedTx, StoreTx, TopicName,
    TopicOrder, TopicSpec, Topology, Transport, UnitOfWorkStore,
};
use headless_harness::services::{PrivatePgbouncer, private_postgres};
use headless_postgres::{Pooler, Postgres, PostgresConfig};
use uuid::Uuid;

use super::pause::{commit, open, until_gone, until_waits};
use crate::world::{World, present};

const LOCK_PARTS: &str = include_str!("../sql/transport_lock_parts.sql");
const SOON: Duration = Duration::from_millis(500);

fn message() -> Message {
    let id = MessageId::from_uuid(Uuid::from_u128(1));
    let topic = TopicName::parse("orders").unwrap();
    Message::new(id, topic, DateTime::UNIX_EPOCH, Bytes::from_static(b"x"))
}

async fn give_up_a_send(world: &World, config: PostgresConfig) {
    let postgres = Postgres::connect_with(config.with_call_timeout(SOON))
        .await
        .unwrap();
    let topic = TopicName::parse("orders").unwrap();
    let topology = Topology::new()
        .with_topic(TopicSpec::new(topic.clone(), TopicOrder::Unordered))
        .with_group(GroupSpec::new(GroupName::parse("billing").unwrap(), topic));
    postgres.declare(&topology).await.unwrap();
    let holder = open(world, LOCK_PARTS).await;
    let (answers, ()) = tokio::join!(
        async { postgres.send(&[message()]).await },
        until_waits(world, "transport_send")
    );
    let error = answers.into_iter().next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    // What it waits for is there still.
    until_gone(world, "transport_send").await;
    commit(holder).await;
    postgres.close().await.unwrap();
}

#[tokio::test]
async fn should_end_on_the_server_when_a_call_has_timed_out() {
    World::run(async |world| give_up_a_send(world, world.config()).await).await;
}

#[tokio::test]
async fn should_end_on_the_server_when_a_call_has_timed_out_behind_a_pooler() {
    let Some(server) = present(private_postgres()) else {
        return;
    };
    let pooler = PrivatePgbouncer::builder(&server.url()).pool_size(NonZero::new(2).unwrap());
    let Some(pooler) = present(pooler.start()) else {
        return;
    };
    World::run_at(server.url(), async |world| {
        let config = world.config_at(&pooler.url()).with_pooler(Pooler::Transaction);
        give_up_a_send(world, config).await;
    })
    .await;
}

#[tokio::test]
async fn should_end_on_the_server_when_a_call_of_a_unit_of_work_has_timed_out() {
    World::run(async |world| {
        let other = world.connect().await;
        let postgres = Postgres::connect_with(world.config().with_call_timeout(SOON))
            .await
            .unwrap();
        // Another transaction has stored the same message and is open.
        let mut holds = other.begin().await.unwrap();
        holds.append(&[message()]).await.unwrap();
        let mut waits = postgres.begin().await.unwrap();
        let error = waits.append(&[message()]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        drop(waits);
        until_gone(world, "outbox").await;
        Box::new(holds).commit().await.unwrap();
        assert_eq!(other.reap_expired(1).await.unwrap(), 0);
    })
    .await;
}
