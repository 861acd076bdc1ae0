//! A place for one run on servers that others may use too: nothing of it meets theirs, and nothing is left of it.

use std::hash::{BuildHasher, RandomState};

use anyhow::{Context as _, Result};
use headless::{
    AnyStore, AnyTransport, Memory, Postgres, Providers,
    postgres::sqlx::{AssertSqlSafe, raw_sql},
};

use crate::urls;

/// Store and transport of one run, as one process is connected to them.
#[derive(Debug)]
pub(crate) struct Sandbox {
    providers: Providers,
    /// What other processes of the run connect to.
    pub(crate) urls: [String; 2],
    pub(crate) store: AnyStore,
    pub(crate) transport: AnyTransport,
}

impl Sandbox {
    /// A new one on these servers: a schema in a database of PostgreSQL, a server in memory.
    pub(crate) async fn create(store: &str, transport: &str) -> Result<Self> {
        let name = format!("headless_demo_{:016x}", RandomState::new().hash_one(()));
        let urls = [within(store, &name), within(transport, &name)];
        let created = Self::enter(urls.clone()).await;
        if created.is_err() {
            // One side may be there.
            for url in urls {
                if let Ok(half) = Self::enter([url.clone(), url]).await {
                    half.remove().await?;
                }
            }
        }
        created
    }

    /// One that another process has created.
    pub(crate) async fn enter(urls: [String; 2]) -> Result<Self> {
        Self::connect(Providers::builtin(), urls).await
    }

    /// The same one, as another process is connected to it.
    pub(crate) async fn again(&self) -> Result<Self> {
        Self::connect(self.providers.clone(), self.urls.clone()).await
    }

    async fn connect(providers: Providers, urls: [String; 2]) -> Result<Self> {
        let (store, transport) = urls::connect(&providers, Some(&urls[0]), Some(&urls[1])).await?;
        Ok(Self {
            providers,
            urls,
            store: store.context("there is a URL for it")?,
            transport: transport.context("there is a URL for it")?,
        })
    }

    /// Whether other processes can use both servers.
    pub(crate) fn is_shared(&self) -> bool {
        self.store.typed::<Memory>().is_none() && self.transport.typed::<Memory>().is_none()
    }

    /// Cuts this process off from what is in memory: nothing that it calls there answers any more.
    pub(crate) fn sever(&self) {
        for memory in [self.store.typed::<Memory>(), self.transport.typed()] {
            memory.iter().for_each(Memory::sever);
        }
    }

    /// Executes statements where the store is a database.
    pub(crate) async fn execute(&self, statements: &str) -> Result<()> {
        match self.store.typed() {
            Some(postgres) => execute(&postgres, statements).await,
            None => Ok(()),
        }
    }

    /// Removes everything that was made in it.
    pub(crate) async fn remove(&self) -> Result<()> {
        for postgres in [self.store.typed(), self.transport.typed()].iter().flatten() {
            execute(postgres, include_str!("../queries/sandbox/drop.sql")).await?;
        }
        Ok(())
    }
}

/// A statement, in the schema of this sandbox.
pub(crate) fn in_schema(statement: &str, postgres: &Postgres) -> AssertSqlSafe<String> {
    AssertSqlSafe(statement.replace("{schema}", postgres.config().schema.as_str()))
}

async fn execute(postgres: &Postgres, statements: &str) -> Result<()> {
    let statements = raw_sql(in_schema(statements, postgres));
    statements.execute(postgres.client()).await?;
    Ok(())
}

/// The URL of this place on a server.
fn within(url: &str, name: &str) -> String {
    if url == "memory:" {
        return format!("memory:{name}");
    }
    if !url.starts_with("postgres") {
        return url.to_owned();
    }
    let (server, query) = url.split_once('?').unwrap_or((url, ""));
    let others = query
        .split('&')
        .filter(|setting| !setting.is_empty() && !setting.starts_with("schema="));
    let others: String = others.flat_map(|setting| [setting, "&"]).collect();
    format!("{server}?{others}schema={name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_keep_what_the_url_says_when_a_place_is_added() {
        for (url, wanted) in [
            ("memory:", "memory:x"),
            ("memory:mine", "memory:mine"),
            ("sqs://queue", "sqs://queue"),
            ("postgres://h/db", "postgres://h/db?schema=x"),
            (
                "postgresql://h/db?max_connections=2&schema=mine&sslmode=disable",
                "postgresql://h/db?max_connections=2&sslmode=disable&schema=x",
            ),
        ] {
            assert_eq!(within(url, "x"), wanted);
        }
    }
}
