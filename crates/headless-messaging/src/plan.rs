//! What a process is to do with messages, and everything that is wrong with it, at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use headless_abstractions::{
    Error, GroupName, GroupSpec, OrderingGuarantee, Result, StartFrom, StoreParts, TopicName, TopicOrder,
    TopicSpec, Topology, Transport, TransportCapabilities, TransportInfo,
};
use headless_core::{Codecs, Environment, Event, MembershipConfig, State};

use crate::{
    Consumer, ControlConfig, GaugesConfig, Inbox, Ordered, OutgoingLimits, Planted, PulseConfig, PurgeConfig,
    RelayConfig, Topics,
    handler::{Handler, HandlerKind},
};

/// The group that keeps what is published on the dead topic of a consumer without a store until somebody reads it.
pub(crate) const DEAD_LETTERS: &str = "dead-letters";

/// What a process is to do with messages: its store, transport, topics and consumers.
///
/// Nothing is checked until [`Messaging::start`](crate::Messaging::start), which reports all problems at once.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// Time, chance, threads and identity.
    pub environment: Environment,
    /// Where messages are stored.
    pub store: Option<StoreParts>,
    /// What moves them.
    pub transport: Option<Arc<dyn Transport>>,
    /// Application state for handlers; a store for `begin::<S>()` is among it.
    pub state: State,
    /// How payloads are encoded.
    pub codecs: Codecs,
    /// The limits of what is published.
    pub limits: OutgoingLimits,
    /// Whether this process relays the outbox. Default true.
    pub relays: bool,
    /// How.
    pub relay: RelayConfig,
    /// The idle question.
    pub pulse: PulseConfig,
    /// Whether this process removes what is over. Default true.
    pub purges: bool,
    /// The removal of old marks and dead letters.
    pub purge: PurgeConfig,
    /// The gauges of what waits, where this process relays; `None` shows none.
    pub gauges: Option<GaugesConfig>,
    /// The service whose node this process registers as, where the store watches over its nodes; `None` registers nothing.
    pub service: Option<String>,
    /// How it keeps its membership then.
    pub membership: MembershipConfig,
    /// What operators want of this process, where the store keeps it; `None` leaves it alone.
    pub control: Option<ControlConfig>,
    /// A bug planted on purpose.
    pub planted: Planted,
    topics: Vec<DeclaredTopic>,
    consumers: Vec<Consumer>,
    problems: Vec<String>,
}

#[derive(Clone, Debug)]
struct DeclaredTopic {
    name: String,
    order: Ordered,
    required: bool,
}

impl Plan {
    /// Nothing yet.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self {
            environment,
            store: None,
            transport: None,
            state: State::new(),
            codecs: Codecs::new(),
            limits: OutgoingLimits::default(),
            relays: true,
            relay: RelayConfig::default(),
            pulse: PulseConfig::default(),
            purges: true,
            purge: PurgeConfig::default(),
            gauges: None,
            service: None,
            membership: MembershipConfig::default(),
            control: None,
            planted: Planted::default(),
            topics: Vec::new(),
            consumers: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Declares the topic of an event.
    pub fn topic<M: Event>(&mut self, order: Ordered) {
        self.topic_named(M::TOPIC, order, false);
    }

    /// Declares a topic. Publishing to a `required` one that no group takes is an error.
    pub fn topic_named(&mut self, name: impl Into<String>, order: Ordered, required: bool) {
        self.topics.push(DeclaredTopic {
            name: name.into(),
            order,
            required,
        });
    }

    /// Adds a consumer.
    pub fn consumer(&mut self, consumer: Consumer) {
        self.consumers.push(consumer);
    }

    /// Adds a problem that whoever makes the plan has found, to be reported with the plan's own.
    pub fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// Checks the plan while its store and its transport are still to be connected to: what only they can answer is left
    /// to [`Messaging::start`](crate::Messaging::start). `store` and `transport` say which of them will be there.
    ///
    /// # Errors
    /// `Invalid`, with every problem on a line of its own.
    pub fn check_before_connecting(&self, store: bool, transport: bool) -> Result<()> {
        self.check_with(Expected { store, transport }).map(drop)
    }

