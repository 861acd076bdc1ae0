//! What became of every message, counted from the rows that were written with it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A row that an application wrote with a message: in the unit of work that published it, or in the one that handled it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "applications write them")]
pub struct Written {
    /// Where the message stands in what was published; among the messages of a key it rises as they were published.
    /// Compared as text: fill numbers up with zeros.
    pub line: String,
    /// Its partition key.
    pub key: Option<String>,
    /// Its idempotency key.
    pub idempotency_key: Option<String>,
    /// Its id.
    pub message: String,
}

/// What became of every message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tally {
    /// Rows of published messages.
    pub published: usize,
    /// Rows of handled ones.
    pub handled: usize,
    /// Messages that were published and not handled, since another of their idempotency key was.
    pub duplicates: usize,
    /// Rows of handled messages beyond the first of an idempotency key, or of a message without one.
    pub doubled: usize,
    /// Rows of handled messages that stand before one of their key that was published earlier.
    pub order_violations: usize,
}

impl Tally {
    /// Of the rows of published messages, and of those of handled ones in the order in which they were written.
    #[must_use]
    pub fn of(published: &[Written], handled: &[Written]) -> Self {
        let messages: BTreeSet<_> = handled.iter().map(|row| &row.message).collect();
        let keys: BTreeSet<_> = handled
            .iter()
            .filter_map(|row| row.idempotency_key.as_ref())
            .collect();
        let is_duplicate = |row: &&Written| {
            !messages.contains(&row.message)
                && row.idempotency_key.as_ref().is_some_and(|key| keys.contains(key))
        };
        let effects: BTreeSet<_> = handled
            .iter()
            .map(|row| row.idempotency_key.as_ref().ok_or(&row.message))
            .collect();
        Self {
            published: published.len(),
            handled: handled.len(),
            duplicates: published.iter().filter(is_duplicate).count(),
            doubled: handled.len() - effects.len(),
            order_violations: overtaking(handled),
        }
    }

    /// How many are nowhere, `dead` of them being dead letters. Below zero when something was handled twice.
    #[must_use]
    pub const fn lost(&self, dead: u64) -> i128 {
        self.published as i128 - (self.handled + self.duplicates) as i128 - dead as i128
    }
}

/// How many rows came before one of their key that was published earlier.
fn overtaking(handled: &[Written]) -> usize {
    let (mut earliest_after, mut count) = (BTreeMap::new(), 0);
    for row in handled.iter().rev() {
        let earliest = earliest_after.entry(&row.key).or_insert(&row.line);
        count += usize::from(*earliest < &row.line);
        *earliest = (&row.line).min(earliest);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: &str, key: &str, idempotency_key: &str) -> Written {
        Written {
            line: line.to_owned(),
            key: Some(key.to_owned()),
            idempotency_key: Some(idempotency_key.to_owned()),
            message: format!("message-{line}"),
        }
    }

    #[test]
    fn should_count_the_rows_that_overtook_when_the_order_is_broken() {
        let count = |lines: &[(&str, &str)]| {
            let rows: Vec<_> = lines.iter().map(|(line, key)| row(line, key, line)).collect();
            Tally::of(&rows, &rows).order_violations
        };
        assert_eq!(count(&[("1", "a"), ("3", "b"), ("2", "a"), ("4", "b")]), 0);
        assert_eq!(count(&[("2", "a"), ("3", "a"), ("1", "a"), ("4", "a")]), 2);
    }

    #[test]
    fn should_tell_duplicates_lost_and_doubled_apart_when_all_are_there() {
        let published = [
            row("1", "a", "x"),
            row("2", "a", "x"),
            row("3", "a", "y"),
            row("4", "a", "z"),
        ];
        let handled = [row("1", "a", "x"), row("3", "a", "y"), row("3", "a", "y")];
        let tally = Tally::of(&published, &handled);
        let wanted = Tally {
            published: 4,
            handled: 3,
            duplicates: 1,
            doubled: 1,
            order_violations: 0,
        };
        assert_eq!(tally, wanted);
        // One is lost and one was doubled: the difference alone would hide both.
        assert_eq!(tally.lost(0), 0);
        assert_eq!(Tally::of(&published, &handled[..2]).lost(0), 1);
        assert_eq!(Tally::of(&published, &handled[..2]).lost(1), 0);
    }

    #[test]
    fn should_see_the_second_row_when_a_message_has_no_idempotency_key() {
        let bare = |line: &str| Written {
            idempotency_key: None,
            ..row(line, "a", "")
        };
        let published = [bare("1"), bare("2")];
        assert_eq!(Tally::of(&published, &published).doubled, 0);
        let tally = Tally::of(&published, &[bare("1"), bare("1")]);
        assert_eq!((tally.doubled, tally.duplicates), (1, 0));
    }
}
