//! How much there is in a store, whoever put it there.

use headless_abstractions::{DeadLetterStats, GroupName, InboxStats, OutboxStats, Result, StoreParts};

/// How much there is in a store. [`AnyStore::depths`](crate::AnyStore::depths) reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Depths {
    /// The outbox; `None` where the store has none.
    pub outbox: Option<OutboxStats>,
    /// The inbox of all groups; `None` where the store has none.
    pub inbox: Option<InboxStats>,
    /// The inbox of each group that was asked about.
    pub groups: Vec<(GroupName, InboxStats)>,
    /// The open dead letters by origin, topic and cause.
    pub dead_letters: Vec<DeadLetterStats>,
}

impl Depths {
    pub(crate) async fn of(parts: &StoreParts, groups: &[GroupName]) -> Result<Self> {
        let mut depths = Self::default();
        if let Some(outbox) = &parts.outbox {
            depths.outbox = Some(outbox.queries.stats().await?);
        }
        if let Some(inbox) = &parts.inbox {
            depths.inbox = Some(inbox.queries.stats(None).await?);
            for group in groups {
                let stats = inbox.queries.stats(Some(group)).await?;
                depths.groups.push((group.clone(), stats));
            }
            depths.dead_letters = inbox.dead_letter_queries.stats().await?;
        }
        Ok(depths)
    }
}
