//! How often work is tried, and when.

use std::time::Duration;

use headless_abstractions::Random;

use crate::Backoff;

/// How often a message is tried, and when: inline attempts within a round, then rounds.
///
/// A *round* is what the store counts: one admission, or one claim from the park. Inline attempts repeat the handler
/// within it, after short waits. When they are used up the message is parked until its next round; after the last
/// round it is dead-lettered.
///
/// ```
/// use std::time::Duration;
/// use headless_core::Retry;
///
/// let retry = Retry::exponential(Duration::from_secs(1), Duration::from_mins(10)).inline(1).rounds(5);
/// assert_eq!(retry.max_calls(), 10);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    inline: u32,
    inline_backoff: Backoff,
    rounds: u32,
    backoff: Backoff,
}

impl Retry {
    /// Two more inline attempts, ten rounds, and between rounds exponential backoff with full jitter from `base` up
    /// to `cap`.
    #[must_use]
    pub const fn exponential(base: Duration, cap: Duration) -> Self {
        Self {
            inline: 2,
            inline_backoff: Backoff::exponential(Duration::from_millis(50), Duration::from_secs(2)),
            rounds: 10,
            backoff: Backoff::exponential(base, cap),
        }
    }

    /// One call: the first failure is final.
    #[must_use]
    pub const fn never() -> Self {
        Self::exponential(Duration::ZERO, Duration::ZERO)
            .inline(0)
            .rounds(1)
    }

    /// With this many more attempts within a round.
    #[must_use]
    pub const fn inline(mut self, more: u32) -> Self {
        self.inline = more;
        self
    }

    /// With this backoff between the attempts of a round.
    #[must_use]
    pub const fn inline_backoff(mut self, backoff: Backoff) -> Self {
        self.inline_backoff = backoff;
        self
    }

    /// With this many rounds; 0 counts as 1.
    #[must_use]
    pub const fn rounds(mut self, most: u32) -> Self {
        self.rounds = if most == 0 { 1 } else { most };
        self
    }

    /// How many more attempts within a round.
    #[must_use]
    pub const fn inline_attempts(&self) -> u32 {
        self.inline
    }

    /// How many rounds.
    #[must_use]
    pub const fn max_rounds(&self) -> u32 {
        self.rounds
    }

    /// How often the handler is called for one message at most, if no process dies.
    #[must_use]
    pub const fn max_calls(&self) -> u32 {
        self.rounds.saturating_mul(self.inline.saturating_add(1))
    }

    /// How long to wait before inline attempt `n`, counted from 0.
    #[must_use]
    pub fn inline_delay(&self, n: u32, random: &dyn Random) -> Duration {
        self.inline_backoff.delay(n, random)
    }

    /// How long to park a message that has had `rounds` rounds.
    #[must_use]
    pub fn round_delay(&self, rounds: u32, random: &dyn Random) -> Duration {
        self.backoff.delay(rounds.saturating_sub(1), random)
    }
}

impl Default for Retry {
    /// Two more inline attempts, ten rounds, parked from up to a second to up to ten minutes.
    fn default() -> Self {
        Self::exponential(Duration::from_secs(1), Duration::from_mins(10))
    }
}
