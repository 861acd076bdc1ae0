//! A whole consumer beside the same statements by hand.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use headless::{Consumer, Context, Event, HandlerResult, Headless, Memory, MemoryConfig, Ordered};
use headless_abstractions::{
    GroupName, GroupSpec, Message, Partitions, TopicName, TopicOrder, TopicSpec, Topology, Transport,
};
use headless_postgres::{Postgres, Wake};
use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    args::Args,
    database::Database,
    measure::Meter,
    report::{Case, Report},
    samples::Samples,
};

/// How many handlers, or raw loops, run at once.
const AT_ONCE: usize = 8;

pub(super) async fn run(args: &Args, database: &Database, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let count = if args.quick { 2_000 } else { 20_000 };
    let name = "consume through cx.begin beside the same statements by sqlx";
    if report.wants(name) {
        let rounds = meter
            .turns(
                || consumed(database, meter, count),
                || by_hand(database, meter, count),
            )
            .await?;
        report.print(Case::new(name, "P1i", 0.8, rounds))?;
    }
    Ok(())
}

/// What is consumed.
#[derive(Debug, Deserialize, Serialize)]
struct Done {
    n: u32,
}

impl Event for Done {
    const TOPIC: &'static str = "bench";
}

/// What the handlers share.
#[derive(Debug)]
struct Progress {
    left: AtomicUsize,
    over: Notify,
    insert_effect: String,
}

impl Progress {
    async fn new(database: &Database, count: usize) -> Result<Self> {
        database
            .script(include_str!("../../queries/raw/create_effects.sql"))
            .await?;
        Ok(Self {
            left: AtomicUsize::new(count),
            over: Notify::new(),
            insert_effect: include_str!("../../queries/raw/insert_effect.sql")
                .replace("into effect", &format!("into {}.effect", database.schema)),
        })
    }

    /// Counts one, and says whether it was among those that were to come.
    fn take(&self) -> bool {
        let taken = |left: usize| left.checked_sub(1);
        match self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken)
        {
            Ok(1) => {
                self.over.notify_one();
                true
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }
}

async fn consumed(database: &Database, meter: &Meter, count: usize) -> Result<f64> {
    let postgres = database.connect(Wake::Off).await?;
    let progress = Arc::new(Progress::new(database, count).await?);
    let memory = filled(count).await?;
    let handled = progress.clone();
    let consumer = Consumer::group("bench")
        .on(move |done: Done, cx| handle(done, cx, handled.clone()))
        .ordered_by_key()
        .concurrency(AT_ONCE);
    let builder = Headless::builder("bench")
        .store(&postgres)
        .transport(memory)
        .topic::<Done>(Ordered::partitions(16))
        .consumer(consumer);
    let mut runtime = None;
    let rate = meter
        .rate(count, async {
            runtime = Some(builder.start().await?);
            progress.over.notified().await;
            Ok(())
        })
        .await?;
    if let Some(runtime) = runtime {
        runtime.shutdown(Duration::from_secs(10)).await?;
    }
    Ok(rate)
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
    progress.take();
    Ok(())
}

/// A broker with everything that is to be consumed.
async fn filled(count: usize) -> Result<Memory> {
    let capacity = NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
    let memory = Memory::with_config(MemoryConfig::default().with_group_capacity(capacity));
    let topic = TopicName::parse(Done::TOPIC)?;
    let order = TopicOrder::Partitioned(Partitions::new(16)?);
    let topology = Topology::new()
        .with_topic(TopicSpec::new(topic.clone(), order))
        .with_group(GroupSpec::new(GroupName::parse("bench")?, topic));
    memory.declare(&topology).await?;
    let mut samples = Samples::new(Done::TOPIC, 0)?;
    let messages = (0..count)
        .map(|n| {
            let mut message = samples.message(Some(&format!("key-{}", n % 1_000)))?;
            message.payload = serde_json::to_vec(&Done { n: n as u32 })?.into();
            Ok(message)
        })
        .collect::<Result<Vec<Message>>>()?;
    for batch in messages.chunks(1_000) {
        memory
            .send(batch)
            .await
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
    }
    Ok(memory)
}

async fn by_hand(database: &Database, meter: &Meter, count: usize) -> Result<f64> {
    let progress = Arc::new(Progress::new(database, count).await?);
    meter
        .rate(count, async {
            let loops = (0..AT_ONCE).map(|_| {
                let (pool, progress) = (database.raw.clone(), progress.clone());
                async move { tokio::spawn(raw_loop(pool, progress)).await? }
            });
            futures::future::try_join_all(loops).await.map(drop)
        })
        .await
}

async fn raw_loop(pool: sqlx::PgPool, progress: Arc<Progress>) -> Result<()> {
    while progress.take() {
        let id = Uuid::new_v4();
        let mut tx = pool.begin().await?;
        sqlx::query(include_str!("../../queries/raw/insert_mark.sql"))
            .bind("bench")
            .bind(id)
            .execute(&mut *tx)
            .await?;
        sqlx::query(include_str!("../../queries/raw/insert_effect.sql"))
            .bind(id)
            .bind([0_u8; 4].as_slice())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
    }
    Ok(())
}
