//! Nodes on a server on which something hangs: neither their burials nor their heartbeats wait for it.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    Beat, ClaimOutbox, GroupName, GroupSpec, MembershipStore, Message, MessageId, NodeFacts, OutboxStore,
    Owner, Registration, TopicName, TopicOrder, TopicSpec, Topology, Transport,
};
use headless_postgres::Postgres;
use sqlx::{Connection, Row};
use uuid::Uuid;

use crate::{
    interleavings::pause::{commit, open, until_waits},
    world::{World, eventually, few},
};

const HOLD: &str = include_str!("sql/node_hold.sql");
const LOOKED_AT: &str = include_str!("sql/node_looked_at.sql");
const MANY: &str = include_str!("sql/node_many.sql");
const READ: &str = include_str!("sql/node_read.sql");
const REGISTERING: &str = include_str!("sql/node_registering.sql");
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
        assert_eq!(claimed.rows.len(), 1, "what n1 held is locked");
        assert_eq!(
            postgres.sweep(10).await.unwrap(),
            0,
            "nobody waits for it later, either"
        );
        commit(hangs).await;
        // The lease would last for minutes.
        swept(&postgres, 1).await;
        let claimed = OutboxStore::claim(&postgres, &heir).await.unwrap();
        assert_eq!(claimed.rows.len(), 1, "what n1 held");
    })
    .await;
}

/// Looks at those that have ended until so many claims are free.
async fn swept(postgres: &Postgres, claims: u64) {
    let mut freed = 0;
    eventually("the claims are free", async || {
        freed += postgres.sweep(10).await.unwrap();
        (freed >= claims).then_some(())
    })
    .await;
    assert_eq!(freed, claims);
}

#[tokio::test]
async fn should_keep_what_an_owner_holds_that_registers_while_it_is_swept() {
    World::run(async |world| {
        let postgres = world.connect().await;
        dying(&postgres, 1).await;
        let hangs = open(world, HOLD).await;
        let mut told = Vec::new();
        while told.is_empty() {
            told = postgres.bury(10).await.unwrap();
        }
        assert_eq!(told[0].freed, 0, "what is locked");
        let registering = open(world, REGISTERING).await;
        commit(hangs).await;
        // It is not known yet whether the owner lives: nothing is freed, and nobody waits.
        assert_eq!(postgres.sweep(10).await.unwrap(), 0);
        commit(registering).await;
        postgres.append(&[message(2)]).await.unwrap();
        let anew = ClaimOutbox::new(Owner::from_bits(1), 10, LONG);
        let claimed = OutboxStore::claim(&postgres, &anew).await.unwrap();
        let claims: Vec<_> = claimed.rows.iter().map(|row| row.claim).collect();
        assert_eq!(claims.len(), 1, "what its former life held ends with its lease");
        eventually("nobody is left to look at", async || {
            assert_eq!(postgres.sweep(10).await.unwrap(), 0);
            let left = world.rows(LOOKED_AT).await;
            left.is_empty().then_some(())
        })
        .await;
        let settled = postgres.ack(Owner::from_bits(1), &claims).await.unwrap();
        assert!(settled.is_complete(), "{settled:?}");
    })
    .await;
}

#[tokio::test]
async fn should_read_a_few_nodes_when_thousands_have_ended() {
    World::run(async |world| {
        Postgres::migrate(&world.config()).await.unwrap();
        world.raw(MANY).await;
        for (what, statement) in [
            ("a burial", include_str!("../../queries/membership/bury.sql")),
            (
                "a second look",
                include_str!("../../queries/membership/sweep.sql"),
            ),
            ("forgetting", include_str!("../../queries/membership/forget.sql")),
            (
                "a look at the living",
                include_str!("../../queries/membership/living.sql"),
            ),
        ] {
            // As for a node that has been here for long; what is forgotten is older than any of these.
            let mut conn = world.conn().await;
            let mut tx = conn.begin().await.unwrap();
            let query = sqlx::query(world.sql(statement));
            let query = match what {
                "forgetting" => query.bind(1_000_000_000_i64).bind(20_i64),
                "a look at the living" => query.bind(0_i64).bind(1_001_i64),
                _ => query,
            };
            let rows = query.fetch_all(&mut *tx).await.unwrap();
            if what == "a look at the living" {
                assert_eq!(rows.len(), 10);
            }
            let read = sqlx::query(world.sql(READ)).fetch_one(&mut *tx).await.unwrap();
            let read: i64 = read.get("read");
            assert!(read <= 20, "{what} read {read} rows of 5 010");
            tx.rollback().await.unwrap();
            conn.close().await.unwrap();
        }
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
