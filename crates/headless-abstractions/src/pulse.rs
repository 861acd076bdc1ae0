//! The one question that an idle node asks its store.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::{ControlVersion, Result};

/// How soon there is work: the time until the next row is due, zero when one is now, `None` when there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pulse {
    /// In the outbox.
    pub outbox: Option<Duration>,
    /// In the park, in any group.
    pub parked: Option<Duration>,
    /// Until the first lease of anyone that is live ends.
    pub expired_lease: Option<Duration>,
    /// The latest change of what operators want, as [`ControlStore::revision`](crate::ControlStore::revision) answers it;
    /// `NONE` where the store keeps none.
    pub control: ControlVersion,
}

impl Pulse {
    /// Nothing to do.
    #[must_use]
    pub const fn idle() -> Self {
        Self {
            outbox: None,
            parked: None,
            expired_lease: None,
            control: ControlVersion::NONE,
        }
    }

    /// With the outbox's next.
    #[must_use]
    pub const fn with_outbox(mut self, next: Option<Duration>) -> Self {
        self.outbox = next;
        self
    }

    /// With the park's next.
    #[must_use]
    pub const fn with_parked(mut self, next: Option<Duration>) -> Self {
        self.parked = next;
        self
    }

    /// With the end of the first lease.
    #[must_use]
    pub const fn with_expired_lease(mut self, next: Option<Duration>) -> Self {
        self.expired_lease = next;
        self
    }

    /// With the latest change of what operators want.
    #[must_use]
    pub const fn with_control(mut self, revision: ControlVersion) -> Self {
        self.control = revision;
        self
    }
}

/// The one question that an idle node asks its store, so that idling costs one round trip an interval.
#[async_trait]
pub trait PulseStore: Debug + Send + Sync + 'static {
    /// Says how soon there is work, after reaping leases that have ended (a bounded number of them), and what the latest
    /// change is of what operators want.
    ///
    /// Blocks for a round trip. Repeating it is harmless.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn pulse(&self) -> Result<Pulse>;

    /// Returns when there may be work, or operators want something else, at the latest after `at_most`. A hint: it may return early, and it may miss
    /// work, which [`pulse`](Self::pulse) then finds.
    ///
    /// Cancel safety: dropping the future is harmless.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn wait_ready(&self, at_most: Duration) -> Result<()>;
}
