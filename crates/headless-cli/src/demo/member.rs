//! A member of the group.

use std::{future, sync::Arc, sync::atomic::Ordering, time::Duration};

use anyhow::Result;
use headless::{
    Builder, Consumer, ConsumerStats, Context, HandlerResult, Headless, Memory, Ordered, Preset, Runtime,
};
use serde_json::json;

use super::{Live, Payload, Servers};

/// How long what a member holds is held without a word from it.
const LEASE: Duration = Duration::from_secs(2);

/// A member with threads of its own, as a process has them.
pub(super) struct Member {
    pub(super) runtime: Runtime,
    tokio: &'static tokio::runtime::Runtime,
}

impl Member {
    pub(super) async fn start(number: usize, servers: &Servers, live: &Arc<Live>) -> Result<Self> {
        // For as long as this process lives: a tokio runtime must not be dropped where async code runs.
        let tokio = Box::leak(Box::new(tokio::runtime::Runtime::new()?));
        let (servers, live) = (Arc::new(servers.connect()), live.clone());
        let builder = servers.builder().relay_lease(LEASE);
        let consumer = Consumer::group("demo")
            .on(move |_: Payload, cx| handle(cx, number, servers.clone(), live.clone()))
            .ordered_by_key()
            .lease(LEASE)
            .visibility(LEASE);
        let runtime = tokio.spawn(builder.consumer(consumer).start()).await??;
        Ok(Self { runtime, tokio })
    }

    /// Drains it, and says what it has done.
    pub(super) async fn stop(self) -> Result<ConsumerStats> {
        let consumer = self.runtime.consumers()[0].clone();
        self.tokio.spawn(self.runtime.shutdown(5 * LEASE)).await??;
        Ok(consumer.stats())
    }
}

impl Servers {
    /// What producer and members have in common.
    pub(super) fn builder(&self) -> Builder {
        let builder = Headless::builder("demo").store(&self.0).transport(self.1.clone());
        let builder = builder.topic::<Payload>(Ordered::partitions(16));
        builder.preset(Preset::Development)
    }
}

async fn handle(cx: Context, number: usize, servers: Arc<Servers>, live: Arc<Live>) -> HandlerResult {
    let mut work = cx.begin::<Memory>().await?;
    let message = cx.message();
    let row = json!({
        "line": message.headers.get("line"),
        "key": message.key.as_ref().map(ToString::to_string),
        "idempotency_key": message.idempotency_key.as_ref().map(ToString::to_string),
        "message": message.id.to_string(),
    });
    work.push("handled", row.to_string()).await?;
    work.commit().await?;
    live.bar.inc(1);
    if live.until_crash.fetch_sub(1, Ordering::Relaxed) == 1 {
        // Gone at the worst moment, committed and not acknowledged: nothing that it calls answers any more.
        servers.0.sever();
        servers.1.sever();
        live.crashed.send(number)?;
        future::pending::<()>().await;
    }
    Ok(())
}
