//! Arrivals and holds, column by column, to be bound as arrays.

use headless_abstractions::{Arrival, Claim, Epoch, Hold, IdempotencyKey, Owner};
use uuid::Uuid;

use crate::row::key_hash;

/// Many arrivals with what is held of them. A column of nothing but null is null itself, which the server takes for a sign
/// that it may go the short way.
#[derive(Debug, Default)]
pub(crate) struct Arrivals<'a> {
    pub(crate) groups: Vec<&'a str>,
    pub(crate) ids: Vec<Uuid>,
    pub(crate) topics: Vec<&'a str>,
    pub(crate) key_hashes: Option<Vec<Option<i64>>>,
    pub(crate) idempotency_keys: Option<Vec<Option<&'a str>>>,
    pub(crate) owners: Option<Vec<Option<Uuid>>>,
    pub(crate) epochs: Option<Vec<Option<i64>>>,
}

impl<'a> Arrivals<'a> {
    /// These arrivals; nothing is held of them.
    pub(crate) fn of(arrivals: impl IntoIterator<Item = &'a Arrival>) -> Self {
        Self::with_holds(arrivals.into_iter().map(|arrival| (arrival, Hold::Absent)))
    }

    /// These arrivals and holds.
    pub(crate) fn with_holds(marks: impl IntoIterator<Item = (&'a Arrival, Hold)>) -> Self {
        let mut columns = Self::default();
        let (mut hashes, mut keys, mut owners, mut epochs) = (vec![], vec![], vec![], vec![]);
        for (arrival, hold) in marks {
            let topic = arrival.topic.as_str();
            columns.groups.push(arrival.group.as_str());
            columns.ids.push(arrival.id.as_uuid());
            columns.topics.push(topic);
            hashes.push(arrival.key.as_ref().map(|key| key_hash(topic, key.as_str())));
            keys.push(arrival.idempotency_key.as_ref().map(IdempotencyKey::as_str));
            let held = match hold {
                Hold::Absent => None,
                Hold::Running { owner, epoch } => Some((owner_uuid(owner), epoch_number(epoch))),
            };
            owners.push(held.map(|(owner, _)| owner));
            epochs.push(held.map(|(_, epoch)| epoch));
        }
        columns.key_hashes = unless_empty(hashes);
        columns.idempotency_keys = unless_empty(keys);
        columns.owners = unless_empty(owners);
        columns.epochs = unless_empty(epochs);
        columns
    }
}

fn unless_empty<T>(column: Vec<Option<T>>) -> Option<Vec<Option<T>>> {
    column.iter().any(Option::is_some).then_some(column)
}

pub(crate) const fn owner_uuid(owner: Owner) -> Uuid {
    Uuid::from_u128(owner.bits())
}

/// An epoch that the server's number cannot hold was never given: it matches no row.
fn epoch_number(epoch: Epoch) -> i64 {
    i64::try_from(epoch.get()).unwrap_or(-1)
}

/// The ids and epochs of these claims.
pub(crate) fn claimed(claims: &[Claim]) -> (Vec<Uuid>, Vec<i64>) {
    claims
        .iter()
        .map(|claim| (claim.id.as_uuid(), epoch_number(claim.epoch)))
        .unzip()
}
