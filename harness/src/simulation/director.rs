//! The course of a run: who starts, crashes, freezes, joins and leaves, and when all has to be done.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::TimeDelta;
use headless_abstractions::{InboxQueries, OutboxQueries, Result, Transport};
use headless_memory::{Memory, MemoryConfig};
use tokio::task::JoinSet;

use super::{
    Outcome, SimConfig,
    chance::Chance,
    checker::{Rule, Violation, check},
    clock::TrueClock,
    gate::Weather,
    history::History,
    label::Label,
    node::{Cluster, Node},
    producer::{Entrances, Producer},
    regime::Regime,
    script::Script,
    store::LEDGER,
};

/// How long producers may take: they try again until they succeed.
const PUBLISHED_WITHIN: Duration = Duration::from_mins(2);
/// How long no handler may be called while something waits, once nothing fails any more. A circuit of the default settings stays
/// open for a minute, so that each failure that a script still wants may take as long.
const STALLED_AFTER: Duration = Duration::from_mins(2);
/// How long everything may take then.
const DRAINED_WITHIN: Duration = Duration::from_mins(30);
/// How long nothing may happen that was not meant to, once everything is done.
const QUIET: Duration = Duration::from_millis(1_500);

/// What happens to the nodes.
#[derive(Clone, Copy, Debug)]
enum Event {
    Crash,
    Join,
    Leave { timeout: Duration, dies_after: Duration },
    Pause { group: usize, time: Duration },
    Retune { group: usize, concurrency: usize },
    Freeze { time: Duration, suspended: bool },
    Step { minutes: i64 },
}

pub(super) async fn run(seed: u64, config: &SimConfig) -> Result<Outcome> {
    let truth = TrueClock::start();
    let history = Arc::new(History::new(truth.clone(), config.trace));
    let script = Arc::new(Script::write(seed, config.messages)?);
    let regime = Regime::of(seed);
    history.note("-", format_args!("{regime:?}"));
    let cluster = Cluster {
        seed,
        server: Memory::with_config(server_config(config, &truth)),
        truth,
        history: history.clone(),
        weather: Arc::new(Weather::new(config.faults)),
        chance: Arc::new(Chance::new(seed, "calls")),
        script: script.clone(),
        regime,
        planted: config.planted,
        #[cfg(feature = "planted-bugs")]
        suspected_are_buried: config.suspected_are_buried,
        #[cfg(not(feature = "planted-bugs"))]
        suspected_are_buried: false,
    };
    let violations = Director::new(cluster).direct().await?;
    let finished = history.finish();
    let mut outcome = Outcome {
        seed,
        trace_hash: finished.hash,
        violations,
        stats: finished.stats,
        trace: finished.lines,
    };
    outcome.violations.extend(check(
        &finished.facts,
        &script.groups,
        regime.once(),
        &script.expected,
    ));
    Ok(outcome)
}

fn server_config(config: &SimConfig, truth: &TrueClock) -> MemoryConfig {
    let server = MemoryConfig::default().with_clock(Arc::new(truth.clone()));
    #[cfg(feature = "planted-bugs")]
    let server = server.with_epoch_dropped_on_renew(config.epoch_dropped_on_renew);
    #[cfg(not(feature = "planted-bugs"))]
    let _ = config;
    server
}

struct Director {
    cluster: Cluster,
    chance: Chance,
    entrances: Entrances,
    nodes: Vec<Node>,
    started: u32,
    /// Freezes and shutdowns under way.
    aside: JoinSet<()>,
}

impl Director {
    fn new(cluster: Cluster) -> Self {
        Self {
            chance: Chance::new(cluster.seed, "nodes"),
            cluster,
            entrances: Entrances::default(),
            nodes: Vec::new(),
            started: 0,
            aside: JoinSet::new(),
        }
    }

