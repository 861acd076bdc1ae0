//! A schema of its own for each run.

use std::num::NonZeroU32;

use anyhow::{Context, Result};
use headless_postgres::{Postgres, PostgresConfig, Schema, Wake};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

/// A schema of its own, with the provider's tables and the raw loops' in it.
#[derive(Debug)]
pub(crate) struct Database {
    url: String,
    pub(crate) schema: Schema,
    /// For raw loops, with the settings that make them fastest.
    pub(crate) raw: PgPool,
}

impl Database {
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let schema = Schema::parse(&format!("bench_{}", &Uuid::new_v4().simple().to_string()[..12]))?;
        let options = url
            .parse::<sqlx::postgres::PgConnectOptions>()
            .context("--store")?;
        let raw = PgPoolOptions::new()
            .max_connections(16)
            .test_before_acquire(false)
            .connect_with(options.options([("jit", "off"), ("search_path", schema.as_str())]))
            .await
            .context("connecting to --store")?;
        Ok(Self {
            url: url.to_owned(),
            schema,
            raw,
        })
    }

    /// Another process on it.
    pub(crate) async fn connect(&self, wake: Wake) -> Result<Postgres> {
        let connections = NonZeroU32::new(16).unwrap_or(NonZeroU32::MIN);
        let config = PostgresConfig::new(&self.url)?
            .with_schema(self.schema.clone())
            .with_max_connections(connections)
            .with_wake(wake);
        Ok(Postgres::connect_with(config).await?)
    }

    /// Runs a script of this crate, in the schema.
    pub(crate) async fn script(&self, sql: &'static str) -> Result<()> {
        sqlx::raw_sql(sql).execute(&self.raw).await?;
        Ok(())
    }

    /// Removes it all.
    pub(crate) async fn drop(self) -> Result<()> {
        let drop = include_str!("../queries/drop_schema.sql").replace("{schema}", self.schema.as_str());
        // The schema's name is a valid identifier.
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&self.raw).await?;
        self.raw.close().await;
        Ok(())
    }
}
