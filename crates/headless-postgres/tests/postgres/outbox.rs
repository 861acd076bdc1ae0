//! What a claim skips: never a row that commits late, and never the backlog of a blocked key again and again.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    Abandon, Claim, ClaimOutbox, InFlight, Message, MessageId, OutboxRow, OutboxStore, OwnedTx, Owner,
    PartitionKey, StoreTx, TopicName, UnitOfWorkStore,
};
use headless_harness::{Fixture, Namespace, OrderCheck, services::PrivatePostgres};
use headless_postgres::Postgres;
use sqlx::{Connection, Row};
use uuid::Uuid;

use crate::{
    shared::PostgresFixture,
    world::{World, eventually, present},
};

const CLAIM_ONE: &str = include_str!("sql/outbox_claim_one.sql");
const FILL: &str = include_str!("sql/outbox_fill.sql");
const MARKS: &str = include_str!("sql/outbox_marks.sql");
const NEIGHBOUR: &str = include_str!("sql/outbox_neighbour.sql");
const COMMIT_PREPARED: &str = include_str!("sql/outbox_commit_prepared.sql");
const PREPARE: &str = include_str!("sql/outbox_prepare.sql");
const PUBLISH: &str = include_str!("sql/outbox_publish.sql");
const WRITE_ELSEWHERE: &str = include_str!("sql/outbox_write_elsewhere.sql");
const READ: &str = include_str!("sql/outbox_read.sql");

/// A lease or delay that does not end within a test.
const LONG: Duration = Duration::from_secs(600);
/// Longer than the marks stay as they are.
const STEP: Duration = Duration::from_millis(25);
const ME: Owner = Owner::from_bits(7);

fn message(n: u128, key: Option<&str>) -> Message {
    let topic = TopicName::parse("orders").unwrap();
    let id = MessageId::from_uuid(Uuid::from_u128(n));
    let message = Message::new(id, topic, DateTime::UNIX_EPOCH, Bytes::from_static(b"x"));
    match key {
        Some(key) => message.with_key(PartitionKey::parse(key).unwrap()),
        None => message,
    }
}

fn numbers(rows: &[OutboxRow]) -> Vec<u128> {
    rows.iter().map(|row| row.claim.id.as_uuid().as_u128()).collect()
}

fn claims(rows: &[OutboxRow]) -> Vec<Claim> {
    rows.iter().map(|row| row.claim).collect()
}

async fn claim(postgres: &Postgres, limit: usize, in_flight: InFlight) -> Vec<OutboxRow> {
    let request = ClaimOutbox::new(ME, limit, LONG).with_in_flight(in_flight);
    postgres.claim(&request).await.unwrap().rows
}

/// What the store has marked as over among the rows without a key.
async fn mark(world: &World) -> i64 {
    world.rows(MARKS).await[0].get("mark")
}

/// Sends one message after the other, and lets the marks move in between as far as they may.
async fn send(postgres: &Postgres, numbers_to_send: std::ops::Range<u128>) {
    for n in numbers_to_send {
        postgres.append(&[message(n, None)]).await.unwrap();
        let rows = claim(postgres, 10, InFlight::RunPerKey).await;
        assert_eq!(numbers(&rows), [n], "what is committed is sent at once");
        assert!(postgres.ack(ME, &claims(&rows)).await.unwrap().is_complete());
        tokio::time::sleep(STEP).await;
    }
}

#[tokio::test]
async fn should_go_on_and_miss_nothing_when_a_transaction_stays_open() {
    World::run(async |world| {
        let postgres = world.connect().await;
        send(&postgres, 1..5).await;
        let mut late = postgres.begin().await.unwrap();
        late.append(&[message(100, None)]).await.unwrap();
        let before = mark(world).await;

        // Twenty later ones are claimed and gone. A cursor at the last of them, or a mark that the open transaction does
        // not hold back, would be beyond the late row by now.
        send(&postgres, 5..25).await;
        let frozen = mark(world).await;
        assert!(
            frozen <= before + 4,
            "the mark went from {before} to {frozen} past an open transaction"
        );
        Box::new(late).commit().await.unwrap();
        assert_eq!(
            numbers(&claim(&postgres, 10, InFlight::RunPerKey).await),
            [100],
            "the row that committed late"
        );
    })
    .await;
}

