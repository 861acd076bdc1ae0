//! Measuring calls of a store.

use headless_abstractions::{Clock, Result};

use crate::metric;

/// Makes a call of a store, and measures it under the name of its operation: `outbox.claim`.
///
/// # Errors
/// What the call answers.
///
/// # Cancel safety
/// That of the call. One that is dropped is not measured.
pub async fn store_call<T>(
    clock: &dyn Clock,
    operation: &'static str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let began = clock.monotonic();
    let answer = call.await;
    let seconds = clock.monotonic().saturating_sub(began).as_secs_f64();
    metrics::histogram!(metric::STORE_SECONDS, "operation" => operation).record(seconds);
    if let Err(error) = &answer {
        let reason = error.kind().as_str();
        metrics::counter!(metric::STORE_FAILED, "operation" => operation, "reason" => reason).increment(1);
    }
    answer
}
