//! The row locks of open transactions.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use headless_abstractions::{Arrival, GroupName, IdempotencyKey, MessageId};

use crate::link::Link;

/// An open transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TxId(pub(super) u64);

/// What a transaction can hold until it ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LockKey {
    /// A row of the inbox, there or not.
    Inbox(GroupName, MessageId),
    /// An idempotency key of a group.
    Reservation(GroupName, IdempotencyKey),
    /// The id of a message of the outbox.
    Outbox(MessageId),
    /// A row of a user's table.
    Row(String, String),
}

impl LockKey {
    /// What marking this message holds.
    pub(super) fn of(arrival: &Arrival) -> impl Iterator<Item = Self> + use<> {
        let group = arrival.group.clone();
        let reservation = arrival
            .idempotency_key
            .clone()
            .map(|key| Self::Reservation(group.clone(), key));
        [Self::Inbox(group, arrival.id)].into_iter().chain(reservation)
    }
}

/// Open transactions and what each of them holds.
#[derive(Default)]
pub(super) struct Locks {
    held: BTreeMap<LockKey, TxId>,
    open: BTreeMap<TxId, Open>,
}

/// An open transaction's account.
pub(super) struct Open {
    link: Arc<Link>,
    pub(super) keys: Vec<LockKey>,
    /// Rows of the outbox that it has staged and that count against the capacity already.
    pub(super) reserved: usize,
}

impl Locks {
    pub(super) fn begin(&mut self, tx: TxId, link: Arc<Link>) {
        self.open.insert(
            tx,
            Open {
                link,
                keys: Vec::new(),
                reserved: 0,
            },
        );
    }

    pub(super) fn is_open(&self, tx: TxId) -> bool {
        self.open.contains_key(&tx)
    }

    pub(super) fn begun_through(&self, link: &Arc<Link>) -> Vec<TxId> {
        self.open
            .iter()
            .filter(|(_, open)| Arc::ptr_eq(&open.link, link))
            .map(|(tx, _)| *tx)
            .collect()
    }

    pub(super) fn holder(&self, key: &LockKey) -> Option<TxId> {
        self.held.get(key).copied()
    }

    /// Whether a transaction other than this holds it.
    pub(super) fn is_held_from(&self, tx: TxId, key: &LockKey) -> bool {
        self.holder(key).is_some_and(|holder| holder != tx)
    }

    /// Takes what is free; what the transaction holds already stays held.
    pub(super) fn take(&mut self, tx: TxId, keys: impl IntoIterator<Item = LockKey>) {
        let Some(open) = self.open.get_mut(&tx) else {
            return;
        };
        for key in keys {
            if let Entry::Vacant(free) = self.held.entry(key) {
                open.keys.push(free.key().clone());
                free.insert(tx);
            }
        }
    }

    pub(super) fn reserve(&mut self, tx: TxId, rows: usize) {
        if let Some(open) = self.open.get_mut(&tx) {
            open.reserved += rows;
        }
    }

    pub(super) fn end(&mut self, tx: TxId) -> Option<Open> {
        let ended = self.open.remove(&tx)?;
        for key in &ended.keys {
            self.held.remove(key);
        }
        Some(ended)
    }
}
