//! A simulated node: a process with a relay and the consumers of both groups.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use headless_abstractions::{Result, Store};
use headless_core::{Backoff, Environment, Spawner, State};
use headless_memory::Memory;
use headless_messaging::{ConsumerHandle, Messaging, Ordered, Plan, Planted, PulseConfig, RelayConfig};

use super::{
    chance::Chance,
    clock::{NodeClock, TrueClock},
    gate::{Gate, Weather},
    handler::Handlers,
    history::History,
    producer::Entrance,
    regime::Regime,
    script::{NOTES, ORDERS, STOCK, Script},
    store::SimStore,
    transport::SimTransport,
};

/// What the nodes of a run share.
pub(super) struct Cluster {
    pub(super) seed: u64,
    pub(super) server: Memory,
    pub(super) truth: TrueClock,
    pub(super) history: Arc<History>,
    pub(super) weather: Arc<Weather>,
    pub(super) chance: Arc<Chance>,
    pub(super) script: Arc<Script>,
    pub(super) regime: Regime,
    pub(super) planted: Planted,
    /// Whether what suspected nodes hold is taken from them: a planted bug.
    pub(super) suspected_are_buried: bool,
}

/// A process with a relay and the consumers of both groups.
pub(super) struct Node {
    pub(super) name: Arc<str>,
    pub(super) gate: Arc<Gate>,
    pub(super) clock: Arc<NodeClock>,
    pub(super) entrance: Entrance,
    memory: Memory,
    messaging: Messaging,
}

impl Node {
    /// Starts the node with this number; each has its own owner, randomness, clock and connection.
    pub(super) async fn start(cluster: &Cluster, number: u32) -> Result<Self> {
        let name: Arc<str> = format!("n{number}").into();
        let random = Arc::new(Chance::new(cluster.seed, &name));
        let skew = TimeDelta::minutes(i64::try_from(random.below(121)).unwrap_or_default() - 60);
        let clock = NodeClock::new(cluster.truth.clone(), skew);
        let gate = Gate::new(
            name.clone(),
            cluster.history.clone(),
            cluster.chance.clone(),
            cluster.weather.clone(),
            cluster.truth.clone(),
            clock.clone(),
        );
        let memory = cluster.server.connect();
        let store = SimStore::new(memory.clone(), gate.clone());
        let membership = cluster.regime.membership;
        let store = match membership {
            Some(_) => store.with_membership(cluster.suspected_are_buried),
            None => store,
        };
        let environment = Environment::new(clock.clone(), random, Spawner::current(), name.clone());
        let state = State::new().with(store.clone());

        let mut plan = Plan::new(environment.clone());
        plan.store = Some(store.parts());
        plan.transport = Some(Arc::new(SimTransport::new(memory.clone(), gate.clone())));
        plan.state = state.clone();
        plan.relay = RelayConfig::default()
            .with_batch(16)
            .with_lease(cluster.regime.lease)
            .with_poll(Duration::from_millis(500))
            .with_backoff(Backoff::exponential(
                Duration::from_millis(100),
                Duration::from_millis(500),
            ));
        plan.pulse = PulseConfig::default().with_interval(Duration::from_millis(700));
        plan.planted = cluster.planted;
        plan.service = membership.map(|_| "simulation".to_owned());
        plan.membership = membership.unwrap_or_default();
        plan.topic_named(ORDERS, Ordered::partitions(4), false);
        plan.topic_named(STOCK, Ordered::partitions(2), false);
        plan.topic_named(NOTES, Ordered::no(), false);
        for group in 0..cluster.script.groups.len() {
            let handlers = Handlers {
                group,
                node: name.clone(),
                regime: cluster.regime,
                script: cluster.script.clone(),
                chance: cluster.chance.clone(),
                history: cluster.history.clone(),
            };
            plan.consumer(handlers.consumer());
        }
        let messaging = Messaging::start(plan).await?;
        let entrance = Entrance {
            node: name.clone(),
            store,
            state: messaging.state_of_work(&state),
            environment,
            publisher: messaging.publisher().clone(),
        };
        Ok(Self {
            name,
            gate,
            clock,
            entrance,
            memory,
            messaging,
        })
    }

    /// Ends the process between two of its steps: no call answers any more, and nothing of it runs on.
    pub(super) fn crash(self) {
        self.gate.kill();
        self.memory.sever();
        drop(self.messaging);
    }

    /// Drains the process. If that takes longer than `dies_after`, it crashes in the middle of it: `None`.
    pub(super) async fn shut_down(self, timeout: Duration, dies_after: Duration) -> Option<Result<()>> {
        let draining = tokio::time::timeout(dies_after, self.messaging.shutdown(timeout));
        let outcome = draining.await.ok();
        if outcome.is_none() {
            self.gate.kill();
            self.memory.sever();
        }
        outcome
    }

    /// One of its consumers.
    pub(super) fn consumer(&self, number: usize) -> Option<&ConsumerHandle> {
        self.messaging.consumers().get(number)
    }
}
