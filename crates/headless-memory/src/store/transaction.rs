//! Transactions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::OnceLock,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use headless_abstractions::{
    Appended, Arrival, Error, ErrorKind, Hold, Marked, Message, MessageId, OwnedTx, Result, RetryAdvice,
    StoreId, StoreTx, UnitOfWorkStore,
};

use super::{
    LockKey, State, TxId, View,
    inbox::{HELD, MarkedHere, key_of},
    inbox_table::Phase,
    outbox::{StagedMessage, contended},
    tables::check_names,
};
use crate::Memory;

/// A transaction of the memory store: messages, marks, and rows of the user's own tables.
///
/// What it writes is staged and becomes visible at its commit, all at once. The rows that it writes are locked until
/// it ends: other transactions wait for them, at most for
/// [`MemoryConfig::lock_timeout`](crate::MemoryConfig::lock_timeout). Reads see what is committed, beneath its own
/// writes.
///
/// Dropping it rolls back.
pub struct MemoryTx {
    memory: Memory,
    id: TxId,
    doomed: OnceLock<&'static str>,
    messages: Vec<StagedMessage>,
    message_ids: BTreeSet<MessageId>,
    marks: Vec<Arrival>,
    marked: MarkedHere,
    rows: BTreeMap<(String, String), Option<Bytes>>,
}

#[async_trait]
impl UnitOfWorkStore for Memory {
    type Tx = MemoryTx;

    fn store_id(&self) -> StoreId {
        self.server.id
    }

    async fn begin(&self) -> Result<MemoryTx> {
        self.link.check("begin").await?;
        let id = self.server.database.write(|state, _| {
            let id = TxId(state.sequence.next());
            state.locks.begin(id, self.link.clone());
            id
        });
        Ok(MemoryTx {
            memory: self.clone(),
            id,
            doomed: OnceLock::new(),
            messages: Vec::new(),
            message_ids: BTreeSet::new(),
            marks: Vec::new(),
            marked: MarkedHere::default(),
            rows: BTreeMap::new(),
        })
    }
}

impl MemoryTx {
    /// Writes a row. Waits for another transaction that holds it.
    ///
    /// # Errors
    /// `Invalid` for an empty or too long table (100 bytes) or key (512 bytes); `Conflict`, to be retried, when another
    /// transaction holds the row for longer than the lock time-out; `Closed`.
    pub async fn put(&mut self, table: &str, key: &str, value: impl Into<Bytes> + Send) -> Result<()> {
        self.hold("put", table, key).await?;
        self.stage(table, key, Some(value.into()));
        Ok(())
    }