#[tokio::test]
async fn should_miss_nothing_when_the_open_transaction_is_the_youngest() {
    // The end of a snapshot is the last transaction that has *ended*: one that is open may be beyond it. Where nothing
    // else ends meanwhile, a mark that relies on it passes the open one.
    World::run(async |world| {
        let postgres = world.connect().await;
        let mut late = postgres.begin().await.unwrap();
        late.append(&[message(1, None)]).await.unwrap();
        for _ in 0..10 {
            assert!(claim(&postgres, 10, InFlight::RunPerKey).await.is_empty());
            tokio::time::sleep(STEP).await;
        }
        assert_eq!(
            mark(world).await,
            0,
            "the mark while the first row is not committed"
        );
        Box::new(late).commit().await.unwrap();
        assert_eq!(numbers(&claim(&postgres, 10, InFlight::RunPerKey).await), [1]);
    })
    .await;
}

#[tokio::test]
async fn should_miss_nothing_when_a_transaction_is_prepared() {
    // Nobody runs it any more, and it is open all the same.
    let server = PrivatePostgres::builder()
        .setting("fsync", "off")
        .setting("max_prepared_transactions", "1");
    let Some(server) = present(server.start()) else {
        return;
    };
    World::run_at(server.url(), async |world| {
        let postgres = world.connect().await;
        send(&postgres, 1..5).await;
        world.raw(PREPARE).await;
        let before = mark(world).await;
        send(&postgres, 5..25).await;
        let frozen = mark(world).await;
        assert!(
            frozen <= before + 4,
            "the mark went from {before} to {frozen} past a prepared transaction"
        );
        world.raw(COMMIT_PREPARED).await;
        let rows = claim(&postgres, 10, InFlight::RunPerKey).await;
        assert_eq!(rows.len(), 1, "the row that committed late");
    })
    .await;
}

#[tokio::test]
async fn should_move_the_mark_when_a_transaction_of_others_stays_open() {
    World::run(async |world| {
        let postgres = world.connect().await;
        let mut other = world.conn().await;
        let mut open = other.begin().await.unwrap();
        sqlx::raw_sql(world.sql(WRITE_ELSEWHERE))
            .execute(&mut *open)
            .await
            .unwrap();
        send(&postgres, 1..10).await;
        eventually("the mark moves", async || {
            assert!(claim(&postgres, 10, InFlight::RunPerKey).await.is_empty());
            Some(mark(world).await).filter(|mark| *mark >= 9)
        })
        .await;
        // It holds a lock on the outbox from its first row on.
        sqlx::raw_sql(world.sql(PUBLISH))
            .execute(&mut *open)
            .await
            .unwrap();
        let before = mark(world).await;
        send(&postgres, 10..30).await;
        let frozen = mark(world).await;
        assert!(
            frozen <= before + 4,
            "the mark went from {before} to {frozen} past an open transaction"
        );
        open.commit().await.unwrap();
        assert_eq!(
            claim(&postgres, 10, InFlight::RunPerKey).await.len(),
            1,
            "the row that committed late"
        );
    })
    .await;
}

#[tokio::test]
async fn should_move_the_mark_when_what_is_before_it_is_over() {
    World::run(async |world| {
        let postgres = world.connect().await;
        send(&postgres, 1..10).await;
        let moved = eventually("the mark moves", async || {
            assert!(claim(&postgres, 10, InFlight::RunPerKey).await.is_empty());
            Some(mark(world).await).filter(|mark| *mark >= 9)
        });
        moved.await;
    })
    .await;
}

