//! How long to wait before trying again.

use std::time::Duration;

use headless_abstractions::Random;

use crate::random::below;

/// Exponential backoff with full jitter: before try `n` (from 0), a random time up to `base × 2ⁿ`, at most `cap`.
///
/// Source: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
///
/// ```
/// use std::time::Duration;
/// use headless_core::{Backoff, SeededRandom};
///
/// let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(10));
/// assert!(backoff.delay(0, &SeededRandom::new(7)) <= Duration::from_millis(100));
/// assert!(backoff.delay(60, &SeededRandom::new(7)) <= Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

impl Backoff {
    /// A random time up to `base`, doubled with each try, at most `cap`.
    #[must_use]
    pub const fn exponential(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// The longest time before try `n`, counted from 0.
    #[must_use]
    pub fn ceiling(&self, n: u32) -> Duration {
        let factor = 1_u32.checked_shl(n).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// The time before try `n`, counted from 0: even over `0..=ceiling(n)`.
    #[must_use]
    pub fn delay(&self, n: u32, random: &dyn Random) -> Duration {
        let micros = u64::try_from(self.ceiling(n).as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(below(random, micros + 1))
    }

    /// As [`delay`](Self::delay), but never less than half of the ceiling: for loops that must not spin.
    #[must_use]
    pub fn steady_delay(&self, n: u32, random: &dyn Random) -> Duration {
        let half = self.ceiling(n) / 2;
        half + self.delay(n, random) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRandom;

    #[test]
    fn should_stay_in_bounds_and_spread_when_drawn_often() {
        let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(5));
        let random = SeededRandom::new(1);
        for n in [0, 1, 5, 31, 32, 63, 64, u32::MAX] {
            let ceiling = backoff.ceiling(n);
            assert!(ceiling <= Duration::from_secs(5));
            let draws: Vec<_> = (0..200).map(|_| backoff.delay(n, &random)).collect();
            assert!(draws.iter().all(|d| *d <= ceiling));
            assert!(draws.iter().any(|d| *d < ceiling / 4) && draws.iter().any(|d| *d > ceiling * 3 / 4));
        }
    }
}
