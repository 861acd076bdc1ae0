//! The raw loops: what SQL alone can do on the same connections.

use anyhow::Result;
use headless_abstractions::Message;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::PAYLOAD;
use crate::{database::Database, measure::Meter};

/// Rows for a raw loop, as wide as ours.
pub(super) async fn fill(database: &Database, count: usize) -> Result<()> {
    database
        .script(include_str!("../../queries/raw/create_lease.sql"))
        .await?;
    sqlx::query(include_str!("../../queries/raw/fill_lease.sql"))
        .bind(count as i64)
        .bind(vec![b'x'; PAYLOAD])
        .execute(&database.raw)
        .await?;
    database.script(include_str!("../../queries/analyze.sql")).await
}

/// How fast `workers` loops that claim a lease on `batch` rows and delete them empty a table of `count`.
pub(super) async fn lease_loop(
    database: &Database,
    meter: &Meter,
    count: usize,
    workers: usize,
    batch: usize,
) -> Result<f64> {
    fill(database, count).await?;
    let mut connections = Vec::new();
    for _ in 0..workers {
        connections.push(database.raw.acquire().await?);
    }
    let loops = connections.iter_mut().map(|conn| lease_worker(conn, batch));
    let rate = meter
        .rate(count, async {
            futures::future::try_join_all(loops).await.map(drop)
        })
        .await?;
    Ok(rate)
}

async fn lease_worker(conn: &mut PgConnection, batch: usize) -> Result<()> {
    let owner = Uuid::new_v4();
    loop {
        let rows = sqlx::query(include_str!("../../queries/raw/claim_lease.sql"))
            .bind(owner)
            .bind(batch as i64)
            .fetch_all(&mut *conn)
            .await?;
        if rows.is_empty() {
            return Ok(());
        }
        let claimed = rows
            .iter()
            .map(|row| row.try_get("seq"))
            .collect::<Result<Vec<i64>, _>>()?;
        sqlx::query(include_str!("../../queries/raw/ack_lease.sql"))
            .bind(owner)
            .bind(claimed)
            .execute(&mut *conn)
            .await?;
    }
}

/// How fast one loop that selects `batch` rows and deletes them, without any lease, empties a table of `count`.
pub(super) async fn delete_loop(
    database: &Database,
    meter: &Meter,
    count: usize,
    batch: usize,
) -> Result<f64> {
    fill(database, count).await?;
    let mut conn = database.raw.acquire().await?;
    meter
        .rate(count, async {
            loop {
                let rows = sqlx::query(include_str!("../../queries/raw/select_head.sql"))
                    .bind(batch as i64)
                    .fetch_all(&mut *conn)
                    .await?;
                if rows.is_empty() {
                    return Ok(());
                }
                let seen = rows
                    .iter()
                    .map(|row| row.try_get("seq"))
                    .collect::<Result<Vec<i64>, _>>()?;
                sqlx::query(include_str!("../../queries/raw/delete_many.sql"))
                    .bind(seen)
                    .execute(&mut *conn)
                    .await?;
            }
        })
        .await
}

/// Stores messages with one statement.
pub(super) async fn insert_many(conn: &mut PgConnection, messages: &[Message]) -> Result<()> {
    let of = |pick: fn(&Message) -> Option<&str>| messages.iter().map(pick).collect::<Vec<_>>();
    sqlx::query(include_str!("../../queries/raw/insert_many.sql"))
        .bind(messages.iter().map(|m| m.id.as_uuid()).collect::<Vec<_>>())
        .bind(of(|m| Some(m.topic.as_str())))
        .bind(of(|m| m.key.as_ref().map(|key| key.as_str())))
        .bind(messages.iter().map(|m| m.occurred_at).collect::<Vec<_>>())
        .bind(of(|_| None))
        .bind(of(|_| Some("{\"hl-type\":\"bench\"}")))
        .bind(messages.iter().map(|m| m.payload.as_ref()).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}

/// Stores one message.
pub(super) async fn insert_one(conn: &mut PgConnection, message: &Message) -> Result<()> {
    sqlx::query(include_str!("../../queries/raw/insert_one.sql"))
        .bind(message.id.as_uuid())
        .bind(message.topic.as_str())
        .bind(message.key.as_ref().map(|key| key.as_str()))
        .bind(message.occurred_at)
        .bind(None::<&str>)
        .bind("{\"hl-type\":\"bench\"}")
        .bind(message.payload.as_ref())
        .execute(conn)
        .await?;
    Ok(())
}
