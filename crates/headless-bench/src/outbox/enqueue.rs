//! Storing messages (P4, P5).

use anyhow::Result;
use headless_abstractions::{OutboxStore, OwnedTx, StoreTx, Transport, UnitOfWorkStore};
use headless_postgres::{Postgres, Wake};

use super::{PAYLOAD, raw};
use crate::{
    args::Args,
    database::Database,
    measure::Meter,
    report::{Case, Report},
    samples::Samples,
};

const BATCH: usize = 1_000;
const WRITERS: usize = 8;

pub(super) async fn run(args: &Args, database: &Database, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let scale = if args.quick { 1 } else { 10 };
    let name = "append in batches of 1 000, beside UNNEST";
    if report.wants(name) {
        let rounds = meter
            .turns(
                || batches(database, meter, 20 * scale),
                || raw_batches(database, meter, 20 * scale),
            )
            .await?;
        report.print(Case::new(name, "P4", 0.8, rounds).with_known_raw(215_000.0))?;
    }
    let name = "append one in a transaction, beside a raw insert";
    if report.wants(name) {
        let rounds = meter
            .turns(
                || singles(database, meter, 500 * scale),
                || raw_singles(database, meter, 500 * scale),
            )
            .await?;
        report.print(Case::new(name, "P4", 0.9, rounds))?;
    }
    let name = "append one, eight writers, wake-ups on beside off";
    if report.wants(name) {
        let rounds = meter
            .turns(
                || writers(database, meter, 2_000 * scale, Wake::On),
                || writers(database, meter, 2_000 * scale, Wake::Off),
            )
            .await?;
        report.print(Case::new(name, "P5", 0.9, rounds))?;
    }
    Ok(())
}

async fn empty(database: &Database) -> Result<()> {
    let truncate = include_str!("../../queries/truncate_outbox.sql");
    database.script(truncate).await
}

async fn batches(database: &Database, meter: &Meter, count: usize) -> Result<f64> {
    let postgres = database.connect(Wake::Off).await?;
    let mut samples = Samples::new("bench", PAYLOAD)?;
    let messages = samples.many(count * BATCH, |n| Some(format!("key-{}", n % 10_000)))?;
    let rate = meter
        .rate(messages.len(), async {
            for batch in messages.chunks(BATCH) {
                postgres.append(batch).await?;
            }
            Ok(())
        })
        .await?;
    postgres.close().await?;
    empty(database).await?;
    Ok(rate)
}

async fn raw_batches(database: &Database, meter: &Meter, count: usize) -> Result<f64> {
    raw::fill(database, 0).await?;
    let mut samples = Samples::new("bench", PAYLOAD)?;
    let messages = samples.many(count * BATCH, |n| Some(format!("key-{}", n % 10_000)))?;
    let mut conn = database.raw.acquire().await?;
    meter
        .rate(messages.len(), async {
            for batch in messages.chunks(BATCH) {
                raw::insert_many(&mut conn, batch).await?;
            }
            Ok(())
        })
        .await
}

async fn singles(database: &Database, meter: &Meter, count: usize) -> Result<f64> {
    let postgres = database.connect(Wake::Off).await?;
    let messages = Samples::new("bench", PAYLOAD)?.many(count, |n| Some(format!("key-{n}")))?;
    let rate = meter
        .rate(count, async {
            for message in &messages {
                let mut tx = postgres.begin().await?;
                tx.append(std::slice::from_ref(message)).await?;
                Box::new(tx).commit().await?;
            }
            Ok(())
        })
        .await?;
    postgres.close().await?;
    empty(database).await?;
    Ok(rate)
}

async fn raw_singles(database: &Database, meter: &Meter, count: usize) -> Result<f64> {
    raw::fill(database, 0).await?;
    let messages = Samples::new("bench", PAYLOAD)?.many(count, |n| Some(format!("key-{n}")))?;
    meter
        .rate(count, async {
            for message in &messages {
                let mut tx = database.raw.begin().await?;
                raw::insert_one(&mut tx, message).await?;
                tx.commit().await?;
            }
            Ok(())
        })
        .await
}

/// Eight writers of one row each time, with or without telling other processes.
async fn writers(database: &Database, meter: &Meter, count: usize, wake: Wake) -> Result<f64> {
    let postgres = database.connect(wake).await?;
    let each = count / WRITERS;
    let mut all = Vec::new();
    for _ in 0..WRITERS {
        all.push(Samples::new("bench", PAYLOAD)?.many(each, |n| Some(format!("key-{n}")))?);
    }
    let rate = meter
        .rate(each * WRITERS, async {
            let writing = all.into_iter().map(|messages| {
                let postgres = postgres.clone();
                async move { tokio::spawn(write(postgres, messages)).await? }
            });
            futures::future::try_join_all(writing).await.map(drop)
        })
        .await?;
    postgres.close().await?;
    empty(database).await?;
    Ok(rate)
}

async fn write(postgres: Postgres, messages: Vec<headless_abstractions::Message>) -> Result<()> {
    for message in messages {
        postgres.append(&[message]).await?;
    }
    Ok(())
}