    /// Checks the plan as a whole.
    ///
    /// # Errors
    /// `Invalid`, with every problem on a line of its own.
    pub(crate) fn check(&self) -> Result<Checked> {
        self.check_with(Expected::default())
    }

    fn check_with(&self, expected: Expected) -> Result<Checked> {
        let mut problems = Problems(self.problems.clone());
        let topics = self.checked_topics(&mut problems);
        let transport = self.transport.as_ref().map(|transport| transport.info());
        problems.note("relay", self.relay.check());
        problems.note("membership", self.membership.check());
        let mut topology = Topology::new();
        let mut groups = Vec::new();
        let mut names = BTreeSet::new();
        for consumer in &self.consumers {
            if !names.insert(consumer.group.as_str()) {
                problems.add(format!(
                    "group {:?} has two consumers: give all its handlers to one",
                    consumer.group
                ));
                continue;
            }
            if let Some(group) = self.checked_group(consumer, &topics, expected, &mut problems) {
                groups.push(group);
            }
        }
        let mut specs: BTreeMap<TopicName, TopicSpec> = topics
            .iter()
            .map(|spec| (spec.name.clone(), spec.clone()))
            .collect();
        for group in &groups {
            for topic in group.handlers.keys() {
                specs
                    .entry(topic.clone())
                    .or_insert_with(|| TopicSpec::new(topic.clone(), TopicOrder::Unordered));
                if group.form == Inbox::Off {
                    let dead = topic.dead();
                    if let Some(keeper) = problems.note("dead letters", GroupName::parse(DEAD_LETTERS)) {
                        topology.groups.push(GroupSpec::new(keeper, dead.clone()));
                    }
                    specs
                        .entry(dead.clone())
                        .or_insert_with(|| TopicSpec::new(dead, TopicOrder::Unordered));
                }
                topology.groups.push(group.spec(topic));
            }
        }
        topology.topics = specs.into_values().collect();
        if let Some(info) = &transport {
            check_capabilities(&topology, info, &mut problems);
        }
        problems.into_result()?;
        Ok(Checked {
            topics,
            topology,
            groups,
            transport,
        })
    }

    fn checked_topics(&self, problems: &mut Problems) -> Topics {
        let mut specs = Vec::new();
        for declared in &self.topics {
            let name = problems.note("topic", TopicName::parse(&declared.name));
            let order = problems.note(&declared.name, declared.order.to_order());
            if let (Some(name), Some(order)) = (name, order) {
                let spec = TopicSpec::new(name, order);
                specs.push(if declared.required {
                    spec.with_required()
                } else {
                    spec
                });
            }
        }
        problems.note("topics", Topics::new(specs)).unwrap_or_default()
    }

