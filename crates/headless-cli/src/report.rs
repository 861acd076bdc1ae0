//! What became of all messages of a demo, counted from stored rows.

use std::collections::{BTreeMap, BTreeSet};

use headless::ConsumerStats;
use serde::{Deserialize, Serialize};

/// What a process of the demo tells at its end.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Deliveries to it that may have been made before.
    pub(crate) redelivered: u64,
    /// Attempts of its handler after the first.
    pub(crate) retried: u64,
    /// Dead letters in the store.
    pub(crate) dead: u64,
}

impl Told {
    /// By the consumer whose counters these are.
    pub(crate) const fn of(stats: ConsumerStats, dead: u64) -> Self {
        Self {
            redelivered: stats.redelivered,
            retried: stats.retried,
            dead,
        }
    }
}

/// A row of the tables `published` and `handled`.
#[derive(Deserialize)]
struct Row {
    line: String,
    key: String,
    idempotency_key: String,
    message: String,
}

/// The figures.
#[derive(Serialize)]
pub(crate) struct Report {
    lines: usize,
    published: usize,
    handled: usize,
    duplicates: usize,
    redelivered: u64,
    retried: u64,
    dead: u64,
    /// Below zero when something was handled twice.
    lost: i128,
    order_violations: usize,
    elapsed_seconds: f64,
    /// Handler rows beyond the first of an idempotency key, which `lost` alone could hide.
    #[serde(skip)]
    doubled: usize,
}

impl Report {
    /// Of the rows of published messages, and of those of handled ones in the order in which they were written; `told`
    /// by the processes that survived.
    pub(crate) fn of(
        lines: usize,
        published: &[String],
        handled: &[String],
        told: &[Told],
        elapsed_seconds: f64,
    ) -> serde_json::Result<Self> {
        let (published, handled) = (rows(published)?, rows(handled)?);
        let ids: BTreeSet<_> = handled.iter().map(|row| &row.message).collect();
        let keys: BTreeSet<_> = handled.iter().map(|row| &row.idempotency_key).collect();
        let dead = told.iter().map(|told| told.dead).max().unwrap_or(0);
        let is_duplicate = |row: &&Row| !ids.contains(&row.message) && keys.contains(&row.idempotency_key);
        let duplicates = published.iter().filter(is_duplicate).count();
        Ok(Self {
            lines,
            published: published.len(),
            handled: handled.len(),
            duplicates,
            redelivered: told.iter().map(|told| told.redelivered).sum(),
            retried: told.iter().map(|told| told.retried).sum(),
            dead,
            lost: published.len() as i128 - (handled.len() + duplicates) as i128 - i128::from(dead),
            order_violations: overtaking(&handled),
            elapsed_seconds: (elapsed_seconds * 1e3).round() / 1e3,
            doubled: handled.len() - keys.len(),
        })
    }

    /// Whether nothing was lost, doubled or overtaken.
    pub(crate) const fn is_sound(&self) -> bool {
        self.lost == 0 && self.order_violations == 0 && self.doubled == 0
    }
}

fn rows(rows: &[String]) -> serde_json::Result<Vec<Row>> {
    rows.iter().map(|row| serde_json::from_str(row)).collect()
}

/// How many rows came before one of their key that was published earlier.
fn overtaking(handled: &[Row]) -> usize {
    let (mut earliest_after, mut count) = (BTreeMap::<&str, &str>::new(), 0);
    for row in handled.iter().rev() {
        let earliest = earliest_after.entry(&row.key).or_insert(&row.line);
        count += usize::from(*earliest < &*row.line);
        *earliest = (*earliest).min(&row.line);
    }
    count
}

#[cfg(test)]
mod tests;
