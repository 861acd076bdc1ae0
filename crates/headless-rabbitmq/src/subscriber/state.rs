//! What a member holds: the lanes that it reads, what came through them, and what became of each delivery.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use headless_abstractions::{DeliveryToken, Error, ErrorKind, Result};

use super::push::Settles;
use crate::{channel::Chan, clock::Moment};

mod hand_out;
mod lane;
#[cfg(test)]
mod tests;

pub(super) use self::lane::{Item, Lane};

/// How many tokens that were lost are remembered.
const REMEMBERED: usize = 10_000;

/// What a member knows of itself.
#[derive(Debug)]
pub(super) struct State<C = Chan> {
    pub(super) lanes: Vec<Lane<C>>,
    /// Where each token's delivery is: lane and tag.
    tokens: BTreeMap<u64, (usize, u64)>,
    next_token: u64,
    lost: BTreeSet<u64>,
    /// The most deliveries of unordered topics in the application's hands, and how many are.
    prefetch: usize,
    shared_given: usize,
    visibility: Duration,
    pub(super) paused: bool,
    /// The group was removed.
    pub(super) gone: bool,
    /// How many receives wait, and when the last one ended.
    pub(super) receiving: usize,
    pub(super) received_at: Moment,
    /// A receive has begun since the last attempt to connect.
    pub(super) asked: bool,
    /// What went wrong since the last receive that was told of something.
    pub(super) error: Option<Error>,
    /// Partitions that have gone, and of which no receive has told yet.
    revoked: BTreeSet<usize>,
    /// Partitions that are to go once a receive has told of it.
    pub(super) wanted: BTreeSet<usize>,
    /// Those of which a receive has told: their channels are to be closed.
    pub(super) given_up: BTreeSet<usize>,
    /// Which lane is looked at first, so that none starves another.
    turn: usize,
}

impl<C: Settles> State<C> {
    pub(super) fn new(lanes: Vec<Lane<C>>, prefetch: usize, visibility: Duration, now: Moment) -> Self {
        Self {
            lanes,
            tokens: BTreeMap::new(),
            next_token: 1,
            lost: BTreeSet::new(),
            prefetch,
            shared_given: 0,
            visibility,
            paused: false,
            gone: false,
            receiving: 0,
            received_at: now,
            asked: false,
            error: None,
            revoked: BTreeSet::new(),
            wanted: BTreeSet::new(),
            given_up: BTreeSet::new(),
            turn: 0,
        }
    }

    /// Notes a delivery that has come through this channel of the lane. What still comes for a partition of which a receive
    /// has told goes back with the channel: it follows what went back before it.
    pub(super) fn arrived(&mut self, at: usize, serial: u64, tag: u64, item: Item) {
        let is_given_up = self.given_up.contains(&at);
        if let Some(lane) = self.lanes.get_mut(at)
            && lane.serial == serial
            && lane.channel.is_some()
        {
            lane.is_whole &= !is_given_up && tag == lane.last + 1;
            lane.last = lane.last.max(tag);
            if !is_given_up {
                lane.items.insert(tag, item);
                lane.ready.insert(tag);
            }
        }
    }

    /// Where a token's delivery is.
    pub(super) fn find(&self, token: DeliveryToken) -> Result<(usize, u64)> {
        let token = token.get();
        if let Some(found) = self.tokens.get(&token) {
            return Ok(*found);
        }
        Err(if self.gone {
            removed()
        } else if self.lost.contains(&token) {
            Error::new(
                ErrorKind::LeaseLost,
                "the delivery went back to the group before it was settled",
            )
        } else {
            Error::new(
                ErrorKind::NotFound,
                "the token was never given to this subscriber or is settled",
            )
        })
    }

    /// Takes a delivery that is done with out of its lane.
    pub(super) fn finish(&mut self, at: usize, tag: u64) {
        if let Some(lane) = self.lanes.get_mut(at)
            && let Some(item) = lane.items.remove(&tag)
            && let Some((token, _)) = item.given
        {
            self.tokens.remove(&token);
            if lane.partition.is_none() {
                self.shared_given -= 1;
            }
        }
    }

    /// Puts a delivery of an ordered topic back into its place, to be handed out again before what follows it.
    pub(super) fn put_back(&mut self, at: usize, tag: u64) {
        if let Some(lane) = self.lanes.get_mut(at)
            && let Some(item) = lane.items.get_mut(&tag)
            && let Some((token, _)) = item.given.take()
        {
            self.tokens.remove(&token);
            lane.ready.insert(tag);
        }
    }

