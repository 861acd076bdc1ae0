//! The demo's own rows, in the store that also holds outbox and inbox.

use anyhow::{Context as _, Result};
use headless::postgres::sqlx::{AssertSqlSafe, query, query_scalar, raw_sql, types::Json};
use headless::testing::{Tally, Written};
use headless::{
    AnyStore, Context, Event, HandlerError, HandlerResult, Memory, MessageId, Postgres, PublishExt, Runtime,
};

use super::member::Payload;
use crate::input::Line;

/// A statement, in the schema of this run.
macro_rules! sql {
    ($name:literal, $postgres:expr) => {
        AssertSqlSafe(
            include_str!(concat!("../../queries/demo/", $name, ".sql"))
                .replace("{schema}", $postgres.config().schema.as_str()),
        )
    };
}

/// Makes room for the rows.
pub(super) async fn open(store: &AnyStore) -> Result<()> {
    if let Some(postgres) = store.typed::<Postgres>() {
        raw_sql(sql!("create", postgres))
            .execute(postgres.client())
            .await?;
    }
    Ok(())
}

/// Publishes a line and writes its row, in one unit of work; neither where the row is there.
pub(super) async fn publish(store: &AnyStore, runtime: &Runtime, line: &Line) -> Result<()> {
    let number = format!("{:020}", line.number); // so that it sorts as a number
    let row = |id| row(&number, line.key.as_deref(), line.id.as_deref(), id);
    if let Some(postgres) = store.typed::<Postgres>() {
        let mut work = runtime.begin::<Postgres>().await?;
        let message = line.describe(work.message(Payload::TOPIC, &line.payload));
        let row = row(message.header("line", &number).send().await?.id)?;
        let insert = query(sql!("publish", postgres)).bind(row).execute(work.conn());
        if insert.await?.rows_affected() == 1 {
            work.commit().await?;
        }
    } else {
        let mut work = runtime.begin::<Memory>().await?;
        let message = line.describe(work.message(Payload::TOPIC, &line.payload));
        let row = row(message.header("line", &number).send().await?.id)?;
        work.put("published", &number, row).await?;
        work.commit().await?;
    }
    Ok(())
}

/// Writes the row of a handled message, in the unit of work that carries its mark.
pub(super) async fn handle(store: &AnyStore, cx: &Context) -> HandlerResult {
    let message = cx.message();
    let line = message.headers.get("line").unwrap_or_default();
    let key = message.key.as_ref().map(|key| key.as_str());
    let id = message.idempotency_key.as_ref().map(|id| id.as_str());
    let row = row(line, key, id, message.id).map_err(HandlerError::permanent)?;
    if let Some(postgres) = store.typed::<Postgres>() {
        let mut work = cx.begin::<Postgres>().await?;
        let insert = query(sql!("handle", postgres)).bind(row);
        insert.execute(work.conn()).await?;
        work.commit().await?;
    } else {
        let mut work = cx.begin::<Memory>().await?;
        work.push("handled", row).await?;
        work.commit().await?;
    }
    Ok(())
}

fn row(line: &str, key: Option<&str>, id: Option<&str>, message: MessageId) -> serde_json::Result<String> {
    serde_json::to_string(&Written {
        line: line.to_owned(),
        key: key.map(str::to_owned),
        idempotency_key: id.map(str::to_owned),
        message: message.to_string(),
    })
}

/// What the rows say of published and of handled messages.
pub(super) async fn tally(store: &AnyStore) -> Result<Tally> {
    if let Some(postgres) = store.typed::<Postgres>() {
        let published = query_scalar(sql!("list_published", postgres)).fetch_all(postgres.client());
        let handled = query_scalar(sql!("list_handled", postgres)).fetch_all(postgres.client());
        let rows = |rows: Vec<Json<_>>| rows.into_iter().map(|row| row.0).collect::<Vec<Written>>();
        return Ok(Tally::of(&rows(published.await?), &rows(handled.await?)));
    }
    let memory = store.typed::<Memory>();
    let memory = memory.context("the demo runs on memory and PostgreSQL alone")?;
    let row = |(_, row): (_, _)| Ok(serde_json::from_slice(&Vec::from(row))?);
    let rows = |table| {
        memory
            .rows(table)
            .into_iter()
            .map(row)
            .collect::<Result<Vec<_>>>()
    };
    Ok(Tally::of(&rows("published")?, &rows("handled")?))
}
