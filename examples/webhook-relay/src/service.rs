//! From start to end.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use headless::{Consumer, Context, HandlerResult, Headless, Ordered, Providers, Runtime};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

use crate::{
    args::Args,
    server::{Limits, Server},
    statistics::count,
    storage::Storage,
    webhook::WebhookReceived,
};

/// How many processes may count at once. It is part of the topic, and stays as it was first.
const PARTITIONS: u16 = 16;
/// How much larger a message may be than the body that it is made from.
const ENVELOPE: usize = 4 * 1024;
/// How long handlers may take to end when the service stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs the service until a signal ends it.
pub(crate) async fn run(args: Args) -> Result<()> {
    let stopping = on_signal()?;
    let limits = Limits {
        body: usize::try_from(args.max_body)?,
        requests: usize::try_from(args.max_requests)?,
        time: args.request_timeout(),
    };
    let secret = args.secret()?;
    let (runtime, storage) = start(&args, limits, count).await?;
    let runtime = Arc::new(runtime);
    let server = Server {
        runtime: Arc::downgrade(&runtime),
        storage,
        secret,
    };
    let served = serve(&args, server, limits, stopping).await;
    // Requests have ended, or have been given the time that they may take.
    let ended = match Arc::into_inner(runtime) {
        Some(runtime) => runtime.shutdown(DRAIN).await.context("stop"),
        None => Err(anyhow::anyhow!(
            "a request did not end in time: it and what else runs end as by a crash"
        )),
    };
    served.and(ended)
}

/// The relay, and the consumer that counts. Everything is checked before anything runs.
pub(crate) async fn start<F, Fut>(args: &Args, limits: Limits, count: F) -> Result<(Runtime, Storage)>
where
    F: Fn(WebhookReceived, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = HandlerResult> + Send + 'static,
{
    let providers = Providers::builtin();
    let stored = providers.connect(&args.store).await.context("--store")?;
    let moved = match &args.transport {
        Some(url) if *url != args.store => providers.connect(url).await.context("--transport")?,
        _ => stored.clone(),
    };
    let store = stored.store().context("--store")?;
    let storage = Storage::open(&store).await?;
    let runtime = Headless::builder("webhook-relay")
        .any_store(&store)
        .any_transport(&moved.transport().context("--transport")?)
        .topic::<WebhookReceived>(Ordered::partitions(PARTITIONS))
        .consumer(
            Consumer::group("statistics")
                .on(count)
                .ordered_by_key()
                .lease(args.lease())
                .visibility(args.lease()),
        )
        .relay_lease(args.lease())
        .max_payload(limits.body + ENVELOPE)
        .state(storage.clone())
        .opentelemetry()
        .start()
        .await?;
    Ok((runtime, storage))
}

async fn serve(args: &Args, server: Server, limits: Limits, stopping: watch::Receiver<bool>) -> Result<()> {
    let listener = TcpListener::bind(args.listen).await.context("--listen")?;
    // For whoever has started us: what we say first is where we are.
    writeln!(io::stdout(), "http://{}", listener.local_addr()?)?;
    let stop = |mut stopping: watch::Receiver<bool>| async move {
        // An error means that nobody can tell us any more.
        let _told = stopping.wait_for(|stopping| *stopping).await;
    };
    let serving = axum::serve(listener, server.router(limits)).with_graceful_shutdown(stop(stopping.clone()));
    tokio::select! {
        biased;
        served = serving.into_future() => Ok(served?),
        () = async { stop(stopping).await; sleep(limits.time).await } => {
            tracing::warn!("connections that do not end are left behind");
            Ok(())
        }
    }
}

/// Becomes true when the process is told to end, by SIGINT or SIGTERM.
fn on_signal() -> Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    let (tell, told) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        tell.send_replace(true);
    });
    Ok(told)
}
