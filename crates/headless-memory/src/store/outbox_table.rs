//! The rows of the outbox and the indexes that keep a claim from ever scanning them.

#[cfg(test)]
mod check;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use headless_abstractions::{
    Abandon, AttemptUse, Claim, ClaimOutbox, DeadId, Epoch, Failure, InFlight, Message, MessageId, OutboxRow,
    OutboxState, Owner, PartitionKey, Priority, Settled, TopicName,
};

use super::Sequence;

type ChainKey = (TopicName, PartitionKey);

/// What orders claimable rows: priority, then place; the number says which row it is.
type Candidate = (Reverse<Priority>, u64, u64);

/// The rows of the outbox.
///
/// A row's *number* names it and never changes. Its *place* orders it; a delayed row gets a fresh one when it is due.
/// A *chain* is the rows of one key that have a place.
pub(super) struct OutboxTable {
    capacity: usize,
    /// Rows that open transactions have staged.
    reserved: usize,
    rows: BTreeMap<u64, Row>,
    ids: HashMap<MessageId, u64>,
    chains: HashMap<ChainKey, Chain>,
    /// Exactly what a claim may take first: unkeyed rows that are ready, and of each key its head.
    candidates: BTreeSet<Candidate>,
    delayed: BTreeSet<(Duration, u64)>,
    retrying: BTreeSet<(Duration, u64)>,
    leases: BTreeSet<(Duration, u64)>,
    lapsed: BTreeSet<u64>,
    /// Whether something may have become ready, now or at a new time, since this was last taken.
    pub(super) stirred: bool,
}

/// A row of the outbox.
pub(super) struct Row {
    pub(super) message: Message,
    place: u64,
    /// Counted when claimed, before the work.
    pub(super) attempts: u32,
    epoch: Epoch,
    pub(super) failures: Vec<Failure>,
    /// When it first became due.
    pub(super) due: Duration,
    phase: Phase,
    /// The dead letter that it was redriven from, and how often that makes it.
    pub(super) redriven: Option<(DeadId, u32)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Delayed,
    Ready,
    Leased {
        owner: Owner,
        until: Duration,
    },
    /// Its lease has ended: ready, but still its owner's to settle while nobody else has taken it.
    Lapsed {
        owner: Owner,
    },
    Retrying {
        until: Duration,
    },
}

#[derive(Default)]
struct Chain {
    /// Numbers by place.
    rows: BTreeMap<u64, u64>,
    leased: usize,
    offered: Option<Candidate>,
}

