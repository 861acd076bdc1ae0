//! A live subscription: what it holds and for how long.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use headless_abstractions::{DeliveryToken, Error, ErrorKind, Owner, Revoked, Subscription, TopicName};

use super::{Moment, entry::Entry};
use crate::link::Link;

/// How many lost deliveries a member is told of as `LeaseLost`; older ones are `NotFound`.
const REMEMBERED: usize = 16_384;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) owner: Owner,
    pub(super) link: Arc<Link>,
    pub(super) topics: Vec<TopicName>,
    pub(super) prefetch: usize,
    pub(super) visibility: Duration,
    pub(super) paused: bool,
    /// Whether it takes part in sharing the partitions: from its subscription until its hold lapses.
    pub(super) live: bool,
    /// When its hold on its partitions lapses.
    pub(super) until: Moment,
    /// Unsettled deliveries by token.
    pub(super) lent: BTreeMap<u64, Lent>,
    /// How many of them are of unordered topics.
    pub(super) shared: usize,
    /// Partitions that lapsed and that it was not yet told of.
    pub(super) revoked: Vec<Revoked>,
    /// Whether something waits that only its prefetch kept back.
    pub(super) starved: bool,
    /// Which topic and partition is looked at first, so that none starves another.
    pub(super) turn: usize,
    lost: BTreeSet<u64>,
}

/// An unsettled delivery.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) entry: Entry,
    /// When it comes back; on an ordered topic the hold on the partition says so instead.
    pub(super) until: Moment,
}

impl Member {
    pub(super) fn new(to: &Subscription, link: Arc<Link>, now: Moment) -> Self {
        let mut topics = to.topics.clone();
        topics.sort();
        topics.dedup();
        Self {
            owner: to.member,
            link,
            topics,
            prefetch: to.prefetch.get(),
            visibility: to.visibility,
            paused: false,
            live: true,
            until: now.saturating_add(to.visibility),
            lent: BTreeMap::new(),
            shared: 0,
            revoked: Vec::new(),
            starved: false,
            turn: 0,
            lost: BTreeSet::new(),
        }
    }

    /// Notes a delivery that was taken away.
    pub(super) fn lose(&mut self, token: u64) {
        self.lost.insert(token);
        if self.lost.len() > REMEMBERED {
            self.lost.pop_first();
        }
    }

    /// Why there is no unsettled delivery with this token.
    pub(super) fn missing(&self, token: DeliveryToken) -> Error {
        if self.lost.contains(&token.get()) {
            Error::new(
                ErrorKind::LeaseLost,
                "the delivery went back to the group before it was settled",
            )
        } else {
            Error::new(
                ErrorKind::NotFound,
                "the token was never given to this subscriber or is settled",
            )
        }
    }

    /// Whether nobody can ask for anything through it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        !self.live && self.lent.is_empty() && self.link.is_severed()
    }
}
