//! A running consumer group: what its subscriptions and its retry pickup share.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{
    Arrival, GroupName, InboxParts, Message, PartitionKey, TopicName, TopicOrder, Transport,
};
use headless_core::{Codecs, Environment, State, Verdict, metric};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Inbox, Publisher,
    consumer::{
        ConsumerSettings, ConsumerStats, MOST_CONCURRENCY, PauseReason, Settings,
        attempt::CallEnd,
        breaker::{Circuit, Pass},
        counters::Counters,
        pauses::Pauses,
        permits::{Permit, Permits},
        watch::Watch,
    },
    handler::Handler,
    messaging::effective_poll,
    plant::{Planted, planted},
};

/// The most topics of parked messages that a process remembers not to read.
const MOST_STRANGERS: usize = 1_000;
/// For how long nothing can be received before it shows.
const BROKEN_AFTER: Duration = Duration::from_secs(5);

/// A running consumer group: what its subscriptions and its retry pickup share.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: GroupName,
    /// As it was configured: another name where every process has a group of its own.
    pub(crate) configured: GroupName,
    pub(crate) settings: Settings,
    pub(crate) form: Inbox,
    /// `None` under [`Inbox::Off`]: the consumer then uses no store.
    pub(crate) store: Option<InboxParts>,
    /// How often the park is polled; `None` where no store is used.
    pub(crate) pickup_poll: Option<Duration>,
    /// How often owners that died are buried; `None` where nobody watches over them, and their leases end.
    pub(crate) burials_each: Option<Duration>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) topics: BTreeMap<TopicName, Arc<Topic>>,
    pub(crate) permits: Permits,
    pub(crate) counters: Counters,
    pub(crate) watch: Watch,
    pub(crate) environment: Environment,
    pub(crate) state: State,
    pub(crate) publisher: Publisher,
    pub(crate) codecs: Codecs,
    pub(crate) planted: Planted,
    /// Intake has stopped: waits are cut, what runs goes on.
    pub(crate) stopping: CancellationToken,
    /// The deadline of the shutdown has passed: what runs is ended.
    pub(crate) cancelled: CancellationToken,
    /// Everything that works on messages of the group.
    pub(crate) tasks: TaskTracker,
    strangers: Mutex<BTreeSet<TopicName>>,
}

/// What a group is made from.
pub(crate) struct GroupParts {
    pub(crate) name: GroupName,
    pub(crate) configured: GroupName,
    pub(crate) settings: Settings,
    pub(crate) form: Inbox,
    pub(crate) store: Option<InboxParts>,
    pub(crate) has_pulse: bool,
    pub(crate) burials_each: Option<Duration>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) handlers: BTreeMap<TopicName, (TopicOrder, Vec<Handler>)>,
    pub(crate) environment: Environment,
    pub(crate) state: State,
    pub(crate) publisher: Publisher,
    pub(crate) codecs: Codecs,
    pub(crate) planted: Planted,
}

impl Group {
    /// A group that stops its intake with `stopping`.
    pub(crate) fn new(parts: GroupParts, stopping: CancellationToken) -> Self {
        let GroupParts {
            name,
            configured,
            settings,
            form,
            store,
            has_pulse,
            burials_each,
            transport,
            handlers,
            environment,
            state,
            publisher,
            codecs,
            planted,
        } = parts;
        let topics = handlers
            .into_iter()
            .map(|(topic_name, (order, handlers))| {
                let circuit = Circuit::new(
                    settings.breaker,
                    (&name, &topic_name),
                    environment.clock.clone(),
                    environment.random.clone(),
                );
                let pauses = Pauses::default();
                if settings.start_paused {
                    pauses.insert(PauseReason::Operator);
                }
                let topic = Topic {
                    name: topic_name.clone(),
                    order,
                    handlers,
                    circuit,
                    pauses,
                    problem: Mutex::default(),
                    defect: Mutex::default(),
                    broken: Mutex::default(),
                    parked_here: Mutex::default(),
                };
                (topic_name, Arc::new(topic))
            })
            .collect();
        let store = store.filter(|_| form != Inbox::Off);
        let poll = effective_poll(settings.park_poll, has_pulse);
        Self {
            pickup_poll: store.as_ref().map(|_| poll),
            burials_each,
            permits: Permits::new(settings.concurrency),
            counters: Counters::default(),
            watch: Watch::new(
                environment.clock.clone(),
                environment.life.clone(),
                settings.lease,
                planted,
            ),
            stopping,
            cancelled: CancellationToken::new(),
            tasks: TaskTracker::new(),
            strangers: Mutex::default(),
            store,
            name,
            configured,
            settings,
            form,
            transport,
            topics,
            environment,
            state,
            publisher,
            codecs,
            planted,
        }
    }

    /// `message` as this group meets it.
    pub(crate) fn arrival(&self, topic: &Topic, message: &Message) -> Arrival {
        let ordered = self.settings.ordered && topic.order.is_ordered();
        Arrival::of(&self.name, message, ordered)
    }

