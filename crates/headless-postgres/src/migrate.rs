//! Bringing the schema up to date: forward only, each step in a transaction of its own, under a lock.

use headless_abstractions::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row, Transaction};

use crate::{
    PostgresConfig, Schema,
    error::{fault, no_first_connection},
    postgres::{self, in_time},
    sql::{in_schema, statements},
};

statements! {
    Statements {
        lock: "migration/lock",
        schema_exists: "migration/schema_exists",
        create_schema: "migration/create_schema",
        table_exists: "migration/table_exists",
        create_table: "migration/create_table",
        list: "migration/list",
        record: "migration/record",
        drop_schema: "migration/drop_schema",
    }
}

/// One step of the schema's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// Its number, counted from 1 without a gap.
    pub version: i32,
    /// What it brings.
    pub name: &'static str,
    sql: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal,)*) => {
        &[$(Migration {
            version: $version,
            name: $name,
            sql: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/", $name, ".sql")),
        },)*]
    };
}

impl Migration {
    /// Every step that this version of the provider knows, in order.
    pub const ALL: &'static [Self] = migrations![
        1 "0001_base",
        2 "0002_outbox",
        3 "0003_inbox",
        4 "0004_transport",
        5 "0005_publish",
        6 "0006_dead_letters",
        7 "0007_membership",
        8 "0008_control",
        9 "0009_repartition",
        10 "0010_membership_sweep",
    ];

    /// The checksum of its text, before the schema's name is put in.
    fn checksum(self) -> Vec<u8> {
        Sha256::digest(self.sql).to_vec()
    }
}

/// How far a schema has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationState {
    /// The steps that it has.
    pub applied: Vec<Migration>,
    /// The steps that it lacks.
    pub pending: Vec<Migration>,
}

/// Applies every step that is missing and returns those that this call applied.
///
/// Any number of processes at once are safe: each step is applied by one of them, whole or not at all. It waits for those
/// who are at it for as long as they take, and for nobody when nothing is missing.
pub(crate) async fn migrate(config: &PostgresConfig) -> Result<Vec<Migration>> {
    let mut conn = connect(config).await?;
    let statements = Statements::new(&config.schema);
    let mut applied = Vec::new();
    if in_time(config, present(&mut conn, config, &statements)).await? < Migration::ALL.len() {
        while let Some(step) = next_step(&mut conn, config, &statements).await? {
            applied.push(step);
        }
    }
    conn.close().await.map_err(fault)?;
    Ok(applied)
}

/// Says how far the schema has come, and changes nothing.
pub(crate) async fn check(config: &PostgresConfig) -> Result<MigrationState> {
    let mut conn = connect(config).await?;
    let statements = Statements::new(&config.schema);
    let present = in_time(config, present(&mut conn, config, &statements)).await?;
    conn.close().await.map_err(fault)?;
    let (applied, pending) = Migration::ALL.split_at(present);
    Ok(MigrationState {
        applied: applied.to_vec(),
        pending: pending.to_vec(),
    })
}

/// Drops the schema with everything in it, if it is there.
pub(crate) async fn remove(config: &PostgresConfig) -> Result<()> {
    let mut conn = connect(config).await?;
    let statements = Statements::new(&config.schema);
    sqlx::raw_sql(statements.drop_schema.get())
        .execute(&mut conn)
        .await
        .map_err(fault)?;
    conn.close().await.map_err(fault)
}

pub(crate) async fn connect(config: &PostgresConfig) -> Result<PgConnection> {
    config.validate()?;
    let options = config.options();
    let limit = config.acquire_timeout;
    match tokio::time::timeout(limit, PgConnection::connect_with(&options)).await {
        Ok(connected) => connected.map_err(no_first_connection),
        Err(_elapsed) => Err(Error::new(
            ErrorKind::Unavailable,
            format!("the server did not answer within acquire_timeout ({limit:?}): can it be reached?"),
        )),
    }
}

/// How many steps the schema has.
async fn present(conn: &mut PgConnection, config: &PostgresConfig, statements: &Statements) -> Result<usize> {
    let mut tx = begin(conn, config).await?;
    let exists: bool = sqlx::query_scalar(statements.table_exists.get())
        .fetch_one(&mut *tx)
        .await
        .map_err(fault)?;
    let present = if exists {
        known(&mut tx, statements, &config.schema).await?
    } else {
        0
    };
    tx.rollback().await.map_err(fault)?;
    Ok(present)
}

pub(crate) async fn begin<'c>(
    conn: &'c mut PgConnection,
    config: &PostgresConfig,
) -> Result<Transaction<'c, Postgres>> {
    let begin = postgres::statements(config).begin.get();
    conn.begin_with(begin).await.map_err(fault)
}

/// Applies the first step that is missing, if any, in one transaction under the lock of this schema.
async fn next_step(
    conn: &mut PgConnection,
    config: &PostgresConfig,
    statements: &Statements,
) -> Result<Option<Migration>> {
    let schema = &config.schema;
    let mut tx = begin(conn, config).await?;
    sqlx::query(statements.lock.get())
        .bind(lock_key(schema))
        .execute(&mut *tx)
        .await
        .map_err(fault)?;
    let schema_exists: bool = sqlx::query_scalar(statements.schema_exists.get())
        .fetch_one(&mut *tx)
        .await
        .map_err(fault)?;
    if !schema_exists {
        sqlx::query(statements.create_schema.get())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
    }
    let table_exists: bool = sqlx::query_scalar(statements.table_exists.get())
        .fetch_one(&mut *tx)
        .await
        .map_err(fault)?;
    if !table_exists {
        sqlx::query(statements.create_table.get())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
    }
    let applied = known(&mut tx, statements, schema).await?;
    let step = Migration::ALL.get(applied).copied();
    if let Some(step) = step {
        sqlx::raw_sql(AssertSqlSafe(in_schema(step.sql, schema)))
            .execute(&mut *tx)
            .await
            .map_err(|error| fault(error).with_resource(format!("migration {}", step.name)))?;
        sqlx::query(statements.record.get())
            .bind(step.version)
            .bind(step.name)
            .bind(step.checksum())
            .execute(&mut *tx)
            .await
            .map_err(fault)?;
    }
    tx.commit().await.map_err(fault)?;
    Ok(step)
}

/// How many of our steps the schema has, having compared each with ours.
async fn known(conn: &mut PgConnection, statements: &Statements, schema: &Schema) -> Result<usize> {
    let rows = sqlx::query(statements.list.get())
        .fetch_all(&mut *conn)
        .await
        .map_err(fault)?;
    for (index, row) in rows.iter().enumerate() {
        let version: i32 = row.try_get("version").map_err(fault)?;
        let name: String = row.try_get("name").map_err(fault)?;
        let checksum: Vec<u8> = row.try_get("checksum").map_err(fault)?;
        let Some(ours) = Migration::ALL.get(index) else {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "schema {schema} has migration {version} ({name}), which this version does not know: run a newer \
                     version of headless, or name another schema"
                ),
            ));
        };
        if version != ours.version || name != ours.name || checksum != ours.checksum() {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "migration {version} ({name}) of schema {schema} differs from ours, {} ({}): it was changed after \
                     it had been applied; restore the original version, or name another schema",
                    ours.version, ours.name
                ),
            ));
        }
    }
    Ok(rows.len())
}

/// The advisory lock of a schema's migrations.
fn lock_key(schema: &Schema) -> i64 {
    let digest = Sha256::digest(format!("headless migration\n{schema}"));
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(first)
}
