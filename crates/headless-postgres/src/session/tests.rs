//! What the provider's connections are, whatever the server's defaults, and what is left of them.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use headless_abstractions::{ErrorKind, OwnedTx, UnitOfWorkStore};
use headless_harness::{Namespace, services};
use sqlx::Row;
use tokio::time::timeout;

use crate::{Postgres, PostgresConfig, Schema, wake::Signal};

const DROP: &str = include_str!("tests/drop.sql");
const OTHERS: &str = include_str!("tests/others.sql");
const ISOLATION: &str = include_str!("tests/isolation.sql");

/// Runs a test on a handle in a schema of its own, where there is a server.
async fn run(parameters: &str, test: impl AsyncFnOnce(&Postgres)) {
    let Ok(url) = services::postgres() else {
        assert!(!services::is_required("postgres"));
        return;
    };
    let schema = Schema::parse(Namespace::unique().as_str()).unwrap();
    let config = PostgresConfig::new(&format!("{url}?application_name={schema}&{parameters}"))
        .unwrap()
        .with_schema(schema.clone());
    let postgres = Postgres::connect_with(config).await.unwrap();
    let ended = AssertUnwindSafe(test(&postgres)).catch_unwind().await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(DROP.replace("{schema}", schema.as_str())))
        .execute(postgres.client())
        .await
        .unwrap();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

#[tokio::test]
async fn should_read_what_is_committed_when_the_default_is_another_isolation() {
    run(
        "options[default_transaction_isolation]=serializable",
        async |postgres| {
            let mut tx = postgres.begin().await.unwrap();
            let row = sqlx::query(ISOLATION).fetch_one(tx.conn()).await.unwrap();
            assert_eq!(row.get::<&str, _>(0), "read committed", "a unit of work");
            Box::new(tx).rollback().await.unwrap();

            let shared = &postgres.shared;
            let mut session = shared.session().await.unwrap();
            let row = sqlx::query(ISOLATION).fetch_one(&mut *session).await.unwrap();
            assert_eq!(row.get::<&str, _>(0), "read committed", "a call");
            session.finish(&shared.statements).await.unwrap();

            let row = sqlx::query(ISOLATION).fetch_one(postgres.client()).await.unwrap();
            assert_eq!(row.get::<&str, _>(0), "serializable", "the application's own");
        },
    )
    .await;
}

#[tokio::test]
async fn should_leave_nothing_behind_when_closed_and_be_closed_twice() {
    run("max_connections=2", async |postgres| {
        let shared = &postgres.shared;
        let open = postgres.begin().await.unwrap();
        let idle = postgres.begin().await.unwrap();
        Box::new(idle).commit().await.unwrap();
        shared.wake.notify(Signal::Store);
        shared.wake.wait(Signal::Store, Duration::from_secs(30)).await;

        let bound = Duration::from_secs(10);
        timeout(bound, shared.close()).await.unwrap().unwrap();
        timeout(bound, shared.close()).await.unwrap().unwrap();
        let error = postgres.begin().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        // An open transaction is rolled back with its connection.
        assert_eq!(
            Box::new(open).commit().await.unwrap_err().kind(),
            ErrorKind::Closed
        );

        let mut others = String::new();
        let alone = timeout(bound, async {
            loop {
                let row = sqlx::query(OTHERS).fetch_one(postgres.client()).await.unwrap();
                others = row.get(0);
                if others.is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert!(
            alone.is_ok(),
            "left beside the application's own connection: {others}"
        );
    })
    .await;
}
