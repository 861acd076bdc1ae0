//! An outbox whose count fails, or does not answer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use async_trait::async_trait;
use headless_abstractions::{
    Cursor, Error, ErrorKind, MessageId, OutboxEntry, OutboxFilter, OutboxQueries, OutboxStats, Page, Result,
};

#[derive(Debug)]
pub(crate) struct BrokenOutbox {
    pub(crate) inner: Arc<dyn OutboxQueries>,
    pub(crate) fails: AtomicBool,
    pub(crate) hangs: AtomicBool,
    /// How many counts were asked for.
    pub(crate) asked: AtomicU32,
}

impl BrokenOutbox {
    pub(crate) fn of(inner: Arc<dyn OutboxQueries>) -> Self {
        Self {
            inner,
            fails: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            asked: AtomicU32::new(0),
        }
    }
}

#[async_trait]
impl OutboxQueries for BrokenOutbox {
    async fn list(
        &self,
        filter: &OutboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<OutboxEntry>> {
        self.inner.list(filter, after, limit).await
    }

    async fn get(&self, id: MessageId) -> Result<Option<OutboxEntry>> {
        self.inner.get(id).await
    }

    async fn stats(&self) -> Result<OutboxStats> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "away"));
        }
        if self.hangs.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        self.inner.stats().await
    }
}
