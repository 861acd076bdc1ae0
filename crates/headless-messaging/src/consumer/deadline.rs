//! Until when a call may run; a handler may extend it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use headless_abstractions::Clock;

/// Until when a call may run, on the monotonic clock.
#[derive(Debug)]
pub(crate) struct Deadline {
    clock: Arc<dyn Clock>,
    micros: AtomicU64,
}

impl Deadline {
    pub(crate) fn after(clock: Arc<dyn Clock>, time: Duration) -> Self {
        let micros = AtomicU64::new(micros(clock.monotonic().saturating_add(time)));
        Self { clock, micros }
    }

    /// Moves it to `by` from now, never back.
    pub(crate) fn extend(&self, by: Duration) {
        self.micros.fetch_max(
            micros(self.clock.monotonic().saturating_add(by)),
            Ordering::AcqRel,
        );
    }

    pub(crate) fn at(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Acquire))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
