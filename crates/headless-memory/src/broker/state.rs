//! Topics and groups by name, and each call on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::Arc,
};

use headless_abstractions::{
    Error, ErrorKind, GroupName, GroupSpec, Message, PartitionKey, Result, Sent, StartFrom, Subscription,
    TopicName, TopicOrder, Topology,
};
use tokio::sync::Notify;

use super::{
    Moment,
    entry::Numbers,
    group::Group,
    topic::{Logged, Topic},
};
use crate::{MemoryConfig, link::Link};

mod members;

#[derive(Debug)]
pub(crate) struct State {
    topics: BTreeMap<TopicName, Topic>,
    groups: BTreeMap<GroupName, Group>,
    /// The groups that belong to one process, and its link.
    instances: BTreeMap<GroupName, Arc<Link>>,
    numbers: Numbers,
    limits: Limits,
}

#[derive(Debug)]
struct Limits {
    group: NonZeroUsize,
    replay: usize,
    payload: NonZeroUsize,
}

/// A member that joined.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) session: u64,
    /// Wakes its pending receive.
    pub(crate) wake: Arc<Notify>,
}

impl State {
    pub(super) fn new(config: &MemoryConfig) -> Self {
        Self {
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            instances: BTreeMap::new(),
            numbers: Numbers::default(),
            limits: Limits {
                group: config.group_capacity,
                replay: config.replay_capacity,
                payload: config.max_payload,
            },
        }
    }

    pub(crate) fn declare(&mut self, topology: &Topology, link: &Arc<Link>, now: Moment) -> Result<()> {
        self.end_orphans(now);
        self.check(topology)?;
        for spec in &topology.topics {
            let topic = self
                .topics
                .entry(spec.name.clone())
                .or_insert_with(|| Topic::new(spec.order));
            topic.required |= spec.required;
        }
        for spec in &topology.groups {
            self.add_group(spec, link, now);
        }
        Ok(())
    }

