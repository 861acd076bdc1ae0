//! The rows of the inbox: one state machine, its reservations, its keys, and the indexes over them.

#[cfg(test)]
mod check;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use headless_abstractions::{
    Arrival, AttemptUse, Claim, DeadId, Epoch, Failure, GroupName, Hold, IdempotencyKey, InboxState, Message,
    MessageId, Owner, PartitionKey, TopicName,
};

use super::{LockKey, View};

pub(super) type RowKey = (GroupName, MessageId);
pub(super) type ReservationKey = (GroupName, IdempotencyKey);
type ChainKey = (GroupName, TopicName, PartitionKey);

/// The rows of the inbox.
///
/// A row has a *place* from when it is first parked until it is finished. A *chain* is the rows of one key that have
/// a place, in its order. A row is *listed* exactly while a claim may take it first: parked, the head of its chain or
/// without a key, and nothing of its chain is with a worker. One that waits for another message's reservation is
/// kept apart from the listed ones until that changes, so that a claim does not meet it again and again.
#[derive(Default)]
pub(super) struct InboxTable {
    rows: BTreeMap<RowKey, Row>,
    reservations: BTreeMap<ReservationKey, MessageId>,
    waiting: BTreeMap<ReservationKey, BTreeSet<MessageId>>,
    chains: BTreeMap<ChainKey, Chain>,
    pub(super) groups: BTreeMap<GroupName, Group>,
    /// Processed and discarded rows by when they ended.
    ended: BTreeSet<(Duration, RowKey)>,
    places: u64,
    /// Whether something may have become claimable, now or at a new time, since this was last taken.
    pub(super) stirred: bool,
}

/// A row of the inbox.
pub(super) struct Row {
    pub(super) arrival: Arrival,
    pub(super) phase: Phase,
    pub(super) epoch: Epoch,
    pub(super) rounds: u32,
    /// Stored once it is parked.
    pub(super) message: Option<Message>,
    pub(super) failures: Vec<Failure>,
    pub(super) place: Option<u64>,
    listed: Option<Listed>,
    /// The dead letter that it was redriven from, and how often that makes it.
    pub(super) redriven: Option<(DeadId, u32)>,
    /// The dead letter of its latest death.
    pub(super) dead_letter: Option<DeadId>,
    ended: Duration,
}

/// Where a row stands.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Phase {
    Running(Running),
    Parked { due: Duration },
    Processed,
    Dead,
    Discarded,
}

/// A row with a worker, or of a worker whose lease has ended.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Running {
    /// `None` once it was released.
    pub(super) owner: Option<Owner>,
    pub(super) until: Duration,
    pub(super) from: Source,
}

/// How a running row came to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Delivery,
    Park,
}

#[derive(Clone, Copy)]
enum Listed {
    Due(Duration),
    Waiting,
}

#[derive(Default)]
struct Chain {
    rows: BTreeMap<u64, MessageId>,
    running: usize,
}

/// The indexes of one group.
#[derive(Default)]
pub(super) struct Group {
    /// Listed rows of each topic, by due time and place.
    pub(super) due: BTreeMap<TopicName, BTreeSet<(Duration, u64, MessageId)>>,
    pub(super) park_leases: BTreeSet<(Duration, MessageId)>,
    pub(super) delivery_leases: BTreeSet<(Duration, MessageId)>,
    /// Rows that have a place.
    pub(super) parked: usize,
}

/// How an idempotency key stands to one message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserved {
    /// The message has none, or nobody has reserved it.
    No,
    /// By the message itself.
    Own,
    /// By another message that is not finished.
    Other,
    /// By another message that was processed.
    Processed,
    /// By an open transaction, which may yet roll back.
    Locked,
}

impl InboxTable {
    pub(super) fn row(&self, key: &RowKey) -> Option<&Row> {
        self.rows.get(key)
    }