    async fn direct(mut self) -> Result<Vec<Violation>> {
        for _ in 0..self.chance.between(2, 3) {
            self.join().await?;
        }
        let mut producers = JoinSet::new();
        for number in 0..self.cluster.script.chains.len() {
            let producer = Producer {
                script: self.cluster.script.clone(),
                chance: self.cluster.chance.clone(),
                history: self.cluster.history.clone(),
                entrances: self.entrances.clone(),
            };
            producers.spawn(producer.run(number));
        }
        for (at, event) in self.plan() {
            let wait = at.saturating_sub(self.cluster.truth.elapsed());
            tokio::time::sleep(wait).await;
            self.happen(event).await?;
        }
        let all = async { while producers.join_next().await.is_some() {} };
        let published = tokio::time::timeout(PUBLISHED_WITHIN, all).await.is_ok();
        producers.abort_all();
        while self.aside.join_next().await.is_some() {}
        self.cluster.weather.calm_down();
        self.cluster
            .history
            .note("-", format_args!("calm, all published: {published}"));
        let mut violations = Vec::new();
        self.drain(&mut violations).await?;
        self.compare_ledger(&mut violations);
        Ok(violations)
    }

    /// What happens to the nodes, in the order of time. Each crashed one is replaced.
    fn plan(&self) -> Vec<(Duration, Event)> {
        let chance = &self.chance;
        let mut plan: BTreeMap<(Duration, usize), Event> = BTreeMap::new();
        let mut add = |at: Duration, event| {
            let count = plan.len();
            plan.insert((at, count), event);
        };
        for _ in 0..chance.between(1, 3) {
            let at = chance.millis(100, 4_000);
            add(at, Event::Crash);
            add(at + chance.millis(0, 1_500), Event::Join);
        }
        for _ in 0..chance.below(2) {
            add(chance.millis(100, 4_000), Event::Join);
        }
        for _ in 0..chance.below(2) {
            let event = Event::Leave {
                timeout: chance.millis(50, 3_000),
                dies_after: if chance.happens(3_000) {
                    chance.millis(0, 500)
                } else {
                    Duration::from_mins(1)
                },
            };
            add(chance.millis(100, 4_000), event);
        }
        for _ in 0..chance.below(3) {
            let time = chance.millis(1_100, 3_500);
            let suspended = chance.happens(5_000);
            add(chance.millis(100, 4_000), Event::Freeze { time, suspended });
        }
        if chance.happens(3_000) {
            let (group, time) = (usize::from(chance.happens(5_000)), chance.millis(100, 2_500));
            add(chance.millis(100, 4_000), Event::Pause { group, time });
        }
        if chance.happens(3_000) {
            let (group, concurrency) = (
                usize::from(chance.happens(5_000)),
                usize::from(chance.happens(5_000)) * 7 + 1,
            );
            add(chance.millis(100, 4_000), Event::Retune { group, concurrency });
        }
        for _ in 0..chance.below(3) {
            let minutes = i64::try_from(chance.below(241)).unwrap_or_default() - 120;
            add(chance.millis(100, 4_000), Event::Step { minutes });
        }
        plan.into_iter().map(|((at, _), event)| (at, event)).collect()
    }

