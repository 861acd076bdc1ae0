//! What the processes of a service say of themselves, and what operators want of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Result, bail};
use headless::{
    AnyStore, ControlEntry, ControlSubject, ControlVersion, GroupReport, NodeEntry, NodeReport, NodeState,
};

use crate::operator::failed;

pub(crate) mod json;

/// The most registrations that are read: far more than a store keeps.
const MOST_NODES: usize = 100_000;
/// The most of one page.
const PAGE: usize = 1_000;

/// A node, and what it says of itself; `None` where that cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) entry: NodeEntry,
    pub(crate) report: Option<NodeReport>,
}

impl Node {
    /// Whether it is alive or suspected.
    pub(crate) fn is_live(&self) -> bool {
        !self.entry.state.is_final()
    }

    pub(crate) fn has_applied(&self, version: ControlVersion) -> bool {
        self.report
            .as_ref()
            .is_some_and(|report| report.has_applied(version))
    }

    /// Whether it has a group of this name; `None` where it has not said which it has.
    pub(crate) fn has_group(&self, name: &str) -> Option<bool> {
        let report = self.report.as_ref().filter(|report| !report.is_shortened)?;
        Some(report.groups.iter().any(|group| group.group == name))
    }

    fn groups(&self) -> &[GroupReport] {
        self.report.as_ref().map_or(&[], |report| &report.groups)
    }
}

/// The nodes of a store, in the order of their registrations; none where the store does not watch over them.
pub(crate) async fn nodes(store: &AnyStore) -> Result<Vec<Node>> {
    let Ok(nodes) = store.nodes() else {
        return Ok(Vec::new());
    };
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = nodes.list(after.as_ref(), PAGE).await.map_err(failed)?;
        found.extend(page.items.into_iter().map(|entry| Node {
            report: NodeReport::read(&entry.facts).ok(),
            entry,
        }));
        after = page.next;
        if after.is_none() {
            return Ok(found);
        }
        if found.len() > MOST_NODES {
            bail!("the store has more than {MOST_NODES} registrations of nodes");
        }
    }
}

/// A service as its nodes and the store have it.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// Those that have ended among them.
    pub(crate) nodes: Vec<Node>,
    pub(crate) entries: Vec<ControlEntry>,
}

/// A group over all live nodes of its service.
#[derive(Clone, Debug)]
pub(crate) struct Group<'s> {
    pub(crate) name: &'s str,
    /// What is wanted of it, where anything was ever wanted.
    pub(crate) wanted: Option<&'s ControlEntry>,
    /// How many live nodes have it.
    pub(crate) nodes: usize,
    pub(crate) in_flight: usize,
    pub(crate) handled: u64,
    pub(crate) failed: u64,
    /// How many messages wait for it, or are unsettled; `None` where that is not known.
    pub(crate) lag: Option<u64>,
    /// Those of its nodes, each once.
    pub(crate) concurrency: BTreeSet<usize>,
    pub(crate) topics: BTreeMap<&'s str, Topic<'s>>,
}

/// A topic of a group over all live nodes of its service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topic<'s> {
    pub(crate) wanted: Option<&'s ControlEntry>,
    /// Why it is paused, and on how many nodes for that.
    pub(crate) paused: BTreeMap<&'s str, usize>,
    /// On how many nodes its circuit is open.
    pub(crate) circuits_open: usize,
}

impl Service {
    /// The service of this name.
    pub(crate) async fn read(store: &AnyStore, name: &str, nodes: &[Node]) -> Result<Self> {
        let entries = match store.control() {
            Ok(control) => control.list(name).await.map_err(failed)?,
            Err(_) => Vec::new(),
        };
        let of_service = nodes.iter().filter(|node| &*node.entry.service == name);
        Ok(Self {
            name: name.to_owned(),
            nodes: of_service.cloned().collect(),
            entries,
        })
    }

