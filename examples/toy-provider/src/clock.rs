//! The server's clock: every lease, delay and age is written and compared by it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use headless_abstractions::Message;
use tokio::time::Instant;

/// Follows tokio's time, so that a test that pauses time pauses the server's too.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    wall: DateTime<Utc>,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub(crate) fn start() -> Self {
        Self {
            origin: Instant::now(),
            wall: Utc::now(),
        }
    }

    /// Time since the server was started.
    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// What the server's wall clock shows at this time since its start.
    pub(crate) fn wall(&self, at: Duration) -> DateTime<Utc> {
        Message::microseconds(self.wall + at)
    }
}
