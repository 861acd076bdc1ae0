//! A node among the others of its store: registered, heard of, and out when it is done.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{
    Beat, Cursor, Error, ErrorKind, Incarnation, LivingNode, MembershipStore, NodeEntry, NodeFacts, Page,
    Registration, Result, StoreParts,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::change::{Change, Watched};
pub use self::config::MembershipConfig;
use crate::{Backoff, Environment, Next, TaskSpec, metric};

mod change;
mod config;

/// The most nodes that are buried, looked at again, or forgotten, with one call.
const AT_ONCE: usize = 20;

/// The most living nodes that are read with one call to see who is suspected, and the most calls of one look: beyond them,
/// nobody tells of it.
const PAGE: usize = 1_000;
const PAGES: usize = 10;

/// Between tries to register at the start.
const AGAIN: Backoff = Backoff::exponential(Duration::from_millis(50), Duration::from_secs(5));

/// What a node says of itself, asked before each heartbeat.
type Facts = dyn Fn() -> NodeFacts + Send + Sync;

/// A node among the others of its store. Clones are handles on one.
///
/// It says with each heartbeat that it lives, and keeps the environment's [`Life`](crate::Life). When the store has given
/// it up, its life ends: everything that it holds is lost. It then registers anew, and goes on. Apart from that, so that
/// it delays no heartbeat, it buries others that are silent for too long.
#[derive(Clone)]
pub struct Membership(Arc<Inner>);

struct Inner {
    environment: Environment,
    store: Arc<dyn MembershipStore>,
    service: Arc<str>,
    config: MembershipConfig,
    incarnation: Mutex<Incarnation>,
    facts: Mutex<Arc<Facts>>,
    watched: Watched,
}

