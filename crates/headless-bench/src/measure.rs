//! How a case is measured: ours and the other in turns, the median of the rounds.

use std::{future::Future, time::Duration};

use anyhow::Result;
use headless_abstractions::Clock;
use headless_core::SystemClock;

use crate::quiet;

/// How a case is measured.
#[derive(Debug)]
pub(crate) struct Meter {
    clock: SystemClock,
    rounds: usize,
    wait: bool,
}

impl Meter {
    pub(crate) fn new(quick: bool) -> Self {
        Self {
            clock: SystemClock::new(),
            rounds: if quick { 1 } else { 3 },
            wait: !quick,
        }
    }

    /// Waits for a quiet machine, unless the figures are to be had quickly.
    pub(crate) async fn settle(&self) {
        if self.wait {
            quiet::wait().await;
        }
    }

    /// How many times `count` went into each second while `work` ran.
    pub(crate) async fn rate(&self, count: usize, work: impl Future<Output = Result<()>>) -> Result<f64> {
        let began = self.now();
        work.await?;
        Ok(count as f64 / (self.now() - began).as_secs_f64())
    }

    pub(crate) const fn rounds(&self) -> usize {
        self.rounds
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Ours and the other, in turns, each round on a quiet machine: `[ours, raw]` of each.
    ///
    /// Each closure prepares, measures with [`rate`](Self::rate) or otherwise, tidies up, and returns its figure.
    pub(crate) async fn turns<A, B>(
        &self,
        mut ours: impl FnMut() -> A,
        mut raw: impl FnMut() -> B,
    ) -> Result<Vec<[f64; 2]>>
    where
        A: Future<Output = Result<f64>>,
        B: Future<Output = Result<f64>>,
    {
        let mut rounds = Vec::with_capacity(self.rounds);
        for _ in 0..self.rounds {
            self.settle().await;
            let ours = ours().await?;
            self.settle().await;
            rounds.push([ours, raw().await?]);
        }
        Ok(rounds)
    }
}

/// The median; of an even number, the lower one of the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
        .get((values.len().saturating_sub(1)) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_find_the_middle_when_unsorted() {
        assert_eq!(median([3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]).to_bits(), 2.0_f64.to_bits());
        assert!(median([]).is_nan());
    }
}
