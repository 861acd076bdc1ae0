//! A store's own transaction, as the unit of work uses it.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::{Appended, Arrival, Error, Hold, Marked, Message, Result, store::StoreId};

/// A transaction of a store, its own or one that a user began and lent.
///
/// Everything that is done through it commits together or not at all, with whatever the user wrote into the same
/// transaction. After any call has failed the transaction is doomed: it can only be rolled back, and a commit answers
/// `Conflict`.
#[async_trait]
pub trait StoreTx: Debug + Send {
    /// Stores messages in the outbox when the transaction commits, as
    /// [`OutboxStore::append`](crate::OutboxStore::append) does. They take their place in the order of their keys now.
    ///
    /// Blocks for a round trip.
    ///
    /// # Errors
    /// As [`OutboxStore::append`](crate::OutboxStore::append); `Unsupported` where the store has no outbox.
    async fn append(&mut self, messages: &[Message]) -> Result<Vec<Appended>> {
        let _ = messages;
        Err(Error::unsupported(
            "this store has no outbox: register one that has, or publish directly",
        ))
    }

    /// Marks messages as processed when the transaction commits, as [`InboxStore::mark`](crate::InboxStore::mark)
    /// does, and answers for each in the order of the batch. Until then their rows are held: nobody else can admit,
    /// mark, park or bury them.
    ///
    /// Concurrency: rows are locked in the order of their ids, so that two batches cannot wait for each other. May
    /// wait for another transaction that holds such a row, at most for the store's lock time-out; then `Busy`.
    /// A mark other than `Now` does not doom the transaction; the caller rolls back.
    ///
    /// # Errors
    /// As [`InboxStore::mark`](crate::InboxStore::mark); `Unsupported` where the store has no inbox.
    async fn mark_processed(&mut self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        let _ = marks;
        Err(Error::unsupported(
            "this store has no inbox: register one that has",
        ))
    }
}

/// A transaction that the store itself began, and that can be ended through it.
///
/// Dropping it has the effect of a rollback, soon.
#[async_trait]
pub trait OwnedTx: StoreTx {
    /// Makes everything visible at once, or nothing.
    ///
    /// Cancel safety: dropping the future leaves it committed or not; the outcome is unknown.
    ///
    /// # Errors
    /// `Conflict` when the transaction is doomed; `Unavailable` or `Timeout`, with outcome unknown where the commit
    /// may have happened; `Closed`.
    async fn commit(self: Box<Self>) -> Result<()>;

    /// Undoes everything and frees what was held. When this has returned, others can have it.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`: the store itself then ends the transaction when it notices.
    async fn rollback(self: Box<Self>) -> Result<()>;
}

/// A store that begins transactions. The one driver trait that is not dyn-compatible; see [`DynUnitOfWorkStore`].
#[async_trait]
pub trait UnitOfWorkStore: Debug + Send + Sync + 'static {
    /// Its transaction, with the typed methods for the user's own statements.
    type Tx: OwnedTx + 'static;

    /// Which store this is: equal for two handles if and only if a transaction of one covers the rows of the other.
    fn store_id(&self) -> StoreId;

    /// Begins a transaction.
    ///
    /// Blocks until a connection is free, within the provider's time-out. Dropping the future leaves none open.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn begin(&self) -> Result<Self::Tx>;

    /// Begins a transaction whose first call will be [`StoreTx::mark_processed`]: a store may keep the beginning back until
    /// then, so that both take one round trip. Whatever else is called first dooms it, but for its end.
    ///
    /// Otherwise as [`begin`](Self::begin).
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    async fn begin_to_mark(&self) -> Result<Self::Tx> {
        self.begin().await
    }
}

/// [`UnitOfWorkStore`] without its type. Implemented for every one.
#[async_trait]
pub trait DynUnitOfWorkStore: Debug + Send + Sync + 'static {
    /// As [`UnitOfWorkStore::store_id`].
    fn store_id_dyn(&self) -> StoreId;

    /// As [`UnitOfWorkStore::begin`].
    ///
    /// # Errors
    /// As [`UnitOfWorkStore::begin`].
    async fn begin_dyn(&self) -> Result<Box<dyn OwnedTx>>;
}

#[async_trait]
impl<S: UnitOfWorkStore> DynUnitOfWorkStore for S {
    fn store_id_dyn(&self) -> StoreId {
        self.store_id()
    }

    async fn begin_dyn(&self) -> Result<Box<dyn OwnedTx>> {
        Ok(Box::new(self.begin().await?))
    }
}
