//! What became of everything.

use std::time::Duration;

use headless::testing::Tally;
use serde::{Deserialize, Serialize};

/// What a member tells at its end.
#[derive(Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(super) redelivered: u64,
    pub(super) retried: u64,
    /// Dead letters, of whomever.
    pub(super) dead: u64,
}

/// The figures of all, counted from stored rows.
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
    /// Whether nothing was lost, doubled or overtaken.
    #[serde(skip)]
    pub(crate) is_sound: bool,
}

impl Report {
    /// What the rows say, and the members that survived.
    pub(super) fn of(lines: usize, tally: Tally, told: &[Figures], elapsed: Duration) -> Self {
        let dead = told.iter().map(|told| told.dead).max().unwrap_or(0);
        let lost = tally.lost(dead);
        Self {
            lines,
            published: tally.published,
            handled: tally.handled,
            duplicates: tally.duplicates,
            redelivered: told.iter().map(|told| told.redelivered).sum(),
            retried: told.iter().map(|told| told.retried).sum(),
            dead,
            lost,
            order_violations: tally.order_violations,
            elapsed_seconds: (elapsed.as_secs_f64() * 1e3).round() / 1e3,
            is_sound: lost == 0 && tally.order_violations == 0 && tally.doubled == 0,
        }
    }
}
