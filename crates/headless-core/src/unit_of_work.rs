//! The one way into a transaction.

use std::{
    collections::BTreeMap,
    fmt,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use headless_abstractions::{Clock, Error, ErrorKind, OwnedTx, Result, StoreTx, TopicName};

use crate::{CrashPoint, Environment, State, Wakeups, WorkProgress, WorkSlot, store_call};

/// Everything that must commit together: the user's own statements, published messages, processed marks.
///
/// It derefs to the provider's transaction, so that the provider's own typed methods (`conn()`, `put(..)`) are at hand.
/// Publishing and scheduling are extension traits of their crates. After any of them has failed the unit of work is
/// doomed: it can only be rolled back.
///
/// Dropping it without a commit rolls back. Within a handler, the rollback is awaited before the delivery is settled.
#[must_use = "a unit of work that is not committed is rolled back"]
pub struct UnitOfWork<Tx: StoreTx> {
    // `None` only once `commit`, `rollback`, `detach` or `drop` has taken it, and each of those consumes the value.
    tx: Option<Tx>,
    state: State,
    clock: Arc<dyn Clock>,
    wake: Wake,
    doomed: Option<&'static str>,
    /// Whether the transaction was begun for it, and ends with it.
    is_own: bool,
    slot: Option<Slot<Tx>>,
}

struct Slot<Tx> {
    shared: WorkSlot,
    erase: fn(Tx) -> Box<dyn OwnedTx>,
}

impl<Tx: StoreTx> UnitOfWork<Tx> {
    /// A unit of work in a transaction that the user began and will end: it has no `commit`.
    ///
    /// `state` is what extensions such as publishing need.
    pub fn enlisted(tx: Tx, state: State, environment: &Environment) -> Self {
        Self {
            tx: Some(tx),
            state,
            clock: environment.clock.clone(),
            wake: Wake::new(environment.wakeups.clone()),
            doomed: None,
            is_own: false,
            slot: None,
        }
    }

    /// What extensions such as publishing look up.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Dooms the unit of work: `operation` failed, so that only a rollback is left. For extensions.
    pub fn doom(&mut self, operation: &'static str) {
        self.doomed.get_or_insert(operation);
    }

    /// Succeeds unless an earlier operation has doomed it. For extensions.
    ///
    /// # Errors
    /// `Conflict`, naming the operation that failed.
    pub fn check(&self) -> Result<()> {
        match self.doomed {
            None => Ok(()),
            Some(operation) => Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "the unit of work is doomed since its {operation:?} failed: roll it back and begin another"
                ),
            )),
        }
    }

    /// Remembers that the relay is to be woken once this has committed. For extensions.
    pub fn wake_outbox_after_commit(&mut self) {
        self.wake.outbox = true;
    }

    /// Remembers to add this much to a counter of a topic once this has committed. For extensions.
    pub fn count_after_commit(&mut self, counter: &'static str, topic: &TopicName, count: u64) {
        let total = self.wake.counts.entry((counter, topic.clone())).or_default();
        *total = total.saturating_add(count);
    }

    /// Ends the loan of an enlisted transaction; after *it* has committed, call [`Wake::wake`].
    ///
    /// # Errors
    /// `Conflict` when the unit of work is doomed: roll the transaction back. `Invalid` for one that was begun instead of
    /// lent, whose transaction ends with it: commit that.
    pub fn detach(mut self) -> Result<Wake> {
        if self.is_own {
            let why = "this unit of work has a transaction of its own, which would be rolled back: commit it";
            return Err(Error::invalid(why).with_operation("detach"));
        }
        self.check()?;
        self.slot = None;
        Ok(self.wake.take())
    }

    fn tx(&self) -> &Tx {
        #[expect(
            clippy::expect_used,
            reason = "only methods that consume the value take the transaction"
        )]
        self.tx
            .as_ref()
            .expect("the transaction is there until the unit of work is consumed")
    }

    fn tx_mut(&mut self) -> &mut Tx {
        #[expect(
            clippy::expect_used,
            reason = "only methods that consume the value take the transaction"
        )]
        self.tx
            .as_mut()
            .expect("the transaction is there until the unit of work is consumed")
    }
}

