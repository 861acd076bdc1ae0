//! The mutations of what an operator and an idle node read.

use std::{future::pending, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use headless_abstractions::{
    Change, ControlVersion, Cursor, DeadId, DeadLetter, DeadLetterChange, DeadLetterFilter,
    DeadLetterQueries, DeadLetterStats, DeadLetterTally, ErrorKind, GroupName, InboxEntry, InboxFilter,
    InboxQueries, InboxStats, MessageId, OutboxEntry, OutboxFilter, OutboxQueries, OutboxStats, Page, Pulse,
    PulseStore, Result,
};

use super::{Bug, Mutant};
use crate::mutation::Mutation;

/// The largest page that every store answers.
const LARGEST: usize = 1_000;

impl Bug {
    /// The page as the bug makes it, out of `list`.
    async fn page<'a, T: Send>(
        &self,
        after: Option<&Cursor>,
        limit: usize,
        list: impl Fn(Option<Cursor>, usize) -> BoxFuture<'a, Result<Page<T>>> + Send + Sync,
    ) -> Result<Page<T>> {
        match self.mutation {
            Some(Mutation::PageByOffset) if (1..=LARGEST).contains(&limit) => {
                let offset = after
                    .and_then(|cursor| cursor.as_str().parse().ok())
                    .unwrap_or(0_usize);
                let mut items = list(None, LARGEST).await?.items.into_iter().skip(offset);
                let page: Vec<_> = items.by_ref().take(limit).collect();
                let next = items
                    .next()
                    .map(|_| Cursor::new((offset + page.len()).to_string()));
                Ok(Page::new(page, next))
            }
            Some(Mutation::PageUnchecked) => {
                let limit = limit.clamp(1, LARGEST);
                match list(after.cloned(), limit).await {
                    Err(error) if error.kind() == ErrorKind::Invalid => list(None, limit).await,
                    answer => answer,
                }
            }
            _ => list(after.cloned(), limit).await,
        }
    }
}

#[async_trait]
impl OutboxQueries for Mutant {
    async fn list(
        &self,
        filter: &OutboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<OutboxEntry>> {
        let all = OutboxFilter::all();
        let filter = if self.bug.is(Mutation::FilterIgnored) {
            &all
        } else {
            filter
        };
        let list = |after: Option<Cursor>, limit| -> BoxFuture<'_, _> {
            Box::pin(async move { self.outbox_queries.list(filter, after.as_ref(), limit).await })
        };
        self.bug.page(after, limit, list).await
    }

    async fn get(&self, id: MessageId) -> Result<Option<OutboxEntry>> {
        let mut entry = self.outbox_queries.get(id).await?;
        if let Some(entry) = &mut entry {
            self.bug.shown(&mut entry.message);
        }
        Ok(entry)
    }

    async fn stats(&self) -> Result<OutboxStats> {
        let mut stats = self.outbox_queries.stats().await?;
        if self.bug.is(Mutation::DelayedIsReady) {
            stats.ready += std::mem::take(&mut stats.delayed);
            stats.oldest = stats.oldest.or((stats.ready > 0).then_some(Duration::ZERO));
        }
        Ok(stats)
    }
}

#[async_trait]
impl InboxQueries for Mutant {
    async fn list(
        &self,
        filter: &InboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<InboxEntry>> {
        let all = InboxFilter::all();
        let filter = if self.bug.is(Mutation::FilterIgnored) {
            &all
        } else {
            filter
        };
        let list = |after: Option<Cursor>, limit| -> BoxFuture<'_, _> {
            Box::pin(async move { self.inbox_queries.list(filter, after.as_ref(), limit).await })
        };
        self.bug.page(after, limit, list).await
    }

    async fn get(&self, group: &GroupName, id: MessageId) -> Result<Option<InboxEntry>> {
        let mut entry = self.inbox_queries.get(group, id).await?;
        if let Some(entry) = &mut entry
            && self.bug.is(Mutation::FollowersAreDue)
        {
            entry.due_in = entry.due_in.or(Some(Duration::ZERO));
        }
        Ok(entry)
    }

