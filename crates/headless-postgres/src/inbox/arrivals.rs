//! Arrivals and holds, column by column, to be bound as arrays.

use std::fmt::Display;

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

    /// This statement with each column put in where its name stands, as the hexadecimal digits of an array's literal: what
    /// may stand in any text, so that nothing of a message becomes a part of the statement.
    pub(crate) fn put_into(&self, statement: &str) -> String {
        fn all<T>(column: &[T]) -> impl Iterator<Item = Option<&T>> {
            column.iter().map(Some)
        }
        fn some<T>(column: Option<&Vec<Option<T>>>) -> Option<impl Iterator<Item = Option<&T>>> {
            column.map(|column| column.iter().map(Option::as_ref))
        }
        [
            ("{groups}", Some(hex(all(&self.groups)))),
            ("{ids}", Some(hex(all(&self.ids)))),
            ("{topics}", Some(hex(all(&self.topics)))),
            ("{key_hashes}", some(self.key_hashes.as_ref()).map(hex)),
            (
                "{idempotency_keys}",
                some(self.idempotency_keys.as_ref()).map(hex),
            ),
            ("{owners}", some(self.owners.as_ref()).map(hex)),
            ("{epochs}", some(self.epochs.as_ref()).map(hex)),
        ]
        .into_iter()
        .fold(statement.to_owned(), |statement, (name, digits)| {
            statement.replace(name, &digits.unwrap_or_default())
        })
    }
}

/// The literal of an array (PostgreSQL manual, 8.15.2) in hexadecimal digits.
fn hex<T: Display>(items: impl Iterator<Item = Option<T>>) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut literal = "{".to_owned();
    for (n, item) in items.enumerate() {
        if n > 0 {
            literal.push(',');
        }
        match item {
            Some(item) => {
                literal.push('"');
                for character in item.to_string().chars() {
                    if matches!(character, '"' | '\\') {
                        literal.push('\\');
                    }
                    literal.push(character);
                }
                literal.push('"');
            }
            None => literal.push_str("null"),
        }
    }
    literal.push('}');
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    literal
        .bytes()
        .flat_map(|byte| [digit(byte >> 4), digit(byte)])
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_write_the_literal_of_an_array_when_texts_are_odd() {
        let literal = |items: &[Option<&str>]| {
            let digits = hex(items.iter().copied());
            let bytes: Vec<u8> = (0..digits.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
                .collect();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(literal(&[]), "{}");
        assert_eq!(literal(&[None, Some("")]), r#"{null,""}"#);
        assert_eq!(literal(&[Some(r#"a"b\c,{d}'東"#)]), r#"{"a\"b\\c,{d}'東"}"#);
    }
}