    /// Writes a row if there is none, and says whether it did; holds the key until the transaction ends either way,
    /// as a unique index does.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_if_absent(
        &mut self,
        table: &str,
        key: &str,
        value: impl Into<Bytes> + Send,
    ) -> Result<bool> {
        self.hold("put_if_absent", table, key).await?;
        let absent = self.read(table, key).is_none();
        if absent {
            self.stage(table, key, Some(value.into()));
        }
        Ok(absent)
    }

    /// Removes a row; one that is not there stays so. Waits for another transaction that holds it.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn remove(&mut self, table: &str, key: &str) -> Result<()> {
        self.hold("remove", table, key).await?;
        self.stage(table, key, None);
        Ok(())
    }

    /// Writes a row under a new key, which is greater than those of all rows that were pushed before on this server;
    /// so the rows of a table list in the order in which they were pushed.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn push(&mut self, table: &str, value: impl Into<Bytes> + Send) -> Result<()> {
        self.check("push").await?;
        let number = self
            .memory
            .server
            .database
            .write(|state, _| state.sequence.next());
        self.put(table, &format!("{number:020}"), value).await
    }

    /// Reads a row: as this transaction has written it, else as it is committed.
    ///
    /// # Errors
    /// As [`put`](Self::put); it never waits.
    pub async fn get(&self, table: &str, key: &str) -> Result<Option<Bytes>> {
        self.check("get").await?;
        self.doom_on_error("get", check_names("get", table, key))?;
        Ok(self.read(table, key))
    }

    /// Reads a row as [`get`](Self::get) does, and holds it until the transaction ends: nobody else writes it before.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn get_for_update(&mut self, table: &str, key: &str) -> Result<Option<Bytes>> {
        self.hold("get_for_update", table, key).await?;
        Ok(self.read(table, key))
    }

    fn stage(&mut self, table: &str, key: &str, value: Option<Bytes>) {
        self.rows.insert((table.to_owned(), key.to_owned()), value);
    }

    fn read(&self, table: &str, key: &str) -> Option<Bytes> {
        match self.rows.get(&(table.to_owned(), key.to_owned())) {
            Some(staged) => staged.clone(),
            None => self.memory.row(table, key),
        }
    }

    /// Takes the lock of a row.
    async fn hold(&self, operation: &'static str, table: &str, key: &str) -> Result<()> {
        self.check(operation).await?;
        self.doom_on_error(operation, check_names(operation, table, key))?;
        let lock = LockKey::Row(table.to_owned(), key.to_owned());
        let id = self.id;
        let held = self
            .memory
            .when_free(operation, |state, _, timed_out| {
                if !state.locks.is_open(id) {
                    return None;
                }
                if state.locks.is_held_from(id, &lock) {
                    return timed_out.then_some(false);
                }
                state.locks.take(id, [lock.clone()]);
                Some(true)
            })
            .await;
        let held = held.and_then(|held| {
            if held {
                Ok(())
            } else {
                Err(held_elsewhere(operation, table, key))
            }
        });
        self.doom_on_error(operation, held)
    }

    /// Succeeds while the transaction may go on.
    async fn check(&self, operation: &'static str) -> Result<()> {
        self.doom_on_error(operation, self.memory.link.check(operation).await)?;
        match self.doomed.get() {
            None => Ok(()),
            Some(failed) => Err(doomed(operation, failed)),
        }
    }

    fn doom_on_error<T>(&self, operation: &'static str, result: Result<T>) -> Result<T> {
        result.inspect_err(|_| {
            self.doomed.get_or_init(|| operation);
        })
    }

    fn end(&self) {
        self.memory
            .server
            .database
            .write(|state, now| state.end(self.id, now));
    }
}

#[async_trait]
impl StoreTx for MemoryTx {
    async fn append(&mut self, messages: &[Message]) -> Result<Vec<Appended>> {
        self.check("append").await?;
        self.doom_on_error("append", self.memory.server.database.check_messages(messages))?;
        let (id, ids) = (self.id, &self.message_ids);
        let staged = self
            .memory
            .when_free("append", |state, now, timed_out| {
                if !state.locks.is_open(id) {
                    return None;
                }
                let mut keys = messages.iter().map(|message| LockKey::Outbox(message.id));
                if keys.any(|key| state.locks.is_held_from(id, &key)) {
                    return timed_out.then(|| Err(contended()));
                }
                Some(state.stage_messages(messages, now, Some(id), ids))
            })
            .await;
        let (rows, answers) = self.doom_on_error("append", staged.and_then(|staged| staged))?;
        self.message_ids.extend(rows.iter().map(StagedMessage::id));
        self.messages.extend(rows);
        Ok(answers)
    }

