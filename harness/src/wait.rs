//! Waiting in cases: for what must happen, for what must not, and for time itself.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::case::{CaseError, CaseResult};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Looks until there is something, at most for `bound`.
pub(crate) async fn eventually<T>(
    bound: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> CaseResult<Option<T>>,
) -> CaseResult<T> {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if watch.elapsed() >= bound {
            return Err(CaseError::failed(format!("{what}: not within {bound:?}")));
        }
        sleep(STEP).await;
    }
}

/// Looks for as long as `time`; finding something is a failure.
pub(crate) async fn never_within<T: std::fmt::Debug>(
    time: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> CaseResult<Option<T>>,
) -> CaseResult {
    let watch = Stopwatch::start();
    loop {
        if let Some(found) = look().await? {
            return Err(CaseError::failed(format!("{what}: {found:?}")));
        }
        if watch.elapsed() >= time {
            return Ok(());
        }
        sleep(STEP).await;
    }
}

/// Lets time pass: the store's, the broker's and ours. For leases and delays, never for a race.
pub(crate) async fn elapse(time: Duration) {
    sleep(time).await;
}

/// The future's answer, which must come within `bound`: for calls that promise not to hang.
pub(crate) async fn within<T>(bound: Duration, what: &str, future: impl Future<Output = T>) -> CaseResult<T> {
    timeout(bound, future)
        .await
        .map_err(|_| CaseError::failed(format!("{what}: no answer within {bound:?}")))
}

/// Time since a moment; virtual where the case's time is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "cases measure the time that they run in"
    )]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn should_fail_when_nothing_is_found_in_time() {
        let found = eventually(Duration::from_secs(1), "x", async || Ok(None::<()>)).await;
        assert_eq!(found.unwrap_err().to_string(), "x: not within 1s");
    }

    #[tokio::test(start_paused = true)]
    async fn should_find_when_it_comes_later() {
        let mut looks = 0;
        let found = eventually(Duration::from_secs(1), "x", async || {
            looks += 1;
            Ok((looks == 5).then_some(looks))
        });
        assert_eq!(found.await.unwrap(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn should_fail_when_the_forbidden_happens() {
        let mut looks = 0;
        let found = never_within(Duration::from_secs(1), "x", async || {
            looks += 1;
            Ok((looks == 5).then_some(looks))
        });
        assert_eq!(found.await.unwrap_err().to_string(), "x: 5");
    }
}
