//! Looking after the log, now and then, from the calls of members.

use std::{sync::PoisonError, time::Duration};

use headless_abstractions::Result;

use super::clock::now;
use crate::{error::fault, postgres::Shared, span::micros};

/// How often one handle looks after the log.
const EVERY: Duration = Duration::from_secs(10);

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
                .bind(micros(self.config.keep_replay))
                .bind(micros(self.config.segment_age))
                .bind(i64::from(self.config.segment_messages.get()))
                .execute(&mut *session)
                .await
                .map_err(fault)?;
            session.finish(&self.statements).await
        })
        .await
    }
}