    /// Refuses a request as a whole, before any of it is made.
    fn check(&self, topology: &Topology) -> Result<()> {
        let mut named = BTreeMap::new();
        for spec in &topology.topics {
            let first = *named.entry(&spec.name).or_insert(spec.order);
            let known = self.topics.get(&spec.name).map_or(first, |topic| topic.order);
            if known != spec.order {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "the topic is {} and was declared as {}; to change it, run `headless topics repartition`",
                        known, spec.order,
                    ),
                )
                .with_resource(format!("topic {}", spec.name)));
            }
        }
        for GroupSpec {
            group, topic, start, ..
        } in &topology.groups
        {
            if *start == StartFrom::Oldest && self.limits.replay == 0 {
                return Err(Error::unsupported(
                    "replay_from_start is off, so a group cannot start from the oldest message; \
                     let it start from now, or give the server a replay_capacity",
                )
                .with_resource(format!("group {group} of topic {topic}")));
            }
            if !named.contains_key(topic) {
                self.known(topic)?;
            }
        }
        Ok(())
    }

    fn known(&self, name: &TopicName) -> Result<&Topic> {
        self.topics.get(name).ok_or_else(|| unknown_topic(name))
    }

    fn add_group(&mut self, spec: &GroupSpec, link: &Arc<Link>, now: Moment) {
        let Some(topic) = self.topics.get_mut(&spec.topic) else {
            return;
        };
        if spec.per_instance && !self.groups.contains_key(&spec.group) {
            self.instances.insert(spec.group.clone(), link.clone());
        }
        let group = self.groups.entry(spec.group.clone()).or_default();
        if !group.add_topic(&spec.topic, topic.order) {
            return;
        }
        topic.groups.insert(spec.group.clone());
        if spec.start == StartFrom::Oldest {
            for Logged { due, message } in topic.replay() {
                let partition = message
                    .key
                    .as_ref()
                    .and_then(|key| Some(topic.order.partitions()?.of(key)));
                group.accept(message, partition, due, now, &mut self.numbers);
            }
        }
    }

    pub(crate) fn send(&mut self, batch: &[Message], now: Moment) -> Vec<Result<Sent>> {
        self.end_orphans(now);
        let mut stopped = BTreeSet::new();
        let mut reached = BTreeSet::new();
        let answers = batch
            .iter()
            .map(|message| {
                let key = message.key.as_ref().map(|key| (&message.topic, key));
                let answer = self.accept(message, key, &stopped, now);
                match &answer {
                    Ok(Sent::Accepted) => drop(reached.insert(&message.topic)),
                    Ok(Sent::Unrouted) => {}
                    Err(_) => stopped.extend(key),
                }
                answer
            })
            .collect();
        for topic in reached {
            self.wake_groups_of(topic);
        }
        answers
    }

    /// Gives a topic another order, if no group has anything of it. Answers with the order that it had.
    pub(crate) fn repartition(
        &mut self,
        name: &TopicName,
        order: TopicOrder,
        now: Moment,
    ) -> Result<TopicOrder> {
        self.end_orphans(now);
        let Self { topics, groups, .. } = self;
        let topic = topics.get_mut(name).ok_or_else(|| unknown_topic(name))?;
        let before = topic.order;
        if before == order {
            return Ok(before);
        }
        let held: Vec<(GroupName, u64)> = topic
            .groups
            .iter()
            .filter_map(|group| Some((group.clone(), groups.get(group)?.len_of(name) as u64)))
            .filter(|(_, count)| *count > 0)
            .collect();
        if !held.is_empty() {
            return Err(Error::undrained(name, &held));
        }
        topic.reorder(order);
        for group in &topic.groups {
            if let Some(group) = groups.get_mut(group) {
                group.reorder(name, order);
            }
        }
        Ok(before)
    }

    fn wake_groups_of(&self, topic: &TopicName) {
        let groups = self.topics.get(topic).into_iter().flat_map(|topic| &topic.groups);
        for group in groups.filter_map(|name| self.groups.get(name)) {
            group.wake.notify_waiters();
        }
    }

    /// Takes one message for every group of its topic, or for none.
    fn accept(
        &mut self,
        message: &Message,
        key: Option<(&TopicName, &PartitionKey)>,
        stopped: &BTreeSet<(&TopicName, &PartitionKey)>,
        now: Moment,
    ) -> Result<Sent> {
        let Self {
            topics,
            groups,
            numbers,
            limits,
            ..
        } = self;
        let name = &message.topic;
        let about = |error: Error| error.with_resource(format!("topic {name}"));
        let limit = limits.payload.get();
        if message.payload.len() > limit {
            return Err(about(Error::too_large("payload", message.payload.len(), limit)));
        }
        let topic = topics.get_mut(name).ok_or_else(|| unknown_topic(name))?;
        let partition = topic.partition_of(message).map_err(about)?;
        if key.is_some_and(|key| stopped.contains(&key)) {
            return Err(about(Error::new(
                ErrorKind::Conflict,
                "an earlier message of this key was not accepted",
            )));
        }
        if topic.groups.is_empty() && topic.required {
            return Err(about(Error::new(
                ErrorKind::NotFound,
                "the topic is required and no group takes it; declare one first",
            )));
        }
        let limit = limits.group.get();
        if let Some(full) = topic
            .groups
            .iter()
            .find(|group| groups.get(*group).is_some_and(|g| g.len_of(name) >= limit))
        {
            return Err(about(Error::new(
                ErrorKind::Unavailable,
                format!("group {full} is full with {limit} messages; its members have to settle some first"),
            )));
        }
        let due = now.saturating_add(message.deliver_after.unwrap_or_default());
        let message = Arc::new(message.clone());
        let mut sent = Sent::Unrouted;
        for group in &topic.groups {
            if let Some(group) = groups.get_mut(group) {
                group.accept(message.clone(), partition, due, now, numbers);
                sent = Sent::Accepted;
            }
        }
        topic.remember(due, message, limits.replay);
        Ok(sent)
    }

    pub(crate) fn subscribe(&mut self, to: &Subscription, link: &Arc<Link>, now: Moment) -> Result<Joined> {
        self.end_orphans(now);
        if to.topics.is_empty() {
            return Err(Error::invalid("a subscription needs one topic at least"));
        }
        if to.visibility.is_zero() {
            return Err(Error::invalid(
                "a subscription's visibility time is zero; give it 1 ms or more",
            ));
        }
        for topic in &to.topics {
            self.known(topic)?;
        }
        let group = self
            .groups
            .get_mut(&to.group)
            .ok_or_else(|| unknown_group(&to.group))?;
        if let Some(other) = to.topics.iter().find(|topic| !group.takes(topic)) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("the group was not declared on topic {other}; declare it there first"),
            )
            .with_resource(format!("group {}", to.group)));
        }
        group.sweep(now, &mut self.numbers);
        let session = group.join(to, link.clone(), now, &mut self.numbers);
        Ok(Joined {
            session,
            wake: group.wake.clone(),
        })
    }

    pub(crate) fn remove_group(&mut self, name: &GroupName) {
        let Some(group) = self.groups.remove(name) else {
            return;
        };
        self.instances.remove(name);
        for topic in self.topics.values_mut() {
            topic.groups.remove(name);
        }
        group.wake.notify_waiters();
    }

    pub(crate) fn lag(&mut self, name: &GroupName, now: Moment) -> Result<u64> {
        self.end_orphans(now);
        let group = self.groups.get_mut(name).ok_or_else(|| unknown_group(name))?;
        group.sweep(now, &mut self.numbers);
        Ok(group.len() as u64)
    }

    /// Ends what belongs to this link: its members and its groups.
    pub(super) fn end(&mut self, link: &Arc<Link>) {
        for group in self.groups.values_mut() {
            for session in group.sessions_of(link) {
                group.leave(session);
            }
        }
        self.end_instances(|_, owner| Arc::ptr_eq(owner, link));
    }

    /// Ends the groups of severed links whose last member has lapsed.
    fn end_orphans(&mut self, now: Moment) {
        self.end_instances(|group, owner| owner.is_severed() && !group.is_attended(now));
    }

    fn end_instances(&mut self, ended: impl Fn(&Group, &Arc<Link>) -> bool) {
        let instances = self
            .instances
            .iter()
            .filter(|(name, owner)| self.groups.get(*name).is_none_or(|g| ended(g, owner)));
        let names: Vec<GroupName> = instances.map(|(name, _)| name.clone()).collect();
        for name in &names {
            self.remove_group(name);
        }
    }
}

fn unknown_topic(name: &TopicName) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "the topic was never declared; declare it first",
    )
    .with_resource(format!("topic {name}"))
}

fn unknown_group(name: &GroupName) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "the group was never declared, or was removed",
    )
    .with_resource(format!("group {name}"))
}
