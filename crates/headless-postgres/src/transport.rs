//! The database as a transport. How it works is told in migration 0004 and in decision 0009.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use async_trait::async_trait;
use futures::future::join_all;
use headless_abstractions::{
    Error, ErrorKind, GroupName, Message, OrderingGuarantee, Result, Sent, Subscriber, Subscription,
    TopicName, TopicOrder, Topology, Transport, TransportCapabilities, TransportInfo,
};
use sqlx::Row;
use tokio::{
    sync::{OnceCell, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    Postgres, PostgresConfig,
    error::{NAME, fault},
    postgres::Shared,
    sql::statements,
    subscriber::PostgresSubscriber,
    wake::Signal,
};

pub(crate) mod clock;
mod declare;
mod housekeeping;
mod instance;
mod repartition;
mod send;
mod topics;

use clock::Moment;
pub(crate) use declare::unknown_topic;

statements! {
    /// What the transport sends.
    Statements {
        declare: "transport/declare",
        topics: "transport/topics",
        send: "transport/send",
        join: "transport/join",
        step: "transport/step",
        release: "transport/release",
        recover: "transport/recover",
        settle: "transport/settle",
        extend: "transport/extend",
        leave: "transport/leave",
        remove_group: "transport/remove_group",
        lag: "transport/lag",
        repartition: "transport/repartition",
        maintain: "transport/maintain",
        beat: "transport/beat",
        end_instance: "transport/end_instance",
    }
}

/// What the clones of a handle share of the transport.
pub(crate) struct State {
    pub(crate) statements: Statements,
    topics: topics::Topics,
    /// This process, as the owner of groups.
    instance: Uuid,
    beating: AtomicBool,
    spread: send::Spread,
    /// Fewer sends than there are connections, where there are several: they may wait for other senders, and renewals and
    /// steps must not wait for them.
    sends: Semaphore,
    /// The sessions that have not left.
    sessions: Mutex<BTreeSet<Uuid>>,
    /// When this handle last looked after the log.
    maintained: Mutex<Option<Moment>>,
    /// Closing has begun: nothing new begins.
    pub(crate) closing: CancellationToken,
    /// What is under way and is awaited when closing.
    pub(crate) tasks: TaskTracker,
    closed: OnceCell<()>,
}

impl State {
    pub(crate) fn new(config: &PostgresConfig) -> Self {
        let sends = config.control_connections.get().saturating_sub(1).max(1);
        Self {
            statements: Statements::new(&config.schema),
            topics: topics::Topics::default(),
            instance: Uuid::new_v4(),
            beating: AtomicBool::new(false),
            spread: send::Spread::new(),
            sends: Semaphore::new(usize::try_from(sends).unwrap_or(1)),
            sessions: Mutex::default(),
            maintained: Mutex::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            closed: OnceCell::new(),
        }
    }

    /// `Closed` once closing has begun.
    pub(crate) fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closing.is_cancelled() {
            return Err(closed(operation));
        }
        Ok(())
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, BTreeSet<Uuid>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, "this handle was closed")
        .with_operation(operation)
        .with_provider(NAME)
}

#[async_trait]
impl Transport for Postgres {
    fn info(&self) -> TransportInfo {
        let config = &self.shared.config;
        let capabilities = TransportCapabilities::none()
            .with_durable(true)
            .with_ordering(OrderingGuarantee::PerKey)
            .with_accepts_by_prefix(true)
            .with_requeue(true)
            .with_requeue_delay(true)
            .with_delayed_send(true)
            .with_delivery_count(true)
            .with_fenced_settlement(true)
            .with_extend(true)
            .with_expiry(true)
            .with_replay_from_start(true)
            .with_priority(true)
            .with_per_instance_groups(true)
            .with_stable_foreign_ids(true)
            .with_repartition(true)
            .with_max_payload(config.max_payload);
        TransportInfo::new(NAME, capabilities, config.endpoint())
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        declare::declare(&self.shared, topology).await
    }

    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        send::send(&self.shared, batch).await
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        Ok(Box::new(PostgresSubscriber::join(&self.shared, to).await?))
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        let statement = &self.shared.transport.statements.remove_group;
        self.shared
            .guarded("remove_group", async {
                let mut session = self.shared.session().await?;
                sqlx::query(statement.get())
                    .bind(group.as_str())
                    .execute(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&self.shared.statements).await
            })
            .await?;
        self.shared.wake.notify(Signal::Transport);
        Ok(())
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        let statement = &self.shared.transport.statements.lag;
        self.shared
            .guarded("lag", async {
                let mut session = self.shared.session().await?;
                let row = sqlx::query(statement.get())
                    .bind(group.as_str())
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&self.shared.statements).await?;
                let lag: Option<i64> = row.try_get("lag").map_err(fault)?;
                let lag = lag.ok_or_else(|| unknown_group(group))?;
                Ok(u64::try_from(lag).unwrap_or(0))
            })
            .await
    }

    async fn repartition(&self, topic: &TopicName, order: TopicOrder) -> Result<TopicOrder> {
        repartition::repartition(&self.shared, topic, order).await
    }

    async fn ping(&self) -> Result<()> {
        let statement = &self.shared.statements.ping;
        self.shared
            .guarded("ping", async {
                let mut session = self.shared.session().await?;
                sqlx::query(statement.get())
                    .execute(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&self.shared.statements).await
            })
            .await
    }

    async fn close(&self) -> Result<()> {
        let transport = &self.shared.transport;
        // Others that close wait for the one that does.
        transport
            .closed
            .get_or_try_init(|| self.shared.close_transport())
            .await?;
        Ok(())
    }
}

impl Shared {
    /// As [`call`](Self::call), and not at all once closing has begun.
    pub(crate) async fn guarded<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        // Taken before the look, so that closing waits for it or it sees that closing has begun.
        let _under_way = self.transport.tasks.token();
        self.transport.check_open(operation)?;
        self.call(operation, work).await
    }

    async fn close_transport(&self) -> Result<()> {
        let transport = &self.transport;
        transport.closing.cancel();
        transport.tasks.close();
        let left = async {
            transport.tasks.wait().await;
            let sessions = std::mem::take(&mut *transport.sessions());
            let left = join_all(sessions.iter().map(|session| self.leave(*session))).await;
            left.into_iter().collect::<Result<Vec<()>>>()?;
            self.end_instance().await
        };
        let left = timeout(self.config.call_timeout, left)
            .await
            .unwrap_or_else(|_elapsed| {
                Err(Error::new(
                    ErrorKind::Timeout,
                    "what was under way has not ended within call_timeout; what is unsettled comes back later",
                )
                .with_operation("close")
                .with_provider(NAME))
            });
        // Closed all the same.
        let closed = self.close().await;
        left.and(closed)
    }

    /// Takes a member out of its group.
    pub(crate) async fn leave(&self, member: Uuid) -> Result<()> {
        self.call("close", async {
            let mut session = self.session().await?;
            sqlx::query(self.transport.statements.leave.get())
                .bind(member)
                .execute(&mut *session)
                .await
                .map_err(fault)?;
            session.finish(&self.statements).await
        })
        .await?;
        self.transport.sessions().remove(&member);
        self.wake.notify(Signal::Transport);
        Ok(())
    }
}

pub(crate) fn unknown_group(group: &GroupName) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "the group was never declared, or was removed",
    )
    .with_resource(format!("group {group}"))
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}
