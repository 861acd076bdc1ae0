//! The settings of a memory server.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use headless_abstractions::Clock;

/// The settings of a memory server. Every bound has a default; a full queue answers `Unavailable`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// The most messages that wait for or are unsettled in one group of one topic. Default 100 000.
    pub group_capacity: NonZeroUsize,
    /// The most messages that one topic keeps for groups that start from the oldest. Default 10 000.
    pub replay_capacity: usize,
    /// The most rows of the outbox. Default 1 000 000.
    pub outbox_capacity: NonZeroUsize,
    /// The largest payload in bytes. Default 8 MiB.
    pub max_payload: NonZeroUsize,
    /// How long a statement waits for a row that another transaction holds. Default 5 s.
    pub lock_timeout: Duration,
    /// The clock of leases, delays and expiry. `None` for tokio's.
    pub clock: Option<Arc<dyn Clock>>,
    /// A bug planted on purpose, to show that the simulation finds it: renewing a hold does not compare its epoch.
    #[cfg(feature = "planted-bugs")]
    #[doc(hidden)]
    pub epoch_dropped_on_renew: bool,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        const GROUP: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();
        const OUTBOX: NonZeroUsize = NonZeroUsize::new(1_000_000).unwrap();
        const PAYLOAD: NonZeroUsize = NonZeroUsize::new(8 * 1024 * 1024).unwrap();
        Self {
            group_capacity: GROUP,
            replay_capacity: 10_000,
            outbox_capacity: OUTBOX,
            max_payload: PAYLOAD,
            lock_timeout: Duration::from_secs(5),
            clock: None,
            #[cfg(feature = "planted-bugs")]
            epoch_dropped_on_renew: false,
        }
    }
}

impl MemoryConfig {
    /// With this bound on one group of one topic.
    #[must_use]
    pub const fn with_group_capacity(mut self, most: NonZeroUsize) -> Self {
        self.group_capacity = most;
        self
    }

    /// With this bound on what one topic keeps for replay; 0 keeps nothing.
    #[must_use]
    pub const fn with_replay_capacity(mut self, most: usize) -> Self {
        self.replay_capacity = most;
        self
    }

    /// With this bound on the outbox.
    #[must_use]
    pub const fn with_outbox_capacity(mut self, most: NonZeroUsize) -> Self {
        self.outbox_capacity = most;
        self
    }

    /// With this payload limit in bytes.
    #[must_use]
    pub const fn with_max_payload(mut self, bytes: NonZeroUsize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// With this lock time-out.
    #[must_use]
    pub const fn with_lock_timeout(mut self, time: Duration) -> Self {
        self.lock_timeout = time;
        self
    }

    /// With this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// With or without the bug that renewing a hold does not compare its epoch.
    #[cfg(feature = "planted-bugs")]
    #[doc(hidden)]
    #[must_use]
    pub const fn with_epoch_dropped_on_renew(mut self, planted: bool) -> Self {
        self.epoch_dropped_on_renew = planted;
        self
    }
}