/// How many rows a claim reads that takes one.
async fn rows_read(world: &World) -> i64 {
    let mut conn = world.conn().await;
    let mut tx = conn.begin().await.unwrap();
    let claimed: i64 = sqlx::query_scalar(world.sql(CLAIM_ONE))
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    assert_eq!(claimed, 1, "a row behind the blocked key");
    let read = sqlx::query_scalar(world.sql(READ))
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    tx.rollback().await.unwrap();
    read
}

#[tokio::test]
async fn should_not_read_the_backlog_again_when_its_key_is_blocked() {
    World::run(async |world| {
        let postgres = world.connect().await;
        postgres.append(&[message(1, Some("hot"))]).await.unwrap();
        let head = claim(&postgres, 1, InFlight::RunPerKey).await;
        world.raw(FILL).await;
        let neighbour: String = world.rows(NEIGHBOUR).await[0].get("key");
        let more: Vec<_> = (2..200).map(|n| message(n, Some(&neighbour))).collect();
        postgres.append(&more).await.unwrap();

        // The head is with a relay that takes its time; then it waits to be tried again.
        for blocked in ["held", "waiting"] {
            if blocked == "waiting" {
                let how = Abandon::unused().with_after(LONG);
                assert!(
                    postgres
                        .abandon(ME, &claims(&head), &how)
                        .await
                        .unwrap()
                        .is_complete()
                );
            }
            eventually(
                &format!("a claim that reads little, the head {blocked}"),
                async || {
                    let rows = claim(&postgres, 1, InFlight::RunPerKey).await;
                    assert_eq!(rows.len(), 1, "a row behind the blocked key");
                    assert!(postgres.ack(ME, &claims(&rows)).await.unwrap().is_complete());
                    let read = rows_read(world).await;
                    (read < 500).then_some(())
                },
            )
            .await;
        }

        // And what was skipped is found once it may be sent.
        let rows = claim(&postgres, 10_000, InFlight::RunPerKey).await;
        assert!(
            rows.iter()
                .all(|row| row.message.key.as_ref().unwrap().as_str() == neighbour)
        );
        assert!(postgres.ack(ME, &claims(&rows)).await.unwrap().is_complete());
        world.raw(include_str!("sql/outbox_due_now.sql")).await;
        let rows = claim(&postgres, 10, InFlight::RunPerKey).await;
        assert_eq!(rows.len(), 10, "the blocked key, from its head");
        assert_eq!(
            rows[0].claim.id, head[0].claim.id,
            "the head of the key that was blocked"
        );
    })
    .await;
}

#[tokio::test]
async fn should_find_another_key_soon_when_one_has_a_long_run_before_it() {
    World::run(async |world| {
        let postgres = world.connect().await;
        world.raw(FILL).await;
        let neighbour: String = world.rows(NEIGHBOUR).await[0].get("key");
        postgres.append(&[message(1, Some(&neighbour))]).await.unwrap();
        // One of each key at a time: 20 000 rows are before it, and it must not wait for all of them.
        for turn in 0..100 {
            let rows = claim(&postgres, 10, InFlight::OnePerKey).await;
            assert!(!rows.is_empty(), "nothing was claimed in turn {turn}");
            assert!(postgres.ack(ME, &claims(&rows)).await.unwrap().is_complete());
            if numbers(&rows).contains(&1) {
                return;
            }
            tokio::time::sleep(STEP).await;
        }
        panic!("the key behind the long run was not found in 100 claims");
    })
    .await;
}

#[tokio::test]
async fn should_keep_the_order_of_commits_for_twenty_seconds() {
    let Some(fixture) = present(PostgresFixture::open(Namespace::unique()).await) else {
        return;
    };
    let report = OrderCheck::lasting(Duration::from_secs(20)).run(&fixture).await;
    fixture.drop_namespace().await.unwrap();
    let report = report.unwrap();
    assert!(report.is_sound(), "{report}");
    assert!(report.sent > 1_000, "{report}");
}
