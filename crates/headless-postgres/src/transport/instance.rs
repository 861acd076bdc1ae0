//! The life of the groups that belong to this process.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use headless_abstractions::Result;

use crate::{error::fault, postgres::Shared, span::micros};

/// How long such groups outlive a process that is gone, and the last hold of their members.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// How often the process says that it lives.
const BEAT: Duration = Duration::from_millis(2_500);

impl Shared {
    /// Keeps the groups of this process alive until it closes, from a task that closing joins.
    pub(super) fn keep_instance(self: &Arc<Self>) {
        if self.transport.beating.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::downgrade(self);
        let closing = self.transport.closing.clone();
        let beat = async move {
            loop {
                tokio::select! {
                    biased;
                    () = closing.cancelled() => break,
                    () = tokio::time::sleep(BEAT) => {}
                }
                // It ends with the handle.
                let Some(shared) = shared.upgrade() else { break };
                match shared.beat().await {
                    Ok(true) => {}
                    // The server has ended its groups: their members are told so. Declaring anew begins anew.
                    Ok(false) => {
                        shared.transport.beating.store(false, Ordering::Release);
                        break;
                    }
                    Err(error) => tracing::debug!(%error, "the process could not say that it lives"),
                }
            }
        };
        drop(self.transport.tasks.spawn(beat));
    }

    async fn beat(&self) -> Result<bool> {
        self.call("beat", async {
            let mut session = self.session().await?;
            let lives = sqlx::query(self.transport.statements.beat.get())
                .bind(self.transport.instance)
                .bind(micros(LEASE))
                .fetch_optional(&mut *session)
                .await
                .map_err(fault)?;
            session.finish(&self.statements).await?;
            Ok(lives.is_some())
        })
        .await
    }

    /// Ends the groups of this process.
    pub(super) async fn end_instance(&self) -> Result<()> {
        if !self.transport.beating.load(Ordering::Acquire) {
            return Ok(());
        }
        self.call("close", async {
            let mut session = self.session().await?;
            sqlx::query(self.transport.statements.end_instance.get())
                .bind(self.transport.instance)
                .execute(&mut *session)
                .await
                .map_err(fault)?;
            session.finish(&self.statements).await
        })
        .await
    }
}
