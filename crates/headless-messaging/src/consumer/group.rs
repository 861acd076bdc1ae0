//! A running consumer group: what its subscriptions and its retry pickup share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{Arrival, GroupName, InboxParts, Message, TopicName, TopicOrder, Transport};
use headless_core::{Codecs, Environment, State, metric};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Inbox, Publisher,
    consumer::{
        PauseReason, Settings, breaker::Circuit, counters::Counters, pauses::Pauses, permits::Permits,
        topic::Topic, watch::Watch,
    },
    handler::Handler,
    messaging::effective_poll,
    plant::{Planted, planted},
};

/// The most topics of parked messages that a process remembers not to read.
const MOST_STRANGERS: usize = 1_000;

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
                let topic = Topic::new(topic_name.clone(), order, handlers, circuit, pauses);
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