impl<Tx: OwnedTx + 'static> UnitOfWork<Tx> {
    /// A unit of work in a transaction of its own.
    pub fn begun(tx: Tx, state: State, environment: &Environment) -> Self {
        let mut work = Self::enlisted(tx, state, environment);
        work.is_own = true;
        work
    }

    /// As [`begun`](Self::begun), for a handler call: what becomes of it shows in `slot`, which was reserved.
    pub fn begun_in(slot: WorkSlot, tx: Tx, state: State, environment: &Environment) -> Self {
        let erase: fn(Tx) -> Box<dyn OwnedTx> = |tx| Box::new(tx);
        let mut work = Self::begun(tx, state, environment);
        work.slot = Some(Slot { shared: slot, erase });
        work
    }

    /// Makes everything visible at once, or nothing; then wakes whoever waits for it in this process.
    ///
    /// # Errors
    /// `Conflict` when it is doomed (it was rolled back); otherwise as [`OwnedTx::commit`], with
    /// [`Error::is_outcome_unknown`] where it may have happened.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it committed or not; the outcome is unknown.
    pub async fn commit(mut self) -> Result<()> {
        if let Err(doomed) = self.check() {
            self.roll_back().await?;
            return Err(doomed.with_operation("commit"));
        }
        let Some(tx) = self.tx.take() else { return Ok(()) };
        let slot = self.slot.take().map(|slot| slot.shared);
        let progress = |progress| {
            if let Some(slot) = &slot {
                slot.set(progress);
            }
        };
        let (before, after) = match slot {
            None => (CrashPoint::WorkCommitting, CrashPoint::WorkCommitted),
            Some(_) => (CrashPoint::HandlerCommitting, CrashPoint::HandlerCommitted),
        };
        progress(WorkProgress::Committing);
        let committed = async {
            before.reach()?;
            store_call(&*self.clock, "work.commit", Box::new(tx).commit()).await?;
            after.reach()
        };
        match committed.await {
            Ok(()) => {
                progress(WorkProgress::Committed);
                self.wake.take().wake();
                Ok(())
            }
            Err(error) => {
                progress(WorkProgress::CommitFailed {
                    outcome_unknown: error.is_outcome_unknown(),
                });
                Err(error)
            }
        }
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// As [`OwnedTx::rollback`].
    pub async fn rollback(mut self) -> Result<()> {
        self.roll_back().await
    }

    async fn roll_back(&mut self) -> Result<()> {
        let Some(tx) = self.tx.take() else { return Ok(()) };
        if let Some(slot) = self.slot.take() {
            slot.shared.set(WorkProgress::RolledBack);
        }
        Box::new(tx).rollback().await
    }
}

impl<Tx: StoreTx> Drop for UnitOfWork<Tx> {
    fn drop(&mut self) {
        if let (Some(tx), Some(slot)) = (self.tx.take(), self.slot.take()) {
            slot.shared.hand_back((slot.erase)(tx));
        }
    }
}

impl<Tx: StoreTx> Deref for UnitOfWork<Tx> {
    type Target = Tx;

    fn deref(&self) -> &Tx {
        self.tx()
    }
}

impl<Tx: StoreTx> DerefMut for UnitOfWork<Tx> {
    fn deref_mut(&mut self) -> &mut Tx {
        self.tx_mut()
    }
}

impl<Tx: StoreTx> fmt::Debug for UnitOfWork<Tx> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnitOfWork")
            .field("tx", &self.tx)
            .field("doomed", &self.doomed)
            .finish_non_exhaustive()
    }
}

/// What to do after a user's own transaction has committed. Without it the poll finds the work, later, and no metric
/// counts it as published.
#[must_use = "call wake() after your transaction has committed"]
#[derive(Debug)]
pub struct Wake {
    wakeups: Wakeups,
    outbox: bool,
    counts: BTreeMap<(&'static str, TopicName), u64>,
}

impl Wake {
    fn new(wakeups: Wakeups) -> Self {
        Self {
            wakeups,
            outbox: false,
            counts: BTreeMap::new(),
        }
    }

    fn take(&mut self) -> Self {
        Self {
            wakeups: self.wakeups.clone(),
            outbox: std::mem::take(&mut self.outbox),
            counts: std::mem::take(&mut self.counts),
        }
    }

    /// Wakes whoever waits for what was committed, and counts it.
    pub fn wake(self) {
        if self.outbox {
            self.wakeups.outbox().wake();
        }
        for ((counter, topic), count) in self.counts {
            metrics::counter!(counter, "topic" => topic.to_string()).increment(count);
        }
    }
}
