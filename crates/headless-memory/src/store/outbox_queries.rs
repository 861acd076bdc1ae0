//! Reading the outbox.

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{
    Cursor, MessageId, OutboxEntry, OutboxFilter, OutboxQueries, OutboxState, OutboxStats, Page, Result,
};

use super::{outbox_table::Row, page::Cursors};
use crate::Memory;

#[async_trait]
impl OutboxQueries for Memory {
    async fn list(
        &self,
        filter: &OutboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<OutboxEntry>> {
        self.link.check("list").await?;
        let cursors = Cursors::new("outbox", self.server.id);
        let after = cursors
            .read(after)?
            .map(|place| place.parse().map_err(|_| cursors.foreign()))
            .transpose()?;
        self.server.database.read(|state, now| {
            let rows = state
                .outbox
                .rows_after(after)
                .filter(|(_, row)| matches(filter, row, now));
            cursors.page(
                limit,
                rows.map(|(number, row)| (number.to_string(), entry(row, now))),
            )
        })
    }

    async fn get(&self, id: MessageId) -> Result<Option<OutboxEntry>> {
        self.link.check("get").await?;
        Ok(self
            .server
            .database
            .read(|state, now| state.outbox.row(id).map(|row| entry(row, now))))
    }

    async fn stats(&self) -> Result<OutboxStats> {
        self.link.check("stats").await?;
        Ok(self.server.database.read(|state, now| {
            let mut stats = OutboxStats::default();
            for (_, row) in state.outbox.rows_after(None) {
                let count = match row.state(now) {
                    OutboxState::Delayed => {
                        stats.delayed += 1;
                        continue;
                    }
                    OutboxState::Leased => &mut stats.leased,
                    OutboxState::Retrying => &mut stats.retrying,
                    _ => &mut stats.ready,
                };
                *count += 1;
                stats.oldest = stats.oldest.max(Some(now.saturating_sub(row.due)));
            }
            stats
        }))
    }
}

fn matches(filter: &OutboxFilter, row: &Row, now: Duration) -> bool {
    filter
        .topic
        .as_ref()
        .is_none_or(|topic| *topic == row.message.topic)
        && filter
            .key
            .as_ref()
            .is_none_or(|key| row.message.key.as_ref() == Some(key))
        && filter.state.is_none_or(|state| state == row.state(now))
}

fn entry(row: &Row, now: Duration) -> OutboxEntry {
    let mut entry = OutboxEntry::new(row.message.clone(), row.state(now));
    entry.attempts = row.attempts;
    entry.failures.clone_from(&row.failures);
    entry.owner = if entry.state == OutboxState::Leased {
        row.owner()
    } else {
        None
    };
    entry
}
