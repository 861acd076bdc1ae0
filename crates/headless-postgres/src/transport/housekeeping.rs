//! Looking after the log, now and then, from the calls of members.

use std::{sync::PoisonError, time::Duration};

use headless_abstractions::Result;

use super::clock::now;
use crate::{error::fault, postgres::Shared, span::micros};

/// How often one handle looks after the log.
const EVERY: Duration = Duration::from_secs(10);

/// How old a segment of the log grows.
const SEGMENT_AGE: Duration = Duration::from_hours(1);

/// How many messages a segment of the log holds, about.
const SEGMENT_SIZE: i64 = 1_000_000;

/// How long messages are kept that every group is done with, beside what their segment has to wait for.
const KEPT: Duration = Duration::ZERO;

impl Shared {
    /// Looks after the log, unless this handle has done so lately.
    pub(crate) async fn maintain_now_and_then(&self) -> Result<()> {
        {
            let mut last = self
                .transport
                .maintained
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let now = now();
            if last.is_some_and(|last| now.duration_since(last) < EVERY) {
                return Ok(());
            }
            *last = Some(now);
        }
        self.call("maintain", async {
            let mut session = self.session().await?;
            sqlx::query(self.transport.statements.maintain.get())
                .bind(micros(KEPT))
                .bind(micros(SEGMENT_AGE))
                .bind(SEGMENT_SIZE)
                .execute(&mut *session)
                .await
                .map_err(fault)?;
            session.finish(&self.statements).await
        })
        .await
    }
}
