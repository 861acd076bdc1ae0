//! What runs, from start to drain.

use std::{future::Future, sync::Arc, time::Duration};

use headless_abstractions::{Error, ErrorKind, Incarnation, Result, Store, StoreParts, StoreTx, Transport};
use headless_core::{Control, ControlRuntime, Environment, Membership, Nodes, State, UnitOfWork, store_call};
use headless_messaging::{ConsumerHandle, ControlHandle, ControlStatus, DeadLetters, Messaging, Publisher};

use crate::{Setting, settings::show_effective};

mod backlog;
mod health;
mod node;
mod report;
mod signals;

pub use backlog::Backlog;
pub use health::{GroupHealth, Health};
pub use report::{ControlReport, GroupReport, NodeReport, RelayReport, SubscriptionReport, TaskReport};

/// A running service: its publisher, relay and consumers.
///
/// End it with [`shutdown`](Self::shutdown) or [`run_until_signal`](Self::run_until_signal). Dropping it ends it as a
/// crash would: nothing is lost, and what it held comes back when its leases end.
#[derive(Debug)]
pub struct Runtime {
    service: Arc<str>,
    messaging: Messaging,
    environment: Environment,
    state: State,
    store: Option<StoreParts>,
    transport: Option<Arc<dyn Transport>>,
    shutdown_timeout: Duration,
    explained: Vec<Setting>,
    // The last to go: the tasks of what stands above run on it.
    control: Option<ControlRuntime>,
}

/// What a runtime is made from.
pub(crate) struct Parts {
    pub(crate) service: Arc<str>,
    pub(crate) messaging: Messaging,
    pub(crate) environment: Environment,
    pub(crate) state: State,
    pub(crate) store: Option<StoreParts>,
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) explained: Vec<Setting>,
    pub(crate) control: Option<ControlRuntime>,
}

