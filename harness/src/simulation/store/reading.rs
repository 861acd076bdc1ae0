//! What a node of the simulation asks of its store: queries, and the idle question.

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{
    Cursor, DeadId, DeadLetter, DeadLetterChange, DeadLetterFilter, DeadLetterQueries, DeadLetterStats,
    DeadLetterTally, GroupName, InboxEntry, InboxFilter, InboxQueries, InboxStats, MessageId, OutboxEntry,
    OutboxFilter, OutboxQueries, OutboxStats, Page, Pulse, PulseStore, Result,
};

use super::SimStore;
use crate::simulation::{gate::Op, label::Label};

#[async_trait]
impl PulseStore for SimStore {
    async fn pulse(&self) -> Result<Pulse> {
        self.gate
            .call(Op::any("pulse"), self.memory.pulse(), |pulse| {
                format!("{pulse:?}")
            })
            .await
    }

    async fn wait_ready(&self, at_most: Duration) -> Result<()> {
        let call = self.memory.wait_ready(at_most);
        self.gate
            .call(Op::before("wait ready"), call, |()| String::new())
            .await
    }
}

#[async_trait]
impl OutboxQueries for SimStore {
    async fn list(
        &self,
        filter: &OutboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<OutboxEntry>> {
        let call = OutboxQueries::list(&self.memory, filter, after, limit);
        self.gate
            .call(Op::before("list outbox"), call, |page| {
                page.items.len().to_string()
            })
            .await
    }

    async fn get(&self, id: MessageId) -> Result<Option<OutboxEntry>> {
        let call = OutboxQueries::get(&self.memory, id);
        let tell =
            |entry: &Option<OutboxEntry>| format!("{} {:?}", Label(id), entry.as_ref().map(|e| e.state));
        self.gate.call(Op::before("get outbox"), call, tell).await
    }

    async fn stats(&self) -> Result<OutboxStats> {
        let call = OutboxQueries::stats(&self.memory);
        self.gate
            .call(Op::before("outbox stats"), call, |stats| format!("{stats:?}"))
            .await
    }
}

#[async_trait]
impl InboxQueries for SimStore {
    async fn list(
        &self,
        filter: &InboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<InboxEntry>> {
        let call = InboxQueries::list(&self.memory, filter, after, limit);
        self.gate
            .call(Op::before("list inbox"), call, |page| {
                page.items.len().to_string()
            })
            .await
    }

    async fn get(&self, group: &GroupName, id: MessageId) -> Result<Option<InboxEntry>> {
        let call = InboxQueries::get(&self.memory, group, id);
        let tell = |entry: &Option<InboxEntry>| {
            format!("{group} {} {:?}", Label(id), entry.as_ref().map(|e| e.state))
        };
        self.gate.call(Op::before("get inbox"), call, tell).await
    }

    async fn stats(&self, group: Option<&GroupName>) -> Result<InboxStats> {
        let call = InboxQueries::stats(&self.memory, group);
        self.gate
            .call(Op::before("inbox stats"), call, |stats| format!("{stats:?}"))
            .await
    }
}

#[async_trait]
impl DeadLetterQueries for SimStore {
    async fn list(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetter>> {
        let call = DeadLetterQueries::list(&self.memory, filter, after, limit);
        self.gate
            .call(Op::before("list dead"), call, |page| page.items.len().to_string())
            .await
    }

    async fn get(&self, id: DeadId) -> Result<Option<DeadLetter>> {
        let call = DeadLetterQueries::get(&self.memory, id);
        self.gate
            .call(Op::before("get dead"), call, |letter| {
                letter.is_some().to_string()
            })
            .await
    }

    async fn stats(&self) -> Result<Vec<DeadLetterStats>> {
        let call = DeadLetterQueries::stats(&self.memory);
        self.gate
            .call(Op::before("dead stats"), call, |stats| stats.len().to_string())
            .await
    }

    async fn tally(&self, filter: &DeadLetterFilter, limit: usize) -> Result<Vec<DeadLetterTally>> {
        let call = DeadLetterQueries::tally(&self.memory, filter, limit);
        self.gate
            .call(Op::before("tally dead"), call, |tallies| {
                tallies.len().to_string()
            })
            .await
    }

    async fn history(
        &self,
        id: DeadId,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetterChange>> {
        let call = DeadLetterQueries::history(&self.memory, id, after, limit);
        self.gate
            .call(Op::before("dead history"), call, |page| {
                page.items.len().to_string()
            })
            .await
    }
}
