//! Reading dead letters.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use headless_abstractions::{
    Cursor, DeadId, DeadLetter, DeadLetterFilter, DeadLetterQueries, DeadLetterStats, FailureCause,
    GroupName, Origin, Page, Result, TopicName,
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    Postgres,
    error::fault,
    failures,
    inbox::answer,
    page::{Cursors, foreign, one_more_than},
    row,
    span::span,
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
                let text = filter.error_contains.as_deref();
                if text.is_some_and(|text| text.contains('\0')) {
                    // The server's text cannot hold it, so that no row contains it.
                    return Ok(Page::new(Vec::new(), None));
                }
                let group = match &filter.origin {
                    Some(Origin::Group(group)) => Some(group.as_str()),
                    Some(Origin::Relay) | None => None,
                };
                let mut session = shared.session().await?;
                let rows = sqlx::query(shared.dead_letters.list.get())
                    .bind(place.unwrap_or(0))
                    .bind(filter.with_closed)
                    .bind(filter.origin.is_some())
                    .bind(group)
                    .bind(filter.topic.as_ref().map(TopicName::as_str))
                    .bind(filter.cause.map(FailureCause::as_str))
                    .bind(text)
                    .bind(filter.since)
                    .bind(filter.until)
                    .bind(most)
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
    let previous: Option<Uuid> = row.try_get("previous").map_err(fault)?;
    // An operator sees what could be read of it.
    let (message, _wrong) = row::message(row)?;
    let buried_at = row.try_get("buried_at").map_err(fault)?;
    let mut letter = DeadLetter::new(DeadId::from_uuid(id), origin(row)?, message, buried_at);
    letter.failures = failures::from_json(kept)?;
    letter.rounds = rounds.unsigned_abs();
    letter.redrives = redrives.unsigned_abs();
    letter.previous = previous.map(DeadId::from_uuid);
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
