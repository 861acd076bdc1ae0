//! What a member holds: the lanes that it reads, what came through them, and what became of each delivery.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use headless_abstractions::{
    Delivery, DeliveryToken, Error, ErrorKind, Message, Partition, Received, Redelivery, Result, Revoked,
    TopicName,
};

use super::push::Settles;
use crate::{channel::Chan, clock::Moment};

#[cfg(test)]
mod tests;

/// How many tokens that were lost are remembered.
const REMEMBERED: usize = 10_000;

/// A queue, and what of it this member has. A lane has a channel of its own: closing it gives back in place, and the tags
/// of what is not read yet are higher than those of what is.
#[derive(Debug)]
pub(super) struct Lane<C = Chan> {
    pub(super) topic: TopicName,
    /// On an ordered topic.
    pub(super) partition: Option<Partition>,
    /// The channel, while there is one.
    pub(super) channel: Option<C>,
    /// Rises with each channel, so that what is left of an older one is known as such.
    pub(super) serial: u64,
    /// What the server waits for, by its tag.
    pub(super) items: BTreeMap<u64, Item>,
    /// Those that no receive has returned yet.
    ready: BTreeSet<u64>,
    /// The last tag that came through this channel.
    last: u64,
    /// Whether everything that the server waits for up to that tag is in `items`.
    is_whole: bool,
}

/// A delivery of the server's.
#[derive(Debug)]
pub(super) struct Item {
    /// Kept while it may have to be handed out, again too.
    message: Option<Message>,
    malformed: Option<Error>,
    redelivery: Redelivery,
    /// How often it was handed out.
    rounds: u32,
    /// In the hands of the application under this token, until then.
    given: Option<(u64, Moment)>,
    /// When it came: the server's `consumer_timeout` counts from there.
    pub(super) since: Moment,
}

impl Item {
    pub(super) const fn new(
        message: Message,
        malformed: Option<Error>,
        redelivery: Redelivery,
        since: Moment,
    ) -> Self {
        Self {
            message: Some(message),
            malformed,
            redelivery,
            rounds: 0,
            given: None,
            since,
        }
    }

    /// Says when it is to be back, if it was handed out.
    pub(super) fn until(&self) -> Option<Moment> {
        self.given.map(|(_, until)| until)
    }
}

impl<C> Lane<C> {
    pub(super) const fn new(topic: TopicName, partition: Option<Partition>) -> Self {
        Self {
            topic,
            partition,
            channel: None,
            serial: 0,
            items: BTreeMap::new(),
            ready: BTreeSet::new(),
            last: 0,
            is_whole: true,
        }
    }

    pub(super) const fn is_ordered(&self) -> bool {
        self.partition.is_some()
    }

    /// The tag before which nothing is unsettled, so that one acknowledgement may be of all that is; `None` where the server
    /// may wait for something that is not known here.
    pub(super) fn settled_before(&self) -> Option<u64> {
        let first = self.items.first_key_value().map(|(tag, _)| *tag);
        self.is_whole.then(|| first.unwrap_or(self.last + 1))
    }
}

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

    /// What a receive of at most `max` returns, if there is anything.
    pub(super) fn take(&mut self, max: usize, now: Moment) -> Option<Result<Received>> {
        if self.gone {
            return Some(Err(removed()));
        }
        let told = self.tell();
        if !told.is_empty() {
            return Some(Ok(Received::new(Vec::new(), told)));
        }
        if let Some(error) = self.error.take() {
            return Some(Err(error));
        }
        if self.paused || max == 0 {
            return None;
        }
        let deliveries = self.hand_out(max, now);
        (!deliveries.is_empty()).then(|| Ok(Received::new(deliveries, Vec::new())))
    }

    /// The partitions that a receive now tells of.
    fn tell(&mut self) -> Vec<Revoked> {
        let mut told = std::mem::take(&mut self.revoked);
        for at in std::mem::take(&mut self.wanted) {
            let is_open = self.lanes.get(at).is_some_and(|lane| lane.channel.is_some());
            if is_open && self.given_up.insert(at) {
                self.forget_items(at);
                told.insert(at);
            }
        }
        let revoked = told.into_iter().filter_map(|at| {
            let lane = self.lanes.get(at)?;
            Some(Revoked::new(lane.topic.clone(), lane.partition?))
        });
        revoked.collect()
    }

    fn hand_out(&mut self, max: usize, now: Moment) -> Vec<Delivery> {
        let until = far(now, self.visibility);
        let mut deliveries = Vec::new();
        let count = self.lanes.len();
        let mut dry = 0;
        while deliveries.len() < max && dry < count {
            let at = self.turn % count.max(1);
            let before = deliveries.len();
            let room = max - before;
            self.hand_out_of(at, room, until, &mut deliveries);
            dry = if deliveries.len() == before { dry + 1 } else { 0 };
            self.turn = self.turn.wrapping_add(1);
        }
        deliveries
    }

    fn hand_out_of(&mut self, at: usize, room: usize, until: Moment, deliveries: &mut Vec<Delivery>) {
        // Others get what was in hand before anything that follows it.
        if self.given_up.contains(&at) {
            return;
        }
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        for _ in 0..room {
            if !lane.is_ordered() && self.shared_given >= self.prefetch {
                return;
            }
            let Some(tag) = lane.ready.pop_first() else { return };
            let Some(item) = lane.items.get_mut(&tag) else {
                continue;
            };
            let kept = if lane.partition.is_some() {
                item.message.clone()
            } else {
                None
            };
            let Some(message) = std::mem::replace(&mut item.message, kept) else {
                continue;
            };
            let token = self.next_token;
            self.next_token += 1;
            self.tokens.insert(token, (at, tag));
            let redelivery = match (item.redelivery, item.rounds) {
                (redelivery, 0) => redelivery,
                (Redelivery::First, rounds) => Redelivery::Again(rounds),
                (Redelivery::Again(before), rounds) => Redelivery::Again(before.saturating_add(rounds)),
                (Redelivery::Unknown, _) => Redelivery::Unknown,
            };
            item.rounds = item.rounds.saturating_add(1);
            item.given = Some((token, until));
            let malformed = match lane.partition {
                // It may be handed out again, and an error is not for copying.
                Some(_) => item.malformed.as_ref().map(copy),
                None => item.malformed.take(),
            };
            let mut delivery = Delivery::new(DeliveryToken::new(token), message)
                .with_redelivery(redelivery)
                .with_malformed(malformed);
            if let Some(partition) = lane.partition {
                delivery = delivery.with_partition(partition);
            } else {
                self.shared_given += 1;
            }
            deliveries.push(delivery);
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

/// The same error once more.
fn copy(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message().to_owned());
    if let Some(operation) = error.operation() {
        copy = copy.with_operation(operation);
    }
    if let Some(resource) = error.resource() {
        copy = copy.with_resource(resource.to_owned());
    }
    copy
}

pub(super) fn removed() -> Error {
    Error::new(ErrorKind::NotFound, "the group was removed")
}
