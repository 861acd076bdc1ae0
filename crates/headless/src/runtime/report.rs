//! What a node says of itself with its heartbeats, as it is written and read.

use headless_abstractions::{ControlVersion, Error, ErrorKind, NodeFacts, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a node says of itself with each heartbeat. What another version says beside it is passed over, and what it does
/// not say is as by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NodeReport {
    /// The version of headless.
    pub version: String,
    /// For how long it has run, in seconds.
    pub uptime_seconds: u64,
    /// The memory that the process has, in bytes; only Linux says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// Its relay, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayReport>,
    /// How far it has applied what operators want, where it follows that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlReport>,
    /// Its groups.
    pub groups: Vec<GroupReport>,
    /// Its background tasks.
    pub tasks: Vec<TaskReport>,
    /// Whether groups and tasks were left out, since there are too many of them for a heartbeat.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_shortened: bool,
}

/// A relay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct RelayReport {
    /// How many messages the broker accepted for a group.
    pub relayed: u64,
    /// How often in a row the transport took nothing.
    pub failing: u32,
}

/// How far a node has applied what operators want.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ControlReport {
    /// Everything up to this version; `None` as long as the store has not answered since its start: its groups are paused
    /// until then.
    pub applied: Option<u64>,
    /// Subjects of which something is wanted, and that this node does not have: 20 of them at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// A group in one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct GroupReport {
    /// Its name.
    pub group: String,
    /// Its name as it was configured, where every process has a group of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_of: Option<String>,
    /// How many handler calls run now.
    pub in_flight: usize,
    /// How many may.
    pub concurrency: usize,
    /// How many messages were handled since the start.
    pub handled: u64,
    /// How many attempts have failed since the start.
    pub failed: u64,
    /// How many messages waited for it in the transport or were unsettled, in all processes, when that was last asked;
    /// `None` where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// How long before this was said that was asked, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_seconds_ago: Option<u64>,
    /// Its topics.
    pub subscriptions: Vec<SubscriptionReport>,
}

/// A topic of a group in one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SubscriptionReport {
    /// Its name.
    pub topic: String,
    /// Why it is paused: `operator`, `control`, `circuit`, `backlog`, `membership`, `configuration`.
    pub paused: Vec<String>,
    /// Whether its circuit is open.
    pub circuit_open: bool,
}

/// A background task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TaskReport {
    /// Its name.
    pub name: String,
    /// How many runs have ended.
    pub runs: u64,
    /// How many runs in a row have failed.
    pub failing: u32,
    /// What the last one that failed said, until one succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// How long ago the last one ended, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run_seconds_ago: Option<u64>,
}

impl NodeReport {
    /// Reads what a node says of itself.
    ///
    /// # Errors
    /// `Invalid` where it is not what a node of any version says.
    pub fn read(facts: &NodeFacts) -> Result<Self> {
        // By way of an object, since a list would be taken for one, too.
        let object: serde_json::Result<Map<String, Value>> = serde_json::from_str(facts.as_str());
        let report = object.and_then(|object| serde_json::from_value(Value::Object(object)));
        report.map_err(|error| {
            Error::new(ErrorKind::Invalid, "the facts are not what a node says of itself").with_source(error)
        })
    }

    /// Whether it has applied everything up to this version.
    #[must_use]
    pub fn has_applied(&self, version: ControlVersion) -> bool {
        let applied = self.control.as_ref().and_then(|control| control.applied);
        applied.is_some_and(|applied| applied >= version.get())
    }

    /// Whether it has this group, by its name or as it was configured, with this topic if one is named.
    #[must_use]
    pub fn has_group(&self, name: &str, topic: Option<&str>) -> bool {
        let is_it = |group: &&GroupReport| group.group == name || group.instance_of.as_deref() == Some(name);
        let mut groups = self.groups.iter().filter(is_it);
        groups.any(|group| {
            topic.is_none_or(|topic| {
                group
                    .subscriptions
                    .iter()
                    .any(|subscription| subscription.topic == topic)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_read_what_older_and_newer_versions_say() {
        let newer = r#"{"version":"9","groups":[{"group":"a","mood":"fine"}],"weather":{"is":"fair"}}"#;
        let report = NodeReport::read(&NodeFacts::new(newer).unwrap()).unwrap();
        assert_eq!((&*report.version, &*report.groups[0].group), ("9", "a"));
        assert!(!report.has_applied(ControlVersion::new(1)));
        assert_eq!(
            NodeReport::read(&NodeFacts::none()).unwrap(),
            NodeReport::default()
        );
        NodeReport::read(&NodeFacts::new("[]").unwrap()).unwrap_err();
        NodeReport::read(&NodeFacts::new("nonsense").unwrap()).unwrap_err();
    }
}
