//! The mark that a transaction begins with, where it is not what it usually is.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use headless_abstractions::{
    Arrival, GroupName, Hold, InboxState, InboxStore, Marked, Message, MessageId, OwnedTx, StoreTx,
    TopicName, UnitOfWorkStore,
};
use headless_postgres::Postgres;
use uuid::Uuid;

use crate::world::World;

fn mark(n: u128) -> [(Arrival, Hold); 1] {
    let group = GroupName::parse("billing").unwrap();
    let topic = TopicName::parse("orders").unwrap();
    let id = MessageId::from_uuid(Uuid::from_u128(n));
    let message = Message::new(id, topic, DateTime::<Utc>::UNIX_EPOCH, Bytes::new());
    [(Arrival::of(&group, &message, true), Hold::Absent)]
}

/// Begins and commits once, so that its connection was used before.
async fn warm(postgres: &Postgres) {
    let tx = postgres.begin().await.unwrap();
    Box::new(tx).commit().await.unwrap();
}

#[tokio::test]
async fn should_say_so_when_a_transaction_begins_with_a_mark_that_is_there() {
    World::run(async |world| {
        let postgres = world.connect().await;
        warm(&postgres).await;
        for expected in [Marked::Now, Marked::Already(InboxState::Processed)] {
            let mut tx = postgres.begin_to_mark().await.unwrap();
            assert_eq!(tx.mark_processed(&mark(1)).await.unwrap(), [expected]);
            sqlx::query("select 1").execute(tx.conn()).await.unwrap();
            Box::new(tx).commit().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn should_be_busy_and_go_on_when_another_transaction_has_the_mark() {
    World::run(async |world| {
        let config = world.config().with_lock_timeout(Duration::from_millis(50));
        let postgres = Postgres::connect_with(config).await.unwrap();
        let mut first = postgres.begin().await.unwrap();
        assert_eq!(first.mark_processed(&mark(1)).await.unwrap(), [Marked::Now]);
        warm(&postgres).await;

        let mut second = postgres.begin_to_mark().await.unwrap();
        let answer = second.mark_processed(&mark(1)).await.unwrap();
        assert!(matches!(answer[..], [Marked::Busy { .. }]), "{answer:?}");
        let timeout: String = sqlx::query_scalar("show lock_timeout")
            .fetch_one(second.conn())
            .await
            .unwrap();
        assert_eq!(timeout, "0", "the application's own statements wait as before");
        Box::new(second).rollback().await.unwrap();
        Box::new(first).rollback().await.unwrap();
        assert_eq!(postgres.mark(&mark(1)).await.unwrap(), [Marked::Now]);
    })
    .await;
}

#[tokio::test]
async fn should_use_another_connection_when_the_application_has_thrown_away_what_was_prepared() {
    World::run(async |world| {
        let config = world.config().with_max_connections(std::num::NonZeroU32::MIN);
        let postgres = Postgres::connect_with(config).await.unwrap();
        let mut tx = postgres.begin().await.unwrap();
        sqlx::raw_sql("deallocate all").execute(tx.conn()).await.unwrap();
        Box::new(tx).commit().await.unwrap();

        let mut refused = postgres.begin_to_mark().await.unwrap();
        refused.mark_processed(&mark(1)).await.unwrap_err();
        Box::new(refused).rollback().await.unwrap();
        let mut tx = postgres.begin_to_mark().await.unwrap();
        assert_eq!(tx.mark_processed(&mark(1)).await.unwrap(), [Marked::Now]);
        Box::new(tx).commit().await.unwrap();
    })
    .await;
}
