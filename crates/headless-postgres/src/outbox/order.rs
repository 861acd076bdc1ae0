//! The order of a claimed batch: higher priorities first, then the oldest, and never one row of a key before an earlier one.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
};

use headless_abstractions::{OutboxRow, Priority};

/// The rows in the order in which they are to be sent; each comes with its place.
pub(super) fn sorted(mut rows: Vec<(i64, OutboxRow)>) -> Vec<OutboxRow> {
    rows.sort_unstable_by_key(|(seq, _)| *seq);
    if rows
        .iter()
        .all(|(_, row)| row.message.priority == Priority::default())
    {
        return rows.into_iter().map(|(_, row)| row).collect();
    }
    by_priority(rows)
}

/// Again and again the first of all that have nothing of their key before them.
fn by_priority(rows: Vec<(i64, OutboxRow)>) -> Vec<OutboxRow> {
    let mut chains: Vec<VecDeque<(i64, OutboxRow)>> = Vec::new();
    let mut of_key = HashMap::new();
    for (seq, row) in rows {
        let message = &row.message;
        let chain = match &message.key {
            Some(key) => *of_key
                .entry((message.topic.clone(), key.clone()))
                .or_insert(chains.len()),
            None => chains.len(),
        };
        if chain == chains.len() {
            chains.push(VecDeque::new());
        }
        chains[chain].push_back((seq, row));
    }
    let head = |chain: usize, rows: &VecDeque<(i64, OutboxRow)>| {
        let (seq, row) = rows.front()?;
        Some((row.message.priority, Reverse(*seq), chain))
    };
    let mut heads: BinaryHeap<_> = chains
        .iter()
        .enumerate()
        .filter_map(|(chain, rows)| head(chain, rows))
        .collect();
    let mut sorted = Vec::new();
    while let Some((_, _, chain)) = heads.pop() {
        sorted.extend(chains[chain].pop_front().map(|(_, row)| row));
        heads.extend(head(chain, &chains[chain]));
    }
    sorted
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::DateTime;
    use headless_abstractions::{Claim, Epoch, Message, MessageId, PartitionKey, TopicName};
    use uuid::Uuid;

    use super::*;

    fn row(n: u128, priority: u8, key: Option<&str>) -> (i64, OutboxRow) {
        let id = MessageId::from_uuid(Uuid::from_u128(n));
        let topic = TopicName::parse("orders").unwrap();
        let mut message = Message::new(id, topic, DateTime::UNIX_EPOCH, Bytes::new());
        message.priority = Priority::new(priority).unwrap();
        message.key = key.map(|key| PartitionKey::parse(key).unwrap());
        let claim = Claim::new(id, Epoch::new(1));
        (i64::try_from(n).unwrap(), OutboxRow::new(claim, message, 0))
    }

    fn numbers(rows: Vec<(i64, OutboxRow)>) -> Vec<u128> {
        sorted(rows)
            .iter()
            .map(|row| row.claim.id.as_uuid().as_u128())
            .collect()
    }

    #[test]
    fn should_put_the_oldest_first_when_no_row_has_a_priority() {
        let rows = vec![row(3, 0, Some("a")), row(1, 0, None), row(2, 0, Some("a"))];
        assert_eq!(numbers(rows), [1, 2, 3]);
    }

    #[test]
    fn should_keep_the_order_of_a_key_when_its_rows_differ_in_priority() {
        let rows = vec![
            row(1, 0, Some("a")),
            row(2, 9, Some("a")),
            row(3, 5, Some("b")),
            row(4, 0, Some("b")),
            row(5, 5, None),
            row(6, 9, None),
        ];
        assert_eq!(numbers(rows), [6, 3, 5, 1, 2, 4]);
    }
}
