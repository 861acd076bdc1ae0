//! The dead letters.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use headless_abstractions::{Change, DeadId, DeadLetter, DeadLetterChange, Message, Origin, StoreId};
use uuid::Uuid;

/// Dead letters by number, which is the order in which they died.
#[derive(Default)]
pub(super) struct DeadLetterTable {
    letters: BTreeMap<u64, Record>,
    last: u64,
}

/// A dead letter, when it died by the clock that ages are measured with, and what was done to it.
pub(super) struct Record {
    pub(super) letter: DeadLetter,
    pub(super) died: Duration,
    pub(super) history: Vec<DeadLetterChange>,
}

impl Record {
    /// Sends it on its way again, with this payload where that is another.
    pub(super) fn close_redriven(&mut self, by: &str, at: DateTime<Utc>, with: Option<Bytes>) {
        self.letter.redriven = Some((by.to_owned(), at));
        self.note(by, at, Change::Redriven { with });
    }

    pub(super) fn close_discarded(&mut self, by: &str, at: DateTime<Utc>) {
        self.letter.discarded = Some((by.to_owned(), at));
        self.note(by, at, Change::Discarded);
    }

    pub(super) fn edit(&mut self, payload: Bytes, by: &str, at: DateTime<Utc>) {
        let before = std::mem::replace(&mut self.letter.message.payload, payload);
        self.letter.edits += 1;
        self.note(by, at, Change::Edited { before });
    }

    fn note(&mut self, by: &str, at: DateTime<Utc>, what: Change) {
        self.history.push(DeadLetterChange::new(at, by, what));
    }
}

impl DeadLetterTable {
    /// Adds a dead letter; `died` is that moment by the monotonic and by the wall clock.
    pub(super) fn add(
        &mut self,
        store: StoreId,
        origin: Origin,
        message: Message,
        died: (Duration, DateTime<Utc>),
    ) -> &mut DeadLetter {
        self.last += 1;
        let letter = DeadLetter::new(id_of(store, self.last), origin, message, died.1);
        &mut self
            .letters
            .entry(self.last)
            .or_insert(Record {
                letter,
                died: died.0,
                history: Vec::new(),
            })
            .letter
    }

    pub(super) fn get(&self, store: StoreId, id: DeadId) -> Option<&Record> {
        self.letters.get(&number_of(store, id)?)
    }

    pub(super) fn get_mut(&mut self, store: StoreId, id: DeadId) -> Option<&mut Record> {
        self.letters.get_mut(&number_of(store, id)?)
    }

    /// Dead letters after this number, the oldest first.
    pub(super) fn after(&self, number: Option<u64>) -> impl Iterator<Item = (u64, &Record)> {
        let from = number.map_or(Bound::Unbounded, Bound::Excluded);
        self.letters
            .range((from, Bound::Unbounded))
            .map(|(number, record)| (*number, record))
    }

    /// Removes the oldest one if it has at least this age.
    pub(super) fn remove_oldest(&mut self, older_than: Duration, now: Duration) -> Option<DeadLetter> {
        let oldest = self.letters.first_entry()?;
        (oldest.get().died.saturating_add(older_than) <= now).then(|| oldest.remove().letter)
    }
}

/// An id that a replay of the same calls gives again, as far as the store's own id is the same.
fn id_of(store: StoreId, number: u64) -> DeadId {
    DeadId::from_uuid(Uuid::from_u128(store.bits() ^ u128::from(number)))
}

fn number_of(store: StoreId, id: DeadId) -> Option<u64> {
    u64::try_from(id.as_uuid().as_u128() ^ store.bits()).ok()
}
