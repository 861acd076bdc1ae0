//! A node among the others of its store: registered, heard of, and out when it is done.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{
    Beat, Cursor, Error, ErrorKind, Incarnation, MembershipStore, NodeEntry, NodeFacts, Page, Registration,
    Result, StoreParts,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Environment, Next, TaskSpec, metric};

/// The most nodes that are buried, or forgotten, with one heartbeat.
const AT_ONCE: usize = 100;

/// How a node keeps its membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MembershipConfig {
    /// The longest time between two heartbeats. Default 10 s.
    pub heartbeat: Duration,
    /// It is suspected when it has been silent for this long. Default 30 s.
    pub suspect_after: Duration,
    /// It is dead when it has been silent for this long. Default 60 s.
    pub dead_after: Duration,
    /// Nodes that have ended are forgotten after this. Default 24 h.
    pub forget_after: Duration,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            suspect_after: Duration::from_secs(30),
            dead_after: Duration::from_mins(1),
            forget_after: Duration::from_hours(24),
        }
    }
}

impl MembershipConfig {
    /// With heartbeats this far apart at most.
    #[must_use]
    pub const fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Suspected, and dead, after so much silence.
    #[must_use]
    pub const fn with_silence(mut self, suspect_after: Duration, dead_after: Duration) -> Self {
        self.suspect_after = suspect_after;
        self.dead_after = dead_after;
        self
    }

    /// With nodes forgotten so long after their end.
    #[must_use]
    pub const fn with_forget_after(mut self, time: Duration) -> Self {
        self.forget_after = time;
        self
    }

    /// Checks that each time is longer than the one before it, for start-up.
    ///
    /// # Errors
    /// `Invalid`, naming the settings and their bound.
    pub fn check(&self) -> Result<()> {
        let times = [
            ("membership.heartbeat", self.heartbeat),
            ("membership.suspect_after", self.suspect_after),
            ("membership.dead_after", self.dead_after),
        ];
        let mut problems = Vec::new();
        for pair in times.windows(2) {
            if let [(shorter, short), (longer, long)] = pair
                && short >= long
            {
                problems.push(format!(
                    "{longer} is {long:?}, it must be longer than {shorter} ({short:?})"
                ));
            }
        }
        let (least, most) = (Registration::SHORTEST, Registration::LONGEST);
        if self.heartbeat < least {
            problems.push(format!(
                "membership.heartbeat is {:?}, the least is {least:?}",
                self.heartbeat
            ));
        }
        if self.dead_after > most {
            problems.push(format!(
                "membership.dead_after is {:?}, the most is {most:?}",
                self.dead_after
            ));
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid(problems.join("; "))),
        }
    }

    /// How long after an accepted heartbeat was sent this process may act. The margin covers the time between a look at
    /// the clock and what is done because of it.
    fn lasts(&self) -> Duration {
        self.dead_after - self.dead_after / 10
    }
}

/// What a node says of itself, asked before each heartbeat.
type Facts = dyn Fn() -> NodeFacts + Send + Sync;

/// A node among the others of its store. Clones are handles on one.
///
/// It says with each heartbeat that it lives, buries others that are silent for too long, and keeps the environment's
/// [`Life`](crate::Life). When the store has given it up, its life ends: everything that it holds is lost. It then
/// registers anew, and goes on.
#[derive(Clone)]
pub struct Membership(Arc<Inner>);

struct Inner {
    environment: Environment,
    store: Arc<dyn MembershipStore>,
    service: Arc<str>,
    config: MembershipConfig,
    incarnation: Mutex<Incarnation>,
    facts: Mutex<Arc<Facts>>,
}

impl Membership {
    /// Registers the environment's owner. From then on [`run`](Self::run) must follow, before its silence is its death.
    ///
    /// # Errors
    /// `Invalid` for settings out of bounds, or labels that no store takes; else what the store answers.
    ///
    /// # Cancel safety
    /// Dropping the future may leave the node registered; it falls silent then.
    pub async fn join(
        environment: &Environment,
        store: Arc<dyn MembershipStore>,
        service: &str,
        config: MembershipConfig,
    ) -> Result<Self> {
        config.check()?;
        let membership = Self(Arc::new(Inner {
            environment: environment.clone(),
            store,
            service: service.into(),
            config,
            incarnation: Mutex::new(Incarnation::new(0)),
            facts: Mutex::new(Arc::new(NodeFacts::none)),
        }));
        membership.register().await?;
        Ok(membership)
    }

