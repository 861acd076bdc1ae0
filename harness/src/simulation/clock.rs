//! The clocks of a simulated run: all follow the runtime's virtual time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use headless_abstractions::Clock;
use tokio::time::Instant;

/// The true time of a run, which the server's leases follow.
#[derive(Clone, Debug)]
pub(super) struct TrueClock {
    origin: Instant,
}

/// The clock of one node: its wall clock is off, and may be stepped; both stand still while it is suspended.
#[derive(Debug)]
pub(super) struct NodeClock {
    truth: TrueClock,
    skew: Mutex<TimeDelta>,
    suspension: Mutex<Suspension>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Suspension {
    /// How long all suspensions that ended have lasted.
    lost: Duration,
    /// When the present one began.
    since: Option<Duration>,
}

impl TrueClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(super) fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }
}

impl Clock for TrueClock {
    fn now(&self) -> DateTime<Utc> {
        // Any moment will do, as long as every run begins at the same.
        const BEGIN: DateTime<Utc> = DateTime::from_timestamp(1_750_000_000, 0).unwrap();
        BEGIN + self.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.elapsed()
    }
}

impl NodeClock {
    pub(super) fn new(truth: TrueClock, skew: TimeDelta) -> Arc<Self> {
        Arc::new(Self {
            truth,
            skew: Mutex::new(skew),
            suspension: Mutex::default(),
        })
    }

    /// Sets the wall clock, by so much, while all runs.
    pub(super) fn step(&self, by: TimeDelta) {
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    /// Stops the clock, as when a whole machine is suspended.
    pub(super) fn suspend(&self) {
        let now = self.truth.elapsed();
        self.with(|suspension| {
            suspension.since.get_or_insert(now);
        });
    }

    /// Lets the clock go on from where it stood.
    pub(super) fn resume(&self) {
        let now = self.truth.elapsed();
        self.with(|suspension| {
            if let Some(since) = suspension.since.take() {
                suspension.lost += now.saturating_sub(since);
            }
        });
    }

    fn lost(&self) -> Duration {
        let now = self.truth.elapsed();
        self.with(|suspension| {
            let present = suspension
                .since
                .map_or(Duration::ZERO, |since| now.saturating_sub(since));
            suspension.lost + present
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Suspension) -> T) -> T {
        f(&mut self.suspension.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clock for NodeClock {
    fn now(&self) -> DateTime<Utc> {
        let skew = *self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        self.truth.now() - self.lost() + skew
    }

    fn monotonic(&self) -> Duration {
        self.truth.elapsed().saturating_sub(self.lost())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn should_step_the_wall_clock_alone() {
        let truth = TrueClock::start();
        let clock = NodeClock::new(truth.clone(), TimeDelta::hours(1));
        clock.step(TimeDelta::hours(-3));
        assert_eq!(clock.now() - truth.now(), TimeDelta::hours(-2));
        assert_eq!(clock.monotonic(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn should_stand_still_while_suspended() {
        let truth = TrueClock::start();
        let clock = NodeClock::new(truth.clone(), TimeDelta::hours(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        clock.suspend();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(clock.monotonic(), Duration::from_secs(1));
        clock.resume();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(clock.monotonic(), Duration::from_secs(2));
        assert_eq!(truth.monotonic(), Duration::from_secs(12));
        assert_eq!(
            clock.now() - truth.now(),
            TimeDelta::minutes(60) - TimeDelta::seconds(10)
        );
    }
}
