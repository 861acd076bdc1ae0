//! Reading: pages in an order that writing does not change.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Cursor, DeadId, DeadLetter, DeadLetterChange, DeadLetterFilter, DeadLetterQueries, DeadLetterStats,
    DeadLetterTally, Error, GroupName, InboxEntry, InboxFilter, InboxQueries, InboxState, InboxStats,
    MessageId, OutboxEntry, OutboxFilter, OutboxQueries, OutboxState, OutboxStats, Page, Result,
};

use crate::{error::NAME, inbox, inbox::Inbox, outbox, store::ToyStore};

fn check_limit(limit: usize) -> Result<()> {
    if !(1..=1000).contains(&limit) {
        return Err(Error::invalid("the limit of a page is 1 to 1000").with_provider(NAME));
    }
    Ok(())
}

/// The page after this cursor. A cursor says which list it is of, and the last row's position in it.
fn page<T>(
    list: &str,
    rows: impl Iterator<Item = (String, T)>,
    after: Option<&Cursor>,
    limit: usize,
) -> Result<Page<T>> {
    check_limit(limit)?;
    let after = match after.map(|cursor| cursor.as_str().split_once(':')) {
        None => "",
        Some(Some((of, position))) if of == list => position,
        Some(_) => return Err(Error::invalid("the cursor is of another list").with_provider(NAME)),
    };
    let mut rows: Vec<_> = rows
        .filter(|(position, _)| position.as_str() > after)
        .take(limit + 1)
        .collect();
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows
        .last()
        .filter(|_| more)
        .map(|(last, _)| Cursor::new(format!("{list}:{last}")));
    Ok(Page::new(rows.into_iter().map(|(_, row)| row).collect(), next))
}

/// A number as a position: its order is that of its text.
fn position(number: u64) -> String {
    format!("{number:020}")
}

fn outbox_entry(row: &outbox::Row, now: Duration) -> OutboxEntry {
    let state = if row.is_leased(now) {
        OutboxState::Leased
    } else if row.due <= now {
        OutboxState::Ready
    } else if row.place.is_none() {
        OutboxState::Delayed
    } else {
        OutboxState::Retrying
    };
    let mut entry = OutboxEntry::new(row.message.clone(), state);
    entry.attempts = row.attempts;
    entry.failures.clone_from(&row.failures);
    entry.owner = row.held.filter(|_| row.is_leased(now)).map(|(owner, _)| owner);
    entry
}

