//! Telling other processes.

use std::{sync::Arc, time::Duration};

use headless_abstractions::Result;

use super::{Shared, Signal};
use crate::error::fault;

/// The shortest time between two notifications of a signal: the first is sent at once, those within it are one.
const GAP: Duration = Duration::from_millis(20);

/// How long sending may take, a free connection included.
const SENDING: Duration = Duration::from_secs(5);

/// Sends what is requested until the handle is closed.
pub(super) async fn run(shared: Arc<Shared>, signal: Signal) {
    let work = async {
        loop {
            shared.line(signal).request.notified().await;
            match tokio::time::timeout(SENDING, send(&shared, signal)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, ?signal, "a wake-up was lost"),
                Err(_elapsed) => tracing::debug!(?signal, "a wake-up was lost: it took too long"),
            }
            tokio::time::sleep(GAP).await;
        }
    };
    tokio::select! {
        biased;
        () = shared.closed.cancelled() => {}
        () = work => {}
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
