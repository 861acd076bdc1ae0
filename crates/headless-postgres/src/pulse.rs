//! The one question that an idle node asks.

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{ControlVersion, Pulse, PulseStore, Result};
use sqlx::Row;

use crate::{
    Postgres,
    error::fault,
    span::{count, span},
    sql::statements,
    wake::Signal,
};

statements! {
    /// What an idle node sends.
    Statements {
        pulse: "store/pulse",
    }
}

/// The most leases of each kind that one pulse reaps.
const REAPED: usize = 1_000;

#[async_trait]
impl PulseStore for Postgres {
    async fn pulse(&self) -> Result<Pulse> {
        let shared = &self.shared;
        shared
            .call("pulse", async {
                let mut session = shared.session().await?;
                let row = sqlx::query(shared.pulse.pulse.get())
                    .bind(count(REAPED))
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                let until = |name| -> Result<Option<Duration>> {
                    let micros: Option<i64> = row.try_get(name).map_err(fault)?;
                    Ok(micros.map(span))
                };
                let control: i64 = row.try_get("control").map_err(fault)?;
                Ok(Pulse::idle()
                    .with_outbox(until("outbox")?)
                    .with_parked(until("parked")?)
                    .with_expired_lease(until("lease")?)
                    .with_control(ControlVersion::new(control.unsigned_abs())))
            })
            .await
    }

    async fn wait_ready(&self, at_most: Duration) -> Result<()> {
        let shared = &self.shared;
        // The wait is as long as the caller asks for: the bound on calls is not for it.
        shared.wake.wait(Signal::Store, at_most).await;
        shared.call("wait_ready", async { Ok(()) }).await
    }
}
