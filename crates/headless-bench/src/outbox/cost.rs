//! What a message costs the server, from publishing to done (P9).

use std::time::Duration;

use anyhow::{Result, ensure};
use headless_abstractions::{ClaimOutbox, InFlight, OutboxStore, Owner, Transport};
use headless_postgres::Wake;

use super::PAYLOAD;
use crate::{
    args::Args,
    database::Database,
    measure::Meter,
    report::{Case, Report},
    samples::Samples,
};

pub(super) async fn run(args: &Args, database: &Database, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let name = "append 1 000, claim + ack 100: log written for each";
    if !report.wants(name) {
        return Ok(());
    }
    let count: usize = if args.quick { 5_000 } else { 50_000 };
    let postgres = database.connect(Wake::Off).await?;
    let messages = Samples::new("bench", PAYLOAD)?.many(count, |n| Some(format!("key-{}", n % 10_000)))?;
    meter.settle().await;
    let (wal, commits) = (wal(database).await?, commits(database).await?);
    for batch in messages.chunks(1_000) {
        postgres.append(batch).await?;
    }
    let (owner, mut done, mut ack) = (Owner::from_bits(1), 0, Vec::new());
    while done < count {
        let request = ClaimOutbox::new(owner, 100, Duration::from_secs(30))
            .with_in_flight(InFlight::RunPerKey)
            .with_ack(std::mem::take(&mut ack));
        let claimed = OutboxStore::claim(&postgres, &request).await?;
        ensure!(!claimed.rows.is_empty(), "{done} rows were handed out of {count}");
        ack.extend(claimed.rows.iter().map(|row| row.claim));
        done += ack.len();
    }
    let acked = OutboxStore::ack(&postgres, owner, &ack).await?;
    ensure!(acked.is_complete(), "a claim was lost: {acked:?}");
    let written = (self::wal(database).await? - wal) as f64 / count as f64;
    report.print(Case::at_most(name, "P9", "bytes", 750.0, &[written]))?;
    postgres.close().await?;
    // The server reports transactions once a session has been idle for a moment, or has ended.
    let committed = settled_commits(database).await? - commits;
    report.print(Case::at_most(
        "append 1 000, claim + ack 100: commits for each",
        "P9",
        "commits",
        0.05,
        &[committed as f64 / count as f64],
    ))
}

async fn wal(database: &Database) -> Result<i64> {
    Ok(sqlx::query_scalar(include_str!("../../queries/wal_position.sql"))
        .fetch_one(&database.raw)
        .await?)
}

async fn commits(database: &Database) -> Result<i64> {
    Ok(sqlx::query_scalar(include_str!("../../queries/commits.sql"))
        .fetch_one(&database.raw)
        .await?)
}

/// The count once it has stopped growing.
async fn settled_commits(database: &Database) -> Result<i64> {
    let mut last = commits(database).await?;
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = commits(database).await?;
        // One of them is the last look itself.
        if now - last <= 2 {
            return Ok(now);
        }
        last = now;
    }
}