    /// Its live nodes.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_live())
    }

    /// What people call each group, with its topics, and what is wanted of others. Those of nodes that have ended are among them,
    /// as long as the store remembers these: a group whose workers are all gone is what one looks for.
    pub(crate) fn known(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut known: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for group in self.nodes.iter().flat_map(Node::groups) {
            let topics = group
                .subscriptions
                .iter()
                .map(|subscription| &*subscription.topic);
            known.entry(configured(group)).or_default().extend(topics);
        }
        for entry in &self.entries {
            if let ControlSubject::Group { group, topic } = &entry.subject {
                let topics = known.entry(group.as_str()).or_default();
                topics.extend(topic.as_ref().map(|topic| topic.as_str()));
            }
        }
        known
    }

    /// Its groups, in the order of their names.
    pub(crate) fn groups(&self) -> Vec<Group<'_>> {
        let known = self.known();
        known
            .into_iter()
            .map(|(name, topics)| self.group(name, topics))
            .collect()
    }

    fn group<'s>(&'s self, name: &'s str, topics: BTreeSet<&'s str>) -> Group<'s> {
        let wanted = |of: Option<&str>| {
            self.entries.iter().find(|entry| match &entry.subject {
                ControlSubject::Group { group, topic } => {
                    group.as_str() == name && topic.as_ref().map(|topic| topic.as_str()) == of
                }
                _ => false,
            })
        };
        let topic = |topic| Topic {
            wanted: wanted(Some(topic)),
            ..Topic::default()
        };
        let mut seen = Group {
            name,
            wanted: wanted(None),
            nodes: 0,
            in_flight: 0,
            handled: 0,
            failed: 0,
            lag: self.lag(name),
            concurrency: BTreeSet::new(),
            topics: topics.into_iter().map(|name| (name, topic(name))).collect(),
        };
        for group in self
            .live()
            .flat_map(Node::groups)
            .filter(|group| configured(group) == name)
        {
            seen.nodes += 1;
            seen.in_flight += group.in_flight;
            seen.handled += group.handled;
            seen.failed += group.failed;
            seen.concurrency.insert(group.concurrency);
            for subscription in &group.subscriptions {
                let topic = seen.topics.entry(&subscription.topic).or_default();
                topic.circuits_open += usize::from(subscription.circuit_open);
                for reason in &subscription.paused {
                    *topic.paused.entry(reason).or_default() += 1;
                }
            }
        }
        seen
    }

    /// How much waits for a group, as its live nodes say.
    fn lag(&self, name: &str) -> Option<u64> {
        let said = self.live().flat_map(|node| {
            let groups = node.groups().iter();
            groups.map(|group| (group, node.entry.silent.as_secs()))
        });
        latest_lag(said.filter(|(group, _)| configured(group) == name))
    }
}

/// How much waits for a group, by what each node said, and how many seconds ago it did. All say the same, each at its time:
/// the latest word counts. Where each process has a group of its own, what waits for all of them; not known where that of
/// one is not.
fn latest_lag<'r>(said: impl Iterator<Item = (&'r GroupReport, u64)>) -> Option<u64> {
    let mut latest: BTreeMap<&str, Option<(u64, u64)>> = BTreeMap::new();
    for (group, silent) in said {
        let age = silent.saturating_add(group.lag_seconds_ago.unwrap_or_default());
        let word = group.lag.map(|lag| (age, lag));
        let known = latest.entry(&group.group).or_default();
        *known = (*known).into_iter().chain(word).min();
    }
    let lags = latest.into_values().map(|word| word.map(|(_, lag)| lag));
    let lags: Vec<u64> = lags.collect::<Option<_>>()?;
    (!lags.is_empty()).then(|| lags.into_iter().fold(0, u64::saturating_add))
}

/// What people call a group.
fn configured(group: &GroupReport) -> &str {
    group.instance_of.as_deref().unwrap_or(&group.group)
}

/// A state in one word; a node whose facts cannot be read says so.
pub(crate) fn state(node: &Node) -> String {
    match (node.entry.state, &node.report) {
        (NodeState::Alive | NodeState::Suspected, None) => format!("{}, unreadable", node.entry.state),
        (state, _) => state.to_string(),
    }
}

/// What an entry wants, in a few words.
pub(crate) fn wish(entry: Option<&ControlEntry>) -> String {
    let Some(entry) = entry.filter(|entry| !entry.desired.is_nothing()) else {
        return "-".to_owned();
    };
    let paused = entry.desired.paused.then(|| "paused".to_owned());
    let concurrency = entry
        .desired
        .concurrency
        .map(|most| format!("concurrency {most}"));
    let words: Vec<_> = [paused, concurrency].into_iter().flatten().collect();
    words.join(", ")
}

/// How long something is, in its largest unit.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(name: &str, lag: Option<u64>, seconds_ago: u64) -> GroupReport {
        let group = json!({ "group": name, "lag": lag, "lag_seconds_ago": seconds_ago });
        serde_json::from_value(group).unwrap()
    }

    fn lag(said: &[(GroupReport, u64)]) -> Option<u64> {
        latest_lag(said.iter().map(|(group, silent)| (group, *silent)))
    }

    #[test]
    fn should_take_the_latest_word_when_several_nodes_have_a_group() {
        let said = [
            (group("a", Some(7), 20), 0),
            (group("a", Some(5), 3), 9),
            (group("a", None, 0), 0),
        ];
        assert_eq!(lag(&said), Some(5));
    }

    #[test]
    fn should_know_only_what_is_known_of_each_when_every_process_has_a_group_of_its_own() {
        let mut said = vec![(group("a-1", Some(7), 0), 0), (group("a-2", Some(5), 0), 0)];
        assert_eq!(lag(&said), Some(12));
        said.push((group("a-3", None, 0), 0));
        assert_eq!(lag(&said), None);
        assert_eq!(lag(&[]), None);
    }
}
