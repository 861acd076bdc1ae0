//! What one group has of one topic.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use headless_abstractions::{Owner, Partition, Partitions, Priority, TopicName, TopicOrder};

use super::{assignment::assign, entry::Entry};

#[derive(Debug)]
pub(super) struct Queue {
    /// How many messages wait, are delayed or are unsettled.
    pub(super) len: usize,
    pub(super) shape: Shape,
}

#[derive(Debug)]
pub(super) enum Shape {
    Shared(Shared),
    Ordered(Ordered),
}

/// Messages that members take as they come: the highest priority first, then by place.
#[derive(Debug, Default)]
pub(super) struct Shared {
    ready: BTreeMap<(Reverse<Priority>, u64), Entry>,
}

/// Messages in partitions, each read by one member at a time.
#[derive(Debug)]
pub(super) struct Ordered {
    count: Partitions,
    pub(super) lanes: Vec<Lane>,
    /// Whether some partition is not with the member that it is to go to.
    pub(super) moving: bool,
}

/// One partition.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) waiting: BTreeMap<u64, Entry>,
    /// The holder's unsettled deliveries.
    pub(super) lent: BTreeSet<u64>,
    pub(super) holder: Option<u64>,
    /// The member that it is to go to.
    pub(super) wanted: Option<u64>,
}

impl Queue {
    pub(super) fn new(order: TopicOrder) -> Self {
        let shape = match order {
            TopicOrder::Unordered => Shape::Shared(Shared::default()),
            TopicOrder::Partitioned(count) => Shape::Ordered(Ordered::new(count)),
        };
        Self { len: 0, shape }
    }

    /// Puts an entry at its place.
    pub(super) fn put(&mut self, entry: Entry) {
        match &mut self.shape {
            Shape::Shared(shared) => shared.put(entry),
            Shape::Ordered(ordered) => {
                ordered.lane(entry.partition).waiting.insert(entry.place, entry);
            }
        }
    }

    pub(super) const fn is_ordered(&self) -> bool {
        matches!(self.shape, Shape::Ordered(_))
    }
}

impl Shared {
    fn put(&mut self, entry: Entry) {
        self.ready
            .insert((Reverse(entry.message.priority), entry.place), entry);
    }

    pub(super) fn take(&mut self) -> Option<Entry> {
        self.ready.pop_first().map(|(_, entry)| entry)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }
}

impl Ordered {
    fn new(count: Partitions) -> Self {
        Self {
            count,
            lanes: count.iter().map(|_| Lane::default()).collect(),
            moving: false,
        }
    }

    /// The lane of a partition. An entry of an ordered topic has one, checked when it was accepted.
    pub(super) fn lane(&mut self, partition: Option<Partition>) -> &mut Lane {
        &mut self.lanes[partition.map_or(0, |partition| usize::from(partition.get()))]
    }

    /// The partitions with their lanes.
    pub(super) fn partitions(&mut self) -> impl Iterator<Item = (Partition, &mut Lane)> {
        self.count.iter().zip(&mut self.lanes)
    }

    /// Decides anew where the partitions are to go; they move as their holders let them go.
    pub(super) fn reassign(&mut self, topic: &TopicName, members: &[(u64, Owner)]) {
        for (lane, wanted) in self.lanes.iter_mut().zip(assign(topic, self.count, members)) {
            lane.wanted = wanted;
        }
        self.look_for_moves();
    }

    /// Gives the free partitions that are to go to this member to it.
    pub(super) fn take_over(&mut self, session: u64) {
        for lane in &mut self.lanes {
            if lane.holder.is_none() && lane.wanted == Some(session) {
                lane.holder = Some(session);
            }
        }
        self.look_for_moves();
    }

    fn look_for_moves(&mut self) {
        self.moving = self.lanes.iter().any(|lane| lane.holder != lane.wanted);
    }
}

impl Lane {
    pub(super) fn is_leaving(&self, session: u64) -> bool {
        self.holder == Some(session) && self.wanted != Some(session)
    }
}
