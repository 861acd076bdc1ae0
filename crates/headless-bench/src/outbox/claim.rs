//! Claiming and acknowledging (P1, P1k, P7, P8).

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use headless_abstractions::{ClaimOutbox, InFlight, OutboxStore, Owner};
use headless_postgres::{Postgres, Wake};
use uuid::Uuid;

use super::{PAYLOAD, raw};
use crate::{
    args::Args,
    database::Database,
    measure::Meter,
    report::{Case, Report},
    samples::Samples,
};

const BATCH: usize = 100;
const LEASE: Duration = Duration::from_secs(30);
/// How long a relay sleeps that got nothing.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Which keys the rows have.
#[derive(Clone, Copy, Debug)]
enum Keys {
    None,
    Many(usize),
    /// One key has every other row.
    Half,
}

impl Keys {
    fn of(self, n: usize) -> Option<String> {
        match self {
            Self::None => None,
            Self::Many(keys) => Some(format!("key-{}", n % keys)),
            Self::Half if n.is_multiple_of(2) => Some("hot".to_owned()),
            Self::Half => Some(format!("key-{}", n % 10_000)),
        }
    }
}

pub(super) async fn run(args: &Args, database: &Database, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let count = if args.quick { 10_000 } else { 100_000 };
    for (keys, name, target, goal) in [
        (Keys::None, "unkeyed", "P1", 0.8),
        (Keys::Many(10), "10 keys", "P1k", 1.0),
        (Keys::Many(10_000), "10 000 keys", "P1k", 1.0),
        (Keys::Half, "one key has half", "P1k", 1.0),
    ] {
        for relays in [1, 4] {
            let case = format!("claim + ack, {name}, relays {relays}, beside a lease loop");
            if report.wants(&case) {
                let rounds = meter
                    .turns(
                        || drain(database, meter, count, relays, keys),
                        || raw::lease_loop(database, meter, count, relays, BATCH),
                    )
                    .await?;
                report.print(Case::new(case, target, goal, rounds).with_known_raw(108_000.0))?;
            }
        }
        let case = format!("claim + ack, {name}, beside select + delete");
        if report.wants(&case) {
            let rounds = meter
                .turns(
                    || drain(database, meter, count, 1, keys),
                    || raw::delete_loop(database, meter, count, BATCH),
                )
                .await?;
            report.print(Case::new(case, "P1k", 0.8, rounds))?;
        }
    }
    backlog(args, database, meter, report).await?;
    old_snapshot(args, database, meter, report).await
}

/// Fills the outbox of a fresh handle.
async fn fill(database: &Database, count: usize, keys: Keys) -> Result<Postgres> {
    let postgres = database.connect(Wake::Off).await?;
    let mut samples = Samples::new("bench", PAYLOAD)?;
    for from in (0..count).step_by(1_000) {
        let batch = samples.many(1_000.min(count - from), |n| keys.of(from + n))?;
        postgres.append(&batch).await?;
    }
    database.script(include_str!("../../queries/analyze.sql")).await?;
    Ok(postgres)
}

/// How fast `relays` relays empty an outbox of `count` rows.
async fn drain(database: &Database, meter: &Meter, count: usize, relays: usize, keys: Keys) -> Result<f64> {
    let postgres = fill(database, count, keys).await?;
    let rate = meter
        .rate(count, async {
            let done = AtomicUsize::new(0);
            let relays = (0..relays).map(|_| relay(&postgres, &done, count));
            futures::future::try_join_all(relays).await?;
            let done = done.into_inner();
            ensure!(done == count, "{done} rows were handed out of {count}");
            Ok(())
        })
        .await?;
    headless_abstractions::Transport::close(&postgres).await?;
    Ok(rate)
}

