//! What the registry says.

use std::collections::{BTreeMap, BTreeSet};

use headless_abstractions::{Error, ErrorKind, GroupName, Partitions, Result, TopicName, TopicOrder};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::damaged;
use crate::{delay::Wait, error::NAME};

/// The version of a record that says which delays topics have. One that knows nothing of them would write it back without.
const VERSION: u32 = 2;
/// The version of a record without delays.
const PLAIN: u32 = 1;

/// The topics and groups of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    version: u32,
    topics: BTreeMap<String, KnownTopic>,
    /// The topics of each group.
    groups: BTreeMap<String, BTreeSet<String>>,
    /// The delays of each topic, for which each of its groups has a queue.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    waits: BTreeMap<String, BTreeSet<Wait>>,
    /// Those of them of which a queue may be too new to be used, each with a mark: another one whenever one of its queues
    /// was to be made.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    young: BTreeMap<String, BTreeMap<Wait, Uuid>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownTopic {
    /// How many partitions it has, if it is ordered.
    partitions: Option<u16>,
    pub(crate) required: bool,
}

impl KnownTopic {
    pub(crate) fn new(order: TopicOrder, required: bool) -> Self {
        Self {
            partitions: order.partitions().map(Partitions::get),
            required,
        }
    }

    pub(crate) fn order(self) -> Result<TopicOrder> {
        self.partitions.map_or(Ok(TopicOrder::Unordered), |count| {
            Ok(TopicOrder::Partitioned(Partitions::new(count)?))
        })
    }
}

impl Known {
    pub(crate) fn topic(&self, name: &TopicName) -> Option<KnownTopic> {
        self.topics.get(name.as_str()).copied()
    }

    /// Adds a topic, or what it is now required to have.
    pub(crate) fn add_topic(&mut self, name: &TopicName, topic: KnownTopic) {
        let known = self.topics.entry(name.as_str().to_owned()).or_insert(topic);
        known.required |= topic.required;
    }

    pub(crate) fn add_group(&mut self, group: &GroupName, topic: &TopicName) {
        let topics = self.groups.entry(group.as_str().to_owned()).or_default();
        topics.insert(topic.as_str().to_owned());
    }

    pub(crate) fn remove_group(&mut self, group: &GroupName) {
        self.groups.remove(group.as_str());
    }

    pub(crate) fn is_attended(&self, topic: &TopicName) -> bool {
        self.groups.values().any(|topics| topics.contains(topic.as_str()))
    }

    /// The topics of a group with their orders; `None` when there is no such group.
    pub(crate) fn topics_of(&self, group: &GroupName) -> Option<Result<Vec<(TopicName, TopicOrder)>>> {
        let topics = self.groups.get(group.as_str())?;
        Some(
            topics
                .iter()
                .map(|name| {
                    let topic = self
                        .topics
                        .get(name)
                        .ok_or_else(|| damaged("a group's topic is missing"))?;
                    Ok((TopicName::parse_stored(name)?, topic.order()?))
                })
                .collect(),
        )
    }

    /// The groups of a topic.
    pub(crate) fn groups_of(&self, topic: &TopicName) -> Result<Vec<GroupName>> {
        let of_it = self
            .groups
            .iter()
            .filter(|(_, topics)| topics.contains(topic.as_str()));
        of_it.map(|(group, _)| GroupName::parse(group)).collect()
    }

    /// Whether a topic has this delay.
    pub(crate) fn has_wait(&self, topic: &TopicName, wait: Wait) -> bool {
        let waits = self.waits.get(topic.as_str());
        waits.is_some_and(|waits| waits.contains(&wait))
    }

    /// The mark of a delay whose queues may be too new to be used.
    pub(crate) fn mark_of(&self, topic: &TopicName, wait: Wait) -> Option<Uuid> {
        self.young.get(topic.as_str())?.get(&wait).copied()
    }

    /// Says that a queue of this delay is about to be made; the topic has the delay from now on.
    pub(crate) fn mark_young(&mut self, topic: &TopicName, wait: Wait, mark: Uuid) {
        let name = topic.as_str();
        self.waits.entry(name.to_owned()).or_default().insert(wait);
        self.young.entry(name.to_owned()).or_default().insert(wait, mark);
    }

    /// Says that no queue of this delay is too new to be used.
    pub(crate) fn mark_old(&mut self, topic: &TopicName, wait: Wait) {
        if let Some(young) = self.young.get_mut(topic.as_str()) {
            young.remove(&wait);
            if young.is_empty() {
                self.young.remove(topic.as_str());
            }
        }
    }

    /// Takes all delays from a topic.
    pub(crate) fn remove_waits(&mut self, topic: &TopicName) {
        self.waits.remove(topic.as_str());
        self.young.remove(topic.as_str());
    }

    /// The delays of a topic.
    pub(crate) fn waits_of(&self, topic: &TopicName) -> impl Iterator<Item = Wait> {
        self.waits.get(topic.as_str()).into_iter().flatten().copied()
    }

    pub(crate) fn topic_names(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    pub(crate) fn group_names(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    pub(super) fn parse(record: &[u8]) -> Result<Self> {
        let known: Self = serde_json::from_slice(record)
            .map_err(|error| damaged("the registry's last record is not ours").with_source(error))?;
        if known.version > VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the registry was written by a newer version of this library (its version is {}, known is {VERSION}): \
                     update this process",
                    known.version
                ),
            )
            .with_provider(NAME));
        }
        Ok(known)
    }
}

impl Known {
    /// The record.
    pub(super) fn to_record(&self) -> Result<Vec<u8>> {
        let mut known = self.clone();
        known.version = if known.waits.is_empty() { PLAIN } else { VERSION };
        serde_json::to_vec(&known)
            .map_err(|error| damaged("the registry cannot be written").with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::delay::Delay;

    fn orders() -> TopicName {
        TopicName::parse_stored("orders").unwrap()
    }

    fn version(known: &Known) -> u64 {
        let record: serde_json::Value = serde_json::from_slice(&known.to_record().unwrap()).unwrap();
        record["version"].as_u64().unwrap()
    }

    #[test]
    fn should_be_refused_by_older_builds_when_a_topic_has_delays() {
        let mut known = Known::default();
        known.add_topic(&orders(), KnownTopic::new(TopicOrder::Unordered, false));
        assert_eq!(version(&known), 1, "they would lose nothing of it");
        let delay = Delay::of(Some(Duration::from_secs(60))).unwrap().unwrap();
        let mark = Uuid::from_u128(1);
        known.mark_young(&orders(), delay.wait, mark);
        assert_eq!(version(&known), 2);
        let mut read = Known::parse(&known.to_record().unwrap()).unwrap();
        assert_eq!(read.waits_of(&orders()).collect::<Vec<_>>(), [delay.wait]);
        assert_eq!(read.mark_of(&orders(), delay.wait), Some(mark));
        read.mark_old(&orders(), delay.wait);
        assert!(read.has_wait(&orders(), delay.wait));
        let read = Known::parse(&read.to_record().unwrap()).unwrap();
        assert_eq!(read.mark_of(&orders(), delay.wait), None);
        known.remove_waits(&orders());
        assert_eq!(version(&known), 1, "they have nothing to lose again");
    }

    #[test]
    fn should_read_a_record_of_an_older_build_when_it_knows_no_delays() {
        let record = br#"{"version":1,"topics":{"orders":{"partitions":null,"required":false}},"groups":{"billing":["orders"]}}"#;
        let known = Known::parse(record).unwrap();
        assert_eq!(known.waits_of(&orders()).count(), 0);
        assert_eq!(known.groups_of(&orders()).unwrap().len(), 1);
    }
}
