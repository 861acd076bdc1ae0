//! Reading dead letters.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use headless_abstractions::{
    Change, Cursor, DeadId, DeadLetter, DeadLetterChange, DeadLetterFilter, DeadLetterQueries,
    DeadLetterStats, DeadLetterTally, FailureCause, GroupName, Origin, Page, PartitionKey, Result, TopicName,
};
use sqlx::{
    Postgres as Pg, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use crate::{
    Postgres,
    error::fault,
    failures,
    inbox::answer,
    page::{Cursors, foreign, one_more_than},
    row,
    span::span,
    sql::Sql,
};

#[async_trait]
impl DeadLetterQueries for Postgres {
    async fn list(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetter>> {
        let shared = &self.shared;
        shared
            .call("list", async {
                let most = one_more_than(limit)?;
                let cursors = Cursors::new("dead", shared.id);
                let place = cursors.read(after)?.map(str::parse::<i64>);
                let place = place.transpose().map_err(|_not_a_number| foreign())?;
                if matches_nothing(filter) {
                    return Ok(Page::new(Vec::new(), None));
                }
                let mut session = shared.session().await?;
                let rows = filtered(&shared.dead_letters.list, filter, place.unwrap_or(0), most)
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                let letters = rows.iter().map(|row| {
                    let n: i64 = row.try_get("n").map_err(fault)?;
                    Ok((n.to_string(), letter(row)?))
                });
                Ok(cursors.page(limit, letters.collect::<Result<Vec<_>>>()?))
            })
            .await
    }

    async fn get(&self, id: DeadId) -> Result<Option<DeadLetter>> {
        let shared = &self.shared;
        shared
            .call("get", async {
                let mut session = shared.session().await?;
                let row = sqlx::query(shared.dead_letters.get.get())
                    .bind(id.as_uuid())
                    .fetch_optional(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                row.as_ref().map(letter).transpose()
            })
            .await
    }

    async fn stats(&self) -> Result<Vec<DeadLetterStats>> {
        let shared = &self.shared;
        shared
            .call("stats", async {
                let mut session = shared.session().await?;
                let rows = sqlx::query(shared.dead_letters.stats.get())
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                rows.iter().map(stats).collect()
            })
            .await
    }

    async fn tally(&self, filter: &DeadLetterFilter, limit: usize) -> Result<Vec<DeadLetterTally>> {
        let shared = &self.shared;
        shared
            .call("tally", async {
                let most = one_more_than(limit)? - 1;
                if matches_nothing(filter) {
                    return Ok(Vec::new());
                }
                let mut session = shared.session().await?;
                let rows = filtered(&shared.dead_letters.tally, filter, 0, most)
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                rows.iter().map(tally).collect()
            })
            .await
    }

    async fn history(
        &self,
        id: DeadId,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetterChange>> {
        let shared = &self.shared;
        shared
            .call("history", async {
                let most = one_more_than(limit)?;
                let cursors = Cursors::new("dead-history", shared.id);
                // The place says whose history it is, and which change was the last one shown.
                let place = cursors.read(after)?.map(|place| match place.split_once('.') {
                    Some((of, n)) if of == id.to_string() => {
                        n.parse::<i64>().map_err(|_not_a_number| foreign())
                    }
                    _ => Err(foreign()),
                });
                let mut session = shared.session().await?;
                let rows = sqlx::query(shared.dead_letters.history.get())
                    .bind(id.as_uuid())
                    .bind(place.transpose()?.unwrap_or(0))
                    .bind(most)
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                let changes = rows.iter().map(|row| {
                    let n: i64 = row.try_get("n").map_err(fault)?;
                    Ok((format!("{id}.{n}"), change(row)?))
                });
                Ok(cursors.page(limit, changes.collect::<Result<Vec<_>>>()?))
            })
            .await
    }
}

/// Whether a text of the filter is one that the server's text cannot hold, so that no row has it.
fn matches_nothing(filter: &DeadLetterFilter) -> bool {
    let texts = [&filter.error_contains, &filter.error_shape];
    texts.into_iter().flatten().any(|text| text.contains('\0'))
}

/// This statement with the conditions of a filter, as list.sql and tally.sql number them.
fn filtered<'q>(
    statement: &Sql,
    filter: &'q DeadLetterFilter,
    after: i64,
    most: i64,
) -> Query<'q, Pg, PgArguments> {
    let group = match &filter.origin {
        Some(Origin::Group(group)) => Some(group.as_str()),
        Some(Origin::Relay) | None => None,
    };
    sqlx::query(statement.get())
        .bind(after)
        .bind(filter.with_closed)
        .bind(filter.origin.is_some())
        .bind(group)
        .bind(filter.topic.as_ref().map(TopicName::as_str))
        .bind(filter.cause.map(FailureCause::as_str))
        .bind(filter.error_contains.as_deref())
        .bind(filter.since)
        .bind(filter.until)
        .bind(filter.key.as_ref().map(PartitionKey::as_str))
        .bind(filter.message.map(|id| id.as_uuid()))
        .bind(filter.error_shape.as_deref())
        .bind(most)
}

fn tally(row: &PgRow) -> Result<DeadLetterTally> {
    let topic: &str = row.try_get("topic").map_err(fault)?;
    let cause: &str = row.try_get("cause").map_err(fault)?;
    let sample: Uuid = row.try_get("sample").map_err(fault)?;
    let count: i64 = row.try_get("rows").map_err(fault)?;
    let mut tally = DeadLetterTally::new(
        origin(row)?,
        TopicName::parse_stored(topic)?,
        FailureCause::from_name(cause).ok_or_else(answer::foreign)?,
        row.try_get("error").map_err(fault)?,
        DeadId::from_uuid(sample),
        row.try_get("first").map_err(fault)?,
    );
    tally.last = row.try_get("last").map_err(fault)?;
    tally.count = count.unsigned_abs();
    Ok(tally)
}

fn change(row: &PgRow) -> Result<DeadLetterChange> {
    let at = row.try_get("at").map_err(fault)?;
    let by: &str = row.try_get("by").map_err(fault)?;
    let kind: i16 = row.try_get("kind").map_err(fault)?;
    let payload: Option<&[u8]> = row.try_get("payload").map_err(fault)?;
    let payload = payload.map(Bytes::copy_from_slice);
    let what = match (kind, payload) {
        (0, Some(before)) => Change::Edited { before },
        (1, with) => Change::Redriven { with },
        (2, None) => Change::Discarded,
        _ => return Err(answer::foreign()),
    };
    Ok(DeadLetterChange::new(at, by, what))
}

fn stats(row: &PgRow) -> Result<DeadLetterStats> {
    let topic: &str = row.try_get("topic").map_err(fault)?;
    let cause: &str = row.try_get("cause").map_err(fault)?;
    let rows: i64 = row.try_get("rows").map_err(fault)?;
    let oldest: i64 = row.try_get("oldest").map_err(fault)?;
    Ok(DeadLetterStats::new(
        origin(row)?,
        TopicName::parse_stored(topic)?,
        FailureCause::from_name(cause).ok_or_else(answer::foreign)?,
        rows.unsigned_abs(),
        span(oldest),
    ))
}

fn letter(row: &PgRow) -> Result<DeadLetter> {
    let id: Uuid = row.try_get("dead_letter_id").map_err(fault)?;
    let kept: Option<&str> = row.try_get("failures").map_err(fault)?;
    let rounds: i32 = row.try_get("rounds").map_err(fault)?;
    let redrives: i32 = row.try_get("redrives").map_err(fault)?;
    let edits: i32 = row.try_get("edits").map_err(fault)?;
    let previous: Option<Uuid> = row.try_get("previous").map_err(fault)?;
    // An operator sees what could be read of it.
    let (message, _wrong) = row::message(row)?;
    let buried_at = row.try_get("buried_at").map_err(fault)?;
    let mut letter = DeadLetter::new(DeadId::from_uuid(id), origin(row)?, message, buried_at);
    letter.failures = failures::from_json(kept)?;
    letter.rounds = rounds.unsigned_abs();
    letter.redrives = redrives.unsigned_abs();
    letter.previous = previous.map(DeadId::from_uuid);
    letter.edits = edits.unsigned_abs();
    letter.redriven = closed(row, "redriven_by", "redriven_at")?;
    letter.discarded = closed(row, "discarded_by", "discarded_at")?;
    Ok(letter)
}

fn origin(row: &PgRow) -> Result<Origin> {
    let group: Option<&str> = row.try_get("origin").map_err(fault)?;
    match group {
        Some(group) => Ok(Origin::Group(GroupName::parse(group)?)),
        None => Ok(Origin::Relay),
    }
}

fn closed(row: &PgRow, by: &str, at: &str) -> Result<Option<(String, DateTime<Utc>)>> {
    let by: Option<String> = row.try_get(by).map_err(fault)?;
    let at: Option<DateTime<Utc>> = row.try_get(at).map_err(fault)?;
    Ok(by.zip(at))
}
