//! A topic: its order, the groups on it, and what it keeps for groups to come.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use headless_abstractions::{Error, GroupName, Message, Partition, Priority, Result, TopicOrder};

use super::Moment;

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) order: TopicOrder,
    pub(super) required: bool,
    pub(super) groups: BTreeSet<GroupName>,
    log: VecDeque<Logged>,
}

/// A message that was accepted, and when it became or becomes due.
#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) due: Moment,
    pub(super) message: Arc<Message>,
}

impl Topic {
    pub(super) const fn new(order: TopicOrder) -> Self {
        Self {
            order,
            required: false,
            groups: BTreeSet::new(),
            log: VecDeque::new(),
        }
    }

    /// Changes the order. Nothing that was sent by the old one is kept.
    pub(super) fn reorder(&mut self, order: TopicOrder) {
        self.order = order;
        self.log.clear();
    }

    /// The partition that this message belongs to, if the topic is ordered.
    pub(super) fn partition_of(&self, message: &Message) -> Result<Option<Partition>> {
        let Some(partitions) = self.order.partitions() else {
            return Ok(None);
        };
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
        Ok(Some(partitions.of(key)))
    }

    /// Keeps a message for groups to come, and forgets the oldest over `most`.
    pub(super) fn remember(&mut self, due: Moment, message: Arc<Message>, most: usize) {
        if most == 0 {
            return;
        }
        if self.log.len() >= most {
            self.log.pop_front();
        }
        self.log.push_back(Logged { due, message });
    }

    /// What is kept, in the order in which it became due: a delayed message had no place before.
    pub(super) fn replay(&self) -> Vec<Logged> {
        let mut kept: Vec<Logged> = self.log.iter().cloned().collect();
        kept.sort_by_key(|logged| logged.due);
        kept
    }
}
