//! Arrivals and holds, column by column, to be bound as arrays.

use std::fmt::Display;

use headless_abstractions::{Arrival, Claim, Epoch, Hold, IdempotencyKey, Owner};
use uuid::Uuid;

use super::answer::Target;
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

    /// Whether this is a single arrival without a hold and without an idempotency key.
    pub(crate) fn is_one_alone(&self) -> bool {
        self.ids.len() == 1 && self.owners.is_none() && self.idempotency_keys.is_none()
    }

    /// This statement to mark as processed, with the literals of the columns and of the wait put in.
    pub(crate) fn put_into(&self, statement: &str, wait: i32) -> String {
        fn all<T: Display>(column: &[T]) -> String {
            array(column.iter().map(Some))
        }
        fn some<T: Display>(column: Option<&Vec<Option<T>>>) -> String {
            column.map_or_else(
                || NULL.to_owned(),
                |column| array(column.iter().map(Option::as_ref)),
            )
        }
        let arguments = [
            all(&self.groups),
            all(&self.ids),
            all(&self.topics),
            some(self.key_hashes.as_ref()),
            some(self.idempotency_keys.as_ref()),
            some(self.owners.as_ref()),
            some(self.epochs.as_ref()),
            literal(Target::Processed as i16),
            literal(wait),
        ];
        put(&arguments, statement)
    }

    /// As [`put_into`](Self::put_into), of the first arrival alone.
    pub(crate) fn put_first_into(&self, statement: &str, wait: i32) -> String {
        fn first<T: Display>(column: &[T]) -> String {
            column.first().map_or_else(|| NULL.to_owned(), literal)
        }
        let hash = self.key_hashes.iter().flatten().next().copied().flatten();
        let arguments = [
            first(&self.groups),
            first(&self.ids),
            first(&self.topics),
            hash.map_or_else(|| NULL.to_owned(), literal),
            literal(wait),
        ];
        put(&arguments, statement)
    }
}

/// What stands for the arguments in a statement that takes no parameters.
const ARGUMENTS: &str = "'{arguments}'";

const NULL: &str = "null";

/// The statement with these arguments, put in at once: what one of them contains is never looked at again.
fn put(arguments: &[String], statement: &str) -> String {
    statement.replacen(ARGUMENTS, &arguments.join(", "), 1)
}

/// The literal of a value, whatever it contains (PostgreSQL manual, 4.1.2.2: strings with C-style escapes, which mean the same
/// under every setting of the server).
fn literal(value: impl Display) -> String {
    let mut literal = "e'".to_owned();
    for character in value.to_string().chars() {
        if matches!(character, '\'' | '\\') {
            literal.push('\\');
        }
        literal.push(character);
    }
    literal.push('\'');
    literal
}

/// The literal of an array (PostgreSQL manual, 8.15.2).
fn array<T: Display>(items: impl Iterator<Item = Option<T>>) -> String {
    let mut text = "{".to_owned();
    for (n, item) in items.enumerate() {
        if n > 0 {
            text.push(',');
        }
        match item {
            Some(item) => {
                text.push('"');
                for character in item.to_string().chars() {
                    if matches!(character, '"' | '\\') {
                        text.push('\\');
                    }
                    text.push(character);
                }
                text.push('"');
            }
            None => text.push_str(NULL),
        }
    }
    text.push('}');
    literal(text)
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
        let literal = |items: &[Option<&str>]| array(items.iter().copied());
        assert_eq!(literal(&[]), "e'{}'");
        assert_eq!(literal(&[None, Some("")]), r#"e'{null,""}'"#);
        assert_eq!(
            literal(&[Some(r#"a"b\c,{d}'東"#)]),
            r#"e'{"a\\"b\\\\c,{d}\'東"}'"#
        );
    }

    #[test]
    fn should_put_arguments_in_once_when_one_looks_like_their_place() {
        let arguments = [literal("'{arguments}'"), literal(7)];
        let statement = put(&arguments, "select f('{arguments}')");
        assert_eq!(statement, r"select f(e'\'{arguments}\'', e'7')");
    }
}
