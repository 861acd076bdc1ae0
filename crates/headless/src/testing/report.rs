//! What became of everything in a trial.

use std::time::Duration;

use headless_abstractions::Result;
use serde::{Deserialize, Serialize};

use super::Tally;
use crate::Runtime;

/// What a member of a trial says at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Figures {
    /// Deliveries that were not the first of their message, as its consumers count them.
    pub redelivered: u64,
    /// Attempts beyond the first, as its consumers count them.
    pub retried: u64,
    /// Dead letters, of whomever.
    pub dead: u64,
}

impl Figures {
    /// What a runtime has counted so far.
    ///
    /// # Errors
    /// What counting the dead letters of the store answers.
    pub async fn of(runtime: &Runtime) -> Result<Self> {
        // The store alone is asked: of the transport's groups other members may be leaving.
        let dead = match runtime.dead_letters() {
            Some(letters) => letters.stats().await?.iter().map(|stats| stats.count).sum(),
            None => 0,
        };
        let stats: Vec<_> = runtime
            .consumers()
            .iter()
            .map(|consumer| consumer.stats())
            .collect();
        Ok(Self {
            redelivered: stats.iter().map(|stats| stats.redelivered).sum(),
            retried: stats.iter().map(|stats| stats.retried).sum(),
            dead,
        })
    }
}

/// The figures of a whole trial. What was published and handled is counted from rows, never from what members say; that what is
/// missing is a dead letter is what they say.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// How many there were to publish.
    pub lines: usize,
    /// See [`Tally::published`].
    pub published: usize,
    /// See [`Tally::handled`].
    pub handled: usize,
    /// See [`Tally::duplicates`].
    pub duplicates: usize,
    /// See [`Figures::redelivered`], of the members that survived.
    pub redelivered: u64,
    /// See [`Figures::retried`], of the members that survived.
    pub retried: u64,
    /// How many dead letters there are.
    pub dead: u64,
    /// See [`Tally::lost`].
    pub lost: i128,
    /// See [`Tally::order_violations`].
    pub order_violations: usize,
    /// How long it took, in seconds.
    pub elapsed_seconds: f64,
    #[serde(skip)]
    doubled: usize,
}

impl Report {
    /// What the rows say, and the members that survived.
    #[must_use]
    pub fn of(lines: usize, tally: Tally, told: &[Figures], elapsed: Duration) -> Self {
        let dead = told.iter().map(|told| told.dead).max().unwrap_or(0);
        Self {
            lines,
            published: tally.published,
            handled: tally.handled,
            duplicates: tally.duplicates,
            redelivered: told.iter().map(|told| told.redelivered).sum(),
            retried: told.iter().map(|told| told.retried).sum(),
            dead,
            lost: tally.lost(dead),
            order_violations: tally.order_violations,
            elapsed_seconds: (elapsed.as_secs_f64() * 1e3).round() / 1e3,
            doubled: tally.doubled,
        }
    }

    /// Whether everything was published, and nothing lost, doubled or overtaken.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.published == self.lines && self.lost == 0 && self.order_violations == 0 && self.doubled == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_be_sound_only_when_all_was_published_and_none_lost_doubled_or_overtaken() {
        let sound = Tally {
            published: 4,
            handled: 2,
            duplicates: 1,
            ..Tally::default()
        };
        let dead = Figures {
            dead: 1,
            ..Figures::default()
        };
        let report = |lines, tally| Report::of(lines, tally, &[dead], Duration::from_millis(1_234));
        assert!(report(4, sound).is_sound());
        assert!(!report(5, sound).is_sound(), "one was not published");
        for broken in [
            Tally { handled: 1, ..sound },
            Tally { doubled: 1, ..sound },
            Tally {
                order_violations: 1,
                ..sound
            },
        ] {
            assert!(!report(4, broken).is_sound(), "{broken:?}");
        }
        assert!((report(4, sound).elapsed_seconds - 1.234).abs() < f64::EPSILON);
    }
}
