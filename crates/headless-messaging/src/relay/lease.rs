//! How long the relay may act on what it has claimed.

use std::{sync::Arc, time::Duration};

use headless_abstractions::{Claim, Clock, Error, ErrorKind, OutboxStore, Owner};
use headless_core::{Asked, CrashPoint, store_call};
use tokio_util::task::AbortOnDropHandle;

use super::Shared;

/// The lease of one claim, as this process sees it: it began before the claim was sent, so that it ends no later here
/// than at the store, whatever the store's clock says.
pub(super) struct Lease<'a> {
    shared: &'a Shared,
    asked: Asked,
}

impl<'a> Lease<'a> {
    /// Begins now; call it before the claim is sent.
    pub(super) fn begin(shared: &'a Shared) -> Self {
        Self {
            shared,
            asked: shared.environment.ask(),
        }
    }

    /// Why others may have the rows by now; `None` when they have not.
    pub(super) fn ended(&self) -> Option<Error> {
        let environment = &self.shared.environment;
        if !environment.life.allows(self.asked, environment.clock.monotonic()) {
            return Some(given_up());
        }
        let lease = self.shared.config.lease;
        (self.age() >= lease).then(|| {
            Error::new(
                ErrorKind::Timeout,
                format!(
                    "the claim took longer than its lease of {lease:?}, so that nothing was sent: look at the store, or \
                     raise `relay.lease`"
                ),
            )
            .with_operation("relay")
        })
    }

    /// Waits until this node's life is over, or another has begun, and says so.
    pub(super) async fn lost_with_life(&self) -> Error {
        self.shared.environment.lost(self.asked).await;
        given_up()
    }

    /// Renews these claims until the answer is dropped.
    ///
    /// Among the control tasks: a handler that never yields must not cost the relay its leases.
    pub(super) fn keep(&self, claims: Vec<Claim>) -> AbortOnDropHandle<()> {
        let (outbox, owner) = (self.shared.outbox.clone(), self.shared.environment.owner);
        let (lease, clock) = (self.shared.config.lease, self.shared.environment.clock.clone());
        let first = (lease / 3).saturating_sub(self.age());
        AbortOnDropHandle::new(self.shared.environment.spawner.control(renew(
            outbox,
            owner,
            claims,
            (first, lease),
            clock,
        )))
    }

    fn age(&self) -> Duration {
        self.shared
            .environment
            .clock
            .monotonic()
            .saturating_sub(self.asked.at())
    }
}

fn given_up() -> Error {
    Error::new(
        ErrorKind::LeaseLost,
        "the store may have given this node up since it claimed: others have the messages now, or will; look at the task \
         `heartbeat`",
    )
    .with_operation("relay")
}

async fn renew(
    outbox: Arc<dyn OutboxStore>,
    owner: Owner,
    mut claims: Vec<Claim>,
    (first, lease): (Duration, Duration),
    clock: Arc<dyn Clock>,
) {
    tokio::time::sleep(first).await;
    while !claims.is_empty() {
        let renew = async {
            CrashPoint::RelayRenewing.reach()?;
            let settled = outbox.renew(owner, &claims, lease).await?;
            CrashPoint::RelayRenewed.reach()?;
            Ok(settled)
        };
        match store_call(&*clock, "outbox.renew", renew).await {
            Ok(settled) if settled.is_complete() => {}
            Ok(settled) => {
                // What is under way cannot be called back; its acknowledgement will be refused.
                tracing::warn!(
                    lost = settled.lost.len(),
                    "leases of outbox rows ended during a send"
                );
                claims.retain(|claim| !settled.lost.contains(claim));
            }
            Err(error) => tracing::warn!(%error, "leases of outbox rows could not be renewed"),
        }
        tokio::time::sleep(lease / 3).await;
    }
}
