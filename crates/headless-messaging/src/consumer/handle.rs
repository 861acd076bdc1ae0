//! A running consumer, to watch and to steer.

use std::{collections::BTreeSet, sync::Arc};

use headless_abstractions::{GroupName, TopicName};

use crate::consumer::{
    ConsumerSettings, ConsumerStats, MOST_CONCURRENCY, PauseReason, group::Group, topic::Topic,
};

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