    async fn happen(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Join => self.join().await?,
            Event::Crash => {
                if let Some(node) = self.take() {
                    self.told(&node, format_args!("crashes"));
                    self.cluster.history.count(|stats| stats.crashes += 1);
                    node.crash();
                }
            }
            Event::Leave { timeout, dies_after } => {
                if self.nodes.len() > 1
                    && let Some(node) = self.take()
                {
                    self.told(&node, format_args!("leaves within {timeout:?}"));
                    self.cluster.history.count(|stats| stats.leaves += 1);
                    let history = self.cluster.history.clone();
                    self.aside.spawn(async move {
                        let name = node.name.clone();
                        match node.shut_down(timeout, dies_after).await {
                            Some(Ok(())) => history.note(&name, format_args!("has left")),
                            Some(Err(error)) => history.note(&name, format_args!("has left: {error}")),
                            None => {
                                history.note(&name, format_args!("crashes while it leaves"));
                                history.count(|stats| stats.crashes += 1);
                            }
                        }
                    });
                }
            }
            Event::Pause { group, time } => {
                if let Some(node) = self.any()
                    && let Some(consumer) = node.consumer(group).cloned()
                {
                    self.told(node, format_args!("pauses {} for {time:?}", consumer.group()));
                    consumer.pause();
                    self.aside.spawn(async move {
                        tokio::time::sleep(time).await;
                        consumer.resume();
                    });
                }
            }
            Event::Retune { group, concurrency } => {
                if let Some(node) = self.any()
                    && let Some(consumer) = node.consumer(group)
                {
                    self.told(
                        node,
                        format_args!("runs {concurrency} of {} at once", consumer.group()),
                    );
                    consumer.set_concurrency(concurrency);
                }
            }
            Event::Step { minutes } => {
                if let Some(node) = self.any() {
                    self.told(node, format_args!("has its wall clock set by {minutes} min"));
                    self.cluster.history.count(|stats| stats.steps += 1);
                    node.clock.step(TimeDelta::minutes(minutes));
                }
            }
            Event::Freeze { time, suspended } => {
                if let Some(node) = self.any() {
                    self.told(node, format_args!("freezes for {time:?}, suspended: {suspended}"));
                    self.cluster.history.count(|stats| stats.freezes += 1);
                    let gate = node.gate.clone();
                    self.aside
                        .spawn(async move { gate.freeze(time, suspended).await });
                }
            }
        }
        Ok(())
    }

    async fn join(&mut self) -> Result<()> {
        let node = self.start().await?;
        self.told(&node, format_args!("joins"));
        self.cluster.history.count(|stats| stats.joins += 1);
        self.entrances.open(node.entrance.clone());
        self.nodes.push(node);
        Ok(())
    }

    async fn start(&mut self) -> Result<Node> {
        self.started += 1;
        Node::start(&self.cluster, self.started).await
    }

    fn any(&self) -> Option<&Node> {
        let at = self.chance.below(self.nodes.len() as u64);
        self.nodes.get(usize::try_from(at).ok()?)
    }

    /// Takes one of the nodes out of use.
    fn take(&mut self) -> Option<Node> {
        if self.nodes.is_empty() {
            return None;
        }
        let at = self.chance.below(self.nodes.len() as u64);
        let node = self.nodes.remove(usize::try_from(at).ok()?);
        self.entrances.close(&node.name);
        Some(node)
    }

    /// Waits until nothing waits any more.
    async fn drain(&self, violations: &mut Vec<Violation>) -> Result<()> {
        let since = self.cluster.truth.elapsed();
        let (mut calls, mut called_at) = (0, since);
        loop {
            let left = self.backlog().await?;
            if left.is_empty() {
                tokio::time::sleep(QUIET).await;
                return Ok(());
            }
            let now = self.cluster.truth.elapsed();
            let before = calls;
            self.cluster.history.count(|stats| calls = stats.handler_calls);
            if calls != before {
                called_at = now;
            }
            let is_over = now.saturating_sub(since) > DRAINED_WITHIN;
            if is_over || now.saturating_sub(called_at) > STALLED_AFTER {
                violations.push(Violation::new(Rule::Drains, left));
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What waits, in words; empty when nothing does.
    async fn backlog(&self) -> Result<String> {
        let server = &self.cluster.server;
        let mut left = Vec::new();
        let outbox = OutboxQueries::stats(server).await?;
        if outbox.total() > 0 {
            left.push(format!("{outbox:?}"));
        }
        for group in &self.cluster.script.groups {
            let inbox = InboxQueries::stats(server, Some(group)).await?;
            if inbox.running + inbox.parked > 0 {
                let filter = headless_abstractions::InboxFilter::all().with_group(group.clone());
                let page = InboxQueries::list(server, &filter, None, 1_000).await?;
                let waiting = page.items.iter().filter(|entry| !entry.state.is_terminal());
                let waiting: Vec<_> = waiting
                    .map(|entry| format!("{} {:?} due {:?}", Label(entry.id), entry.state, entry.due_in))
                    .collect();
                left.push(format!("{group}: {}", waiting.join(", ")));
            }
            let lag = server.lag(group).await?;
            if lag > 0 {
                left.push(format!("{lag} messages wait for {group}"));
            }
        }
        Ok(left.join("; "))
    }

    /// The ledger itself has as many rows as the history has effects.
    fn compare_ledger(&self, violations: &mut Vec<Violation>) {
        let rows = self.cluster.server.rows(LEDGER).len() as u64;
        let mut effects = 0;
        self.cluster.history.count(|stats| effects = stats.effects);
        if rows != effects {
            let what = format!("the ledger has {rows} rows after {effects} effects");
            violations.push(Violation::new(Rule::EffectsOnce, what));
        }
    }

    fn told(&self, node: &Node, what: std::fmt::Arguments<'_>) {
        self.cluster.history.note(&node.name, what);
    }
}
