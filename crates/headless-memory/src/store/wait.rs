//! Waiting within a call: for a lock, or for a hint.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use headless_abstractions::Result;

use super::State;
use crate::Memory;

/// The shortest sleep, so that an injected clock which is slower than tokio's cannot make a wait spin.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);

impl Memory {
    /// Repeats `attempt` as one step whenever a transaction has ended, until it answers; `attempt` learns when the
    /// lock time-out has passed and should answer then. It may decline even so, once its own transaction was ended
    /// by a sever: the call never answers in that case.
    pub(super) async fn when_free<T>(
        &self,
        operation: &'static str,
        mut attempt: impl FnMut(&mut State, Duration, bool) -> Option<T>,
    ) -> Result<T> {
        self.link.check(operation).await?;
        let database = &self.server.database;
        let deadline = database.monotonic().saturating_add(database.lock_timeout);
        loop {
            let freed = database.freed.notified();
            if let Some(answer) = database.write(|state, now| attempt(state, now, now >= deadline)) {
                return Ok(answer);
            }
            let left = deadline.saturating_sub(database.monotonic()).max(SHORTEST);
            first_of(tokio::time::timeout(left, freed), self.link.ended()).await;
            self.link.check(operation).await?;
        }
    }
}

/// Returns when either has; the other is dropped.
pub(super) async fn first_of(one: impl Future, other: impl Future) {
    let mut one = pin!(one);
    let mut other = pin!(other);
    poll_fn(|cx| {
        if one.as_mut().poll(cx).is_ready() || other.as_mut().poll(cx).is_ready() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
