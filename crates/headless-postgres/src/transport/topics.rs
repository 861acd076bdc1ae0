//! What a handle knows of topics. They change only where an operator gives one another order: its parts are others then.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use headless_abstractions::{Error, ErrorKind, Message, Partition, Priority, Result, TopicName, TopicOrder};
use sqlx::Row;

use super::declare;
use crate::{error::fault, postgres::Shared};

/// Over how many parts an unordered topic's messages of priority 0 are spread, so that senders do not wait for each
/// other. Each priority above has one part after them.
pub(super) const SPREAD: usize = 4;

/// A topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: i32,
    order: TopicOrder,
    /// The ids of its parts, by number.
    parts: Vec<i32>,
}

impl Topic {
    /// The part that this message goes to; `spread` chooses among those of an unordered topic.
    pub(super) fn part_of(&self, message: &Message, spread: usize) -> Result<i32> {
        let number = match self.order.partitions() {
            None if message.priority == Priority::default() => spread % SPREAD,
            None => SPREAD - 1 + usize::from(message.priority.get()),
            Some(partitions) => {
                let Some(key) = &message.key else {
                    return Err(Error::invalid(
                        "the topic is ordered and the message has no partition key; give it one",
                    ));
                };
                if message.priority != Priority::default() {
                    return Err(Error::invalid(
                        "the topic is ordered, where a message has no priority; leave it out",
                    ));
                }
                usize::from(partitions.of(key).get())
            }
        };
        self.parts.get(number).copied().ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("topic {} has no part {number}", message.topic),
            )
        })
    }
}

/// The topics that a handle has sent to.
#[derive(Debug, Default)]
pub(super) struct Topics(Mutex<BTreeMap<TopicName, Arc<Topic>>>);

impl Topics {
    fn known(&self) -> MutexGuard<'_, BTreeMap<TopicName, Arc<Topic>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets one that the server does not know, or knows otherwise.
    pub(super) fn forget(&self, id: i32) {
        self.known().retain(|_, topic| topic.id != id);
    }
}

impl Shared {
    /// These topics as far as they exist; asks the server for those that this handle does not know.
    pub(super) async fn topics<'a>(
        &self,
        names: impl Iterator<Item = &'a TopicName>,
    ) -> Result<BTreeMap<&'a TopicName, Arc<Topic>>> {
        let topics = &self.transport.topics;
        let mut found: BTreeMap<&TopicName, Option<Arc<Topic>>> = BTreeMap::new();
        {
            let known = topics.known();
            for name in names {
                found.entry(name).or_insert_with(|| known.get(name).cloned());
            }
        }
        let unknown: Vec<&str> = found
            .iter()
            .filter(|(_, topic)| topic.is_none())
            .map(|(name, _)| name.as_str())
            .collect();
        if !unknown.is_empty() {
            let fetched = self.fetch_topics(&unknown).await?;
            for (name, topic) in &mut found {
                if topic.is_none() {
                    *topic = fetched.get(*name).cloned();
                }
            }
            topics.known().extend(fetched);
        }
        Ok(found
            .into_iter()
            .filter_map(|(name, topic)| Some((name, topic?)))
            .collect())
    }

    /// The parts that these topics have now: of which topic, and which partition.
    pub(crate) async fn parts_of(
        &self,
        names: &[TopicName],
    ) -> Result<BTreeMap<i32, (TopicName, Option<Partition>)>> {
        let names: Vec<&str> = names.iter().map(TopicName::as_str).collect();
        let mut parts = BTreeMap::new();
        for (name, topic) in self.fetch_topics(&names).await? {
            for (number, part) in (0..).zip(&topic.parts) {
                let partition = topic.order.is_ordered().then_some(Partition::new(number));
                parts.insert(*part, (name.clone(), partition));
            }
        }
        Ok(parts)
    }

    async fn fetch_topics(&self, names: &[&str]) -> Result<BTreeMap<TopicName, Arc<Topic>>> {
        let mut session = self.session().await?;
        let rows = sqlx::query(self.transport.statements.topics.get())
            .bind(names)
            .fetch_all(&mut *session)
            .await
            .map_err(fault)?;
        session.finish(&self.statements).await?;
        rows.iter()
            .map(|row| {
                let name: &str = row.try_get("name").map_err(fault)?;
                let partitions: Option<i16> = row.try_get("partitions").map_err(fault)?;
                let topic = Topic {
                    id: row.try_get("id").map_err(fault)?,
                    order: declare::order(partitions)?,
                    parts: row.try_get("parts").map_err(fault)?,
                };
                Ok((TopicName::parse_stored(name)?, Arc::new(topic)))
            })
            .collect()
    }
}