    /// The arrival with which the store is asked whether a message may run.
    pub(crate) fn asked(&self, topic: &Topic, arrival: &Arrival) -> Arrival {
        let mut arrival = arrival.clone();
        if planted!(self.planted, ParkedKeyForgotten) && !topic.parked_here(arrival.key.as_ref()) {
            arrival.key = None;
        }
        arrival
    }

    /// Counts, logs and shows that a task of the consumer panicked, by a defect of ours or of a driver.
    pub(crate) fn panicked(&self, topic: &Topic, panic: &str) {
        tracing::error!(group = %self.name, topic = %topic.name, panic, "a task of the consumer panicked; its messages come again");
        self.counters.panicked(&self.name, &topic.name, 1);
        topic.show_defect(Some(format!("a task of the consumer panicked: {panic}")));
    }

    /// The topics of which this process has met parked messages, and reads none.
    pub(crate) fn strangers(&self) -> BTreeSet<TopicName> {
        self.strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Leaves the parked messages of a topic that this process does not read to those that do, from now on.
    pub(crate) fn meet_stranger(&self, topic: &TopicName) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.len() < MOST_STRANGERS && strangers.insert(topic.clone()) {
            tracing::warn!(group = %self.name, %topic, "messages of a topic that this process does not read are parked; they wait for a process that does");
        }
    }

    /// Counts and logs that a bound was hit.
    pub(crate) fn bound_hit(&self, bound: &'static str) {
        tracing::warn!(group = %self.name, bound, "a bound was hit");
        metrics::counter!(metric::BOUND_HIT, "group" => self.name.to_string(), "reason" => bound)
            .increment(1);
    }
}

/// A topic as a group reads it.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: TopicName,
    pub(crate) order: TopicOrder,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) circuit: Circuit,
    pub(crate) pauses: Pauses,
    problem: Mutex<Option<String>>,
    /// The panic of our own since which nothing has gone well.
    defect: Mutex<Option<String>>,
    /// Since when nothing can be received, and why.
    broken: Mutex<Option<(Duration, String)>>,
    /// Kept for the planted bug that takes it for the truth; the truth is in the store.
    parked_here: Mutex<BTreeSet<PartitionKey>>,
}

impl Topic {
    /// The handler of this message's type. A message without a type, from a foreign producer, is for the one handler
    /// there is.
    pub(crate) fn handler_of(&self, message: &Message) -> Option<Handler> {
        match (&message.message_type, &*self.handlers) {
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
            (Some(name), handlers) => handlers
                .iter()
                .find(|handler| handler.message_type == name.as_str())
                .cloned(),
        }
    }

    /// Waits for the circuit, and for the end of a pause, without holding a permit: whoever is the probe needs one.
    /// `None` when the group stops or its topic is misconfigured, when `revoked` says that the message has gone to another
    /// member, or when it is paused and what is in hand is not to wait for that: others may have it.
    pub(super) async fn pass_circuit(
        &self,
        group: &Group,
        permit: &mut Option<Permit>,
        revoked: impl Future<Output = ()>,
        waits_for_pauses: bool,
    ) -> Option<Pass> {
        let mut revoked = pin!(revoked);
        loop {
            if self.pauses.end_calls() || (self.pauses.stop_calls() && !waits_for_pauses) {
                return None;
            }
            if !self.pauses.stop_calls()
                && let Some(pass) = self.circuit.try_pass()
            {
                return Some(pass);
            }
            *permit = None;
            tokio::select! {
                biased;
                () = &mut revoked => return None,
                () = group.stopping.cancelled() => return None,
                () = self.pauses.may_call() => {}
            }
            let pass = tokio::select! {
                biased;
                () = &mut revoked => None,
                pass = self.circuit.pass(&group.stopping) => pass,
            }?;
            *permit = group.permits.acquire().await;
            // It may have been paused while this waited; another takes the place of its pass then.
            if !self.pauses.stop_calls() {
                return Some(pass);
            }
        }
    }

    /// Tells the circuit how a call ended.
    pub(crate) fn record(&self, pass: Pass, end: &CallEnd) {
        match end {
            CallEnd::Failed(failed) if failed.verdict != Verdict::Permanent => {
                if self.circuit.failed(pass) {
                    tracing::warn!(topic = %self.name, "a circuit has opened");
                }
            }
            CallEnd::Committed | CallEnd::Succeeded | CallEnd::Discarded(_) | CallEnd::Failed(_) => {
                self.circuit.succeeded(pass);
            }
            // These say nothing about what the handler depends on; a probe among them leaves its place to another.
            CallEnd::Refused(_)
            | CallEnd::Misconfigured(_)
            | CallEnd::Expired
            | CallEnd::LeaseLost
            | CallEnd::ShutDown => {
                drop(pass);
            }
        }
    }

