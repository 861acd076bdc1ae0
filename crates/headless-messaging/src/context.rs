//! What a handler is given beside its message.

use std::{
    any::Any,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{
    Arrival, Error, Failure, GroupName, Hold, Marked, Message, MessageId, Redelivery, Result, Store, StoreId,
};
use headless_core::{CrashPoint, HandlerError, State, UnitOfWork, WorkSlot};
use tokio_util::sync::CancellationToken;

use crate::{
    Inbox, Publisher,
    consumer::Deadline,
    plant::{Planted, planted},
};

/// Which attempt at a message this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The round, counted from 1.
    pub round: u32,
    /// The attempt within the round, counted from 1.
    pub inline: u32,
}

/// What a handler is given beside its message: the envelope, the attempt, a publisher, the unit of work.
///
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    call: Arc<CallContext>,
}

/// What a batch handler is given beside its messages.
///
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct BatchContext {
    call: Arc<CallContext>,
}

/// One handler call, as it and its caller share it.
#[derive(Debug)]
pub(crate) struct CallContext {
    pub(crate) group: GroupName,
    /// One for a single call; at least one for a batch.
    pub(crate) messages: Vec<Message>,
    pub(crate) marks: Vec<(Arrival, Hold)>,
    pub(crate) attempt: Attempt,
    pub(crate) redelivery: Redelivery,
    pub(crate) failures: Vec<Failure>,
    pub(crate) form: Inbox,
    pub(crate) inbox_store: Option<StoreId>,
    pub(crate) state: State,
    pub(crate) publisher: Publisher,
    pub(crate) cancelled: CancellationToken,
    pub(crate) deadline: Arc<Deadline>,
    pub(crate) slot: WorkSlot,
    pub(crate) refusal: Mutex<Option<Refusal>>,
    pub(crate) planted: Planted,
}

/// Why `begin` gave no unit of work. The caller acts on it whatever the handler makes of the error.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The marks, in the order of the call's messages; at least one is not `Now`.
    Marks(Vec<Marked>),
    /// A mistake of configuration: no retry mends it.
    Misconfigured(String),
}

impl CallContext {
    pub(crate) fn take_refusal(&self) -> Option<Refusal> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn refuse(&self, refusal: Refusal) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
    }

    fn misconfigured(&self, why: String) -> HandlerError {
        let error = HandlerError::retry(why.clone());
        self.refuse(Refusal::Misconfigured(why));
        error
    }

    async fn begin<S: Store>(&self) -> Result<UnitOfWork<S::Tx>, HandlerError> {
        let type_name = std::any::type_name::<S>();
        let Some(store) = self.state.get::<S>() else {
            return Err(self.misconfigured(format!(
                "begin::<{type_name}>: no such store is registered, add .store(..)"
            )));
        };
        if self.form != Inbox::Transactional {
            return Err(Error::invalid(format!(
                "begin needs Inbox::Transactional, and group {} has Inbox::{:?}: change one of them",
                self.group, self.form
            ))
            .into());
        }
        if self.inbox_store != Some(store.store_id()) {
            return Err(self.misconfigured(format!(
                "begin::<{type_name}>: group {} has its inbox in another store, so that the mark could not commit with the \
                 work",
                self.group
            )));
        }
        // Dropped before its end, by an error or by the caller, it leaves the slot to another `begin`.
        let Some(reservation) = self.slot.reserve() else {
            return Err(Error::invalid(
                "a second unit of work in one handler call: commit everything in one",
            )
            .into());
        };
        if let Some(given_up) = self.slot.take_dropped() {
            // It may hold the rows that are to be marked.
            given_up.rollback().await?;
        }
        CrashPoint::HandlerBeginning.reach()?;
        let outgoing = self.publisher.outgoing();
        let state = self.state.clone().with(outgoing.clone());
        let unmarked = planted!(self.planted, MarkAfterCommit);
        let tx = if unmarked {
            outgoing.store_call("work.begin", store.begin()).await?
        } else {
            outgoing.store_call("work.begin", store.begin_to_mark()).await?
        };
        // From here on a drop hands the transaction back, so that its rollback is awaited.
        let mut work = UnitOfWork::begun_in(self.slot.clone(), tx, state, outgoing.environment());
        if unmarked {
            reservation.use_up();
            return Ok(work);
        }
        let mark = async {
            let mark = headless_abstractions::StoreTx::mark_processed(&mut *work, &self.marks);
            let marked = outgoing.store_call("work.mark", mark).await?;
            CrashPoint::HandlerMarked.reach()?;
            Ok(marked)
        };
        let marked: Result<Vec<Marked>> = mark.await;
        let marked = match marked {
            Ok(marked) => marked,
            Err(error) => {
                if let Err(error) = work.rollback().await {
                    tracing::debug!(group = %self.group, %error, "a rollback failed; the store ends the transaction itself");
                }
                return Err(error.into());
            }
        };
        reservation.use_up();
        if marked.iter().all(|mark| *mark == Marked::Now) {
            return Ok(work);
        }
        self.refuse(Refusal::Marks(marked));
        work.rollback().await?;
        Err(HandlerError::retry(
            "the message is settled, running or parked elsewhere: its work must not be done here",
        ))
    }

    fn state<T: Any + Send + Sync>(&self) -> Result<Arc<T>> {
        self.state.get::<T>().ok_or_else(|| {
            let type_name = std::any::type_name::<T>();
            Error::invalid(format!(
                "no state of type {type_name} is registered: add .state(..) to the builder"
            ))
        })
    }
}

