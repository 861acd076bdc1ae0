//! Reading dead letters.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Cursor, DeadId, DeadLetter, DeadLetterChange, DeadLetterFilter, DeadLetterQueries, DeadLetterStats,
    DeadLetterTally, FailureCause, Page, Result,
};

use super::page::{Cursors, check_limit};
use crate::Memory;

#[async_trait]
impl DeadLetterQueries for Memory {
    async fn list(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetter>> {
        self.link.check("list").await?;
        let cursors = Cursors::new("dead", self.server.id);
        let after = cursors
            .read(after)?
            .map(|place| place.parse().map_err(|_| cursors.foreign()))
            .transpose()?;
        self.server.database.read(|state, _| {
            let letters = state
                .dead_letters
                .after(after)
                .filter(|(_, record)| filter.matches(&record.letter));
            cursors.page(
                limit,
                letters.map(|(number, record)| (number.to_string(), record.letter.clone())),
            )
        })
    }

    async fn get(&self, id: DeadId) -> Result<Option<DeadLetter>> {
        self.link.check("get").await?;
        let store = self.server.id;
        Ok(self.server.database.read(|state, _| {
            state
                .dead_letters
                .get(store, id)
                .map(|record| record.letter.clone())
        }))
    }

    async fn stats(&self) -> Result<Vec<DeadLetterStats>> {
        self.link.check("stats").await?;
        Ok(self.server.database.read(|state, now| {
            let mut groups = BTreeMap::<_, (u64, Duration)>::new();
            let open = state.dead_letters.after(None).map(|(_, record)| record);
            for record in open.filter(|record| record.letter.is_open()) {
                let letter = &record.letter;
                // Every letter is stored with the failure that caused it.
                let cause = letter
                    .failures
                    .last()
                    .map_or(FailureCause::Error, |last| last.cause);
                let key = (letter.origin.clone(), letter.message.topic.clone(), cause);
                let (count, oldest) = groups.entry(key).or_default();
                *count += 1;
                *oldest = now.saturating_sub(record.died).max(*oldest);
            }
            let stats = |((origin, topic, cause), (count, oldest))| {
                DeadLetterStats::new(origin, topic, cause, count, oldest)
            };
            groups.into_iter().map(stats).collect()
        }))
    }

    async fn tally(&self, filter: &DeadLetterFilter, limit: usize) -> Result<Vec<DeadLetterTally>> {
        self.link.check("tally").await?;
        check_limit(limit)?;
        Ok(self.server.database.read(|state, _| {
            let letters = state.dead_letters.after(None).map(|(_, record)| &record.letter);
            DeadLetterTally::tally(letters.filter(|letter| filter.matches(letter)), limit)
        }))
    }

    async fn history(
        &self,
        id: DeadId,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetterChange>> {
        self.link.check("history").await?;
        let store = self.server.id;
        let cursors = Cursors::new("dead-history", store);
        // The place says whose history it is, and how much of it was shown.
        let place = cursors.read(after)?.map(|place| match place.split_once('.') {
            Some((of, shown)) if of == id.to_string() => shown.parse().map_err(|_| cursors.foreign()),
            _ => Err(cursors.foreign()),
        });
        let shown: usize = place.transpose()?.unwrap_or(0);
        self.server.database.read(|state, _| {
            let record = state.dead_letters.get(store, id);
            let changes = record
                .iter()
                .flat_map(|record| &record.history)
                .enumerate()
                .skip(shown);
            cursors.page(
                limit,
                changes.map(|(n, change)| (format!("{id}.{}", n + 1), change.clone())),
            )
        })
    }
}