    async fn stats(&self, group: Option<&GroupName>) -> Result<InboxStats> {
        let group = group.filter(|_| !self.bug.is(Mutation::FilterIgnored));
        self.inbox_queries.stats(group).await
    }
}

#[async_trait]
impl DeadLetterQueries for Mutant {
    async fn list(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetter>> {
        let all = DeadLetterFilter::open().with_closed();
        let filter = if self.bug.is(Mutation::FilterIgnored) {
            &all
        } else {
            filter
        };
        let list = |after: Option<Cursor>, limit| -> BoxFuture<'_, _> {
            Box::pin(async move { self.letter_queries.list(filter, after.as_ref(), limit).await })
        };
        let mut page = self.bug.page(after, limit, list).await?;
        for letter in &mut page.items {
            self.bug.shown(&mut letter.message);
        }
        Ok(page)
    }

    async fn get(&self, id: DeadId) -> Result<Option<DeadLetter>> {
        let mut letter = self.letter_queries.get(id).await?;
        if let Some(letter) = &mut letter {
            self.bug.shown(&mut letter.message);
        }
        Ok(letter)
    }

    async fn stats(&self) -> Result<Vec<DeadLetterStats>> {
        self.letter_queries.stats().await
    }

    async fn tally(&self, filter: &DeadLetterFilter, limit: usize) -> Result<Vec<DeadLetterTally>> {
        let all = DeadLetterFilter::open().with_closed();
        let filter = if self.bug.is(Mutation::FilterIgnored) {
            &all
        } else {
            filter
        };
        let limit = match self.bug.mutation {
            Some(Mutation::PageUnchecked) => limit.clamp(1, LARGEST),
            _ => limit,
        };
        let mut tallies = self.letter_queries.tally(filter, limit).await?;
        match self.bug.mutation {
            Some(Mutation::TallyUnsorted) => tallies.reverse(),
            Some(Mutation::TallyWholeErrors) => tallies.retain(|tally| !tally.error.contains('#')),
            Some(Mutation::TallyCausesAlone) => {
                let mut causes: Vec<DeadLetterTally> = Vec::new();
                for tally in tallies {
                    match causes.iter_mut().find(|known| known.cause == tally.cause) {
                        Some(known) => known.count += tally.count,
                        None => causes.push(tally),
                    }
                }
                tallies = causes;
            }
            _ => {}
        }
        Ok(tallies)
    }

    async fn history(
        &self,
        id: DeadId,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetterChange>> {
        let list = |after: Option<Cursor>, limit| -> BoxFuture<'_, _> {
            Box::pin(async move { self.letter_queries.history(id, after.as_ref(), limit).await })
        };
        let mut page = self.bug.page(after, limit, list).await?;
        match self.bug.mutation {
            Some(Mutation::EditsUnrecorded) => {
                page.items
                    .retain(|change| !matches!(change.what, Change::Edited { .. }));
            }
            Some(Mutation::HistoryForgetsWho) => {
                page.items
                    .iter_mut()
                    .for_each(|change| change.by = "operator".to_owned());
            }
            Some(Mutation::HistoryForgetsPayload) => {
                for change in &mut page.items {
                    if let Change::Redriven { with } = &mut change.what {
                        *with = None;
                    }
                }
            }
            _ => {}
        }
        Ok(page)
    }
}

#[async_trait]
impl PulseStore for Mutant {
    async fn pulse(&self) -> Result<Pulse> {
        let pulse = self.pulse.pulse().await?;
        Ok(if self.bug.is(Mutation::PulseIdle) {
            Pulse::idle()
        } else if self.bug.is(Mutation::PulseHidesChanges) {
            pulse.with_control(ControlVersion::NONE)
        } else {
            pulse
        })
    }

    async fn wait_ready(&self, at_most: Duration) -> Result<()> {
        if self.bug.is(Mutation::WaitOutstays) {
            return pending().await;
        }
        self.pulse.wait_ready(at_most).await
    }
}
