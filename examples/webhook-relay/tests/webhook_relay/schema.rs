//! A schema on a server for one test, dropped with its end; read by a plain client.

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;
use headless_harness::{Namespace, services};
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection, postgres::PgRow};

pub(crate) struct Schema {
    server: String,
    name: String,
}

impl Schema {
    /// Runs a test in a schema of its own, where there is a server.
    pub(crate) async fn run(test: impl AsyncFnOnce(&Schema)) {
        let server = match services::postgres() {
            Ok(server) => server,
            Err(absent) => {
                assert!(!services::is_required("postgres"), "{absent:?}");
                eprintln!("NOT RUN: {absent:?}");
                return;
            }
        };
        let schema = Self {
            server,
            name: Namespace::unique().as_str().to_owned(),
        };
        schema.execute(include_str!("sql/create_schema.sql")).await;
        let ended = AssertUnwindSafe(test(&schema)).catch_unwind().await;
        schema.execute(include_str!("sql/drop_schema.sql")).await;
        if let Err(panic) = ended {
            resume_unwind(panic);
        }
    }

    /// The URL of everything: the provider's tables and those of the service are in the schema.
    pub(crate) fn url(&self) -> String {
        let sign = if self.server.contains('?') { '&' } else { '?' };
        let (server, name) = (&self.server, &self.name);
        format!(
            "{server}{sign}schema={name}&options[search_path]={name}&max_connections=8&control_connections=2"
        )
    }

    async fn execute(&self, statements: &str) {
        let mut conn = PgConnection::connect(&self.server).await.unwrap();
        sqlx::raw_sql(self.sql(statements))
            .execute(&mut conn)
            .await
            .unwrap();
        conn.close().await.unwrap();
    }

    /// What this query finds.
    pub(crate) async fn rows<T: for<'r> FromRow<'r, PgRow> + Send + Unpin>(&self, query: &str) -> Vec<T> {
        let mut conn = PgConnection::connect(&self.server).await.unwrap();
        let rows = sqlx::query_as(self.sql(query))
            .fetch_all(&mut conn)
            .await
            .unwrap();
        conn.close().await.unwrap();
        rows
    }

    fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(text.replace("{schema}", &self.name))
    }
}
