//! How a runtime is doing, as this process sees it.

use std::collections::BTreeMap;

use headless_core::{Background, TaskStatus};
use headless_messaging::{ConsumerStats, Messaging, PauseReason, RelayStatus, SubscriptionStatus};

/// How a runtime is doing, as this process sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Its background tasks, by name.
    pub tasks: BTreeMap<String, TaskStatus>,
    /// Its relay, where it has one.
    pub relay: Option<RelayStatus>,
    /// Its consumer groups, in the order in which the builder was given them.
    pub groups: Vec<GroupHealth>,
}

/// How a consumer group is doing in this process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupHealth {
    /// Its name.
    pub group: String,
    /// What it has done since it started.
    pub stats: ConsumerStats,
    /// Its subscriptions, in the order of their topics.
    pub subscriptions: Vec<SubscriptionStatus>,
}

impl Health {
    pub(super) fn of(messaging: &Messaging, background: &Background) -> Self {
        let group = |consumer: &headless_messaging::ConsumerHandle| GroupHealth {
            group: consumer.group().to_string(),
            stats: consumer.stats(),
            subscriptions: consumer.subscriptions(),
        };
        Self {
            tasks: background.statuses(),
            relay: messaging.relay().map(headless_messaging::Relay::status),
            groups: messaging.consumers().iter().map(group).collect(),
        }
    }

    /// Whether nothing is wrong. What an operator paused is not wrong.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.problems().is_empty()
    }

    /// What is wrong, a sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let tasks = self
            .tasks
            .iter()
            .filter(|(_, task)| !task.is_healthy())
            .map(|(name, task)| {
                let error = task.last_error.as_deref().unwrap_or("no reason is known");
                format!(
                    "task {name:?} has failed {} times in a row: {error}",
                    task.failing
                )
            });
        let relay = self
            .relay
            .iter()
            .filter(|relay| relay.is_circuit_open())
            .map(|relay| {
                let error = relay.last_error.as_deref().unwrap_or("no reason is known");
                format!(
                    "the relay waits for the transport, {} tries in a row failed: {error}",
                    relay.failing
                )
            });
        let groups = self.groups.iter().flat_map(|group| {
            group
                .subscriptions
                .iter()
                .filter_map(|subscription| problem_of(&group.group, subscription))
        });
        tasks.chain(relay).chain(groups).collect()
    }
}

fn problem_of(group: &str, subscription: &SubscriptionStatus) -> Option<String> {
    let topic = &subscription.topic;
    if let Some(problem) = &subscription.problem {
        return Some(format!("group {group:?} is paused on {topic}: {problem}"));
    }
    if let Some(defect) = &subscription.defect {
        return Some(format!("group {group:?} on {topic}: {defect}"));
    }
    if let Some(broken) = &subscription.broken {
        return Some(format!("group {group:?} receives nothing on {topic}: {broken}"));
    }
    let paused: Vec<_> = subscription
        .paused
        .iter()
        .filter(|reason| !matches!(reason, PauseReason::Operator | PauseReason::Control))
        .map(|reason| format!("{reason:?}").to_lowercase())
        .collect();
    if !paused.is_empty() {
        return Some(format!(
            "group {group:?} is paused on {topic}: {}",
            paused.join(", ")
        ));
    }
    subscription
        .circuit_open
        .then(|| format!("the circuit of group {group:?} on {topic} is open"))
}