    fn checked_group(
        &self,
        consumer: &Consumer,
        topics: &Topics,
        expected: Expected,
        problems: &mut Problems,
    ) -> Option<CheckedGroup> {
        let what = format!("group {:?}", consumer.group);
        let name = problems.note("consumer", GroupName::parse(&consumer.group));
        for problem in consumer.settings.problems() {
            problems.add(format!("{what}: {problem}"));
        }
        if self.transport.is_none() && !expected.transport {
            problems.add(format!(
                "{what}: a consumer needs a transport, add .transport(..)"
            ));
        }
        if consumer.handlers.is_empty() {
            problems.add(format!("{what} has no handlers, add .on(..)"));
        }
        let mut handlers: BTreeMap<TopicName, (TopicOrder, Vec<Handler>)> = BTreeMap::new();
        for handler in &consumer.handlers {
            let Some(topic) = problems.note(&what, TopicName::parse(handler.topic)) else {
                continue;
            };
            if matches!(handler.kind, HandlerKind::Batch { most: 0, .. }) {
                problems.add(format!(
                    "{what}: the batch of {} takes at most 0, the least is 1",
                    handler.message_type
                ));
            }
            let (_, of_topic) = handlers
                .entry(topic.clone())
                .or_insert_with(|| (topics.order(&topic), Vec::new()));
            if of_topic
                .iter()
                .any(|other| other.message_type == handler.message_type)
            {
                problems.add(format!(
                    "{what} has two handlers for the type {:?} of topic {topic}",
                    handler.message_type
                ));
            }
            of_topic.push(handler.clone());
        }
        if consumer.settings.ordered
            && !handlers.is_empty()
            && !handlers.values().any(|(order, _)| order.is_ordered())
        {
            problems.add(format!(
                "{what} is ordered_by_key, and none of its topics is declared ordered: add .topic::<..>(Ordered::partitions(..))"
            ));
        }
        let has_inbox = match &self.store {
            Some(store) => store.inbox.is_some(),
            None => expected.store,
        };
        let form = consumer.settings.inbox.unwrap_or(if has_inbox {
            Inbox::Transactional
        } else {
            Inbox::Off
        });
        if form != Inbox::Off && !has_inbox {
            problems.add(format!("{what} has Inbox::{form:?}, which needs a store with an inbox: add .store(..) or use Inbox::Off"));
        }
        let configured = name?;
        let mut name = configured.clone();
        if consumer.settings.per_instance {
            // A name of its own for each start, within the alphabet and the length of names.
            let instance = format!(
                "{:.64}.i-{:.16}",
                consumer.group,
                self.environment.owner.to_string()
            );
            name = problems.note(&what, GroupName::parse(&instance))?;
        }
        Some(CheckedGroup {
            name,
            configured,
            form,
            handlers,
            consumer: consumer.clone(),
        })
    }
}

/// Which parts are still to be connected to.
#[derive(Clone, Copy, Default)]
struct Expected {
    store: bool,
    transport: bool,
}

/// What the transport must be able to do for this topology.
fn check_capabilities(topology: &Topology, info: &TransportInfo, problems: &mut Problems) {
    let TransportCapabilities {
        ordering,
        replay_from_start,
        per_instance_groups,
        ..
    } = info.capabilities;
    let name = info.name;
    for topic in topology.topics.iter().filter(|topic| topic.order.is_ordered()) {
        if ordering == OrderingGuarantee::None {
            problems.add(format!(
                "topic {} is declared ordered, and {name} keeps no order (capability `ordering`): use another transport or Ordered::no()",
                topic.name
            ));
        }
    }
    for group in &topology.groups {
        if group.start == StartFrom::Oldest && !replay_from_start {
            problems.add(format!(
                "group {} starts from the oldest message, and {name} cannot replay (capability `replay_from_start`)",
                group.group
            ));
        }
        if group.per_instance && !per_instance_groups {
            problems.add(format!(
                "group {} is per instance, and {name} has no such groups (capability `per_instance_groups`)",
                group.group
            ));
        }
    }
}

/// A plan that can be carried out.
pub(crate) struct Checked {
    pub(crate) topics: Topics,
    pub(crate) topology: Topology,
    pub(crate) groups: Vec<CheckedGroup>,
    pub(crate) transport: Option<TransportInfo>,
}

pub(crate) struct CheckedGroup {
    pub(crate) name: GroupName,
    pub(crate) configured: GroupName,
    pub(crate) form: Inbox,
    pub(crate) handlers: BTreeMap<TopicName, (TopicOrder, Vec<Handler>)>,
    pub(crate) consumer: Consumer,
}

impl CheckedGroup {
    fn spec(&self, topic: &TopicName) -> GroupSpec {
        let spec = GroupSpec::new(self.name.clone(), topic.clone()).with_start(self.consumer.settings.start);
        if self.consumer.settings.per_instance {
            spec.with_per_instance()
        } else {
            spec
        }
    }
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, problem: String) {
        self.0.push(problem);
    }

    fn note<T>(&mut self, what: &str, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.add(format!("{what}: {error}"))).ok()
    }

    fn into_result(self) -> Result<()> {
        match &*self.0 {
            [] => Ok(()),
            [one] => Err(Error::invalid(one.clone()).with_operation("start")),
            many => {
                let lines: Vec<_> = many.iter().map(|problem| format!("\n- {problem}")).collect();
                Err(
                    Error::invalid(format!("{} problems:{}", many.len(), lines.concat()))
                        .with_operation("start"),
                )
            }
        }
    }
}