impl OutboxTable {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            reserved: 0,
            rows: BTreeMap::new(),
            ids: HashMap::new(),
            chains: HashMap::new(),
            candidates: BTreeSet::new(),
            delayed: BTreeSet::new(),
            retrying: BTreeSet::new(),
            leases: BTreeSet::new(),
            lapsed: BTreeSet::new(),
            stirred: false,
        }
    }

    pub(super) fn has_room_for(&self, more: usize) -> bool {
        self.rows.len().saturating_add(self.reserved).saturating_add(more) <= self.capacity
    }

    /// Counts rows that a transaction has staged against the capacity.
    pub(super) fn reserve(&mut self, rows: usize) {
        self.reserved += rows;
    }

    pub(super) fn unreserve(&mut self, rows: usize) {
        self.reserved -= rows;
    }

    pub(super) fn contains(&self, id: MessageId) -> bool {
        self.ids.contains_key(&id)
    }

    /// Stores a message under a number that was taken when it was appended, which may be smaller than the numbers
    /// of rows that are here already. A message that is stored already is left alone.
    pub(super) fn insert(&mut self, number: u64, message: Message, appended_at: Duration) {
        let delay = message.deliver_after.unwrap_or_default();
        let phase = if delay.is_zero() {
            Phase::Ready
        } else {
            Phase::Delayed
        };
        self.insert_row(number, message, appended_at.saturating_add(delay), phase, None);
    }

    /// Stores a message that had died here before: without delay, with a fresh place.
    pub(super) fn insert_redriven(
        &mut self,
        number: u64,
        message: Message,
        now: Duration,
        from: (DeadId, u32),
    ) {
        self.insert_row(number, message, now, Phase::Ready, Some(from));
    }

    fn insert_row(
        &mut self,
        number: u64,
        message: Message,
        due: Duration,
        phase: Phase,
        redriven: Option<(DeadId, u32)>,
    ) {
        if self.contains(message.id) {
            return;
        }
        self.ids.insert(message.id, number);
        let row = Row {
            message,
            place: number,
            attempts: 0,
            epoch: Epoch::default(),
            failures: Vec::new(),
            due,
            phase,
            redriven,
        };
        if phase == Phase::Delayed {
            self.delayed.insert((due, number));
            self.rows.insert(number, row);
        } else {
            self.rows.insert(number, row);
            self.take_place(number);
        }
        self.stirred = true;
    }

    /// Claims at most `limit` rows, as `OutboxStore::claim` says.
    pub(super) fn claim(
        &mut self,
        request: &ClaimOutbox,
        now: Duration,
        sequence: &mut Sequence,
    ) -> Vec<OutboxRow> {
        self.come_due(now, sequence);
        let until = now.saturating_add(request.lease);
        let phase = Phase::Leased {
            owner: request.owner,
            until,
        };
        // Rows behind a head that this very claim has taken; they compete with all others by priority and place.
        let mut followers = BTreeSet::<Candidate>::new();
        let mut claimed = Vec::with_capacity(request.limit.min(self.candidates.len()));
        while claimed.len() < request.limit {
            let next = match (self.candidates.first().copied(), followers.first().copied()) {
                (None, None) => break,
                (Some(head), Some(follower)) => head.min(follower),
                (Some(only), None) | (None, Some(only)) => only,
            };
            followers.remove(&next);
            let number = next.2;
            let Some(row) = self.rows.get_mut(&number) else {
                break;
            };
            row.epoch = row.epoch.next();
            let mut message = row.message.clone();
            message.deliver_after = None;
            claimed.push(OutboxRow::new(
                Claim::new(message.id, row.epoch),
                message,
                row.attempts,
            ));
            self.turn(number, phase);
            if request.in_flight == InFlight::RunPerKey {
                followers.extend(self.follower(number));
            }
        }
        claimed
    }

    pub(super) fn ack(&mut self, owner: Owner, claims: &[Claim]) -> Settled {
        self.settle(owner, claims, |table, number| drop(table.remove(number)))
    }

    pub(super) fn abandon(
        &mut self,
        owner: Owner,
        claims: &[Claim],
        how: &Abandon,
        now: Duration,
    ) -> Settled {
        self.settle(owner, claims, |table, number| {
            if let Some(row) = table.rows.get_mut(&number) {
                if how.attempt == AttemptUse::Consume {
                    row.attempts = row.attempts.saturating_add(1);
                }
                Failure::append(&mut row.failures, how.failure.clone());
            }
            let until = now.saturating_add(how.after);
            table.turn(
                number,
                if how.after.is_zero() {
                    Phase::Ready
                } else {
                    Phase::Retrying { until }
                },
            );
        })
    }

    /// Takes rows out for good and gives each to `bury`.
    pub(super) fn fail(
        &mut self,
        owner: Owner,
        claims: &[Claim],
        failure: &Failure,
        mut bury: impl FnMut(Row),
    ) -> Settled {
        self.settle(owner, claims, |table, number| {
            if let Some(mut row) = table.remove(number) {
                Failure::append(&mut row.failures, [failure.clone()]);
                row.attempts = row.attempts.saturating_add(1);
                row.message.deliver_after = None;
                bury(row);
            }
        })
    }

    pub(super) fn renew(&mut self, owner: Owner, claims: &[Claim], until: Duration) -> Settled {
        self.settle(owner, claims, |table, number| {
            table.turn(number, Phase::Leased { owner, until });
        })
    }

    pub(super) fn reap_expired(&mut self, limit: usize, now: Duration) -> u64 {
        self.lapse(now);
        let reaped: Vec<u64> = self.lapsed.iter().copied().take(limit).collect();
        for number in &reaped {
            self.turn(*number, Phase::Ready);
        }
        reaped.len() as u64
    }

    pub(super) fn release_owner(&mut self, owner: Owner) -> u64 {
        let held: Vec<u64> = self.held_by(owner).collect();
        for number in &held {
            self.turn(*number, Phase::Ready);
        }
        held.len() as u64
    }

    /// Whether this owner holds anything.
    pub(super) fn is_held_by(&self, owner: Owner) -> bool {
        self.held_by(owner).next().is_some()
    }

    fn held_by(&self, owner: Owner) -> impl Iterator<Item = u64> + '_ {
        let leased = self.leases.iter().map(|(_, number)| *number);
        leased
            .chain(self.lapsed.iter().copied())
            .filter(move |number| self.owner_of(*number) == Some(owner))
    }

    /// How soon a claim can find something, and when the first lease ends.
    pub(super) fn next(&self, now: Duration) -> (Option<Duration>, Option<Duration>) {
        let lease = self.leases.first().map(|(until, _)| until.saturating_sub(now));
        let ended = lease.filter(Duration::is_zero);
        let ready = (!self.candidates.is_empty()).then_some(Duration::ZERO);
        let waiting = [&self.delayed, &self.retrying];
        let waiting = waiting
            .into_iter()
            .filter_map(|set| set.first())
            .map(|(due, _)| due.saturating_sub(now))
            .min();
        (ready.or(ended).or(waiting), lease)
    }

    /// The first moment after this at which something becomes ready by itself.
    pub(super) fn first_due_after(&self, moment: Duration) -> Option<Duration> {
        let after = (
            std::ops::Bound::Excluded((moment, u64::MAX)),
            std::ops::Bound::Unbounded,
        );
        [&self.delayed, &self.retrying, &self.leases]
            .into_iter()
            .filter_map(|set| set.range(after).next())
            .map(|(due, _)| *due)
            .min()
    }

    /// Rows after this number, in the order in which they were appended.
    pub(super) fn rows_after(&self, number: Option<u64>) -> impl Iterator<Item = (u64, &Row)> {
        let from = number.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.rows
            .range((from, std::ops::Bound::Unbounded))
            .map(|(number, row)| (*number, row))
    }

    pub(super) fn row(&self, id: MessageId) -> Option<&Row> {
        self.rows.get(self.ids.get(&id)?)
    }

    /// Applies `how` to each row that is held as claimed. All claims are judged before the first is applied, so that
    /// one that is named twice is found twice.
    fn settle(&mut self, owner: Owner, claims: &[Claim], mut how: impl FnMut(&mut Self, u64)) -> Settled {
        let lost = claims
            .iter()
            .filter(|claim| self.held(owner, **claim).is_none())
            .copied()
            .collect();
        for claim in claims {
            if let Some(number) = self.held(owner, *claim) {
                how(self, number);
            }
        }
        Settled::without(lost)
    }

    fn held(&self, owner: Owner, claim: Claim) -> Option<u64> {
        let number = *self.ids.get(&claim.id)?;
        let row = self.rows.get(&number)?;
        (row.phase.owner() == Some(owner) && row.epoch == claim.epoch).then_some(number)
    }

    fn owner_of(&self, number: u64) -> Option<Owner> {
        self.rows.get(&number)?.phase.owner()
    }

    /// Moves on what has become ready by the passing of time.
    fn come_due(&mut self, now: Duration, sequence: &mut Sequence) {
        while let Some((due, number)) = self.delayed.first().copied()
            && due <= now
        {
            self.delayed.remove(&(due, number));
            if let Some(row) = self.rows.get_mut(&number) {
                row.place = sequence.next();
                row.phase = Phase::Ready;
            }
            self.take_place(number);
        }
        while let Some((until, number)) = self.retrying.first().copied()
            && until <= now
        {
            self.turn(number, Phase::Ready);
        }
        self.lapse(now);
    }

    fn lapse(&mut self, now: Duration) {
        while let Some((until, number)) = self.leases.first().copied()
            && until <= now
        {
            let Some(owner) = self.owner_of(number) else { break };
            self.turn(number, Phase::Lapsed { owner });
        }
    }

    /// Gives a row that is ready its place among the others.
    fn take_place(&mut self, number: u64) {
        let Some(row) = self.rows.get(&number) else { return };
        let candidate = row.candidate(number);
        match row.chain() {
            None => drop(self.candidates.insert(candidate)),
            Some(key) => {
                self.chains
                    .entry(key.clone())
                    .or_default()
                    .rows
                    .insert(candidate.1, number);
                self.offer_head(&key);
            }
        }
    }

    /// Takes a row that has its place to another phase, and keeps every index in step.
    fn turn(&mut self, number: u64, to: Phase) {
        let Some(row) = self.rows.get_mut(&number) else {
            return;
        };
        let from = std::mem::replace(&mut row.phase, to);
        let candidate = row.candidate(number);
        let chain = row.chain();
        self.unindex(number, from);
        match to {
            Phase::Leased { until, .. } => drop(self.leases.insert((until, number))),
            Phase::Retrying { until } => drop(self.retrying.insert((until, number))),
            Phase::Lapsed { .. } => drop(self.lapsed.insert(number)),
            Phase::Delayed | Phase::Ready => {}
        }
        self.stirred |= !matches!(to, Phase::Leased { .. });
        match chain {
            None if to.is_claimable() => drop(self.candidates.insert(candidate)),
            None => drop(self.candidates.remove(&candidate)),
            Some(key) => {
                if let Some(chain) = self.chains.get_mut(&key) {
                    chain.leased += usize::from(to.is_leased());
                    chain.leased -= usize::from(from.is_leased());
                }
                self.offer_head(&key);
            }
        }
    }

    fn remove(&mut self, number: u64) -> Option<Row> {
        let row = self.rows.remove(&number)?;
        self.ids.remove(&row.message.id);
        self.unindex(number, row.phase);
        match row.chain() {
            None => drop(self.candidates.remove(&row.candidate(number))),
            Some(key) => {
                if let Some(chain) = self.chains.get_mut(&key) {
                    chain.rows.remove(&row.place);
                    chain.leased -= usize::from(row.phase.is_leased());
                }
                self.offer_head(&key);
                self.stirred |= self.chains.contains_key(&key);
            }
        }
        Some(row)
    }

    fn unindex(&mut self, number: u64, phase: Phase) {
        match phase {
            Phase::Delayed | Phase::Ready => {}
            Phase::Leased { until, .. } => drop(self.leases.remove(&(until, number))),
            Phase::Lapsed { .. } => drop(self.lapsed.remove(&number)),
            Phase::Retrying { until } => drop(self.retrying.remove(&(until, number))),
        }
    }

    /// Offers the head of a key exactly while it can be claimed: while no row of the key is with a relay. A late
    /// committer may have put a row before one that is.
    fn offer_head(&mut self, key: &ChainKey) {
        let Some(chain) = self.chains.get_mut(key) else {
            return;
        };
        let head = chain.rows.first_key_value().map(|(_, number)| *number);
        let offer = head
            .filter(|_| chain.leased == 0)
            .and_then(|number| self.rows.get(&number).map(|row| (number, row)))
            .filter(|(_, row)| row.phase.is_claimable())
            .map(|(number, row)| row.candidate(number));
        if chain.offered != offer {
            if let Some(before) = std::mem::replace(&mut chain.offered, offer) {
                self.candidates.remove(&before);
            }
            self.candidates.extend(offer);
        }
        if chain.rows.is_empty() {
            self.chains.remove(key);
        }
    }

    /// The row right behind this one in its key, if it can be claimed in the same run.
    fn follower(&self, number: u64) -> Option<Candidate> {
        let row = self.rows.get(&number)?;
        let chain = self.chains.get(&row.chain()?)?;
        let (_, next) = chain.rows.range(row.place + 1..).next()?;
        let row = self.rows.get(next)?;
        row.phase.is_claimable().then(|| row.candidate(*next))
    }
}

