//! What the mutants of one namespace remember of the calls that passed through them, as a buggy server would.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{
    Arrival, Buried, Claim, ControlVersion, Epoch, GroupName, IdempotencyKey, Incarnation, Message,
    MessageId, Owner, PartitionKey, Settled,
};

use crate::wait::Stopwatch;

/// Shared by the mutants of one namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<Mutex<Seen>>);

impl Shared {
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Who was last given a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) owner: Owner,
    pub(super) epoch: Epoch,
    since: Stopwatch,
    lease: Duration,
}

impl Held {
    pub(super) fn has_ended(&self) -> bool {
        self.since.elapsed() >= self.lease
    }
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    handles: u128,
    /// The incarnations of each owner, in the order of its registrations.
    pub(super) incarnations: BTreeMap<Owner, Vec<Incarnation>>,
    /// The incarnations that have beaten.
    pub(super) beaten: BTreeSet<Incarnation>,
    /// The deaths that were told.
    pub(super) deaths: Vec<Buried>,
    /// The versions at which something was taken back.
    pub(super) removed: BTreeSet<ControlVersion>,
    /// How many changes met others.
    pub(super) conflicts: u64,
    /// Rows of the outbox that were handed out.
    pub(super) outbox: BTreeMap<MessageId, Held>,
    /// How many renewals of the outbox are under way, by owner.
    pub(super) renewing: BTreeMap<Owner, usize>,
    /// Rows of the inbox that were handed out, by an admission or from the park.
    pub(super) inbox: BTreeMap<(GroupName, MessageId), Held>,
    /// Those of them that came from the park.
    pub(super) from_park: BTreeSet<(GroupName, MessageId)>,
    /// The keys that were taken off messages of the outbox.
    pub(super) keys: BTreeMap<MessageId, PartitionKey>,
    /// When each message was appended, counted.
    pub(super) appended: BTreeMap<MessageId, usize>,
    /// Messages that were given back, and lost their place by it.
    pub(super) given_back: BTreeSet<MessageId>,
    /// Messages that were redriven, with the rounds that they had had.
    pub(super) redriven: BTreeMap<MessageId, u32>,
    /// Operations that are taken, though they should be free: by this message.
    pub(super) operations: BTreeMap<(GroupName, IdempotencyKey), MessageId>,
    /// The first group of all.
    pub(super) first_group: Option<GroupName>,
    /// Ids for copies that should not be.
    copies: u128,
}

impl Seen {
    pub(super) fn next_handle(&mut self) -> u128 {
        self.handles += 1;
        self.handles
    }

    pub(super) fn copy_of(&mut self, message: &Message) -> Message {
        self.copies += 1;
        let mut copy = message.clone();
        let bits = message.id.as_uuid().as_u128() ^ (self.copies << 96);
        copy.id = MessageId::from_uuid(uuid::Uuid::from_u128(bits));
        copy
    }

    pub(super) fn note_append(&mut self, messages: &[Message]) {
        for message in messages {
            let next = self.appended.len();
            self.appended.entry(message.id).or_insert(next);
        }
    }

    pub(super) fn hold_outbox(&mut self, owner: Owner, claim: Claim, lease: Duration) {
        self.outbox.insert(claim.id, held(owner, claim.epoch, lease));
    }

    pub(super) fn hold_inbox(&mut self, owner: Owner, group: &GroupName, claim: Claim, lease: Duration) {
        self.inbox
            .insert((group.clone(), claim.id), held(owner, claim.epoch, lease));
    }

    /// Whether another message has the operation that `arrival` asks for.
    pub(super) fn is_taken(&self, arrival: &Arrival) -> bool {
        arrival.idempotency_key.as_ref().is_some_and(|key| {
            self.operations
                .get(&(arrival.group.clone(), key.clone()))
                .is_some_and(|holder| *holder != arrival.id)
        })
    }

    pub(super) fn take(&mut self, arrival: &Arrival) {
        if let Some(key) = &arrival.idempotency_key {
            self.operations
                .insert((arrival.group.clone(), key.clone()), arrival.id);
        }
    }
}

fn held(owner: Owner, epoch: Epoch, lease: Duration) -> Held {
    Held {
        owner,
        epoch,
        since: Stopwatch::start(),
        lease,
    }
}

/// The claims that were named, of those under other epochs that were lost.
pub(super) fn named_again(named: &[Claim], settled: &Settled) -> Settled {
    let lost: BTreeSet<_> = settled.lost.iter().map(|claim| claim.id).collect();
    Settled::without(
        named
            .iter()
            .filter(|claim| lost.contains(&claim.id))
            .copied()
            .collect(),
    )
}

/// Sorts rows of the same key among their own places, by `rank`; others stay where they are.
pub(super) fn reorder_keys<T, R: Ord>(
    rows: &mut Vec<T>,
    key: impl Fn(&T) -> Option<PartitionKey>,
    rank: impl Fn(&T) -> R,
) {
    let mut slots = BTreeMap::<PartitionKey, Vec<usize>>::new();
    for (place, row) in rows.iter().enumerate() {
        if let Some(key) = key(row) {
            slots.entry(key).or_default().push(place);
        }
    }
    let mut source: Vec<_> = (0..rows.len()).collect();
    for places in slots.into_values() {
        let mut sorted = places.clone();
        sorted.sort_by_key(|place| rank(&rows[*place]));
        for (place, from) in places.into_iter().zip(sorted) {
            source[place] = from;
        }
    }
    let mut taken: Vec<_> = rows.drain(..).map(Some).collect();
    rows.extend(source.into_iter().filter_map(|from| taken[from].take()));
}
