//! Reading the inbox.

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{
    Cursor, GroupName, InboxEntry, InboxFilter, InboxQueries, InboxState, InboxStats, MessageId, Page, Result,
};

use super::{
    inbox_table::{Phase, Row, RowKey},
    page::Cursors,
};
use crate::Memory;

#[async_trait]
impl InboxQueries for Memory {
    async fn list(
        &self,
        filter: &InboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<InboxEntry>> {
        self.link.check("list").await?;
        let cursors = Cursors::new("inbox", self.server.id);
        let after = cursors
            .read(after)?
            .map(|place| read_key(place).ok_or_else(|| cursors.foreign()))
            .transpose()?;
        self.server.database.read(|state, now| {
            let rows = state
                .inbox
                .rows_after(after.as_ref())
                .filter(|(key, row)| matches(filter, key, row));
            cursors.page(
                limit,
                rows.map(|(key, row)| (write_key(key), entry(key, row, now))),
            )
        })
    }

    async fn get(&self, group: &GroupName, id: MessageId) -> Result<Option<InboxEntry>> {
        self.link.check("get").await?;
        let key = (group.clone(), id);
        Ok(self
            .server
            .database
            .read(|state, now| state.inbox.row(&key).map(|row| entry(&key, row, now))))
    }

    async fn stats(&self, group: Option<&GroupName>) -> Result<InboxStats> {
        self.link.check("stats").await?;
        Ok(self.server.database.read(|state, _| {
            let mut stats = InboxStats::default();
            let rows = state
                .inbox
                .rows_after(None)
                .filter(|(key, _)| group.is_none_or(|group| key.0 == *group));
            for (_, row) in rows {
                let count = match row.phase.state() {
                    InboxState::Running => &mut stats.running,
                    InboxState::Parked => &mut stats.parked,
                    InboxState::Processed => &mut stats.processed,
                    InboxState::Dead => &mut stats.dead,
                    InboxState::Discarded => &mut stats.discarded,
                };
                *count += 1;
            }
            stats
        }))
    }
}

fn matches(filter: &InboxFilter, key: &RowKey, row: &Row) -> bool {
    filter.group.as_ref().is_none_or(|group| *group == key.0)
        && filter
            .topic
            .as_ref()
            .is_none_or(|topic| *topic == row.arrival.topic)
        && filter.state.is_none_or(|state| state == row.phase.state())
}

fn entry(key: &RowKey, row: &Row, now: Duration) -> InboxEntry {
    let mut entry = InboxEntry::new(key.0.clone(), key.1, row.arrival.topic.clone(), row.phase.state());
    entry.rounds = row.rounds;
    entry.failures.clone_from(&row.failures);
    entry.due_in = row.due_in(now);
    if let Phase::Running(running) = row.phase {
        entry.owner = running.owner;
    }
    entry
}

/// Neither part of a key contains a colon.
fn write_key((group, id): &RowKey) -> String {
    format!("{group}:{id}")
}

fn read_key(place: &str) -> Option<RowKey> {
    let (group, id) = place.split_once(':')?;
    Some((GroupName::parse(group).ok()?, id.parse().ok()?))
}
