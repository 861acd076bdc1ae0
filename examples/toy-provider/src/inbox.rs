//! The inbox: what a group has done with each message. The park and the dead letters move the same rows.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Admission, Arrival, AttemptUse, Claim, DeadId, Epoch, Failure, GroupName, Hold, IdempotencyKey,
    InboxState, InboxStore, Marked, Message, MessageId, Owner, Result, Settled,
};

use crate::{
    dead_letter::Lineage,
    store::{ToyStore, check_some, settle},
};

/// What is answered as the rest of a lease for a row that an open transaction holds: ask again soon.
const LOCKED: Duration = Duration::from_millis(100);

pub(crate) type RowKey = (GroupName, MessageId);

#[derive(Clone, Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) rows: BTreeMap<RowKey, Row>,
    /// What open transactions have marked: by which, and the idempotency key that goes with it.
    pub(crate) locks: BTreeMap<RowKey, (u64, Option<IdempotencyKey>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) arrival: Arrival,
    pub(crate) state: InboxState,
    pub(crate) epoch: Epoch,
    pub(crate) rounds: u32,
    /// By whom a running row is held, and until when; nobody once it was released.
    pub(crate) held: Option<(Owner, Duration)>,
    /// Whether its idempotency key is reserved for it.
    pub(crate) reserves: bool,
    /// In the park, also while claimed from it.
    pub(crate) stay: Option<Stay>,
    pub(crate) failures: Vec<Failure>,
    /// When it was done, or released.
    pub(crate) ended: Duration,
    pub(crate) lineage: Lineage,
    /// The dead letter, while it is dead.
    pub(crate) letter: Option<DeadId>,
}

/// A message in the park.
#[derive(Clone, Debug)]
pub(crate) struct Stay {
    /// In its key.
    pub(crate) place: u64,
    pub(crate) message: Message,
    pub(crate) due: Duration,
}

impl Row {
    pub(crate) fn new(arrival: &Arrival) -> Self {
        Self {
            arrival: arrival.clone(),
            state: InboxState::Running,
            epoch: Epoch::default(),
            rounds: 0,
            held: None,
            reserves: false,
            stay: None,
            failures: Vec::new(),
            ended: Duration::ZERO,
            lineage: Lineage::default(),
            letter: None,
        }
    }

    pub(crate) fn key(&self) -> RowKey {
        (self.arrival.group.clone(), self.arrival.id)
    }

    /// Whether it runs under this owner and epoch. A lease that has ended is not lost before somebody takes it.
    pub(crate) fn is_held(&self, owner: Owner, epoch: Epoch) -> bool {
        let held_by = self.held.map(|(owner, _)| owner);
        self.state == InboxState::Running && held_by == Some(owner) && self.epoch == epoch
    }

    pub(crate) fn lease_left(&self, now: Duration) -> Duration {
        self.held
            .map_or(Duration::ZERO, |(_, until)| until.saturating_sub(now))
    }

    /// Begins a round.
    pub(crate) fn run(&mut self, owner: Owner, until: Duration) {
        self.state = InboxState::Running;
        self.epoch = self.epoch.next();
        self.rounds += 1;
        self.held = Some((owner, until));
        self.reserves = self.arrival.idempotency_key.is_some();
    }

    /// Ends a round without an end of the message: it is parked again, or waits to be admitted.
    pub(crate) fn give_back(&mut self, due: Duration, attempt: AttemptUse) {
        if attempt == AttemptUse::Return {
            self.rounds = self.rounds.saturating_sub(1);
        }
        self.held = None;
        if let Some(stay) = &mut self.stay {
            stay.due = due;
            self.state = InboxState::Parked;
        }
    }

    /// Since when the purge may count its age: it is done, or its lease has ended and only its delivery would take
    /// it over. What is in the park is never purged.
    fn purgeable_since(&self) -> Option<Duration> {
        match self.state {
            InboxState::Processed | InboxState::Discarded => Some(self.ended),
            InboxState::Running if self.stay.is_none() => {
                Some(self.held.map_or(self.ended, |(_, until)| until))
            }
            _ => None,
        }
    }

    fn release(&mut self, now: Duration, attempt: AttemptUse) {
        self.ended = now;
        self.epoch = self.epoch.next();
        self.give_back(now, attempt);
    }
}

impl Inbox {
    /// The other messages of its idempotency key that have reserved it: the states of their rows.
    fn rivals(&self, arrival: &Arrival) -> impl Iterator<Item = InboxState> {
        let rows = self.rows.values().filter(|row| {
            row.reserves
                && row.arrival.id != arrival.id
                && row.arrival.group == arrival.group
                && row.arrival.idempotency_key == arrival.idempotency_key
        });
        rows.map(|row| row.state)
    }

