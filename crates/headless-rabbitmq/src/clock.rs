//! The process's clocks. RabbitMQ has no clock that a client could ask: what a member holds is timed where it is held.

use chrono::{DateTime, Utc};
use headless_abstractions::Message;
use tokio::time::Instant;

/// A moment of the process's monotonic clock.
pub(crate) type Moment = Instant;

#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub(crate) fn now() -> Moment {
    Instant::now()
}

/// The wall clock, for foreign messages that do not say when they were sent.
#[expect(clippy::disallowed_methods, reason = "this is the clock module")]
pub(crate) fn wall() -> DateTime<Utc> {
    Message::microseconds(Utc::now())
}
