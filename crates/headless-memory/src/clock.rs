//! The clock of a memory server that was given none: tokio's, so that paused time works.

use std::time::Duration;

use chrono::{DateTime, Utc};
use headless_abstractions::Clock;
use tokio::time::Instant;

/// Follows tokio's time, also where a test has paused it.
#[derive(Debug)]
pub(crate) struct TokioClock {
    origin: Instant,
    wall: DateTime<Utc>,
}

impl TokioClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            wall: Utc::now(),
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> DateTime<Utc> {
        self.wall + self.monotonic()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn monotonic(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }
}