    /// With each heartbeat it says of itself what this answers.
    pub fn say(&self, facts: impl Fn() -> NodeFacts + Send + Sync + 'static) {
        *lock(&self.0.facts) = Arc::new(facts);
    }

    /// Which registration it is now.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        *lock(&self.0.incarnation)
    }

    /// Beats until `stop`, as the background task `heartbeat`, among the control tasks.
    pub fn run(&self, stop: CancellationToken) -> JoinHandle<()> {
        let spec = TaskSpec::new("heartbeat", self.0.config.heartbeat)
            .with_wake(self.0.environment.wakeups.heartbeat())
            .with_control();
        let membership = self.clone();
        self.0.environment.background.spawn(spec, stop, move || {
            let membership = membership.clone();
            async move { membership.beat().await }
        })
    }

    /// One heartbeat, and whatever else there is to do among nodes.
    ///
    /// # Errors
    /// What the store answers; `Timeout` when it answers nothing within a heartbeat's time.
    pub async fn beat(&self) -> Result<Next> {
        let Inner {
            environment,
            store,
            config,
            ..
        } = &*self.0;
        let (owner, incarnation) = (environment.owner, self.incarnation());
        let facts = lock(&self.0.facts).clone();
        let asked_at = environment.clock.monotonic();
        let beat = self
            .in_time(store.heartbeat(owner, incarnation, &facts()))
            .await?;
        match beat {
            Beat::Accepted => environment.life.prolong(asked_at.saturating_add(config.lasts())),
            Beat::Ended => {
                tracing::warn!(
                    node = %environment.node, %incarnation,
                    "the store has given this node up: what it holds is lost, and it registers anew"
                );
                metrics::counter!(metric::NODE_LOST).increment(1);
                environment.life.end();
                self.register().await?;
            }
        }
        for death in self.in_time(store.bury(AT_ONCE)).await? {
            tracing::warn!(
                node = %death.node, incarnation = %death.incarnation, freed = death.freed,
                "a node is dead: what it held is free"
            );
            metrics::counter!(metric::NODE_BURIED).increment(1);
        }
        self.in_time(store.forget(config.forget_after, AT_ONCE)).await?;
        Ok(Next::Wait)
    }

    /// Says good-bye: after everything that it held is given back.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn leave(&self) -> Result<()> {
        let owner = self.0.environment.owner;
        self.in_time(self.0.store.leave(owner, self.incarnation()))
            .await?;
        Ok(())
    }

    async fn register(&self) -> Result<()> {
        let Inner {
            environment,
            store,
            service,
            config,
            ..
        } = &*self.0;
        let facts = lock(&self.0.facts).clone();
        let registration = Registration::new(environment.owner, service, &environment.node)?
            .with_silence(config.suspect_after, config.dead_after)?
            .with_facts(facts());
        let asked_at = environment.clock.monotonic();
        let incarnation = self.in_time(store.register(&registration)).await?;
        *lock(&self.0.incarnation) = incarnation;
        environment
            .life
            .begin(asked_at, asked_at.saturating_add(config.lasts()));
        tracing::info!(node = %environment.node, %incarnation, "registered");
        Ok(())
    }

    /// A call that takes longer than the time between two heartbeats has failed: the next one is due.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let most = self.0.config.heartbeat;
        tokio::time::timeout(most, call).await.unwrap_or_else(|_elapsed| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("the store did not answer within membership.heartbeat ({most:?})"),
            )
            .with_operation("heartbeat"))
        })
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("node", &self.0.environment.node)
            .field("incarnation", &self.incarnation())
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

/// The nodes of a store, to look at.
#[derive(Clone, Debug)]
pub struct Nodes(Arc<dyn MembershipStore>);

impl Nodes {
    /// Those of this store; `None` when it does not watch over its nodes.
    #[must_use]
    pub fn of(store: &StoreParts) -> Option<Self> {
        store.membership.clone().map(Self)
    }

    /// The nodes in the order of their incarnations, those that have ended among them until they are forgotten.
    ///
    /// # Errors
    /// `Invalid` for a limit of 0, or above 1 000, and for a cursor of another list; else what the store answers.
    pub async fn list(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<NodeEntry>> {
        self.0.list(after, limit).await
    }
}

/// What is locked is replaced whole: it is valid after any panic.
fn lock<T>(state: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
