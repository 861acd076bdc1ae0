//! The process's monotonic clock, for what one handle waits for. Leases and delays are the server's.

use tokio::time::Instant;

/// A moment of the process's clock.
pub(crate) type Moment = Instant;

#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub(crate) fn now() -> Moment {
    Instant::now()
}
