//! Our own rows in PostgreSQL.

use std::collections::BTreeMap;

use headless::{
    Context, HandlerResult, Postgres, PublishExt, Runtime,
    postgres::sqlx::{self, query, query_as, query_scalar, types::Json},
};

use super::Stored;
use crate::{
    refusal::Refusal,
    statistics::Statistics,
    webhook::{Webhook, WebhookReceived},
};

pub(super) async fn create(postgres: &Postgres) -> sqlx::Result<()> {
    let mut tx = postgres.client().begin().await?;
    sqlx::raw_sql(include_str!("../../queries/create.sql"))
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

pub(super) async fn store(runtime: &Runtime, webhook: &Webhook) -> Result<Stored, Refusal> {
    let mut work = runtime.begin::<Postgres>().await?;
    // The row of the repository is ours from here to the commit: whoever publishes for it next does so after us, so that
    // the messages leave in the order of the numbers.
    let number: i64 = query_scalar(include_str!("../../queries/next_number.sql"))
        .bind(&webhook.repository)
        .fetch_one(work.conn())
        .await?;
    let stored = query(include_str!("../../queries/store.sql"))
        .bind(webhook.delivery)
        .bind(&webhook.repository)
        .bind(number)
        .bind(&webhook.event)
        .bind(&webhook.body[..])
        .execute(work.conn())
        .await?;
    if stored.rows_affected() == 0 {
        work.rollback().await?;
        return Ok(Stored::Before);
    }
    work.publish(&webhook.received(number)).await?;
    work.commit().await?;
    Ok(Stored::Now { number })
}

pub(super) async fn count(cx: &Context, webhook: &WebhookReceived) -> HandlerResult {
    let mut work = cx.begin::<Postgres>().await?; // carries the processed mark: a duplicate ends here
    query(include_str!("../../queries/count.sql"))
        .bind(&webhook.repository)
        .bind(webhook.number)
        .execute(work.conn())
        .await?;
    query(include_str!("../../queries/count_event.sql"))
        .bind(&webhook.repository)
        .bind(&webhook.event)
        .execute(work.conn())
        .await?;
    work.commit().await?; // statistics and mark: both or neither
    Ok(())
}

type Row = (String, i64, i64, i64, Json<BTreeMap<String, i64>>);

pub(super) async fn statistics(
    postgres: &Postgres,
    after: &str,
    limit: u16,
) -> Result<Vec<Statistics>, Refusal> {
    let rows: Vec<Row> = query_as(include_str!("../../queries/list.sql"))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(postgres.client())
        .await?;
    let statistics = |(repository, received, handled, gaps, Json(events))| Statistics {
        repository,
        received,
        handled,
        gaps,
        events,
    };
    Ok(rows.into_iter().map(statistics).collect())
}
