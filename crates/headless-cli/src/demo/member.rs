//! A member of the group: in this process, or in one of its own.

use std::{future, sync::Arc};

use anyhow::Result;
use headless::{Builder, Consumer, Context, HandlerResult, Headless, Ordered, Preset};
use tokio::sync::watch;

use super::{LEASE, PATIENCE, Payload, books};
use crate::{child, cli::Role, report::Told, sandbox::Sandbox};

/// Relays and handles, as its role is, until all is published (`published` has no sender) and settled.
pub(super) async fn serve(
    role: Role,
    sandbox: Sandbox,
    crashes: impl Fn() -> bool + Clone + Send + Sync + 'static,
    mut published: watch::Receiver<()>,
) -> Result<Told> {
    let mut builder = builder(&sandbox).relays(role != Role::Consumer);
    if role != Role::Relay {
        let sandbox = Arc::new(sandbox);
        let consumer = Consumer::group("demo")
            .on(move |_: Payload, cx| handle(cx, sandbox.clone(), crashes.clone()))
            .ordered_by_key()
            .lease(LEASE)
            .visibility(LEASE);
        builder = builder.consumer(consumer);
    }
    let runtime = builder.start().await?;
    child::ended(&mut published).await;
    runtime.settled(PATIENCE).await?;
    let dead = runtime.backlog().await?.dead;
    let consumer = runtime.consumers().first().cloned();
    runtime.shutdown(5 * LEASE).await?;
    let stats = consumer.map(|consumer| consumer.stats()).unwrap_or_default();
    Ok(Told::of(stats, dead))
}

/// What all processes of the demo have in common.
pub(super) fn builder(sandbox: &Sandbox) -> Builder {
    Headless::builder("demo")
        .any_store(&sandbox.store)
        .any_transport(&sandbox.transport)
        .topic::<Payload>(Ordered::partitions(16))
        .preset(Preset::Development)
        .relay_lease(LEASE)
}

async fn handle(cx: Context, sandbox: Arc<Sandbox>, crashes: impl Fn() -> bool + Send) -> HandlerResult {
    books::handle(&sandbox.store, &cx).await?;
    if crashes() {
        // Gone at the worst moment: committed, and not acknowledged.
        sandbox.sever();
        future::pending::<()>().await;
    }
    Ok(())
}
