//! The clock of a real process.

use std::time::Duration;

use chrono::{DateTime, Utc};
use headless_abstractions::{Clock, Message};
use tokio::time::Instant;

/// The host's clocks. Its monotonic time is tokio's, so that it follows time that a test has paused; its wall clock
/// is read at each call in a real process, and follows the monotonic one while time is paused.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
    std_origin: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            std_origin: std::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    fn now(&self) -> DateTime<Utc> {
        // What paused time has run ahead of (or stayed behind) real time; zero in a real process.
        let tokio_time = self.monotonic();
        let std_time = self.std_origin.elapsed();
        let ahead = chrono::TimeDelta::from_std(tokio_time.saturating_sub(std_time)).unwrap_or_default();
        let behind = chrono::TimeDelta::from_std(std_time.saturating_sub(tokio_time)).unwrap_or_default();
        // Two readings of one clock differ by less than this; only a paused clock differs by more.
        let noise = chrono::TimeDelta::milliseconds(100);
        let now = Utc::now();
        Message::microseconds(match (ahead > noise, behind > noise) {
            (true, _) => now + ahead,
            (_, true) => now - behind,
            _ => now,
        })
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    fn monotonic(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn should_follow_paused_time_when_it_is_advanced() {
        let clock = SystemClock::new();
        let (before, wall) = (clock.monotonic(), clock.now());
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert!(clock.monotonic() - before >= Duration::from_secs(3_600));
        assert!(clock.now() - wall >= chrono::TimeDelta::seconds(3_590));
    }
}