#[async_trait]
impl OutboxQueries for ToyStore {
    async fn list(
        &self,
        filter: &OutboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<OutboxEntry>> {
        let server = self.link.look("list")?;
        let rows = server
            .outbox
            .rows
            .iter()
            .map(|(number, row)| (position(*number), outbox_entry(row, server.now)));
        let matches = |entry: &OutboxEntry| {
            filter
                .topic
                .as_ref()
                .is_none_or(|topic| *topic == entry.message.topic)
                && filter
                    .key
                    .as_ref()
                    .is_none_or(|key| Some(key) == entry.message.key.as_ref())
                && filter.state.is_none_or(|state| state == entry.state)
        };
        page("outbox", rows.filter(|(_, entry)| matches(entry)), after, limit)
    }

    async fn get(&self, id: MessageId) -> Result<Option<OutboxEntry>> {
        let server = self.link.look("get")?;
        let row = server.outbox.rows.values().find(|row| row.message.id == id);
        Ok(row.map(|row| outbox_entry(row, server.now)))
    }

    async fn stats(&self) -> Result<OutboxStats> {
        let server = self.link.look("stats")?;
        let mut stats = OutboxStats::default();
        for row in server.outbox.rows.values() {
            match outbox_entry(row, server.now).state {
                OutboxState::Delayed => stats.delayed += 1,
                OutboxState::Ready => stats.ready += 1,
                OutboxState::Leased => stats.leased += 1,
                _ => stats.retrying += 1,
            }
            let age = server.now.checked_sub(row.since);
            stats.oldest = stats.oldest.max(age);
        }
        Ok(stats)
    }
}

fn inbox_entry(inbox: &Inbox, row: &inbox::Row, now: Duration) -> InboxEntry {
    let arrival = &row.arrival;
    let mut entry = InboxEntry::new(
        arrival.group.clone(),
        arrival.id,
        arrival.topic.clone(),
        row.state,
    );
    entry.rounds = row.rounds;
    entry.failures.clone_from(&row.failures);
    entry.owner = row.held.map(|(owner, _)| owner);
    if let (InboxState::Parked, Some(stay)) = (row.state, &row.stay) {
        let first = inbox.is_first(arrival, Some(stay.place));
        entry.due_in = first.then(|| stay.due.saturating_sub(now));
    }
    entry
}

#[async_trait]
impl InboxQueries for ToyStore {
    async fn list(
        &self,
        filter: &InboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<InboxEntry>> {
        let server = self.link.look("list")?;
        let matches = |row: &inbox::Row| {
            filter
                .group
                .as_ref()
                .is_none_or(|group| *group == row.arrival.group)
                && filter
                    .topic
                    .as_ref()
                    .is_none_or(|topic| *topic == row.arrival.topic)
                && filter.state.is_none_or(|state| state == row.state)
        };
        // A blank sorts before all that a group's name can hold.
        let rows = server
            .inbox
            .rows
            .iter()
            .filter(|(_, row)| matches(row))
            .map(|((group, id), row)| {
                (
                    format!("{group} {id}"),
                    inbox_entry(&server.inbox, row, server.now),
                )
            });
        page("inbox", rows, after, limit)
    }

    async fn get(&self, group: &GroupName, id: MessageId) -> Result<Option<InboxEntry>> {
        let server = self.link.look("get")?;
        let row = server.inbox.rows.get(&(group.clone(), id));
        Ok(row.map(|row| inbox_entry(&server.inbox, row, server.now)))
    }

    async fn stats(&self, group: Option<&GroupName>) -> Result<InboxStats> {
        let server = self.link.look("stats")?;
        let mut stats = InboxStats::default();
        let rows = server.inbox.rows.values();
        for row in rows.filter(|row| group.is_none_or(|group| *group == row.arrival.group)) {
            *match row.state {
                InboxState::Running => &mut stats.running,
                InboxState::Parked => &mut stats.parked,
                InboxState::Processed => &mut stats.processed,
                InboxState::Dead => &mut stats.dead,
                InboxState::Discarded => &mut stats.discarded,
            } += 1;
        }
        Ok(stats)
    }
}

#[async_trait]
impl DeadLetterQueries for ToyStore {
    async fn list(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetter>> {
        let server = self.link.look("list")?;
        let letters = server
            .letters
            .all
            .iter()
            .filter(|(_, letter)| filter.matches(letter));
        let rows = letters.map(|(number, letter)| (position(*number), letter.clone()));
        page("dead letters", rows, after, limit)
    }

    async fn get(&self, id: DeadId) -> Result<Option<DeadLetter>> {
        let mut server = self.link.look("get")?;
        Ok(server.letters.find(id).cloned())
    }

    async fn stats(&self) -> Result<Vec<DeadLetterStats>> {
        let server = self.link.look("stats")?;
        let today = server.clock.wall(server.now);
        let mut groups = BTreeMap::new();
        for letter in server.letters.all.values().filter(|letter| letter.is_open()) {
            if let Some(last) = letter.failures.last() {
                let age = (today - letter.buried_at).to_std().unwrap_or_default();
                let by = (letter.origin.clone(), letter.message.topic.clone(), last.cause);
                // The first of a group is the oldest.
                groups.entry(by).or_insert((0, age)).0 += 1;
            }
        }
        let stats = |((origin, topic, cause), (count, oldest))| {
            DeadLetterStats::new(origin, topic, cause, count, oldest)
        };
        Ok(groups.into_iter().map(stats).collect())
    }

    async fn tally(&self, filter: &DeadLetterFilter, limit: usize) -> Result<Vec<DeadLetterTally>> {
        check_limit(limit)?;
        let server = self.link.look("tally")?;
        let letters = server.letters.all.values();
        Ok(DeadLetterTally::tally(
            letters.filter(|letter| filter.matches(letter)),
            limit,
        ))
    }

    async fn history(
        &self,
        id: DeadId,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetterChange>> {
        let server = self.link.look("history")?;
        let changes = server.letters.changes.iter().filter(|(of, _)| *of == id);
        let rows = changes
            .zip(0..)
            .map(|((_, change), n)| (position(n), change.clone()));
        page(&format!("history of {id}"), rows, after, limit)
    }
}
