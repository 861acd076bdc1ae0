//! The topics that a process has declared.

use std::{collections::BTreeMap, sync::Arc};

use headless_abstractions::{Error, Partitions, Result, TopicName, TopicOrder, TopicSpec};

/// How a topic is declared: `Ordered::partitions(16)`, `Ordered::no()`.
///
/// The count is checked when the topic is declared, so that all problems of a configuration are reported together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered(Option<u16>);

impl Ordered {
    /// Keeps the order of each key, over this many partitions (1 to 1 024). Once declared, the count is changed by
    /// `headless topics repartition` alone.
    #[must_use]
    pub const fn partitions(count: u16) -> Self {
        Self(Some(count))
    }

    /// Keeps no order.
    #[must_use]
    pub const fn no() -> Self {
        Self(None)
    }

    /// The order as the drivers know it.
    ///
    /// # Errors
    /// `Invalid` for a partition count of 0 or above 1 024.
    pub fn to_order(self) -> Result<TopicOrder> {
        match self.0 {
            None => Ok(TopicOrder::Unordered),
            Some(count) => Partitions::new(count).map(TopicOrder::Partitioned),
        }
    }
}

/// The topics that a process has declared. One that it has not declared is unordered and not required.
#[derive(Clone, Debug, Default)]
pub struct Topics(Arc<BTreeMap<TopicName, TopicSpec>>);

impl Topics {
    /// These topics.
    ///
    /// # Errors
    /// `Conflict` for a topic that is declared twice in different ways, naming both.
    pub fn new(specs: impl IntoIterator<Item = TopicSpec>) -> Result<Self> {
        let mut topics: BTreeMap<TopicName, TopicSpec> = BTreeMap::new();
        for spec in specs {
            if let Some(other) = topics.get(&spec.name).filter(|other| **other != spec) {
                return Err(Error::new(
                    headless_abstractions::ErrorKind::Conflict,
                    format!(
                        "topic {} is declared as {:?} and as {:?}: keep one",
                        spec.name, other.order, spec.order
                    ),
                ));
            }
            topics.insert(spec.name.clone(), spec);
        }
        Ok(Self(Arc::new(topics)))
    }

    /// Whether a topic keeps the order of its keys.
    #[must_use]
    pub fn order(&self, topic: &TopicName) -> TopicOrder {
        self.0.get(topic).map_or(TopicOrder::Unordered, |spec| spec.order)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &TopicSpec> {
        self.0.values()
    }
}
