//! From the outbox on PostgreSQL through RabbitMQ to the inbox, end to end (P15).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use headless::{Consumer, Context, Event, HandlerResult, Headless, Ordered, Runtime};
use headless_abstractions::{Message, OutboxStore, Partitions, Transport};
use headless_postgres::{Postgres, Wake};
use headless_rabbitmq::Namespace;
use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;
use tokio::{sync::Notify, time::timeout};

use crate::{
    args::Args,
    database::Database,
    measure::{Meter, median},
    report::{Case, Report},
    samples::Samples,
    transport::rabbitmq::{connect, namespace},
};

mod by_hand;

/// What is stored at once.
const BATCH: usize = 500;
/// How many handlers, or raw loops, run at once.
const AT_ONCE: usize = 8;
/// The longest that anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// What flows.
#[derive(Debug, Deserialize, Serialize)]
struct Done {
    n: usize,
}

impl Event for Done {
    const TOPIC: &'static str = "bench";
}

pub(crate) async fn run(args: &Args, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let database = Database::open(&args.store).await?;
    database.connect(Wake::Off).await?.close().await?;
    let ran = cases(args, &database, meter, report).await;
    let dropped = database.drop().await;
    ran.and(dropped)
}

async fn cases(args: &Args, database: &Database, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let count = if args.quick { 2_000 } else { 20_000 };
    for (name, keys) in [("10 000 keys", 10_000), ("one key", 1)] {
        let name = format!("outbox, rabbitmq, inbox, {name}, beside the slower raw half");
        if !report.wants(&name) {
            continue;
        }
        let mut rounds = Vec::new();
        for _ in 0..meter.rounds() {
            meter.settle().await;
            let ours = end_to_end(args, database, meter, count, keys).await?;
            meter.settle().await;
            let sent = by_hand::sent(args, database, meter, count).await?;
            meter.settle().await;
            let consumed = by_hand::consumed(args, database, meter, count).await?;
            rounds.push([ours, sent.min(consumed)]);
        }
        report.print(Case::new(name, "P15", 0.5, rounds))?;
    }
    let name = "published to handled, idle, p50";
    if report.wants(name) {
        meter.settle().await;
        let figures = latencies(args, database, meter, if args.quick { 50 } else { 300 }).await?;
        report.print(Case::at_most(name, "P15", "ms", 5.0, &[median(figures)]))?;
    }
    Ok(())
}

/// What the handlers share.
#[derive(Debug)]
struct Progress {
    handled: AtomicUsize,
    one: Notify,
    insert_effect: String,
}

impl Progress {
    async fn new(database: &Database) -> Result<Arc<Self>> {
        database
            .script(include_str!("../queries/raw/create_effects.sql"))
            .await?;
        Ok(Arc::new(Self {
            handled: AtomicUsize::new(0),
            one: Notify::new(),
            insert_effect: include_str!("../queries/raw/insert_effect.sql")
                .replace("into effect", &format!("into {}.effect", database.schema)),
        }))
    }

    /// Waits until so many are handled.
    async fn until(&self, count: usize) -> Result<()> {
        let all = async {
            while self.handled.load(Ordering::Relaxed) < count {
                self.one.notified().await;
            }
        };
        Ok(timeout(PATIENCE, all).await?)
    }
}

/// A service that relays and handles, with its servers.
struct Service {
    postgres: Postgres,
    namespace: Namespace,
    runtime: Runtime,
    progress: Arc<Progress>,
}

impl Service {
    async fn start(args: &Args, database: &Database) -> Result<Self> {
        let postgres = database.connect(Wake::On).await?;
        let namespace = namespace()?;
        let rabbitmq = connect(&args.transport, namespace.clone()).await?;
        let progress = Progress::new(database).await?;
        let handled = progress.clone();
        let consumer = Consumer::group("bench")
            .on(move |done: Done, cx| handle(done, cx, handled.clone()))
            .ordered_by_key()
            .concurrency(AT_ONCE);
        let runtime = Headless::builder("bench")
            .store(&postgres)
            .transport(rabbitmq)
            .topic::<Done>(Ordered::partitions(Partitions::default().get()))
            .consumer(consumer)
            .start()
            .await?;
        let service = Self {
            postgres,
            namespace,
            runtime,
            progress,
        };
        // It has its partitions from then on.
        service.postgres.append(&messages(0, 1, 1)?).await?;
        service.progress.until(1).await?;
        Ok(service)
    }

    /// Ends it, and with it the handles that it was given.
    async fn end(self, args: &Args) -> Result<()> {
        self.runtime.shutdown(Duration::from_secs(10)).await?;
        let rabbitmq = connect(&args.transport, self.namespace).await?;
        rabbitmq.delete_namespace().await?;
        Ok(rabbitmq.close().await?)
    }
}

async fn handle(done: Done, cx: Context, progress: Arc<Progress>) -> HandlerResult {
    let mut work = cx.begin::<Postgres>().await?;
    // The text is this crate's, and the schema's name is a valid identifier.
    sqlx::query(AssertSqlSafe(progress.insert_effect.clone()))
        .bind(cx.message().id.as_uuid())
        .bind(done.n.to_be_bytes().as_slice())
        .execute(work.conn())
        .await?;
    work.commit().await?;
    progress.handled.fetch_add(1, Ordering::Relaxed);
    progress.one.notify_one();
    Ok(())
}

fn messages(from: usize, count: usize, keys: usize) -> Result<Vec<Message>> {
    let mut samples = Samples::new(Done::TOPIC, 0)?;
    let message = |n| {
        let mut message = samples.message(Some(&format!("key-{}", n % keys)))?;
        message.payload = serde_json::to_vec(&Done { n })?.into();
        Ok(message)
    };
    (from..from + count).map(message).collect()
}

async fn end_to_end(
    args: &Args,
    database: &Database,
    meter: &Meter,
    count: usize,
    keys: usize,
) -> Result<f64> {
    let service = Service::start(args, database).await?;
    let messages = messages(1, count, keys)?;
    let rate = meter
        .rate(count, async {
            for batch in messages.chunks(BATCH) {
                service.postgres.append(batch).await?;
            }
            service.progress.until(count + 1).await
        })
        .await;
    service.end(args).await?;
    rate
}

/// How long each of these takes from before it is stored until it is handled, in milliseconds, one after another.
async fn latencies(args: &Args, database: &Database, meter: &Meter, count: usize) -> Result<Vec<f64>> {
    let service = Service::start(args, database).await?;
    let mut figures = Vec::with_capacity(count);
    for n in 1..=count {
        let began = meter.now();
        service
            .runtime
            .publisher()
            .message(Done::TOPIC, &Done { n })
            .key(n)
            .send()
            .await?;
        service.progress.until(n + 1).await?;
        figures.push((meter.now() - began).as_secs_f64() * 1e3);
    }
    service.end(args).await?;
    Ok(figures)
}