/// Claims, acknowledging the last batch with each claim, until all relays together have done `count` rows.
async fn relay(postgres: &Postgres, done: &AtomicUsize, count: usize) -> Result<()> {
    let owner = Owner::from_bits(Uuid::new_v4().as_u128());
    let mut ack = Vec::new();
    loop {
        let request = ClaimOutbox::new(owner, BATCH, LEASE)
            .with_in_flight(InFlight::RunPerKey)
            .with_ack(std::mem::take(&mut ack));
        let claimed = OutboxStore::claim(postgres, &request).await?;
        ensure!(
            claimed.acked.is_complete(),
            "a claim was lost: {:?}",
            claimed.acked
        );
        ack.extend(claimed.rows.iter().map(|row| row.claim));
        if done.fetch_add(ack.len(), Ordering::Relaxed) + ack.len() >= count {
            let acked = OutboxStore::ack(postgres, owner, &ack).await?;
            ensure!(acked.is_complete(), "a claim was lost: {acked:?}");
            return Ok(());
        }
        if ack.is_empty() {
            // What is left is with another relay. One of ours sleeps until it is woken or polls, seldom; this one asks again.
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

/// One relay for `count` rows.
async fn relay_alone(postgres: &Postgres, count: usize) -> Result<()> {
    relay(postgres, &AtomicUsize::new(0), count).await
}

/// A claim costs the same whatever waits, and whatever has been.
async fn backlog(args: &Args, database: &Database, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let (few, many) = if args.quick {
        (5_000, 20_000)
    } else {
        (100_000, 1_000_000)
    };
    let sample = few / 2;
    let name = "claim + ack at 1 M pending beside 100 k";
    if report.wants(name) {
        let rounds = meter
            .turns(
                || first(database, meter, many, sample),
                || first(database, meter, few, sample),
            )
            .await?;
        report.print(Case::new(name, "P7", 0.8, rounds))?;
    }
    let name = "claim + ack after 1 M finished beside none";
    if report.wants(name) {
        let rounds = meter
            .turns(
                || async {
                    drain(database, meter, many - few, 1, Keys::Many(10_000)).await?;
                    first(database, meter, few, sample).await
                },
                || async {
                    let fresh = Database::open(&args.store).await?;
                    let rate = first(&fresh, meter, few, sample).await;
                    fresh.drop().await?;
                    rate
                },
            )
            .await?;
        report.print(Case::new(name, "P7", 0.95, rounds))?;
    }
    Ok(())
}

/// How fast one relay does the first `sample` of `count` rows; the others are removed after.
async fn first(database: &Database, meter: &Meter, count: usize, sample: usize) -> Result<f64> {
    let postgres = fill(database, count, Keys::Many(10_000)).await?;
    let rate = meter.rate(sample, relay_alone(&postgres, sample)).await?;
    relay_alone(&postgres, count - sample).await?;
    headless_abstractions::Transport::close(&postgres).await?;
    Ok(rate)
}

/// An old snapshot, held open as a long report holds one, keeps every dead row: the last second beside the first.
async fn old_snapshot(args: &Args, database: &Database, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let name = "claim + ack under an old snapshot, the last second beside the first";
    if !report.wants(name) {
        return Ok(());
    }
    let (count, seconds) = if args.quick { (100_000, 2) } else { (1_500_000, 8) };
    let postgres = fill(database, count, Keys::Many(10_000)).await?;
    let mut snapshot = database.raw.begin().await?;
    sqlx::raw_sql(include_str!("../../queries/hold_snapshot.sql"))
        .execute(&mut *snapshot)
        .await?;
    let mut left = count;
    let mut rates = Vec::with_capacity(seconds);
    for _ in 0..seconds {
        let (began, mut done) = (meter.now(), 0);
        while meter.now() - began < Duration::from_secs(1) {
            relay_alone(&postgres, 10 * BATCH).await?;
            done += 10 * BATCH;
            ensure!(left > done, "the outbox ran empty: fill in more rows");
        }
        left -= done;
        rates.push(done as f64 / (meter.now() - began).as_secs_f64());
    }
    snapshot.rollback().await?;
    let (first, last) = (rates.first().copied(), rates.last().copied());
    if let (Some(first), Some(last)) = (first, last) {
        report.print(Case::new(name, "P8", 0.6, vec![[last, first]]))?;
    }
    relay_alone(&postgres, left).await?;
    headless_abstractions::Transport::close(&postgres).await?;
    Ok(())
}