    async fn mark_processed(&mut self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        self.check("mark_processed").await?;
        let (id, memory) = (self.id, self.memory.clone());
        let marked = &mut self.marked;
        let answers = memory
            .when_free("mark_processed", |state, now, timed_out| {
                if !state.locks.is_open(id) {
                    return None;
                }
                // All of a batch or none of it is locked in one step, so that two batches never wait for each other.
                let mut keys = marks.iter().flat_map(|(arrival, _)| LockKey::of(arrival));
                if !timed_out && keys.any(|key| state.locks.is_held_from(id, &key)) {
                    return None;
                }
                Some(
                    marks
                        .iter()
                        .map(|(arrival, hold)| state.hold_mark(arrival, *hold, id, marked, now))
                        .collect(),
                )
            })
            .await;
        let answers: Vec<Marked> = self.doom_on_error("mark_processed", answers)?;
        let now = marks
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| **answer == Marked::Now);
        self.marks.extend(now.map(|((arrival, _), _)| arrival.clone()));
        Ok(answers)
    }
}

#[async_trait]
impl OwnedTx for MemoryTx {
    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.check("commit").await?;
        let (id, memory) = (self.id, self.memory.clone());
        let (messages, marks) = (
            std::mem::take(&mut self.messages),
            std::mem::take(&mut self.marks),
        );
        let rows = std::mem::take(&mut self.rows);
        let committed = memory.server.database.write(|state, now| {
            // A sever may have ended it since the check; then nothing is applied and the call never answers.
            if !state.locks.is_open(id) {
                return false;
            }
            // Its own locks no longer stand in the way of what follows in the same step.
            state.end(id, now);
            state.apply(messages, &marks, rows, now);
            true
        });
        if committed {
            return Ok(());
        }
        memory.link.check("commit").await?;
        Err(Error::new(
            ErrorKind::Internal,
            "the transaction was ended by nobody: this is a defect",
        )
        .with_operation("commit")
        .with_provider("memory"))
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        self.memory.link.check("rollback").await?;
        self.end();
        Ok(())
    }
}

impl Drop for MemoryTx {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for MemoryTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTx")
            .field("id", &self.id.0)
            .field("doomed", &self.doomed.get())
            .field("messages", &self.messages.len())
            .field("marks", &self.marks.len())
            .field("rows", &self.rows.len())
            .finish_non_exhaustive()
    }
}

impl State {
    /// Judges one mark of a transaction and, where it can be made, holds its rows. Any other answer holds nothing.
    fn hold_mark(
        &mut self,
        arrival: &Arrival,
        hold: Hold,
        tx: TxId,
        marked: &mut MarkedHere,
        now: Duration,
    ) -> Marked {
        if LockKey::of(arrival).any(|key| self.locks.is_held_from(tx, &key)) {
            return Marked::Busy { lease_left: HELD };
        }
        let view = View {
            now,
            locks: &self.locks,
            me: Some(tx),
        };
        let answer = self.inbox.judge_mark(arrival, hold, marked, &view);
        if answer == Marked::Now {
            self.locks.take(tx, LockKey::of(arrival));
            marked.rows.insert(key_of(arrival));
            if let Some(key) = &arrival.idempotency_key {
                marked
                    .reservations
                    .insert((arrival.group.clone(), key.clone()), arrival.id);
            }
        }
        answer
    }

    fn apply(
        &mut self,
        messages: Vec<StagedMessage>,
        marks: &[Arrival],
        rows: BTreeMap<(String, String), Option<Bytes>>,
        now: Duration,
    ) {
        let (inbox, view) = self.inbox(now);
        for arrival in marks {
            inbox.end(arrival, Phase::Processed, &view);
        }
        self.store_messages(messages);
        for ((table, key), value) in rows {
            self.tables.set(table, key, value);
        }
    }
}

fn doomed(operation: &'static str, failed: &'static str) -> Error {
    let message =
        format!("the transaction is doomed since its {failed:?} failed: it was rolled back, begin another");
    Error::new(ErrorKind::Conflict, message)
        .with_operation(operation)
        .with_provider("memory")
}

fn held_elsewhere(operation: &'static str, table: &str, key: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        "another transaction holds the row: try again when it has ended",
    )
    .with_advice(RetryAdvice::Transient)
    .with_operation(operation)
    .with_provider("memory")
    .with_resource(format!("row {table}/{key}"))
}
