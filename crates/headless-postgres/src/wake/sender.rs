//! Telling other processes.

use std::{sync::Arc, time::Duration};

use headless_abstractions::Result;

use super::{Shared, Signal};
use crate::error::fault;

/// The shortest time between two notifications of a signal: the first is sent at once, those within it are one.
const GAP: Duration = Duration::from_millis(20);

/// How long sending may take, a free connection included.
const SENDING: Duration = Duration::from_secs(5);

/// How long it may take once the handle is closed.
const LAST: Duration = Duration::from_secs(1);

/// Sends what is requested until the handle is closed, and what was requested before that: who publishes and ends, or
/// leaves its group, tells the others still.
pub(super) async fn run(shared: Arc<Shared>, signal: Signal) {
    loop {
        tokio::select! {
            biased;
            () = shared.line(signal).request.notified() => {}
            () = shared.closed.cancelled() => return,
        }
        let overdue = async {
            shared.closed.cancelled().await;
            tokio::time::sleep(LAST).await;
        };
        tokio::select! {
            biased;
            sent = send(&shared, signal) => {
                if let Err(error) = sent {
                    tracing::debug!(%error, ?signal, "a wake-up was lost");
                }
            }
            () = overdue => {}
            () = tokio::time::sleep(SENDING) => tracing::debug!(?signal, "a wake-up was lost: it took too long"),
        }
        tokio::select! {
            biased;
            () = shared.closed.cancelled() => {}
            () = tokio::time::sleep(GAP) => {}
        }
    }
}

async fn send(shared: &Shared, signal: Signal) -> Result<()> {
    sqlx::query(shared.statements.notify.get())
        .bind(format!("{} {}", signal.word(), shared.own))
        .execute(&shared.pool)
        .await
        .map_err(fault)?;
    Ok(())
}