    pub(super) fn rows_after(&self, key: Option<&RowKey>) -> impl Iterator<Item = (&RowKey, &Row)> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.rows.range::<RowKey, _>((from, Bound::Unbounded))
    }

    /// How the idempotency key of this message stands.
    pub(super) fn reserved(&self, arrival: &Arrival, view: &View<'_>) -> Reserved {
        let Some(key) = &arrival.idempotency_key else {
            return Reserved::No;
        };
        match self.reservations.get(&(arrival.group.clone(), key.clone())) {
            Some(id) if *id == arrival.id => Reserved::Own,
            Some(id) => match self.rows.get(&(arrival.group.clone(), *id)) {
                Some(row) if row.phase == Phase::Processed => Reserved::Processed,
                _ => Reserved::Other,
            },
            None if view.is_locked(&LockKey::Reservation(arrival.group.clone(), key.clone())) => {
                Reserved::Locked
            }
            None => Reserved::No,
        }
    }

    /// Reserves the idempotency key of a message, where it has one and nobody else has reserved it.
    pub(super) fn reserve(&mut self, arrival: &Arrival) {
        if let Some(key) = &arrival.idempotency_key {
            self.reservations
                .entry((arrival.group.clone(), key.clone()))
                .or_insert(arrival.id);
        }
    }

    /// Frees the idempotency key of a message, where it had reserved it.
    pub(super) fn free(&mut self, arrival: &Arrival, view: &View<'_>) {
        let Some(key) = &arrival.idempotency_key else {
            return;
        };
        let key = (arrival.group.clone(), key.clone());
        if self.reservations.get(&key) == Some(&arrival.id) {
            self.reservations.remove(&key);
            self.reservation_changed(&key, view);
        }
    }

    /// Lists the rows again that waited for this reservation: it is free, or its message was processed.
    pub(super) fn reservation_changed(&mut self, key: &ReservationKey, view: &View<'_>) {
        for id in self.waiting.remove(key).into_iter().flatten() {
            let row = (key.0.clone(), id);
            if let Some(row) = self.rows.get_mut(&row) {
                row.listed = None;
            }
            self.list(&row, view);
        }
    }

    /// Whether a row of the message's key has a place before `place`; before any that it may yet get for `None`.
    /// `gone` are rows that the asking transaction has finished.
    pub(super) fn is_behind(&self, arrival: &Arrival, place: Option<u64>, gone: &BTreeSet<RowKey>) -> bool {
        let chain = chain_of(arrival).and_then(|key| self.chains.get(&key));
        chain.is_some_and(|chain| {
            let before = place.map_or(Bound::Unbounded, Bound::Excluded);
            let mut earlier = chain.rows.range((Bound::Unbounded, before));
            earlier.any(|(_, id)| gone.is_empty() || !gone.contains(&(arrival.group.clone(), *id)))
        })
    }

    /// How many rows of the message's key have a place.
    pub(super) fn parked_of_key(&self, arrival: &Arrival) -> usize {
        chain_of(arrival)
            .and_then(|key| self.chains.get(&key))
            .map_or(0, |chain| chain.rows.len())
    }

    pub(super) fn parked_of_group(&self, group: &GroupName) -> usize {
        self.groups.get(group).map_or(0, |group| group.parked)
    }

    /// The row right behind this one in its key.
    pub(super) fn follower(&self, arrival: &Arrival, place: u64) -> Option<RowKey> {
        let chain = self.chains.get(&chain_of(arrival)?)?;
        let (_, id) = chain.rows.range(place + 1..).next()?;
        Some((arrival.group.clone(), *id))
    }

    /// Adds a row; the key must be absent. A parked one gets the last place of its key.
    pub(super) fn insert(&mut self, key: &RowKey, row: Row, view: &View<'_>) {
        let parked = matches!(row.phase, Phase::Parked { .. });
        self.rows.insert(key.clone(), row);
        if parked {
            self.take_place(key);
        }
        self.index(key, view);
    }

    /// Changes a row and keeps every index in step; how it ends is for [`finish`](Self::finish). One that becomes
    /// parked and has no place gets the last one of its key.
    pub(super) fn change(&mut self, key: &RowKey, view: &View<'_>, how: impl FnOnce(&mut Row)) {
        self.unindex(key);
        let Some(row) = self.rows.get_mut(key) else { return };
        how(row);
        if matches!(row.phase, Phase::Parked { .. }) && row.place.is_none() {
            self.take_place(key);
        }
        self.index(key, view);
    }

    /// Ends a row: it leaves its key, which goes on, and reserves or frees its idempotency key.
    pub(super) fn finish(&mut self, key: &RowKey, phase: Phase, view: &View<'_>) {
        self.unindex(key);
        self.leave_place(key);
        let Some(row) = self.rows.get_mut(key) else { return };
        row.phase = phase;
        row.message = None;
        row.ended = view.now;
        let arrival = row.arrival.clone();
        self.index(key, view);
        if phase == Phase::Processed {
            self.reserve(&arrival);
            if let Some(idempotency_key) = arrival.idempotency_key.clone() {
                self.reservation_changed(&(arrival.group.clone(), idempotency_key), view);
            }
        } else {
            self.free(&arrival, view);
        }
        self.list_head(&arrival, view);
        self.stirred = true;
    }

    /// Removes at most `limit` rows of at least this age: processed and discarded ones, and those whose delivery never
    /// came again.
    pub(super) fn purge(&mut self, older_than: Duration, limit: usize, view: &View<'_>) -> u64 {
        let is_old = |since: Duration| since.saturating_add(older_than) <= view.now;
        let ended = self.ended.iter();
        let ended = ended
            .take_while(|(at, _)| is_old(*at))
            .map(|(_, key)| key.clone());
        let stranded = self.groups.iter().flat_map(|(name, group)| {
            let leases = group.delivery_leases.iter();
            leases
                .take_while(|(until, _)| is_old(*until))
                .map(|(_, id)| (name.clone(), *id))
                .filter(|(group, id)| !view.is_locked(&LockKey::Inbox(group.clone(), *id)))
        });
        let old: Vec<RowKey> = ended.chain(stranded).take(limit).collect();
        for key in &old {
            self.remove(key, view);
        }
        old.len() as u64
    }

    /// Removes a row without a place, and frees what it had reserved.
    pub(super) fn remove(&mut self, key: &RowKey, view: &View<'_>) {
        self.unindex(key);
        if let Some(row) = self.rows.remove(key) {
            self.free(&row.arrival, view);
        }
    }

    /// Those of `claims` that are not held by `owner` or that may not be changed, and the rows of the others.
    pub(super) fn sort_claims(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        may: impl Fn(&RowKey, &Row) -> bool,
    ) -> (Vec<Claim>, BTreeSet<RowKey>) {
        let mut lost = Vec::new();
        let mut held = BTreeSet::new();
        for claim in claims {
            let key = (group.clone(), claim.id);
            let hold = Hold::Running {
                owner,
                epoch: claim.epoch,
            };
            if self
                .rows
                .get(&key)
                .is_some_and(|row| row.is_held_by(hold) && may(&key, row))
            {
                held.insert(key);
            } else {
                lost.push(*claim);
            }
        }
        (lost, held)
    }

    /// The planted bug: these claims as if they had been given just now.
    #[cfg(feature = "planted-bugs")]
    pub(super) fn with_present_epochs(&self, group: &GroupName, claims: &[Claim]) -> Vec<Claim> {
        let present = |claim: &Claim| {
            let row = self.rows.get(&(group.clone(), claim.id));
            Claim::new(claim.id, row.map_or(claim.epoch, |row| row.epoch))
        };
        claims.iter().map(present).collect()
    }

    /// Parks again what was claimed from the park and whose lease has ended, unless a transaction holds it.
    pub(super) fn reap(&mut self, group: &GroupName, limit: usize, view: &View<'_>) -> u64 {
        let Some(leases) = self.groups.get(group).map(|group| &group.park_leases) else {
            return 0;
        };
        let ended: Vec<RowKey> = leases
            .iter()
            .take_while(|(until, _)| *until <= view.now)
            .map(|(_, id)| (group.clone(), *id))
            .filter(|(group, id)| !view.is_locked(&LockKey::Inbox(group.clone(), *id)))
            .take(limit)
            .collect();
        for key in &ended {
            self.park_again(key, view.now, AttemptUse::Consume, view);
        }
        ended.len() as u64
    }

    /// Takes a row from its worker back to the park, in its place. One behind another reserves nothing there.
    pub(super) fn park_again(&mut self, key: &RowKey, due: Duration, attempt: AttemptUse, view: &View<'_>) {
        let Some(row) = self.rows.get(key) else { return };
        let arrival = row.arrival.clone();
        if self.is_behind(&arrival, row.place, &BTreeSet::new()) {
            self.free(&arrival, view);
        }
        self.change(key, view, |row| {
            row.phase = Phase::Parked { due };
            row.give_back(attempt);
        });
    }

    fn take_place(&mut self, key: &RowKey) {
        let Some(row) = self.rows.get_mut(key) else { return };
        self.places += 1;
        row.place = Some(self.places);
        self.groups.entry(key.0.clone()).or_default().parked += 1;
        if let Some(chain) = chain_of(&row.arrival) {
            self.chains
                .entry(chain)
                .or_default()
                .rows
                .insert(self.places, key.1);
        }
    }

    fn leave_place(&mut self, key: &RowKey) {
        let Some(row) = self.rows.get_mut(key) else { return };
        let Some(place) = row.place.take() else { return };
        if let Some(group) = self.groups.get_mut(&key.0) {
            group.parked -= 1;
        }
        let Some(chain_key) = chain_of(&row.arrival) else {
            return;
        };
        let Some(chain) = self.chains.get_mut(&chain_key) else {
            return;
        };
        chain.rows.remove(&place);
        if chain.rows.is_empty() {
            self.chains.remove(&chain_key);
        }
    }

    fn index(&mut self, key: &RowKey, view: &View<'_>) {
        let Some(row) = self.rows.get(key) else { return };
        match row.phase {
            Phase::Running(running) => {
                let group = self.groups.entry(key.0.clone()).or_default();
                group.leases(running.from).insert((running.until, key.1));
                self.count_running(key, running.from, true);
            }
            Phase::Parked { .. } => {
                let arrival = row.arrival.clone();
                if arrival.key.is_some() {
                    self.list_head(&arrival, view);
                } else {
                    self.list(key, view);
                }
                self.stirred = true;
            }
            Phase::Processed | Phase::Discarded => drop(self.ended.insert((row.ended, key.clone()))),
            Phase::Dead => {}
        }
    }

    fn unindex(&mut self, key: &RowKey) {
        let Some(row) = self.rows.get_mut(key) else { return };
        match row.phase {
            Phase::Running(running) => {
                if let Some(group) = self.groups.get_mut(&key.0) {
                    group.leases(running.from).remove(&(running.until, key.1));
                }
                self.count_running(key, running.from, false);
            }
            Phase::Parked { .. } => self.unlist(key),
            Phase::Processed | Phase::Discarded => drop(self.ended.remove(&(row.ended, key.clone()))),
            Phase::Dead => {}
        }
    }

    fn count_running(&mut self, key: &RowKey, from: Source, runs: bool) {
        if from == Source::Delivery {
            return;
        }
        let chain = self.rows.get(key).and_then(|row| chain_of(&row.arrival));
        if let Some(chain) = chain.and_then(|key| self.chains.get_mut(&key)) {
            chain.running = if runs {
                chain.running + 1
            } else {
                chain.running - 1
            };
        }
    }

    /// Lists the head of the message's key if a claim may take it.
    fn list_head(&mut self, arrival: &Arrival, view: &View<'_>) {
        let Some(chain) = chain_of(arrival).and_then(|key| self.chains.get(&key)) else {
            return;
        };
        if chain.running == 0
            && let Some((_, head)) = chain.rows.first_key_value()
        {
            let head = (arrival.group.clone(), *head);
            self.list(&head, view);
        }
    }

    /// Lists a row that a claim may take first, from now on: as due as it is, or apart while it waits for another
    /// message's reservation.
    fn list(&mut self, key: &RowKey, view: &View<'_>) {
        let Some(row) = self.rows.get(key) else { return };
        let (Phase::Parked { due }, Some(place), None) = (row.phase, row.place, row.listed) else {
            return;
        };
        let arrival = row.arrival.clone();
        let blocked = matches!(self.reserved(&arrival, view), Reserved::Other | Reserved::Locked);
        let Some(row) = self.rows.get_mut(key) else { return };
        match arrival.idempotency_key {
            Some(reservation) if blocked => {
                row.listed = Some(Listed::Waiting);
                self.waiting
                    .entry((arrival.group, reservation))
                    .or_default()
                    .insert(arrival.id);
            }
            _ => {
                // It became claimable now, however long ago it came to wait behind another.
                let due = due.max(view.now);
                row.phase = Phase::Parked { due };
                row.listed = Some(Listed::Due(due));
                let group = self.groups.entry(arrival.group).or_default();
                group
                    .due
                    .entry(arrival.topic)
                    .or_default()
                    .insert((due, place, arrival.id));
                self.stirred = true;
            }
        }
    }

    fn unlist(&mut self, key: &RowKey) {
        let Some(row) = self.rows.get_mut(key) else { return };
        match (row.listed.take(), row.place, &row.arrival.idempotency_key) {
            (Some(Listed::Due(due)), Some(place), _) => {
                let Some(group) = self.groups.get_mut(&key.0) else {
                    return;
                };
                if let Some(rows) = group.due.get_mut(&row.arrival.topic) {
                    rows.remove(&(due, place, key.1));
                    if rows.is_empty() {
                        group.due.remove(&row.arrival.topic);
                    }
                }
            }
            (Some(Listed::Waiting), _, Some(reservation)) => {
                let reservation = (key.0.clone(), reservation.clone());
                if let Some(ids) = self.waiting.get_mut(&reservation) {
                    ids.remove(&key.1);
                    if ids.is_empty() {
                        self.waiting.remove(&reservation);
                    }
                }
            }
            _ => {}
        }
    }

    /// Lists a row anew whose reservation another message has taken since it was listed. One that waits behind
    /// another is not listed and stays so.
    pub(super) fn list_again(&mut self, key: &RowKey, view: &View<'_>) {
        if self.rows.get(key).is_some_and(|row| row.listed.is_some()) {
            self.unlist(key);
            self.list(key, view);
        }
    }
}