    /// Pauses the topic for a mistake that no retry mends.
    pub(crate) fn misconfigured(&self, why: &str) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
        self.pauses.insert(PauseReason::Configuration);
    }

    pub(crate) fn problem(&self) -> Option<String> {
        self.problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn show_defect(&self, defect: Option<String>) {
        *self.defect.lock().unwrap_or_else(PoisonError::into_inner) = defect;
    }

    pub(crate) fn defect(&self) -> Option<String> {
        self.defect.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows that nothing could be received at this moment, or with `None` that something could.
    pub(crate) fn show_broken(&self, at: Duration, why: Option<String>) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        *broken = why.map(|why| {
            let since = broken.as_ref().map_or(at, |(since, _)| *since);
            (since, why)
        });
    }

    /// Whether nothing could be received since the last time that something was tried.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Why nothing has been received for a while.
    fn broken(&self, now: Duration) -> Option<String> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let lasting = broken
            .as_ref()
            .filter(|(since, _)| now.saturating_sub(*since) >= BROKEN_AFTER);
        lasting.map(|(_, why)| why.clone())
    }

    pub(crate) fn remember_parked(&self, arrival: &Arrival) {
        if cfg!(feature = "planted-bugs") {
            self.parked_here
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(arrival.key.clone());
        }
    }

    fn parked_here(&self, key: Option<&PartitionKey>) -> bool {
        let parked = self.parked_here.lock().unwrap_or_else(PoisonError::into_inner);
        key.is_some_and(|key| parked.contains(key))
    }
}

impl Group {
    /// Claims nothing while the store may have given this node up, and goes on afterwards.
    pub(crate) fn silence(&self, is_silenced: bool) {
        for topic in self.topics.values() {
            if is_silenced {
                topic.pauses.insert(PauseReason::Membership);
            } else {
                topic.pauses.remove(PauseReason::Membership);
            }
        }
        if !is_silenced {
            self.environment.wakeups.parked().wake();
        }
    }

    /// Runs as the store wants it: paused on the topics that `is_paused` says, and with this concurrency; `None` is that of
    /// this process.
    pub(crate) fn control(&self, is_paused: impl Fn(&TopicName) -> bool, concurrency: Option<usize>) {
        for (name, topic) in &self.topics {
            if is_paused(name) {
                topic.pauses.insert(PauseReason::Control);
            } else {
                topic.pauses.remove(PauseReason::Control);
            }
        }
        self.permits.control(concurrency);
        self.environment.wakeups.parked().wake();
    }
}

/// A running consumer, to watch and to steer.
#[derive(Clone, Debug)]
pub struct ConsumerHandle {
    pub(crate) group: Arc<Group>,
}

/// A subscription of a consumer to one topic, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionStatus {
    /// Its topic.
    pub topic: TopicName,
    /// Why it is paused; empty when it is not.
    pub paused: BTreeSet<PauseReason>,
    /// Whether its circuit is open.
    pub circuit_open: bool,
    /// The mistake of configuration that paused it.
    pub problem: Option<String>,
    /// The panic of a task of its own, by a defect of ours or of a driver, until something goes well again. Nothing is
    /// lost by it: the message comes again.
    pub defect: Option<String>,
    /// Why nothing can be received, where nothing could for five seconds: the transport is away, or its group is gone. It is
    /// tried again all the while.
    pub broken: Option<String>,
}

impl ConsumerHandle {
    /// The group.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.group.name
    }

    /// The group's name as it was configured: that of the group, unless every process has a group of its own.
    #[must_use]
    pub fn configured_group(&self) -> &GroupName {
        &self.group.configured
    }

    /// What it has done in this process since it started.
    #[must_use]
    pub fn stats(&self) -> ConsumerStats {
        self.group.counters.snapshot()
    }

    /// Its settings as they are in effect.
    #[must_use]
    pub fn settings(&self) -> ConsumerSettings {
        ConsumerSettings::in_effect(&self.group)
    }

    /// Its subscriptions, in the order of their topics.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<SubscriptionStatus> {
        let now = self.group.environment.clock.monotonic();
        let status = |topic: &Arc<Topic>| SubscriptionStatus {
            topic: topic.name.clone(),
            paused: topic.pauses.reasons(),
            circuit_open: !topic.circuit.is_closed(),
            problem: topic.problem(),
            defect: topic.defect(),
            broken: topic.broken(now),
        };
        self.group.topics.values().map(status).collect()
    }

    /// How many handler calls run now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.group.permits.in_use()
    }

    /// Starts no more handlers in this process until [`resume`](Self::resume), also for what is received already or comes
    /// from the park. What runs is let finish.
    pub fn pause(&self) {
        for topic in self.group.topics.values() {
            topic.pauses.insert(PauseReason::Operator);
        }
    }

    /// Takes back a [`pause`](Self::pause). Other reasons to pause stay.
    pub fn resume(&self) {
        for topic in self.group.topics.values() {
            topic.pauses.remove(PauseReason::Operator);
        }
        self.group.environment.wakeups.parked().wake();
    }

    /// At most this many handler calls at once in this process; 0 counts as 1, and more than 100 000 as that. What runs is let finish. As long as the
    /// store wants another concurrency of the group, that counts, and this after it.
    pub fn set_concurrency(&self, most: usize) {
        self.group.permits.set_limit(most.clamp(1, MOST_CONCURRENCY));
    }

    /// How many handler calls may run at once.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        self.group.permits.limit()
    }
}
