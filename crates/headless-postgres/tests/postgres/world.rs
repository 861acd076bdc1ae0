//! A schema for one test, dropped with its end.

use std::{num::NonZeroU32, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use headless_harness::{
    Namespace, Unavailable,
    services::{self, PrivatePostgres},
};
use headless_postgres::{Postgres, PostgresConfig, Schema};
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgRow};

/// What must come, comes within this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const DROP: &str = include_str!("sql/drop.sql");

/// The server, and a schema that nobody else has.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) schema: Schema,
}

impl World {
    /// Runs a test in the world of the shared server, where there is one. Its schema is not there yet.
    pub(crate) async fn run(test: impl AsyncFnOnce(&World)) {
        if let Some(url) = present(services::postgres()) {
            Self::run_at(url, test).await;
        }
    }

    /// Runs a test on a server of its own, where nobody else's transactions hold anything up.
    pub(crate) async fn run_alone(test: impl AsyncFnOnce(&World)) {
        // Nothing here is about disks.
        if let Some(server) = present(PrivatePostgres::builder().setting("fsync", "off").start()) {
            Self::run_at(server.url(), test).await;
        }
    }

    /// Runs a test on the server at this URL.
    pub(crate) async fn run_at(url: String, test: impl AsyncFnOnce(&World)) {
        let world = Self {
            url,
            schema: Schema::parse(Namespace::unique().as_str()).unwrap(),
        };
        let ended = AssertUnwindSafe(test(&world)).catch_unwind().await;
        world.raw(DROP).await;
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    /// Settings with few connections, since many tests share the server.
    pub(crate) fn config(&self) -> PostgresConfig {
        self.config_at(&self.url)
    }

    /// The same through another way to the server.
    pub(crate) fn config_at(&self, url: &str) -> PostgresConfig {
        PostgresConfig::new(url)
            .unwrap()
            .with_schema(self.schema.clone())
            .with_max_connections(few(3))
            .with_control_connections(few(2))
    }

    pub(crate) async fn connect(&self) -> Postgres {
        Postgres::connect_with(self.config()).await.unwrap()
    }

    /// A connection of the test's own.
    pub(crate) async fn conn(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// This text of SQL with the schema's name put in.
    pub(crate) fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(text.replace("{schema}", self.schema.as_str()))
    }

    /// Runs this text of SQL, of several statements perhaps.
    pub(crate) async fn raw(&self, text: &str) {
        let mut conn = self.conn().await;
        sqlx::raw_sql(self.sql(text)).execute(&mut conn).await.unwrap();
        conn.close().await.unwrap();
    }

    /// The rows of a query.
    pub(crate) async fn rows(&self, text: &str) -> Vec<PgRow> {
        let mut conn = self.conn().await;
        let rows = sqlx::query(self.sql(text)).fetch_all(&mut conn).await.unwrap();
        conn.close().await.unwrap();
        rows
    }
}

/// This many connections.
pub(crate) fn few(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

/// The service, or none where there is none and none is required.
pub(crate) fn present<T>(service: Result<T, Unavailable>) -> Option<T> {
    match service {
        Ok(service) => Some(service),
        Err(Unavailable::Absent(_)) if !services::is_required("postgres") => None,
        Err(why) => panic!("{why:?}"),
    }
}

/// Looks until there is something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}
