//! How a node keeps its membership.

use std::time::Duration;

use headless_abstractions::{Error, Registration, Result};

/// How many heartbeats a node must be able to miss at least: one that is lost, or slow, is no death.
const MISSED: u32 = 4;

/// How a node keeps its membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MembershipConfig {
    /// The longest time between two heartbeats. Default 10 s.
    pub heartbeat: Duration,
    /// It is suspected when it has been silent for this long. Default 30 s.
    pub suspect_after: Duration,
    /// It is dead when it has been silent for this long, at least four heartbeats. Default 60 s.
    pub dead_after: Duration,
    /// Nodes that have ended are forgotten after this. Default 24 h.
    pub forget_after: Duration,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            suspect_after: Duration::from_secs(30),
            dead_after: Duration::from_mins(1),
            forget_after: Duration::from_hours(24),
        }
    }
}

impl MembershipConfig {
    /// With heartbeats this far apart at most.
    #[must_use]
    pub const fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Suspected, and dead, after so much silence.
    #[must_use]
    pub const fn with_silence(mut self, suspect_after: Duration, dead_after: Duration) -> Self {
        self.suspect_after = suspect_after;
        self.dead_after = dead_after;
        self
    }

    /// With nodes forgotten so long after their end.
    #[must_use]
    pub const fn with_forget_after(mut self, time: Duration) -> Self {
        self.forget_after = time;
        self
    }

    /// Checks that each time is longer than the one before it, and death four heartbeats away, for start-up.
    ///
    /// # Errors
    /// `Invalid`, naming the settings and their bound.
    pub fn check(&self) -> Result<()> {
        let times = [
            ("membership.heartbeat", self.heartbeat),
            ("membership.suspect_after", self.suspect_after),
            ("membership.dead_after", self.dead_after),
        ];
        let mut problems = Vec::new();
        for pair in times.windows(2) {
            if let [(shorter, short), (longer, long)] = pair
                && short >= long
            {
                problems.push(format!(
                    "{longer} is {long:?}, it must be longer than {shorter} ({short:?})"
                ));
            }
        }
        let missed = self.heartbeat.saturating_mul(MISSED);
        if self.dead_after < missed {
            problems.push(format!(
                "membership.dead_after is {:?}, it must be at least {MISSED} times membership.heartbeat ({:?}), which \
                 is {missed:?}",
                self.dead_after, self.heartbeat
            ));
        }
        let (least, most) = (Registration::SHORTEST, Registration::LONGEST);
        if self.heartbeat < least {
            problems.push(format!(
                "membership.heartbeat is {:?}, the least is {least:?}",
                self.heartbeat
            ));
        }
        if self.dead_after > most {
            problems.push(format!(
                "membership.dead_after is {:?}, the most is {most:?}",
                self.dead_after
            ));
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid(problems.join("; "))),
        }
    }

    /// How long after an accepted heartbeat was sent this process may act. The margin covers the time between a look at
    /// the clock and what is done because of it.
    pub(super) fn lasts(&self) -> Duration {
        self.dead_after - self.dead_after / 10
    }
}
