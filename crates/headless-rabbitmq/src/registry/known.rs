//! What the registry says.

use std::collections::{BTreeMap, BTreeSet};

use headless_abstractions::{Error, ErrorKind, GroupName, Partitions, Result, TopicName, TopicOrder};
use serde::{Deserialize, Serialize};

use super::damaged;
use crate::error::NAME;

/// The version of the record that this library writes.
const VERSION: u32 = 1;

/// The topics and groups of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    version: u32,
    topics: BTreeMap<String, KnownTopic>,
    /// The topics of each group.
    groups: BTreeMap<String, BTreeSet<String>>,
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
        known.version = VERSION;
        serde_json::to_vec(&known)
            .map_err(|error| damaged("the registry cannot be written").with_source(error))
    }
}
