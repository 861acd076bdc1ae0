//! What became of all messages of a demo, counted from stored rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;

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
    /// by the members that survived.
    pub(super) fn of(
        lines: usize,
        [published, handled]: [&[Value]; 2],
        told: &[Value],
        elapsed: Duration,
    ) -> Self {
        let all = |name| handled.iter().map(|row| text(row, name)).collect::<BTreeSet<_>>();
        let (messages, ids) = (all("message"), all("idempotency_key"));
        let is_duplicate = |row: &&Value| {
            !messages.contains(text(row, "message")) && ids.contains(text(row, "idempotency_key"))
        };
        let duplicates = published.iter().filter(is_duplicate).count();
        let figures = |name| told.iter().filter_map(move |told| told[name].as_u64());
        let dead = figures("dead").max().unwrap_or(0);
        Self {
            lines,
            published: published.len(),
            handled: handled.len(),
            duplicates,
            redelivered: figures("redelivered").sum(),
            retried: figures("retried").sum(),
            dead,
            lost: published.len() as i128 - (handled.len() + duplicates) as i128 - i128::from(dead),
            order_violations: overtaking(handled),
            elapsed_seconds: (elapsed.as_secs_f64() * 1e3).round() / 1e3,
            doubled: handled.len() - ids.len(),
        }
    }

    /// Whether nothing was lost, doubled or overtaken.
    pub(crate) const fn is_sound(&self) -> bool {
        self.lost == 0 && self.order_violations == 0 && self.doubled == 0
    }
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

/// How many rows came before one of their key that was published earlier.
fn overtaking(handled: &[Value]) -> usize {
    let (mut earliest_after, mut count) = (BTreeMap::new(), 0);
    for row in handled.iter().rev() {
        let line = text(row, "line");
        let earliest = earliest_after.entry(text(row, "key")).or_insert(line);
        count += usize::from(*earliest < line);
        *earliest = line.min(earliest);
    }
    count
}

#[cfg(test)]
mod tests;
