//! The settings of a relay.

use std::time::Duration;

use headless_abstractions::{Error, Result};
use headless_core::Backoff;

/// The settings of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayConfig {
    /// The most messages of one claim and one send. Default 100.
    pub batch: usize,
    /// How long claimed messages are held; renewed at each third of it while a send is under way. Default 30 s.
    pub lease: Duration,
    /// The longest time between two looks into the outbox, for wake-ups that were lost, where the store has no pulse to
    /// look for it. Default 1 s.
    pub poll: Duration,
    /// How often a message that the transport refuses is tried before it becomes a dead letter. Default 5.
    pub attempts: u32,
    /// How long to wait between these attempts. Default from up to 1 s to up to 1 min.
    pub backoff: Backoff,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            batch: 100,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            attempts: 5,
            backoff: Backoff::exponential(Duration::from_secs(1), Duration::from_mins(1)),
        }
    }
}

impl RelayConfig {
    /// With this many messages at a time.
    #[must_use]
    pub const fn with_batch(mut self, most: usize) -> Self {
        self.batch = most;
        self
    }

    /// With this lease.
    #[must_use]
    pub const fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// With this time between polls.
    #[must_use]
    pub const fn with_poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// With this many attempts.
    #[must_use]
    pub const fn with_attempts(mut self, most: u32) -> Self {
        self.attempts = most;
        self
    }

    /// With this backoff between attempts.
    #[must_use]
    pub const fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Checks the bounds, for start-up.
    ///
    /// # Errors
    /// `Invalid`, naming the setting and its bound.
    pub fn check(&self) -> Result<()> {
        let shortest = Duration::from_millis(10);
        let problem = if self.batch == 0 {
            "relay.batch is 0, the least is 1"
        } else if self.attempts == 0 {
            "relay.attempts is 0, the least is 1"
        } else if self.lease < shortest {
            "relay.lease is under the least of 10 ms"
        } else if self.poll < shortest {
            "relay.poll is under the least of 10 ms"
        } else {
            return Ok(());
        };
        Err(Error::invalid(problem))
    }
}
