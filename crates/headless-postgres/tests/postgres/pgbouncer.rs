//! Behind a pooler that gives a session to each transaction.

use std::{borrow::Cow, num::NonZero};

use headless::{Consumer, Context, Event, HandlerResult, Headless, Ordered, PublishExt};
use headless_abstractions::{OwnedTx, UnitOfWorkStore};
use headless_harness::services::{PrivatePgbouncer, private_postgres};
use headless_postgres::{Pooler, Postgres, PostgresConfig};
use sqlx::{Connection, Row};

use crate::world::{PATIENCE, World, few, present};

const CREATE: &str = include_str!("sql/pooled_create.sql");
const COUNT: &str = include_str!("sql/pooled_count.sql");
const INSERT: &str = include_str!("sql/pooled_insert.sql");

/// Runs a test in the world of a server, and with the settings that lead to it through a pooler with few sessions.
async fn run(test: impl AsyncFnOnce(&World, PostgresConfig)) {
    let Some(server) = present(private_postgres()) else {
        return;
    };
    let pooler = PrivatePgbouncer::builder(&server.url()).pool_size(NonZero::new(2).unwrap());
    let Some(pooler) = present(pooler.start()) else {
        return;
    };
    World::run_at(server.url(), async |world| {
        let config = world
            .config_at(&pooler.url())
            .with_pooler(Pooler::Transaction)
            .with_max_connections(few(8));
        test(world, config).await;
    })
    .await;
}

#[tokio::test]
async fn should_migrate_and_connect_when_sessions_are_shared() {
    run(async |_, config| {
        let applied = Postgres::migrate(&config).await.unwrap();
        assert!(!applied.is_empty());
        assert!(Postgres::check(&config).await.unwrap().pending.is_empty());
        let (first, second) = tokio::join!(
            Postgres::connect_with(config.clone()),
            Postgres::connect_with(config.clone())
        );
        assert_eq!(first.unwrap().store_id(), second.unwrap().store_id());
    })
    .await;
}

#[tokio::test]
async fn should_have_no_statement_compiled_when_sessions_are_shared() {
    run(async |_, config| {
        let postgres = Postgres::connect_with(config).await.unwrap();
        for _ in 0..4 {
            let mut tx = postgres.begin().await.unwrap();
            let jit: String = sqlx::query_scalar("show jit").fetch_one(tx.conn()).await.unwrap();
            assert_eq!(jit, "off");
            Box::new(tx).rollback().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn should_keep_units_of_work_apart_when_many_share_two_sessions() {
    run(async |world, config| {
        let postgres = Postgres::connect_with(config).await.unwrap();
        world.raw(CREATE).await;
        let insert = world.sql(INSERT).0;
        let count = world.sql(COUNT).0;
        let tasks: Vec<_> = (0..64)
            .map(|number: i32| {
                let (postgres, insert, count) = (postgres.clone(), insert.clone(), count.clone());
                tokio::spawn(async move {
                    let mut tx = postgres.begin().await.unwrap();
                    // The application's own statements, as the client sends them everywhere: with a name.
                    for text in ["a", "b"] {
                        sqlx::query(sqlx::AssertSqlSafe(insert.clone()))
                            .bind(number)
                            .bind(text)
                            .execute(tx.conn())
                            .await
                            .unwrap();
                    }
                    let row = sqlx::query(sqlx::AssertSqlSafe(count.clone()))
                        .bind(number)
                        .fetch_one(tx.conn())
                        .await
                        .unwrap();
                    assert_eq!(row.get::<i64, _>(0), 2);
                    if number % 4 == 0 {
                        Box::new(tx).rollback().await.unwrap();
                    } else {
                        Box::new(tx).commit().await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let rows = world.rows(include_str!("sql/pooled_all.sql")).await;
        assert_eq!(rows[0].get::<i64, _>(0), 96);
    })
    .await;
}

#[tokio::test]
async fn should_run_in_a_transaction_of_the_applications_pool_when_that_begins_as_the_page_says() {
    run(async |world, config| {
        let postgres = Postgres::connect_with(config).await.unwrap();
        world.raw(CREATE).await;
        for _ in 0..3 {
            let mut conn = postgres.client().acquire().await.unwrap();
            let mut tx = conn
                .begin_with(include_str!("../../queries/session/begin_pooled.sql"))
                .await
                .unwrap();
            let mut enlisted = postgres.enlist(&mut tx);
            sqlx::query(world.sql(INSERT))
                .bind(1)
                .bind("x")
                .execute(enlisted.conn())
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
        let rows = world.rows(include_str!("sql/pooled_all.sql")).await;
        assert_eq!(rows[0].get::<i64, _>(0), 3);
    })
    .await;
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Noted {
    number: i32,
}

impl Event for Noted {
    const TOPIC: &'static str = "notes.noted";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Owned((self.number % 10).to_string()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_handle_each_message_once_when_outbox_inbox_and_transport_share_two_sessions() {
    run(async |world, config| {
        let postgres = Postgres::connect_with(config).await.unwrap();
        world.raw(CREATE).await;
        let insert = world.sql(INSERT).0;
        let write = move |noted: Noted, cx: Context| {
            let insert = insert.clone();
            async move { write(noted, cx, insert).await }
        };
        let runtime = Headless::builder("pooled")
            .store(&postgres)
            .transport(postgres.clone())
            .topic::<Noted>(Ordered::partitions(4))
            .consumer(
                Consumer::group("writers")
                    .on(write)
                    .ordered_by_key()
                    .concurrency(4),
            )
            .start()
            .await
            .unwrap();
        for batch in 0..8 {
            let mut work = runtime.begin::<Postgres>().await.unwrap();
            for number in 0..25 {
                let number = batch * 25 + number;
                work.publish(&Noted { number }).await.unwrap();
            }
            work.commit().await.unwrap();
        }
        runtime.settled(PATIENCE).await.unwrap();
        let rows = world.rows(include_str!("sql/pooled_order.sql")).await;
        assert_eq!(rows[0].get::<i64, _>("handled"), 200);
        assert_eq!(rows[0].get::<i64, _>("distinct"), 200);
        assert_eq!(rows[0].get::<i64, _>("overtaken"), 0);
        assert_eq!(runtime.backlog().await.unwrap().dead, 0);
        runtime.shutdown(PATIENCE).await.unwrap();
    })
    .await;
}

async fn write(noted: Noted, cx: Context, insert: String) -> HandlerResult {
    let mut work = cx.begin::<Postgres>().await?;
    sqlx::query(sqlx::AssertSqlSafe(insert))
        .bind(noted.number)
        .bind((noted.number % 10).to_string())
        .execute(work.conn())
        .await?;
    Ok(work.commit().await?)
}
