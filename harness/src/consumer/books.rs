//! What the store knows, as an operator would look it up.

use headless_abstractions::{
    DeadLetter, DeadLetterFilter, GroupName, InboxEntry, InboxParts, InboxState, InboxStats, MessageId,
    Redrive, Redriven, Store,
};

use super::Both;
use crate::{
    case::{CaseResult, fail},
    cx::Cx,
    fixture::StoreFixture,
    wait::eventually,
};

/// The inbox and the dead letters, through a connection of their own.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) parts: InboxParts,
}

impl<F: Both> Cx<F> {
    /// The store's books.
    pub(super) async fn books(&self) -> CaseResult<Books> {
        let node = StoreFixture::node(self.fixture()).await?;
        match node.store.parts().inbox {
            Some(parts) => Ok(Books { parts }),
            None => fail!("the store has no inbox"),
        }
    }
}

impl Books {
    /// A message as the group has it.
    pub(super) async fn entry(&self, group: &GroupName, id: MessageId) -> CaseResult<Option<InboxEntry>> {
        Ok(self.parts.queries.get(group, id).await?)
    }

    /// Waits until a message is in this state.
    pub(super) async fn becomes<F: Both>(
        &self,
        cx: &Cx<F>,
        group: &GroupName,
        id: MessageId,
        state: InboxState,
    ) -> CaseResult<InboxEntry> {
        eventually(cx.patience(), &format!("{state:?}"), async || {
            let entry = self.entry(group, id).await?;
            Ok(entry.filter(|entry| entry.state == state))
        })
        .await
    }

    pub(super) async fn stats(&self, group: &GroupName) -> CaseResult<InboxStats> {
        Ok(self.parts.queries.stats(Some(group)).await?)
    }

    /// The open dead letters.
    pub(super) async fn letters(&self) -> CaseResult<Vec<DeadLetter>> {
        let page = self
            .parts
            .dead_letter_queries
            .list(&DeadLetterFilter::open(), None, 1_000)
            .await?;
        Ok(page.items)
    }

    /// Waits for this many open dead letters.
    pub(super) async fn wait_for_letters<F: Both>(
        &self,
        cx: &Cx<F>,
        count: usize,
    ) -> CaseResult<Vec<DeadLetter>> {
        eventually(cx.patience(), &format!("{count} dead letters"), async || {
            Ok(Some(self.letters().await?).filter(|letters| letters.len() == count))
        })
        .await
    }

    /// Redrives a dead letter, which must be possible.
    pub(super) async fn redrive(&self, letter: &DeadLetter) -> CaseResult {
        let answers = self
            .parts
            .dead_letters
            .redrive(&Redrive::new(vec![letter.id], "a case"))
            .await?;
        if answers == [Redriven::Now] {
            Ok(())
        } else {
            fail!("the redrive was answered with {answers:?}")
        }
    }
}