impl Row {
    pub(super) fn owner(&self) -> Option<Owner> {
        if let Phase::Leased { owner, .. } = self.phase {
            Some(owner)
        } else {
            None
        }
    }

    /// Where it stands at this moment, whether or not a claim has noticed yet.
    pub(super) fn state(&self, now: Duration) -> OutboxState {
        match self.phase {
            Phase::Delayed if self.due > now => OutboxState::Delayed,
            Phase::Leased { until, .. } if until > now => OutboxState::Leased,
            Phase::Retrying { until } if until > now => OutboxState::Retrying,
            _ => OutboxState::Ready,
        }
    }

    fn candidate(&self, number: u64) -> Candidate {
        (Reverse(self.message.priority), self.place, number)
    }

    fn chain(&self) -> Option<ChainKey> {
        self.message
            .key
            .clone()
            .map(|key| (self.message.topic.clone(), key))
    }
}

impl Phase {
    const fn owner(self) -> Option<Owner> {
        match self {
            Self::Leased { owner, .. } | Self::Lapsed { owner } => Some(owner),
            Self::Delayed | Self::Ready | Self::Retrying { .. } => None,
        }
    }

    const fn is_leased(self) -> bool {
        matches!(self, Self::Leased { .. })
    }

    const fn is_claimable(self) -> bool {
        matches!(self, Self::Ready | Self::Lapsed { .. })
    }
}
