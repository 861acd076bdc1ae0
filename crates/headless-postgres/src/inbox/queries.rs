//! Reading the inbox.

use async_trait::async_trait;
use headless_abstractions::{
    Cursor, GroupName, InboxEntry, InboxFilter, InboxQueries, InboxState, InboxStats, MessageId, Owner, Page,
    Result, TopicName,
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::answer::{number, state};
use crate::{
    Postgres,
    error::fault,
    failures,
    page::{Cursors, foreign, one_more_than},
    span::span,
};

#[async_trait]
impl InboxQueries for Postgres {
    async fn list(
        &self,
        filter: &InboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<InboxEntry>> {
        let shared = &self.shared;
        shared
            .call("list", async {
                let most = one_more_than(limit)?;
                let cursors = Cursors::new("inbox", shared.id);
                let place = cursors.read(after)?.map(read_place).transpose()?;
                let (group, id) = place.unwrap_or_default();
                let statement = match filter.state {
                    Some(InboxState::Running) => &shared.inbox.list_running,
                    Some(InboxState::Parked) => &shared.inbox.list_parked,
                    _ => &shared.inbox.list,
                };
                let mut session = shared.session().await?;
                let rows = sqlx::query(statement.get())
                    .bind(group)
                    .bind(id)
                    .bind(filter.group.as_ref().map(GroupName::as_str))
                    .bind(filter.topic.as_ref().map(TopicName::as_str))
                    .bind(filter.state.map(number))
                    .bind(most)
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                let entries = rows.iter().map(|row| {
                    let entry = entry(row)?;
                    // No name of a group contains a colon.
                    Ok((format!("{}:{}", entry.group, entry.id), entry))
                });
                Ok(cursors.page(limit, entries.collect::<Result<Vec<_>>>()?))
            })
            .await
    }

    async fn get(&self, group: &GroupName, id: MessageId) -> Result<Option<InboxEntry>> {
        let shared = &self.shared;
        shared
            .call("get", async {
                let mut session = shared.session().await?;
                let row = sqlx::query(shared.inbox.get.get())
                    .bind(group.as_str())
                    .bind(id.as_uuid())
                    .fetch_optional(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                row.as_ref().map(entry).transpose()
            })
            .await
    }

    async fn stats(&self, group: Option<&GroupName>) -> Result<InboxStats> {
        let shared = &self.shared;
        shared
            .call("stats", async {
                let mut session = shared.session().await?;
                let rows = sqlx::query(shared.inbox.stats.get())
                    .bind(group.map(GroupName::as_str))
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                let mut stats = InboxStats::default();
                for row in &rows {
                    let rows: i64 = row.try_get("rows").map_err(fault)?;
                    let figure = match state_of(row)? {
                        InboxState::Running => &mut stats.running,
                        InboxState::Parked => &mut stats.parked,
                        InboxState::Processed => &mut stats.processed,
                        InboxState::Dead => &mut stats.dead,
                        InboxState::Discarded => &mut stats.discarded,
                    };
                    *figure = rows.unsigned_abs();
                }
                Ok(stats)
            })
            .await
    }
}

fn entry(row: &PgRow) -> Result<InboxEntry> {
    let group: &str = row.try_get("grp").map_err(fault)?;
    let topic: &str = row.try_get("topic").map_err(fault)?;
    let id: Uuid = row.try_get("id").map_err(fault)?;
    let rounds: Option<i32> = row.try_get("rounds").map_err(fault)?;
    let owner: Option<Uuid> = row.try_get("owner").map_err(fault)?;
    let failures: Option<&str> = row.try_get("failures").map_err(fault)?;
    let due_in: Option<i64> = row.try_get("due_in").map_err(fault)?;
    let mut entry = InboxEntry::new(
        GroupName::parse(group)?,
        MessageId::from_uuid(id),
        TopicName::parse_stored(topic)?,
        state_of(row)?,
    );
    entry.rounds = rounds.unwrap_or(0).unsigned_abs();
    entry.owner = owner.map(|owner| Owner::from_bits(owner.as_u128()));
    entry.failures = failures::from_json(failures)?;
    entry.due_in = due_in.map(span);
    Ok(entry)
}

fn state_of(row: &PgRow) -> Result<InboxState> {
    let number: i16 = row.try_get("state").map_err(fault)?;
    state(number.into())
}

/// Before every row there is the empty name, which no group has.
fn read_place(place: &str) -> Result<(&str, Uuid)> {
    let (group, id) = place.split_once(':').ok_or_else(foreign)?;
    let group = GroupName::parse(group).is_ok().then_some(group);
    let id = Uuid::parse_str(id).ok();
    group.zip(id).ok_or_else(foreign)
}