    /// Whether another message of its idempotency key was processed.
    pub(crate) fn is_done(&self, arrival: &Arrival) -> bool {
        self.rivals(arrival).any(|state| state == InboxState::Processed)
    }

    /// Whether another message of its idempotency key runs or is parked.
    fn is_rivalled(&self, arrival: &Arrival) -> bool {
        self.rivals(arrival).any(|state| state != InboxState::Processed)
    }

    /// Whether an open transaction has marked another message of its idempotency key: nobody can know yet how that
    /// ends.
    fn is_pending(&self, arrival: &Arrival) -> bool {
        self.locks.iter().any(|((group, id), (_, key))| {
            let same = key.is_some() && *key == arrival.idempotency_key;
            same && *group == arrival.group && *id != arrival.id
        })
    }

    /// Whether its idempotency key is with another message.
    pub(crate) fn is_taken(&self, arrival: &Arrival) -> bool {
        self.is_rivalled(arrival) || self.is_pending(arrival)
    }

    /// Whether an unfinished message of its key stands before this place, or stands anywhere.
    fn has_earlier(&self, arrival: &Arrival, place: Option<u64>) -> bool {
        let key = |arrival: &Arrival| (arrival.group.clone(), arrival.topic.clone(), arrival.key.clone());
        let mut others = self.rows.values().filter(|row| {
            let stays = row.stay.as_ref();
            stays.is_some_and(|stay| place.is_none_or(|place| stay.place < place))
                && row.arrival.id != arrival.id
                && key(&row.arrival) == key(arrival)
        });
        arrival.key.is_some() && others.next().is_some()
    }

    /// Whether it waits for nothing: no earlier message of its key, none of its idempotency key.
    pub(crate) fn is_first(&self, arrival: &Arrival, place: Option<u64>) -> bool {
        !self.has_earlier(arrival, place) && !self.is_taken(arrival)
    }

    /// Takes the idempotency keys of what was given back and waits behind another of its key.
    pub(crate) fn free_waiting(&mut self) {
        let waits = |row: &&Row| {
            let place = row.stay.as_ref().map(|stay| stay.place);
            row.state == InboxState::Parked && row.reserves && self.has_earlier(&row.arrival, place)
        };
        for key in self.rows.values().filter(waits).map(Row::key).collect::<Vec<_>>() {
            if let Some(row) = self.rows.get_mut(&key) {
                row.reserves = false;
            }
        }
    }

    fn admit(&mut self, owner: Owner, lease: Duration, arrival: &Arrival, now: Duration) -> Admission {
        let key = (arrival.group.clone(), arrival.id);
        if self.locks.contains_key(&key) {
            return Admission::Busy { lease_left: LOCKED };
        }
        let mut row = match self.rows.get(&key) {
            Some(row) => row.clone(),
            None if self.is_done(arrival) => return Admission::Settled(InboxState::Processed),
            None if self.is_pending(arrival) => return Admission::Busy { lease_left: LOCKED },
            None if !self.is_first(arrival, None) => return Admission::Behind,
            None => Row::new(arrival),
        };
        let lease_left = row.lease_left(now);
        let answer = if row.state != InboxState::Running {
            Admission::Settled(row.state)
        } else if !lease_left.is_zero() {
            Admission::Busy { lease_left }
        } else if row.stay.is_some() {
            row.give_back(now, AttemptUse::Consume);
            Admission::Settled(InboxState::Parked)
        } else {
            row.run(owner, now.saturating_add(lease));
            Admission::Run {
                epoch: row.epoch,
                rounds: row.rounds,
            }
        };
        self.rows.insert(key, row);
        self.free_waiting();
        answer
    }

    // page: refusal
    /// Why a message may not be ended so under this hold. What is dropped waits for nothing.
    fn refusal(&self, arrival: &Arrival, hold: Hold, to: InboxState, now: Duration) -> Option<Marked> {
        let key = (arrival.group.clone(), arrival.id);
        if self.locks.contains_key(&key) {
            return Some(Marked::Busy { lease_left: LOCKED });
        }
        match (self.rows.get(&key), hold) {
            (None, Hold::Running { .. }) => Some(Marked::LeaseLost),
            (None, Hold::Absent) if self.is_done(arrival) => Some(Marked::Already(InboxState::Processed)),
            (None, Hold::Absent) if self.is_pending(arrival) => Some(Marked::Busy { lease_left: LOCKED }),
            (None, Hold::Absent) if to == InboxState::Discarded => None,
            (None, Hold::Absent) => (!self.is_first(arrival, None)).then_some(Marked::Behind),
            (Some(row), _) if row.state.is_terminal() => Some(Marked::Already(row.state)),
            (Some(row), Hold::Running { owner, epoch }) if !row.is_held(owner, epoch) => {
                Some(Marked::LeaseLost)
            }
            (Some(_), Hold::Running { .. }) if to == InboxState::Discarded => None,
            (Some(row), Hold::Running { .. }) => {
                let place = row.stay.as_ref().map(|stay| stay.place);
                self.has_earlier(arrival, place).then_some(Marked::Behind)
            }
            (Some(row), Hold::Absent) if row.state == InboxState::Parked => Some(Marked::Already(row.state)),
            (Some(row), Hold::Absent) => Some(Marked::Busy {
                lease_left: row.lease_left(now),
            }),
        }
    }
    // page: end

