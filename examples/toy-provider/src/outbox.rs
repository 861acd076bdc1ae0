//! The outbox: rows with a place in their key, claimed from the head.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, Appended, AttemptUse, Claim, ClaimOutbox, ClaimedOutbox, Epoch, Failure, InFlight, Message,
    MessageId, Origin, OutboxRow, OutboxStore, Owner, PartitionKey, Result, Settled, TopicName,
};

use crate::{
    dead_letter::{Death, Lineage},
    server::{Sequence, State},
    store::{ToyStore, check_some, settle},
};

/// A key is one of its topic.
pub(crate) type Key<'a> = (&'a TopicName, &'a PartitionKey);

/// By the number under which each was stored: the order of a list, which never changes.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) rows: BTreeMap<u64, Row>,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) message: Message,
    /// In its key; a delayed row has none until it is due.
    pub(crate) place: Option<u64>,
    pub(crate) due: Duration,
    /// When it was due for the first time.
    pub(crate) since: Duration,
    epoch: Epoch,
    /// By whom, and until when.
    pub(crate) held: Option<(Owner, Duration)>,
    pub(crate) attempts: u32,
    pub(crate) failures: Vec<Failure>,
    lineage: Lineage,
}

impl Row {
    pub(crate) fn new(message: Message, number: u64, now: Duration, lineage: Lineage) -> Self {
        let due = now.saturating_add(message.deliver_after.unwrap_or_default());
        Self {
            place: (due == now).then_some(number),
            message,
            due,
            since: due,
            epoch: Epoch::default(),
            held: None,
            attempts: 0,
            failures: Vec::new(),
            lineage,
        }
    }

    pub(crate) fn key(&self) -> Option<Key<'_>> {
        self.message.key.as_ref().map(|key| (&self.message.topic, key))
    }

    pub(crate) fn is_leased(&self, now: Duration) -> bool {
        self.held.is_some_and(|(_, until)| until > now)
    }

    fn is_free(&self, now: Duration) -> bool {
        self.due <= now && !self.is_leased(now)
    }

    // page: match
    /// Whether this claim still has the row: a lease that has ended is not lost before somebody takes it.
    fn matches(&self, owner: Owner, claim: &Claim) -> bool {
        let held_by = self.held.map(|(owner, _)| owner);
        self.message.id == claim.id && self.epoch == claim.epoch && held_by == Some(owner)
    }
    // page: end

    /// Ready, and its former owner's claim lost.
    fn free(&mut self, attempt: AttemptUse) {
        self.held = None;
        if attempt == AttemptUse::Consume {
            self.attempts += 1;
        }
    }
}

impl Outbox {
    pub(crate) fn has(&self, id: MessageId) -> bool {
        self.rows.values().any(|row| row.message.id == id)
    }

    /// The rows that have a place, in its order.
    pub(crate) fn in_place(&self) -> Vec<(u64, &Row)> {
        let mut placed: Vec<_> = self
            .rows
            .iter()
            .filter(|(_, row)| row.place.is_some())
            .map(|(number, row)| (*number, row))
            .collect();
        placed.sort_by_key(|(_, row)| row.place);
        placed
    }

    /// Gives what has become due a fresh, latest place in its key.
    fn place_due(&mut self, now: Duration, sequence: &mut Sequence) {
        let mut due: Vec<&mut Row> = self
            .rows
            .values_mut()
            .filter(|row| row.place.is_none() && row.due <= now)
            .collect();
        due.sort_by_key(|row| row.due);
        for row in due {
            row.place = Some(sequence.next());
        }
    }

    /// The keys that are with an owner: one that is stored late may come before what is leased.
    pub(crate) fn leased_keys(&self, now: Duration) -> BTreeSet<Key<'_>> {
        let leased = self.rows.values().filter(|row| row.is_leased(now));
        leased.filter_map(Row::key).collect()
    }

    /// What a claim may take, in the order in which it takes them: of a key the head, and what follows without a gap.
    fn claimable(&self, in_flight: InFlight, now: Duration) -> Vec<u64> {
        let mut found = Vec::new();
        let leased = self.leased_keys(now);
        // How urgent the last row of each key was that may go; `None` once the key waits.
        let mut keys = BTreeMap::new();
        for (number, row) in self.in_place() {
            let mut urgency = row.is_free(now).then_some(row.message.priority);
            if let Some(key) = row.key() {
                urgency = urgency.filter(|_| !leased.contains(&key));
                match keys.entry(key) {
                    Entry::Vacant(first) => {
                        first.insert(urgency.filter(|_| in_flight == InFlight::RunPerKey));
                    }
                    Entry::Occupied(mut before) => {
                        // No more urgent than the row before it, so that it never goes first.
                        urgency = urgency.zip(*before.get()).map(|(own, before)| own.min(before));
                        before.insert(urgency);
                    }
                }
            }
            found.extend(urgency.map(|urgency| (Reverse(urgency), row.place, number)));
        }
        found.sort_unstable();
        found.into_iter().map(|(.., number)| number).collect()
    }

    fn claim(&mut self, request: &ClaimOutbox, now: Duration, sequence: &mut Sequence) -> Vec<OutboxRow> {
        self.place_due(now, sequence);
        let mut numbers = self.claimable(request.in_flight, now);
        numbers.truncate(request.limit);
        let mut rows = Vec::new();
        for number in numbers {
            if let Some(row) = self.rows.get_mut(&number) {
                row.epoch = row.epoch.next();
                row.held = Some((request.owner, now.saturating_add(request.lease)));
                row.message.deliver_after = None;
                let claim = Claim::new(row.message.id, row.epoch);
                rows.push(OutboxRow::new(claim, row.message.clone(), row.attempts));
            }
        }
        rows
    }

    /// The row that this claim still has.
    fn find(&mut self, owner: Owner, claim: &Claim) -> Option<(u64, &mut Row)> {
        let mut rows = self.rows.iter_mut();
        rows.find(|(_, row)| row.matches(owner, claim))
            .map(|(number, row)| (*number, row))
    }

    fn take(&mut self, owner: Owner, claim: &Claim) -> Option<Row> {
        let number = self.find(owner, claim)?.0;
        self.rows.remove(&number)
    }

    pub(crate) fn reap(&mut self, now: Duration, limit: usize) -> u64 {
        let lapsed = self
            .rows
            .values_mut()
            .filter(|row| row.held.is_some() && !row.is_leased(now));
        lapsed.take(limit).map(|row| row.free(AttemptUse::Return)).count() as u64
    }
}

