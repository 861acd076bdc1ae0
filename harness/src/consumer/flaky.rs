//! A store whose transactions do not always come about.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    Appended, Arrival, Error, ErrorKind, Hold, Marked, Message, OwnedTx, Result, Store, StoreId, StoreParts,
    StoreTx, UnitOfWorkStore,
};

/// A store some of whose transactions fail at their beginning.
#[derive(Clone, Debug)]
pub(super) struct FlakyStore<S> {
    pub(super) inner: S,
    pub(super) flaws: Flaws,
}

/// How many of the next transactions fail, and where.
#[derive(Clone, Debug, Default)]
pub(super) struct Flaws {
    /// So many are not begun.
    pub(super) begins: Arc<AtomicU32>,
    /// So many fail at their marks.
    pub(super) marks: Arc<AtomicU32>,
    /// So many have their marks made and get no answer.
    pub(super) silent_marks: Arc<AtomicU32>,
}

fn fails(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1))
        .is_ok()
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "the store does not answer")
}

#[async_trait]
impl<S: Store> UnitOfWorkStore for FlakyStore<S> {
    type Tx = FlakyTx<S::Tx>;

    fn store_id(&self) -> StoreId {
        self.inner.store_id()
    }

    async fn begin(&self) -> Result<Self::Tx> {
        if fails(&self.flaws.begins) {
            return Err(unavailable());
        }
        Ok(FlakyTx {
            inner: self.inner.begin().await?,
            flaws: self.flaws.clone(),
        })
    }
}

impl<S: Store> Store for FlakyStore<S> {
    fn parts(&self) -> StoreParts {
        self.inner.parts()
    }
}

#[derive(Debug)]
pub(super) struct FlakyTx<T> {
    pub(super) inner: T,
    flaws: Flaws,
}

#[async_trait]
impl<T: OwnedTx> StoreTx for FlakyTx<T> {
    async fn append(&mut self, messages: &[Message]) -> Result<Vec<Appended>> {
        self.inner.append(messages).await
    }

    async fn mark_processed(&mut self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        if fails(&self.flaws.marks) {
            return Err(unavailable());
        }
        let marked = self.inner.mark_processed(marks).await?;
        if fails(&self.flaws.silent_marks) {
            tokio::time::sleep(Duration::MAX).await;
        }
        Ok(marked)
    }
}

#[async_trait]
impl<T: OwnedTx> OwnedTx for FlakyTx<T> {
    async fn commit(self: Box<Self>) -> Result<()> {
        Box::new(self.inner).commit().await
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        Box::new(self.inner).rollback().await
    }
}
