//! What waits to be handled, by key: serial within a lane, fair among lanes.

use std::collections::{BTreeMap, VecDeque};

use headless_abstractions::PartitionKey;

/// What is serial with itself: the messages of one key, or one message alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LaneKey {
    Key(PartitionKey),
    Single(u64),
}

#[derive(Debug)]
struct Lane<T> {
    waiting: VecDeque<T>,
    busy: bool,
}

/// What waits to be handled. A lane that has something and is not busy is *ready*; ready lanes take turns.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    lanes: BTreeMap<LaneKey, Lane<T>>,
    ready: VecDeque<LaneKey>,
    singles: u64,
}

impl<T> Lanes<T> {
    pub(crate) const fn new() -> Self {
        Self {
            lanes: BTreeMap::new(),
            ready: VecDeque::new(),
            singles: 0,
        }
    }

    /// The lane of a key, or a new one of its own without a key.
    pub(crate) fn lane_of(&mut self, key: Option<PartitionKey>) -> LaneKey {
        match key {
            Some(key) => LaneKey::Key(key),
            None => {
                self.singles += 1;
                LaneKey::Single(self.singles)
            }
        }
    }

    /// Appends to a lane.
    pub(crate) fn push(&mut self, key: LaneKey, item: T) {
        let lane = self.lanes.entry(key.clone()).or_insert_with(|| Lane {
            waiting: VecDeque::new(),
            busy: false,
        });
        lane.waiting.push_back(item);
        if !lane.busy && lane.waiting.len() == 1 {
            self.ready.push_back(key);
        }
    }

    /// Takes from the front of the lane whose turn it is, for as long as `take` says so of the next item, and makes
    /// the lane busy. `take` is asked with how many were taken already; the first is always taken.
    pub(crate) fn start(&mut self, take: impl Fn(usize, &T, &T) -> bool) -> Option<(LaneKey, Vec<T>)> {
        let key = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&key)?;
        let mut taken: Vec<T> = Vec::with_capacity(1);
        while let Some(next) = lane.waiting.front() {
            if let Some(first) = taken.first()
                && !take(taken.len(), first, next)
            {
                break;
            }
            taken.extend(lane.waiting.pop_front());
        }
        lane.busy = true;
        Some((key, taken))
    }

    /// Takes the next of a lane that was started, if it matches.
    pub(crate) fn take_more(&mut self, key: &LaneKey, matches: impl Fn(&T) -> bool) -> Option<T> {
        let lane = self.lanes.get_mut(key)?;
        if !matches(lane.waiting.front()?) {
            return None;
        }
        lane.waiting.pop_front()
    }

    /// What the lane whose turn it is has at its front.
    pub(crate) fn peek(&self) -> Option<&T> {
        self.lanes.get(self.ready.front()?)?.waiting.front()
    }

    /// Ends what [`start`](Self::start) began on this lane.
    pub(crate) fn finish(&mut self, key: LaneKey) {
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.busy = false;
            if lane.waiting.is_empty() {
                self.lanes.remove(&key);
            } else {
                self.ready.push_back(key);
            }
        }
    }

    /// Drops what waits and matches. What was started is not touched.
    pub(crate) fn drop_waiting(&mut self, matches: impl Fn(&T) -> bool) {
        for lane in self.lanes.values_mut() {
            lane.waiting.retain(|item| !matches(item));
        }
        self.lanes.retain(|_, lane| lane.busy || !lane.waiting.is_empty());
        let lanes = &self.lanes;
        self.ready.retain(|key| lanes.contains_key(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Option<PartitionKey> {
        Some(PartitionKey::parse(text).unwrap())
    }

    fn push(lanes: &mut Lanes<u32>, k: &str, item: u32) {
        let lane = lanes.lane_of(key(k));
        lanes.push(lane, item);
    }

    #[test]
    fn should_be_serial_within_a_key_and_fair_among_keys() {
        let mut lanes = Lanes::new();
        for (k, item) in [("a", 1), ("a", 2), ("b", 3)] {
            push(&mut lanes, k, item);
        }
        let (a, taken) = lanes.start(|_, _, _| false).unwrap();
        assert_eq!(taken, [1]);
        assert_eq!(lanes.start(|_, _, _| false).unwrap().1, [3]);
        assert!(lanes.start(|_, _, _| false).is_none(), "a is busy");
        push(&mut lanes, "a", 4);
        assert!(lanes.peek().is_none());
        lanes.finish(a);
        assert_eq!(lanes.start(|_, _, _| true).unwrap().1, [2, 4]);
        assert!(lanes.peek().is_none());
    }

    #[test]
    fn should_forget_only_what_waits_when_dropped() {
        let mut lanes = Lanes::new();
        for item in 1..=3 {
            push(&mut lanes, "a", item);
        }
        push(&mut lanes, "b", 4);
        let (a, _) = lanes.start(|_, _, _| false).unwrap();
        lanes.drop_waiting(|item| *item != 4);
        lanes.finish(a);
        assert_eq!(lanes.start(|_, _, _| false).unwrap().1, [4]);
        assert!(lanes.peek().is_none());
    }

    #[test]
    fn should_give_each_message_its_own_lane_when_it_has_no_key() {
        let mut lanes = Lanes::new();
        for item in 0..3 {
            let lane = lanes.lane_of(None);
            lanes.push(lane, item);
        }
        let started: Vec<_> = std::iter::from_fn(|| lanes.start(|_, _, _| false))
            .map(|(_, taken)| taken[0])
            .collect();
        assert_eq!(started, [0, 1, 2]);
    }
}
