//! Nodes on a server on which something hangs: neither their burials nor their heartbeats wait for it.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    Beat, ClaimOutbox, GroupName, GroupSpec, MembershipStore, Message, MessageId, NodeFacts, OutboxStore,
    Owner, Registration, TopicName, TopicOrder, TopicSpec, Topology, Transport,
};
use headless_postgres::Postgres;
use uuid::Uuid;

use crate::{
    interleavings::pause::{commit, open, until_waits},
    world::{World, few},
};

const HOLD: &str = include_str!("sql/node_hold.sql");
const LOCK_PARTS: &str = include_str!("sql/transport_lock_parts.sql");
const LONG: Duration = Duration::from_secs(600);
const SILENCE: Duration = Duration::from_millis(100);

fn message(n: u128) -> Message {
    let id = MessageId::from_uuid(Uuid::from_u128(n));
    let topic = TopicName::parse("orders").unwrap();
    Message::new(id, topic, DateTime::UNIX_EPOCH, Bytes::from_static(b"x"))
}

fn registration(n: u128, dead_after: Duration) -> Registration {
    Registration::new(Owner::from_bits(n), "orders", &format!("n{n}"))
        .unwrap()
        .with_silence(dead_after / 2, dead_after)
        .unwrap()
}

/// Registers a node that dies soon, with a row of the outbox under a long lease.
async fn dying(postgres: &Postgres, n: u128) {
    postgres.register(&registration(n, SILENCE)).await.unwrap();
    postgres.append(&[message(n)]).await.unwrap();
    let claim = ClaimOutbox::new(Owner::from_bits(n), 1, LONG);
    let claimed = OutboxStore::claim(postgres, &claim).await.unwrap();
    assert_eq!(claimed.rows.len(), 1);
}

#[tokio::test]
async fn should_pass_over_what_a_hanging_transaction_holds_when_it_buries() {
    World::run(async |world| {
        let postgres = world.connect().await;
        dying(&postgres, 1).await;
        let hangs = open(world, HOLD).await;
        dying(&postgres, 2).await;
        // What dies is told once: those who are not silent for long enough yet are told later.
        let mut told = Vec::new();
        while told.len() < 2 {
            told.extend(postgres.bury(10).await.unwrap());
        }
        let freed: Vec<_> = told.iter().map(|death| (&*death.node, death.freed)).collect();
        assert_eq!(freed, [("n1", 0), ("n2", 1)]);
        let heir = ClaimOutbox::new(Owner::from_bits(3), 10, LONG);
        let claimed = OutboxStore::claim(&postgres, &heir).await.unwrap();
        assert_eq!(claimed.rows.len(), 1, "what n1 held is left to its lease");
        commit(hangs).await;
    })
    .await;
}

#[tokio::test]
async fn should_hear_a_node_when_every_connection_for_calls_is_busy() {
    World::run(async |world| {
        let config = world
            .config()
            .with_control_connections(few(1))
            .with_acquire_timeout(Duration::from_millis(300));
        let postgres = Postgres::connect_with(config).await.unwrap();
        let topic = TopicName::parse("orders").unwrap();
        let topology = Topology::new()
            .with_topic(TopicSpec::new(topic.clone(), TopicOrder::Unordered))
            .with_group(GroupSpec::new(GroupName::parse("billing").unwrap(), topic));
        postgres.declare(&topology).await.unwrap();
        let incarnation = postgres.register(&registration(1, LONG)).await.unwrap();
        let holder = open(world, LOCK_PARTS).await;
        let (sending, ()) = (postgres.clone(), ());
        let sending = tokio::spawn(async move { sending.send(&[message(1)]).await });
        until_waits(world, "transport_send").await;
        let owner = Owner::from_bits(1);
        let beat = postgres.heartbeat(owner, incarnation, &NodeFacts::none()).await;
        assert_eq!(beat.unwrap(), Beat::Accepted);
        assert!(
            postgres.bury(1).await.is_err(),
            "a call that is no heartbeat has no connection"
        );
        commit(holder).await;
        sending.await.unwrap();
    })
    .await;
}
