//! The facade over PostgreSQL: one database by one URL, with the application's own rows in the units of work.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{borrow::Cow, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use headless::{
    Consumer, Context, ErrorKind, Event, HandlerResult, Headless, Ordered, Postgres, Preset, Providers,
    PublishExt,
    postgres::{
        PostgresConfig,
        sqlx::{self, AssertSqlSafe, Connection, PgConnection, Row},
    },
};
use headless_harness::{Namespace, services};
use serde::{Deserialize, Serialize};

#[path = "postgres/commits.rs"]
mod commits;
#[path = "postgres/heartbeats.rs"]
mod heartbeats;

const MINUTE: Duration = Duration::from_mins(1);

#[derive(Serialize, Deserialize)]
struct Placed {
    order: String,
}

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.order))
    }
}

/// The schema of one test.
#[derive(Clone, Debug)]
struct Schema(String);

impl Schema {
    /// Runs a test with a new one and a URL that names it, where there is a server.
    async fn run(test: impl AsyncFnOnce(&Self, &str)) {
        let server = match services::postgres() {
            Ok(server) => server,
            Err(absent) => {
                assert!(!services::is_required("postgres"), "{absent:?}");
                return;
            }
        };
        let schema = Self(Namespace::unique().as_str().to_owned());
        let sign = if server.contains('?') { '&' } else { '?' };
        let url = format!(
            "{server}{sign}schema={}&max_connections=3&control_connections=2",
            schema.0
        );
        schema.execute(include_str!("postgres/create.sql")).await;
        let ended = AssertUnwindSafe(test(&schema, &url)).catch_unwind().await;
        schema.execute(include_str!("postgres/drop.sql")).await;
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(text.replace("{schema}", &self.0))
    }

    async fn execute(&self, statements: &str) {
        let mut conn = PgConnection::connect(&services::postgres().unwrap())
            .await
            .unwrap();
        sqlx::raw_sql(self.sql(statements))
            .execute(&mut conn)
            .await
            .unwrap();
        conn.close().await.unwrap();
    }
}

async fn bill(placed: Placed, cx: Context) -> HandlerResult {
    let schema = cx.state::<Schema>().unwrap();
    let mut work = cx.begin::<Postgres>().await?;
    sqlx::query(schema.sql(include_str!("postgres/invoice.sql")))
        .bind(&placed.order)
        .execute(work.conn())
        .await?;
    work.commit().await?;
    Ok(())
}

#[tokio::test]
async fn should_commit_rows_with_messages_and_with_marks_when_one_database_is_store_and_transport() {
    Schema::run(async |schema, url| {
        let connected = Providers::builtin().connect(url).await.unwrap();
        let (store, transport) = (connected.store().unwrap(), connected.transport().unwrap());
        let runtime = Headless::builder("orders")
            .any_store(&store)
            .any_transport(&transport)
            .topic::<Placed>(Ordered::partitions(4))
            .consumer(Consumer::group("billing").on(bill).ordered_by_key())
            .state(schema.clone())
            .preset(Preset::Development)
            .start()
            .await
            .unwrap();
        for (order, kept) in [("o-1", true), ("o-2", false), ("o-3", true)] {
            let mut work = runtime.begin::<Postgres>().await.unwrap();
            let insert = sqlx::query(schema.sql(include_str!("postgres/order.sql"))).bind(order);
            insert.execute(work.conn()).await.unwrap();
            work.publish(&Placed {
                order: order.to_owned(),
            })
            .await
            .unwrap();
            if kept {
                work.commit().await.unwrap();
            }
        }
        runtime.settled(MINUTE).await.unwrap();
        let postgres: Postgres = store.typed().unwrap();
        let rows = sqlx::query(schema.sql(include_str!("postgres/invoices.sql")))
            .fetch_all(postgres.client())
            .await
            .unwrap();
        let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(names, ["o-1", "o-3"]);
        assert!(runtime.health().is_healthy());
        runtime.shutdown(MINUTE).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_say_what_to_correct_when_a_url_of_postgres_is_wrong() {
    let schemas = ["postgres", "postgresql", "POSTGRES"];
    for scheme in schemas {
        let url = format!("{scheme}://user:hunter2@localhost/x?schema=Not+one");
        let error = Providers::builtin().connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("schema"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    let config = PostgresConfig::new("postgres://user:hunter2@localhost/x?schema=mine").unwrap();
    assert_eq!(config.schema.as_str(), "mine");
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
}