impl Membership {
    /// Registers the environment's owner. From then on [`run`](Self::run) must follow, before its silence is its death.
    /// It belongs to it that the dead are buried: [`run_burials`](Self::run_burials).
    ///
    /// What may succeed with another try is tried again, for nine tenths of `dead_after`.
    ///
    /// # Errors
    /// `Invalid` for settings out of bounds, or labels that no store takes; else what the store answers, in the end.
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
            watched: Watched::default(),
        }));
        membership.insist_on_registering().await?;
        Ok(membership)
    }

    /// Registers, and tries again as long as a registration that was made with the first try would last.
    async fn insist_on_registering(&self) -> Result<()> {
        let Environment { clock, random, .. } = &self.0.environment;
        let give_up_at = clock.monotonic().saturating_add(self.0.config.lasts());
        for tries in 0.. {
            let error = match self.register().await {
                Err(error) if error.is_retryable() => error,
                ended => return ended,
            };
            let delay = AGAIN.steady_delay(tries, &**random);
            if clock.monotonic().saturating_add(delay) >= give_up_at {
                return Err(error);
            }
            tracing::warn!(%error, "registering this node failed; trying again");
            tokio::time::sleep(delay).await;
        }
        Ok(())
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

    /// Buries the dead until `stop`, as the background task `burial`, about once for each heartbeat.
    pub fn run_burials(&self, stop: CancellationToken) -> JoinHandle<()> {
        let spec = TaskSpec::new("burial", self.0.config.heartbeat);
        let membership = self.clone();
        self.0.environment.background.spawn(spec, stop, move || {
            let membership = membership.clone();
            async move { membership.bury().await }
        })
    }

    /// One heartbeat.
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
            Beat::Accepted => {
                let until = asked_at.saturating_add(config.lasts());
                if !environment.life.prolong(until, environment.clock.monotonic()) {
                    self.begin_anew(incarnation).await?;
                }
            }
            Beat::Ended => {
                // Once for each life: while no registration succeeds, each heartbeat is answered with this.
                if environment.life.end() {
                    tracing::warn!(
                        node = %environment.node, %incarnation,
                        "the store has given this node up: what it holds is lost, and it registers anew"
                    );
                    metrics::counter!(metric::NODE_LOST).increment(1);
                }
                self.answered().await;
                self.register().await?;
            }
        }
        Ok(Next::Wait)
    }

    /// Leaves and registers anew: the life was over here, and what was held in it dropped, but the store has not noticed.
    /// It would keep that for this node for as long as its leases last.
    async fn begin_anew(&self, incarnation: Incarnation) -> Result<()> {
        let environment = &self.0.environment;
        tracing::info!(
            node = %environment.node, %incarnation,
            "heard of too late to keep what this node held: that is free now, and it registers anew"
        );
        environment.life.end();
        self.answered().await;
        let left = self.0.store.leave(environment.owner, incarnation);
        if self.in_time(left).await? {
            Change::Left.tell(&environment.node, incarnation, 0);
        }
        self.register().await
    }

    /// Waits for the answers to what was asked for in the life that is over, and until what they brought is given back: a
    /// registration, or a good-bye, would free it too, but count rounds in which nothing was called. No longer than for a
    /// heartbeat's time, since the others take this node for silent meanwhile.
    async fn answered(&self) {
        let most = self.0.config.heartbeat;
        let answered = self.0.environment.life.answered();
        if tokio::time::timeout(most, answered).await.is_err() {
            tracing::info!(
                ?most,
                "registering before the store has answered everything that was asked of it: rounds in which nothing was \
                 called may count"
            );
        }
    }

    /// Buries who has been silent for too long, looks again at what those hold that have ended, forgets who ended long ago,
    /// and tells who is suspected.
    ///
    /// # Errors
    /// What the store answers; `Timeout` when it answers nothing within a heartbeat's time. Who was buried meanwhile is.
    pub async fn bury(&self) -> Result<Next> {
        let Inner {
            environment,
            store,
            config,
            watched,
            ..
        } = &*self.0;
        let buried = self.in_time(store.bury(AT_ONCE)).await?;
        for death in &buried {
            Change::Died.tell(&death.node, death.incarnation, death.freed);
        }
        if buried.iter().any(|death| death.freed > 0) {
            environment.wakeups.freed().wake();
        }
        let freed = self.in_time(store.sweep(AT_ONCE)).await?;
        if freed > 0 {
            tracing::info!(
                freed,
                "freed what nodes held that have ended, and what was locked then"
            );
            environment.wakeups.freed().wake();
        }
        let forgotten = self.in_time(store.forget(config.forget_after, AT_ONCE)).await?;
        let nodes = self.living().await?;
        for (change, node) in watched.look(environment.owner, &nodes) {
            change.tell(&node.node, node.incarnation, 0);
        }
        let more = buried.len() >= AT_ONCE || forgotten >= AT_ONCE as u64;
        Ok(if more { Next::Again } else { Next::Wait })
    }

    /// The living, in the order of their registrations.
    async fn living(&self) -> Result<Vec<LivingNode>> {
        let (mut living, mut after) = (Vec::new(), None);
        for _ in 0..PAGES {
            let page = self.in_time(self.0.store.living(after.as_ref(), PAGE)).await?;
            living.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(living)
    }

    /// Says good-bye, after everything that it held is given back and [`run`](Self::run) has ended: the store frees what
    /// is left. Nothing may be claimed any more.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn leave(&self) -> Result<()> {
        let environment = &self.0.environment;
        let incarnation = self.incarnation();
        environment.life.end();
        if self
            .in_time(self.0.store.leave(environment.owner, incarnation))
            .await?
        {
            Change::Left.tell(&environment.node, incarnation, 0);
        } else {
            tracing::info!(
                node = %environment.node, %incarnation,
                "this node had ended before its good-bye: the store has freed what it held"
            );
        }
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
        // From the answer on: what was asked for before it may have been freed by the registration. Until as long after
        // the question as the store's silence began.
        environment.life.begin(asked_at.saturating_add(config.lasts()));
        environment.wakeups.freed().wake();
        Change::Joined.tell(&environment.node, incarnation, 0);
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