macro_rules! shared_methods {
    () => {
        /// The group that handles it.
        #[must_use]
        pub fn group(&self) -> &GroupName {
            &self.call.group
        }

        /// Which attempt this is.
        #[must_use]
        pub fn attempt(&self) -> Attempt {
            self.call.attempt
        }

        /// Cancelled when the call is to end: at its time-out, when its lease is lost, at the deadline of a shutdown.
        /// An async handler is dropped then; a blocking one should look.
        #[must_use]
        pub fn cancelled(&self) -> &CancellationToken {
            &self.call.cancelled
        }

        /// Grants the call another `by` from now before its time-out, never less than it had.
        pub fn extend(&self, by: Duration) {
            self.call.deadline.extend(by);
        }

        /// Application state of this type.
        ///
        /// # Errors
        /// `Invalid` when none is registered.
        pub fn state<T: Any + Send + Sync>(&self) -> Result<Arc<T>> {
            self.call.state()
        }

        /// A publisher whose messages carry on this one's correlation, causation, tenant and trace. What it publishes
        /// is sent whether or not the handler succeeds; publish through [`begin`](Self::begin) to tie the two.
        #[must_use]
        pub fn publisher(&self) -> &Publisher {
            &self.call.publisher
        }
    };
}

impl Context {
    pub(crate) fn new(call: Arc<CallContext>) -> Self {
        Self { call }
    }

    /// The message with its envelope: a copy of this call's own.
    #[must_use]
    pub fn message(&self) -> &Message {
        // A single call is made with one message.
        &self.call.messages[0]
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.message().id
    }

    /// Whether the message may have been delivered before.
    #[must_use]
    pub fn redelivery(&self) -> Redelivery {
        self.call.redelivery
    }

    /// What failed before, the first and the latest of it.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.call.failures
    }

    /// Begins the unit of work of this call: a transaction that already carries the message's processed mark. Commit
    /// it, and effect, mark and published messages are there together, or not at all.
    ///
    /// A duplicate ends here: the error means "not here", and passing it on with `?` settles the delivery as it should
    /// be settled. After an error that passes, such as a store that is away for a moment, it may be called again.
    ///
    /// # Errors
    /// When the message is settled or runs elsewhere; `Invalid` under another form than [`Inbox::Transactional`] and for
    /// a second unit of work in one call, once one was begun; a store that is not registered (the consumer then pauses, unhealthy: no
    /// retry mends that); as [`UnitOfWorkStore::begin`](headless_abstractions::UnitOfWorkStore::begin).
    ///
    /// # Cancel safety
    /// Dropping the future, or the unit of work, rolls back; that is awaited before the delivery is settled, and before
    /// another unit of work begins.
    pub async fn begin<S: Store>(&self) -> Result<UnitOfWork<S::Tx>, HandlerError> {
        self.call.begin::<S>().await
    }

    shared_methods!();
}

impl BatchContext {
    pub(crate) fn new(call: Arc<CallContext>) -> Self {
        Self { call }
    }

    /// The messages with their envelopes, in the order of the batch.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.call.messages
    }

    /// As [`Context::begin`], with the processed marks of every message of the batch. When one of them is settled or
    /// runs elsewhere, the batch is run again at once without it.
    ///
    /// # Errors
    /// As [`Context::begin`].
    ///
    /// # Cancel safety
    /// As [`Context::begin`].
    pub async fn begin<S: Store>(&self) -> Result<UnitOfWork<S::Tx>, HandlerError> {
        self.call.begin::<S>().await
    }

    shared_methods!();
}