    /// Holds a delivery at least until then.
    pub(super) fn hold(&mut self, at: usize, tag: u64, until: Moment) {
        let item = self.lanes.get_mut(at).and_then(|lane| lane.items.get_mut(&tag));
        if let Some((_, held)) = item.and_then(|item| item.given.as_mut()) {
            *held = until.max(*held);
        }
    }

    /// Gives back to the server what was handed out of unordered topics and is overdue, or what is held for so long that
    /// the server would close the channel for it.
    pub(super) fn lapse(&mut self, now: Moment, longest: Duration) {
        for at in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get(at).filter(|lane| !lane.is_ordered()) else {
                continue;
            };
            let is_over = |item: &Item| {
                item.until().is_some_and(|until| until <= now) || now >= far(item.since, longest)
            };
            let over: Vec<u64> = lane
                .items
                .iter()
                .filter(|(_, item)| is_over(item))
                .map(|(tag, _)| *tag)
                .collect();
            self.return_items(at, &over);
        }
    }

    /// Gives back to the server what no receive has returned.
    pub(super) fn return_ready(&mut self, at: usize) {
        let ready: Vec<u64> = self
            .lanes
            .get(at)
            .map_or(Vec::new(), |lane| lane.ready.iter().copied().collect());
        self.return_items(at, &ready);
    }

    fn return_items(&mut self, at: usize, tags: &[u64]) {
        for tag in tags {
            if let Some(channel) = self.lanes.get(at).and_then(|lane| lane.channel.as_ref()) {
                channel.requeue(*tag);
            }
            self.lose(at, *tag);
        }
    }

    fn lose(&mut self, at: usize, tag: u64) {
        let token = self
            .lanes
            .get(at)
            .and_then(|lane| lane.items.get(&tag)?.given)
            .map(|(token, _)| token);
        self.finish(at, tag);
        if let Some(lane) = self.lanes.get_mut(at) {
            lane.ready.remove(&tag);
        }
        if let Some(token) = token {
            self.lost.insert(token);
            if self.lost.len() > REMEMBERED {
                self.lost.pop_first();
            }
        }
    }

    fn forget_items(&mut self, at: usize) {
        let tags: Vec<u64> = self
            .lanes
            .get(at)
            .map_or(Vec::new(), |lane| lane.items.keys().copied().collect());
        if let Some(lane) = self.lanes.get_mut(at) {
            lane.is_whole &= tags.is_empty();
        }
        for tag in tags {
            self.lose(at, tag);
        }
    }

    /// The lane has this channel from now on.
    pub(super) fn open(&mut self, at: usize, channel: C) -> u64 {
        self.lanes.get_mut(at).map_or(0, |lane| {
            lane.serial += 1;
            lane.channel = Some(channel);
            lane.last = 0;
            lane.is_whole = true;
            lane.serial
        })
    }

    /// The lane has no channel any more: what it held goes back to the group. A partition is reported, unless it was.
    pub(super) fn shut(&mut self, at: usize) -> Option<C> {
        self.forget_items(at);
        let is_told = self.given_up.remove(&at);
        self.wanted.remove(&at);
        let lane = self.lanes.get_mut(at)?;
        let channel = lane.channel.take()?;
        if lane.partition.is_some() && !is_told {
            self.revoked.insert(at);
        }
        Some(channel)
    }

    /// How many deliveries the server waits for.
    pub(super) fn held(&self) -> usize {
        self.lanes.iter().map(|lane| lane.items.len()).sum()
    }

    /// When the next delivery of an unordered topic is to be given back.
    pub(super) fn next_lapse(&self, longest: Duration) -> Option<Moment> {
        let items = self
            .lanes
            .iter()
            .filter(|lane| !lane.is_ordered())
            .flat_map(|lane| lane.items.values());
        items
            .map(|item| {
                let latest = far(item.since, longest);
                item.until().map_or(latest, |until| until.min(latest))
            })
            .min()
    }

    /// When the first delivery of a partition will have been held for so long, of those that are not on their way to
    /// others already.
    pub(super) fn next_overdue(&self, longest: Duration) -> Option<Moment> {
        let is_going = |at: &usize| self.wanted.contains(at) || self.given_up.contains(at);
        let lanes = self.lanes.iter().enumerate();
        lanes
            .filter(|(at, lane)| lane.is_ordered() && lane.channel.is_some() && !is_going(at))
            .filter_map(|(_, lane)| lane.items.values().next())
            .map(|item| far(item.since, longest))
            .min()
    }
}

/// A moment that much later, or one that nobody lives to see.
pub(super) fn far(from: Moment, time: Duration) -> Moment {
    const CENTURY: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
    from + time.min(CENTURY)
}

pub(super) fn removed() -> Error {
    Error::new(ErrorKind::NotFound, "the group was removed")
}
