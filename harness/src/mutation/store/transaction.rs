//! The mutations of a transaction.

use std::sync::Arc;

use async_trait::async_trait;
use headless_abstractions::{
    Appended, Arrival, Error, ErrorKind, Hold, InboxStore, Marked, Message, OutboxStore, OwnedTx, Result,
    StoreParts, StoreTx,
};

use super::Bug;
use crate::mutation::Mutation;

/// A transaction with a bug.
#[derive(Debug)]
pub(crate) struct MutantTx<T> {
    pub(super) inner: T,
    bug: Bug,
    outbox: Option<Arc<dyn OutboxStore>>,
    inbox: Option<Arc<dyn InboxStore>>,
    late_appends: Vec<Message>,
    late_marks: Vec<(Arrival, Hold)>,
    doomed: bool,
}

impl<T: OwnedTx> MutantTx<T> {
    pub(super) fn new(inner: T, parts: StoreParts, bug: Bug) -> Self {
        Self {
            inner,
            bug,
            outbox: parts.outbox.map(|parts| parts.store),
            inbox: parts.inbox.map(|parts| parts.inbox),
            late_appends: Vec::new(),
            late_marks: Vec::new(),
            doomed: false,
        }
    }
}

#[async_trait]
impl<T: OwnedTx> StoreTx for MutantTx<T> {
    async fn append(&mut self, messages: &[Message]) -> Result<Vec<Appended>> {
        let stored = self.bug.stored(messages);
        match (self.bug.mutation, &self.outbox) {
            (Some(Mutation::CommitLosesAppend), _) => Ok(vec![Appended::Stored; stored.len()]),
            (Some(Mutation::AppendOutsideTransaction), Some(outbox)) => outbox.append(&stored).await,
            (Some(Mutation::PlaceAtCommit), _) => {
                let answers = vec![Appended::Stored; stored.len()];
                self.late_appends.extend(stored);
                Ok(answers)
            }
            _ => {
                let mut answers = self.inner.append(&stored).await?;
                if self.bug.is(Mutation::StoreDuplicates) {
                    answers.fill(Appended::Stored);
                }
                Ok(answers)
            }
        }
    }

    async fn mark_processed(&mut self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        let marks: Vec<_> = marks
            .iter()
            .map(|(arrival, hold)| {
                let met = self.bug.met(arrival);
                let hold = self.bug.checked(&met, *hold);
                (met, hold)
            })
            .collect();
        let answers = match (self.bug.mutation, &self.inbox) {
            (Some(Mutation::MarkForgotten), _) => vec![Marked::Now; marks.len()],
            (Some(Mutation::MarkAtCommit), _) => {
                let answers = vec![Marked::Now; marks.len()];
                self.late_marks.extend(marks);
                answers
            }
            (Some(Mutation::MarkOutsideTransaction), Some(inbox)) => inbox.mark(&marks).await?,
            _ => self.inner.mark_processed(&marks).await?,
        };
        self.doomed |= answers.iter().any(|answer| *answer != Marked::Now);
        Ok(answers.into_iter().map(|answer| self.bug.told(answer)).collect())
    }
}

#[async_trait]
impl<T: OwnedTx + 'static> OwnedTx for MutantTx<T> {
    async fn commit(mut self: Box<Self>) -> Result<()> {
        if self.doomed && self.bug.is(Mutation::MarkDooms) {
            Box::new(self.inner).rollback().await?;
            return Err(Error::new(ErrorKind::Conflict, "the transaction is doomed"));
        }
        if !self.late_appends.is_empty() {
            self.inner.append(&self.late_appends).await?;
        }
        if !self.late_marks.is_empty() {
            self.inner.mark_processed(&self.late_marks).await?;
        }
        let committed = Box::new(self.inner).commit().await;
        if self.bug.is(Mutation::SwallowCommitError) {
            Ok(())
        } else {
            committed
        }
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        if self.bug.is(Mutation::RollbackCommits) {
            return Box::new(self.inner).commit().await;
        }
        Box::new(self.inner).rollback().await
    }
}
