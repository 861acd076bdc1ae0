//! A server, and a schema on it for one test, dropped with its end.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use headless_harness::{Namespace, services};
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgRow};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// What must come, comes within this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked for.
const STEP: Duration = Duration::from_millis(10);

pub(crate) struct World {
    server: String,
    schema: String,
}

impl World {
    /// Runs a test, where there is a server.
    pub(crate) async fn run(test: impl AsyncFnOnce(&World)) {
        Self::run_between(
            include_str!("sql/nothing.sql"),
            test,
            include_str!("sql/drop.sql"),
        )
        .await;
    }

    /// Runs a test in a database of its own, of the schema's name.
    pub(crate) async fn run_in_database(test: impl AsyncFnOnce(&World)) {
        let test = async |world: &World| {
            let sign = if world.server.contains('?') { '&' } else { '?' };
            let inside = World {
                server: format!("{}{sign}dbname={}", world.server, world.schema),
                schema: world.schema.clone(),
            };
            test(&inside).await;
        };
        let (create, drop) = (
            include_str!("sql/create_database.sql"),
            include_str!("sql/drop_database.sql"),
        );
        Self::run_between(create, test, drop).await;
    }

    async fn run_between(before: &str, test: impl AsyncFnOnce(&World), after: &str) {
        let server = match services::postgres() {
            Ok(server) => server,
            Err(absent) => {
                assert!(!services::is_required("postgres"), "{absent:?}");
                return;
            }
        };
        let world = Self {
            server,
            schema: Namespace::unique().as_str().to_owned(),
        };
        world.execute(before).await;
        let ended = AssertUnwindSafe(test(&world)).catch_unwind().await;
        world.execute(after).await;
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    }

    /// The server, for few connections, since many tests share it.
    pub(crate) fn server(&self) -> String {
        let sign = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{sign}max_connections=3&control_connections=2", self.server)
    }

    /// The schema on the server.
    pub(crate) fn url(&self) -> String {
        format!("{}&schema={}", self.server(), self.schema)
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) async fn execute(&self, statements: &str) {
        let mut conn = PgConnection::connect(&self.server).await.unwrap();
        sqlx::raw_sql(self.sql(statements))
            .execute(&mut conn)
            .await
            .unwrap();
        conn.close().await.unwrap();
    }

    pub(crate) async fn row(&self, query: &str) -> PgRow {
        let mut rows = self.rows(query).await;
        assert_eq!(rows.len(), 1, "{query}");
        rows.remove(0)
    }

    pub(crate) async fn rows(&self, query: &str) -> Vec<PgRow> {
        let mut conn = PgConnection::connect(&self.server).await.unwrap();
        let rows = sqlx::query(self.sql(query)).fetch_all(&mut conn).await.unwrap();
        conn.close().await.unwrap();
        rows
    }

    fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(text.replace("{schema}", &self.schema))
    }
}

/// Looks until there is something, in bounded time.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            steps.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    let found = timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}