impl Runtime {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            service,
            messaging,
            environment,
            state,
            store,
            transport,
            shutdown_timeout,
            mut explained,
            control,
        } = parts;
        node::tell(&messaging, &environment);
        show_effective(&mut explained, &messaging, store.is_some());
        Self {
            service,
            messaging,
            environment,
            state,
            store,
            transport,
            shutdown_timeout,
            explained,
            control,
        }
    }

    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// What people call this node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.environment.node
    }

    /// Which registration of this node it is, among those of its store: with the label it is what people call it, as in
    /// `host-7@12`. `None` where the store does not watch over its nodes.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.messaging.membership().map(Membership::incarnation)
    }

    /// The nodes of the store, of every service that uses it; `None` where the store does not watch over them.
    #[must_use]
    pub fn nodes(&self) -> Option<Nodes> {
        self.store.as_ref().and_then(Nodes::of)
    }

    /// What operators want of the services of the store, to read and to change; `None` where the store does not keep it.
    #[must_use]
    pub fn control(&self) -> Option<Control> {
        self.store.as_ref().and_then(Control::of)
    }

    /// How far what operators want of this service is applied here; `None` where the store does not keep it.
    #[must_use]
    pub fn control_status(&self) -> Option<ControlStatus> {
        self.messaging.control().map(ControlHandle::status)
    }

    /// Publishes by itself. To publish with other changes or not at all, [`begin`](Self::begin).
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        self.messaging.publisher()
    }

    /// Begins a unit of work: the store's transaction, in which messages are published with
    /// [`PublishExt`](crate::PublishExt). `S` is the type of the store that the builder was given.
    ///
    /// # Errors
    /// `Invalid` when no store of this type was given; else as the store begins a transaction.
    ///
    /// # Cancel safety
    /// Dropping the future, or the unit of work, rolls back.
    pub async fn begin<S: Store>(&self) -> Result<UnitOfWork<S::Tx>> {
        let store = self.state.get::<S>().ok_or_else(|| {
            Error::invalid(format!(
                "no store of type {} is given: add .store(..) to the builder",
                std::any::type_name::<S>()
            ))
            .with_operation("begin")
        })?;
        if self
            .store
            .as_ref()
            .is_none_or(|parts| parts.info.id != store.store_id())
        {
            return Err(Error::invalid(
                "the outbox is in another store, so that messages could not commit with the work: give this one to .store(..)",
            )
            .with_operation("begin"));
        }
        let tx = store_call(&*self.environment.clock, "work.begin", store.begin()).await?;
        Ok(UnitOfWork::begun(tx, self.work_state(), &self.environment))
    }

    /// Joins a transaction that the user began and will end: the result has no `commit`. Call
    /// [`detach`](UnitOfWork::detach) before the transaction's own commit, and [`Wake::wake`](crate::Wake::wake) after it.
    pub fn enlist<Tx: StoreTx>(&self, tx: Tx) -> UnitOfWork<Tx> {
        UnitOfWork::enlisted(tx, self.work_state(), &self.environment)
    }

    /// The consumers, to watch and to steer, in the order in which the builder was given them.
    #[must_use]
    pub fn consumers(&self) -> &[ConsumerHandle] {
        self.messaging.consumers()
    }

    /// The dead letters, to list, redrive and discard; `None` without a store that keeps them.
    #[must_use]
    pub fn dead_letters(&self) -> Option<DeadLetters> {
        self.messaging.dead_letters()
    }

    /// Every setting as it is in effect, and where it came from. Endpoints are shown without secrets.
    #[must_use]
    pub fn explain(&self) -> &[Setting] {
        &self.explained
    }

    /// How it is doing, in this process.
    #[must_use]
    pub fn health(&self) -> Health {
        Health::of(&self.messaging, &self.environment.background)
    }

    /// What waits in the store and the transport for the groups of this runtime.
    ///
    /// # Errors
    /// What the store or the transport answers.
    pub async fn backlog(&self) -> Result<Backlog> {
        Backlog::of(self.store.as_ref(), self.transport.as_deref(), self.consumers()).await
    }

    /// Waits until nothing waits any more for the groups of this runtime: see [`Backlog::is_settled`]. For tests and
    /// small programs; it asks again and again, also where an answer fails that may come later, as that of a broker which
    /// has just lost a member.
    ///
    /// # Errors
    /// `Timeout` when something still waits after `within`, saying what; else the error that would come again, or that
    /// came last.
    pub async fn settled(&self, within: Duration) -> Result<()> {
        const BETWEEN: Duration = Duration::from_millis(10);
        let deadline = self.environment.clock.monotonic().saturating_add(within);
        loop {
            let is_late = self.environment.clock.monotonic() >= deadline;
            match self.backlog().await {
                Ok(backlog) if backlog.is_settled() => return Ok(()),
                Ok(backlog) if is_late => {
                    return Err(Error::new(
                        ErrorKind::Timeout,
                        format!("not settled within {within:?}: {backlog}"),
                    )
                    .with_operation("settled"));
                }
                Err(error) if is_late || !error.is_retryable() => return Err(error),
                _ => {}
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }

    /// Stops intake, lets handlers run until `timeout` has passed, then ends them; settles what has ended, relays once
    /// more, gives back what is left, and closes the transport.
    ///
    /// # Errors
    /// `Timeout` when something did not end in time: its messages come back when their leases end, or when the store finds
    /// this node dead. Else what giving back or closing answered.
    ///
    /// # Cancel safety
    /// Dropping the future ends what is left as a crash would.
    pub async fn shutdown(self, timeout: Duration) -> Result<()> {
        // The control thread serves the drain, and ends after it.
        let _control = self.control;
        self.messaging.shutdown(timeout).await
    }

    /// Runs until the process is told to end by SIGINT or SIGTERM, then [shuts down](Self::shutdown) within the
    /// setting `shutdown.timeout`. A second signal ends the drain at once.
    ///
    /// # Errors
    /// As [`shutdown`](Self::shutdown); `Closed` when a second signal ended it; `Internal` when signals cannot be heard.
    ///
    /// # Cancel safety
    /// Dropping the future ends what runs as a crash would.
    pub async fn run_until_signal(self) -> Result<()> {
        let mut signals = signals::Signals::listen()?;
        let first = signals.next().await;
        tracing::info!(service = %self.service, signal = first, timeout = ?self.shutdown_timeout, "draining");
        let timeout = self.shutdown_timeout;
        first_of(self.shutdown(timeout), async {
            let second = signals.next().await;
            Error::new(
                ErrorKind::Closed,
                format!(
                    "a second signal ({second}) ended the drain: what was held comes back when its leases end"
                ),
            )
            .with_operation("shutdown")
        })
        .await
    }

    fn work_state(&self) -> State {
        self.messaging.state_of_work(&self.state)
    }
}

/// The drain, unless it is interrupted before its end.
async fn first_of(
    drain: impl Future<Output = Result<()>>,
    interrupted: impl Future<Output = Error>,
) -> Result<()> {
    tokio::select! {
        biased;
        ended = drain => ended,
        error = interrupted => Err(error),
    }
}
