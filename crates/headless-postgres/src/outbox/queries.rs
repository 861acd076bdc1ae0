//! Reading the outbox.

use async_trait::async_trait;
use headless_abstractions::{
    Cursor, Error, ErrorKind, MessageId, OutboxEntry, OutboxFilter, OutboxQueries, OutboxState, OutboxStats,
    Owner, Page, PartitionKey, Result, TopicName,
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    Postgres,
    error::fault,
    failures,
    page::{Cursors, foreign, one_more_than},
    postgres::Shared,
    row,
    span::span,
};

#[async_trait]
impl OutboxQueries for Postgres {
    /// In the order of ids, which is that of age where publishers make them as the library does: of version 7.
    async fn list(
        &self,
        filter: &OutboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<OutboxEntry>> {
        let shared = &self.shared;
        shared
            .call("list", async {
                let cursors = Cursors::new("outbox", shared.id);
                let most = one_more_than(limit)?;
                let after = cursors
                    .read(after)?
                    .map(|place| Uuid::parse_str(place).map_err(|_| foreign()))
                    .transpose()?;
                let rows = select(shared, filter, after, None, most).await?;
                let entries = rows
                    .iter()
                    .map(|row| entry(row).map(|entry| (entry.message.id.to_string(), entry)))
                    .collect::<Result<Vec<_>>>()?;
                Ok(cursors.page(limit, entries))
            })
            .await
    }

    async fn get(&self, id: MessageId) -> Result<Option<OutboxEntry>> {
        let shared = &self.shared;
        shared
            .call("get", async {
                let all = OutboxFilter::all();
                let rows = select(shared, &all, None, Some(id.as_uuid()), 1).await?;
                rows.first().map(entry).transpose()
            })
            .await
    }

    /// Reads the whole table once.
    async fn stats(&self) -> Result<OutboxStats> {
        let shared = &self.shared;
        shared
            .call("stats", async {
                let mut session = shared.session().await?;
                let row = sqlx::query(shared.outbox.stats.get())
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                let figure = |name| -> Result<u64> {
                    let figure: i64 = row.try_get(name).map_err(fault)?;
                    Ok(figure.unsigned_abs())
                };
                let oldest: Option<i64> = row.try_get("oldest").map_err(fault)?;
                let mut stats = OutboxStats::default();
                stats.delayed = figure("delayed")?;
                stats.ready = figure("ready")?;
                stats.leased = figure("leased")?;
                stats.retrying = figure("retrying")?;
                stats.oldest = oldest.map(span);
                Ok(stats)
            })
            .await
    }
}

async fn select(
    shared: &Shared,
    filter: &OutboxFilter,
    after: Option<Uuid>,
    id: Option<Uuid>,
    most: i64,
) -> Result<Vec<PgRow>> {
    let mut session = shared.session().await?;
    let rows = sqlx::query(shared.outbox.list.get())
        .bind(after)
        .bind(filter.topic.as_ref().map(TopicName::as_str))
        .bind(filter.key.as_ref().map(PartitionKey::as_str))
        .bind(id)
        .bind(filter.state.map(state_name))
        .bind(most)
        .fetch_all(&mut *session)
        .await
        .map_err(fault)?;
    session.finish(&shared.statements).await?;
    Ok(rows)
}

fn entry(row: &PgRow) -> Result<OutboxEntry> {
    let (message, _) = row::message(row)?;
    let state: &str = row.try_get("state").map_err(fault)?;
    let state = STATES.into_iter().find(|known| state_name(*known) == state);
    let state = state.ok_or_else(|| Error::new(ErrorKind::Internal, "a row of the outbox has no state"))?;
    let attempts: i32 = row.try_get("attempts").map_err(fault)?;
    let owner: Option<Uuid> = row.try_get("owner").map_err(fault)?;
    let mut entry = OutboxEntry::new(message, state);
    entry.attempts = attempts.unsigned_abs();
    entry.failures = failures::from_json(row.try_get("failures").map_err(fault)?)?;
    entry.owner = owner.map(|owner| Owner::from_bits(owner.as_u128()));
    Ok(entry)
}

const STATES: [OutboxState; 4] = [
    OutboxState::Delayed,
    OutboxState::Ready,
    OutboxState::Leased,
    OutboxState::Retrying,
];

/// The state as `outbox/list.sql` writes it.
const fn state_name(state: OutboxState) -> &'static str {
    match state {
        OutboxState::Delayed => "delayed",
        OutboxState::Leased => "leased",
        OutboxState::Retrying => "retrying",
        // `Ready`, and whatever a later version of the traits may add, of which no row is.
        _ => "ready",
    }
}