impl Row {
    /// A row that nobody has claimed yet.
    pub(super) const fn new(arrival: Arrival, phase: Phase, now: Duration) -> Self {
        Self {
            arrival,
            phase,
            epoch: Epoch::new(0),
            rounds: 0,
            message: None,
            failures: Vec::new(),
            place: None,
            listed: None,
            redriven: None,
            dead_letter: None,
            ended: now,
        }
    }

    pub(super) fn is_held_by(&self, hold: Hold) -> bool {
        match (hold, self.phase) {
            (Hold::Running { owner, epoch }, Phase::Running(running)) => {
                running.owner == Some(owner) && self.epoch == epoch
            }
            _ => false,
        }
    }

    pub(super) fn give_back(&mut self, attempt: AttemptUse) {
        if attempt == AttemptUse::Return {
            self.rounds = self.rounds.saturating_sub(1);
        }
    }

    /// Until it is due; `None` when it is not parked, or waits behind another.
    pub(super) fn due_in(&self, now: Duration) -> Option<Duration> {
        if let Some(Listed::Due(due)) = self.listed {
            Some(due.saturating_sub(now))
        } else {
            None
        }
    }
}

impl Phase {
    pub(super) const fn state(self) -> InboxState {
        match self {
            Self::Running(_) => InboxState::Running,
            Self::Parked { .. } => InboxState::Parked,
            Self::Processed => InboxState::Processed,
            Self::Dead => InboxState::Dead,
            Self::Discarded => InboxState::Discarded,
        }
    }
}

impl Group {
    const fn leases(&mut self, from: Source) -> &mut BTreeSet<(Duration, MessageId)> {
        match from {
            Source::Delivery => &mut self.delivery_leases,
            Source::Park => &mut self.park_leases,
        }
    }
}

/// The key whose order this message keeps.
fn chain_of(arrival: &Arrival) -> Option<ChainKey> {
    arrival
        .key
        .clone()
        .map(|key| (arrival.group.clone(), arrival.topic.clone(), key))
}
