//! What a member knows of its group.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use crate::{
    clock::{self, Moment},
    subscriber::Member,
    talk::Peer,
};

#[cfg(test)]
mod tests;

/// How long members have to say that they are there.
pub(super) const ROUND: Duration = Duration::from_secs(1);
/// How often the number of members is looked at: an eighth of the visibility time, between these.
const BEAT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What a member knows of its group.
#[derive(Debug)]
pub(in crate::subscriber) struct Group {
    /// Whether it reads ordered topics at all.
    pub(in crate::subscriber) has_partitions: bool,
    pub(super) beat: Duration,
    /// It shares in the partitions: its hold has not lapsed.
    pub(super) is_in: bool,
    /// It has heard of the others, and may take its share.
    pub(super) is_settled: bool,
    pub(super) peers: BTreeMap<Uuid, Peer>,
    /// The lanes that are its share, until it learns of another member or misses one.
    pub(super) share: Option<Arc<BTreeSet<usize>>>,
    pub(super) round: Option<Round>,
    pub(super) next_beat: Moment,
    /// When to tell the group of this member again: it could not be told.
    pub(super) untold: Option<Moment>,
    /// Until then nothing is said: it could not be said just now.
    pub(super) mute_until: Moment,
}

/// A question for who is there.
#[derive(Debug)]
pub(super) struct Round {
    /// How many others there are.
    pub(super) expected: usize,
    pub(super) heard: BTreeSet<Uuid>,
    pub(super) until: Moment,
}

impl Group {
    pub(in crate::subscriber) fn new(member: &Member) -> Self {
        let (least, most) = BEAT;
        Self {
            has_partitions: member.topics.iter().any(|(_, order)| order.is_ordered()),
            beat: (member.to.visibility / 8).clamp(least, most),
            is_in: false,
            is_settled: false,
            peers: BTreeMap::new(),
            share: None,
            round: None,
            next_beat: clock::now(),
            untold: None,
            mute_until: clock::now(),
        }
    }

    /// It is alone again, as far as it knows.
    pub(in crate::subscriber) fn forget(&mut self) {
        self.is_in = false;
        self.is_settled = false;
        self.peers.clear();
        self.share = None;
        self.round = None;
    }

    /// Whether it is among the members and knows the others: it then takes and hands on partitions.
    pub(in crate::subscriber) const fn shares(&self) -> bool {
        self.is_in && self.is_settled
    }

    pub(in crate::subscriber) const fn is_in(&self) -> bool {
        self.is_in
    }

    /// The end of the round, or the next beat: there is none while a round is open.
    pub(in crate::subscriber) fn next_due(&self) -> Option<Moment> {
        let next = match &self.round {
            Some(round) => Some(round.until),
            None => self.is_in.then_some(self.next_beat),
        };
        next.into_iter().chain(self.untold).min()
    }

    pub(super) fn hear(&mut self, peer: Peer) {
        if let Some(round) = &mut self.round {
            round.heard.insert(peer.session);
        }
        if self.peers.get(&peer.session) != Some(&peer) {
            self.share = None;
            self.peers.insert(peer.session, peer);
        }
    }

    pub(super) fn miss(&mut self, session: Uuid) {
        if self.peers.remove(&session).is_some() {
            self.share = None;
        }
    }

    /// Ends a round that everybody has answered, or whose time has passed.
    pub(super) fn end_round(&mut self, now: Moment) {
        let Some(round) = &self.round else { return };
        let is_complete = round.heard.len() >= round.expected;
        if is_complete {
            // Whoever did not answer does not exist.
            let before = self.peers.len();
            self.peers.retain(|session, _| round.heard.contains(session));
            if self.peers.len() != before {
                self.share = None;
            }
        }
        if is_complete || now >= round.until {
            self.round = None;
            self.is_settled = true;
        }
    }
}
