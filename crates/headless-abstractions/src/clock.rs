//! Time and chance, injected so that a seed replays a run.

use std::{fmt::Debug, time::Duration};

use chrono::{DateTime, Utc};

/// Where a component takes its time from.
///
/// A store's leases are written and compared by the *store's* clock; this one serves audit timestamps, expiry of
/// messages and waits within a process.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The wall clock, in microseconds. It may step in either direction.
    fn now(&self) -> DateTime<Utc>;

    /// Time since an arbitrary but fixed origin. It never goes back.
    fn monotonic(&self) -> Duration;
}

/// Where a component takes its randomness from: ids, jitter, shuffles. Not for secrets.
pub trait Random: Debug + Send + Sync + 'static {
    /// Fills `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]);
}