#[async_trait]
impl OutboxStore for ToyStore {
    async fn append(&self, messages: &[Message]) -> Result<Vec<Appended>> {
        let mut server = self.link.change("append")?;
        let now = server.now;
        let State { outbox, sequence, .. } = &mut *server;
        let append = |message: &Message| {
            if outbox.has(message.id) {
                return Appended::Duplicate;
            }
            let number = sequence.next();
            let row = Row::new(message.clone(), number, now, Lineage::default());
            outbox.rows.insert(number, row);
            Appended::Stored
        };
        Ok(messages.iter().map(append).collect())
    }

    async fn claim(&self, request: &ClaimOutbox) -> Result<ClaimedOutbox> {
        check_some("the limit", request.limit > 0)?;
        check_some("the lease", !request.lease.is_zero())?;
        let mut server = self.link.change("claim")?;
        let now = server.now;
        let State { outbox, sequence, .. } = &mut *server;
        let acked = settle(&request.ack, |claim| outbox.take(request.owner, claim).is_some());
        Ok(ClaimedOutbox::new(outbox.claim(request, now, sequence), acked))
    }

    // page: ack
    async fn ack(&self, owner: Owner, claims: &[Claim]) -> Result<Settled> {
        let mut server = self.link.change("ack")?;
        Ok(settle(claims, |claim| server.outbox.take(owner, claim).is_some()))
    }
    // page: end

    async fn abandon(&self, owner: Owner, claims: &[Claim], how: &Abandon) -> Result<Settled> {
        let mut server = self.link.change("abandon")?;
        let due = server.now.saturating_add(how.after);
        Ok(settle(claims, |claim| {
            let found = server.outbox.find(owner, claim);
            found.is_some_and(|(_, row)| {
                row.free(how.attempt);
                row.due = due;
                Failure::append(&mut row.failures, how.failure.clone());
                true
            })
        }))
    }

    async fn fail(&self, owner: Owner, claims: &[Claim], failure: &Failure) -> Result<Settled> {
        let mut server = self.link.change("fail")?;
        let buried_at = server.clock.wall(server.now);
        let State {
            outbox,
            letters,
            sequence,
            ..
        } = &mut *server;
        Ok(settle(claims, |claim| {
            let Some(mut row) = outbox.take(owner, claim) else {
                return false;
            };
            Failure::append(&mut row.failures, [failure.clone()]);
            letters.write(Death {
                number: sequence.next(),
                origin: Origin::Relay,
                message: row.message,
                failures: row.failures,
                rounds: row.attempts + 1,
                lineage: row.lineage,
                buried_at,
            });
            true
        }))
    }

    async fn renew(&self, owner: Owner, claims: &[Claim], lease: Duration) -> Result<Settled> {
        check_some("the lease", !lease.is_zero())?;
        let mut server = self.link.change("renew")?;
        let until = server.now.saturating_add(lease);
        Ok(settle(claims, |claim| {
            let found = server.outbox.find(owner, claim);
            found.is_some_and(|(_, row)| row.held.replace((owner, until)).is_some())
        }))
    }

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        let mut server = self.link.change("reap")?;
        let now = server.now;
        Ok(server.outbox.reap(now, limit))
    }

    async fn release_owner(&self, owner: Owner) -> Result<u64> {
        let mut server = self.link.change("release_owner")?;
        let rows = server.outbox.rows.values_mut();
        let held = rows.filter(|row| row.held.is_some_and(|(by, _)| by == owner));
        Ok(held.map(|row| row.free(AttemptUse::Return)).count() as u64)
    }

    async fn purge(&self, _older_than: Duration, _limit: usize) -> Result<u64> {
        // A settled row is gone: there is no history.
        self.link.look("purge").map(|_| 0)
    }
}
