//! The store: everything that a database of ours would hold, behind one mutex.

mod control;
mod dead_letter_queries;
mod dead_letter_table;
mod dead_letters;
mod inbox;
mod inbox_queries;
mod inbox_table;
mod locks;
mod membership;
mod outbox;
mod outbox_queries;
mod outbox_table;
mod page;
mod parked;
mod pulse;
mod tables;
mod transaction;
mod wait;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use headless_abstractions::{Clock, Error, Message, Store, StoreInfo, StoreParts};
use tokio::sync::Notify;

use self::{
    control::ControlTable,
    dead_letter_table::DeadLetterTable,
    inbox_table::InboxTable,
    locks::{LockKey, Locks, TxId},
    membership::NodeTable,
    outbox_table::OutboxTable,
    tables::Tables,
};
use crate::{Memory, MemoryConfig, link::Link};

pub(crate) use pulse::Seen;
pub use transaction::MemoryTx;

impl Store for Memory {
    fn parts(&self) -> StoreParts {
        let store = Arc::new(self.clone());
        StoreParts::new(StoreInfo::new("memory", self.server.id, false, "memory:"))
            .with_outbox(store.clone())
            .with_inbox(store.clone())
            .with_membership(store.clone())
            .with_control(store.clone())
            .with_pulse(store)
    }
}

/// The rows of a server, and the transactions that are open on it.
///
/// The mutex is never held over an await, so that each closure given to [`write`](Self::write) is one atomic step.
pub(crate) struct Database {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    lock_timeout: Duration,
    max_payload: usize,
    /// Notified when something may have become ready.
    ready: Notify,
    /// Notified when a transaction has ended and its locks are free.
    freed: Notify,
}

/// What the mutex guards.
struct State {
    outbox: OutboxTable,
    inbox: InboxTable,
    dead_letters: DeadLetterTable,
    nodes: NodeTable,
    control: ControlTable,
    tables: Tables,
    locks: Locks,
    sequence: Sequence,
    /// How often something became ready, so that a waiter notices what happened before it waited.
    generation: u64,
    freed: bool,
}

/// The numbers that the server gives out: taken at the call, whether or not its transaction commits.
#[derive(Default)]
struct Sequence(u64);

impl Sequence {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// What a step over the inbox sees beside its rows.
struct View<'a> {
    now: Duration,
    locks: &'a Locks,
    /// The transaction that asks; its own locks do not stand in its way.
    me: Option<TxId>,
}

impl View<'_> {
    fn is_locked(&self, key: &LockKey) -> bool {
        self.locks
            .holder(key)
            .is_some_and(|holder| Some(holder) != self.me)
    }
}

impl Database {
    pub(crate) fn new(config: &MemoryConfig, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            outbox: OutboxTable::new(config.outbox_capacity.get()),
            inbox: InboxTable::default(),
            dead_letters: DeadLetterTable::default(),
            nodes: NodeTable::default(),
            control: ControlTable::default(),
            tables: Tables::default(),
            locks: Locks::default(),
            sequence: Sequence::default(),
            generation: 0,
            freed: false,
        };
        Self {
            state: Mutex::new(state),
            clock,
            lock_timeout: config.lock_timeout,
            max_payload: config.max_payload.get(),
            ready: Notify::new(),
            freed: Notify::new(),
        }
    }

    /// Rolls back every open transaction that was begun through this link.
    pub(crate) fn end_transactions_of(&self, link: &Arc<Link>) {
        self.write(|state, now| {
            for tx in state.locks.begun_through(link) {
                state.end(tx, now);
            }
        });
    }

    /// One atomic step: changes what it likes, and wakes whoever that concerns.
    fn write<T>(&self, step: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut state = self.lock();
        let answer = step(&mut state, self.clock.monotonic());
        let outbox = std::mem::take(&mut state.outbox.stirred);
        let inbox = std::mem::take(&mut state.inbox.stirred);
        let control = std::mem::take(&mut state.control.stirred);
        let freed = std::mem::take(&mut state.freed);
        let ready = outbox || inbox || control;
        if ready {
            state.generation += 1;
        }
        drop(state);
        if ready {
            self.ready.notify_waiters();
        }
        if freed {
            self.freed.notify_waiters();
        }
        answer
    }

    /// One look at everything, which changes nothing.
    fn read<T>(&self, look: impl FnOnce(&State, Duration) -> T) -> T {
        let state = self.lock();
        look(&state, self.clock.monotonic())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A step that panicked is a defect of ours; the rows are as it left them, and refusing every later call
        // would hide where it happened.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The store's wall clock, in the microseconds that every store keeps.
    fn wall(&self) -> DateTime<Utc> {
        Message::microseconds(self.clock.now())
    }
}

impl State {
    /// Ends a transaction without applying it. Ending one that has ended is harmless.
    fn end(&mut self, tx: TxId, now: Duration) {
        let Some(ended) = self.locks.end(tx) else { return };
        self.freed = true;
        self.outbox.unreserve(ended.reserved);
        let view = View {
            now,
            locks: &self.locks,
            me: None,
        };
        for key in &ended.keys {
            if let LockKey::Reservation(group, key) = key {
                self.inbox
                    .reservation_changed(&(group.clone(), key.clone()), &view);
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("lock_timeout", &self.lock_timeout)
            .finish_non_exhaustive()
    }
}

/// Refuses a limit or a lease of zero.
fn require(operation: &'static str, limit: Option<usize>, lease: Option<Duration>) -> Result<(), Error> {
    let wrong = if limit == Some(0) {
        "the limit is 0, it must be at least 1"
    } else if lease == Some(Duration::ZERO) {
        "the lease is zero, it must be longer"
    } else {
        return Ok(());
    };
    Err(Error::invalid(wrong)
        .with_operation(operation)
        .with_provider("memory"))
}