    /// Ends a message as processed, dead or discarded.
    pub(crate) fn end(&mut self, arrival: &Arrival, hold: Hold, to: InboxState, now: Duration) -> Marked {
        if let Some(refusal) = self.refusal(arrival, hold, to, now) {
            return refusal;
        }
        self.row(arrival).finish(to, now);
        Marked::Now
    }

    /// The row of this message, which exists from now on.
    pub(crate) fn row(&mut self, arrival: &Arrival) -> &mut Row {
        let key = (arrival.group.clone(), arrival.id);
        self.rows.entry(key).or_insert_with(|| Row::new(arrival))
    }

    fn held(&mut self, group: &GroupName, owner: Owner, claim: &Claim) -> Option<&mut Row> {
        let row = self.rows.get_mut(&(group.clone(), claim.id));
        row.filter(|row| row.is_held(owner, claim.epoch))
    }

    /// The running row that this claim holds, unless an open transaction is about to end it.
    pub(crate) fn loose(&mut self, group: &GroupName, owner: Owner, claim: &Claim) -> Option<&mut Row> {
        let locked = self.locks.contains_key(&(group.clone(), claim.id));
        self.held(group, owner, claim).filter(|_| !locked)
    }
}

impl Row {
    pub(crate) fn finish(&mut self, to: InboxState, now: Duration) {
        self.state = to;
        self.held = None;
        self.stay = None;
        self.reserves = to == InboxState::Processed && self.arrival.idempotency_key.is_some();
        self.ended = now;
    }
}

#[async_trait]
impl InboxStore for ToyStore {
    async fn admit(&self, owner: Owner, lease: Duration, arrivals: &[Arrival]) -> Result<Vec<Admission>> {
        check_some("the lease", !lease.is_zero())?;
        let mut server = self.link.change("admit")?;
        let now = server.now;
        let admit = |arrival| server.inbox.admit(owner, lease, arrival, now);
        Ok(arrivals.iter().map(admit).collect())
    }

    async fn mark(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        let mut server = self.link.change("mark")?;
        let now = server.now;
        let mark = |(arrival, hold): &_| server.inbox.end(arrival, *hold, InboxState::Processed, now);
        Ok(marks.iter().map(mark).collect())
    }

    async fn discard(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        let mut server = self.link.change("discard")?;
        let now = server.now;
        let discard = |(arrival, hold): &_| server.inbox.end(arrival, *hold, InboxState::Discarded, now);
        Ok(marks.iter().map(discard).collect())
    }

    async fn renew(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        lease: Duration,
    ) -> Result<Settled> {
        check_some("the lease", !lease.is_zero())?;
        let mut server = self.link.change("renew")?;
        let until = server.now.saturating_add(lease);
        Ok(settle(claims, |claim| {
            let row = server.inbox.held(group, owner, claim);
            row.map(|row| row.held = Some((owner, until))).is_some()
        }))
    }

    async fn release(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        attempt: AttemptUse,
    ) -> Result<Settled> {
        let mut server = self.link.change("release")?;
        let now = server.now;
        let settled = settle(claims, |claim| {
            let row = server.inbox.loose(group, owner, claim);
            row.map(|row| row.release(now, attempt)).is_some()
        });
        server.inbox.free_waiting();
        Ok(settled)
    }

    async fn release_owner(&self, owner: Owner) -> Result<u64> {
        let mut server = self.link.change("release_owner")?;
        let now = server.now;
        let Inbox { rows, locks } = &mut server.inbox;
        let held = rows.iter_mut().filter(|(key, row)| {
            let ours = row.held.is_some_and(|(by, _)| by == owner);
            ours && !locks.contains_key(*key)
        });
        let released = held.map(|(_, row)| row.release(now, AttemptUse::Return)).count();
        server.inbox.free_waiting();
        Ok(released as u64)
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        let mut server = self.link.change("purge")?;
        let now = server.now;
        let Inbox { rows, locks } = &mut server.inbox;
        let old = rows.iter().filter(|(key, row)| {
            let since = row.purgeable_since();
            since.is_some_and(|since| since.saturating_add(older_than) <= now) && !locks.contains_key(*key)
        });
        let old: Vec<RowKey> = old.take(limit).map(|(key, _)| key.clone()).collect();
        rows.retain(|key, _| !old.contains(key));
        Ok(old.len() as u64)
    }
}
