//! A mark in the user's transaction beside the same transaction without it (P1i).

use anyhow::{Result, ensure};
use headless_abstractions::{
    Arrival, GroupName, Hold, Marked, Message, OwnedTx, StoreTx, Transport, UnitOfWorkStore,
};
use headless_postgres::{Postgres, Wake};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{
    args::Args,
    database::Database,
    measure::Meter,
    report::{Case, Report},
    samples::Samples,
};

pub(super) async fn run(args: &Args, database: &Database, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let scale = if args.quick { 1 } else { 10 };
    for (batch, count, goal) in [(1, 500 * scale, 0.8), (100, 5_000 * scale, 0.45)] {
        let name = format!("insert + mark + commit beside insert + commit, batches of {batch}");
        if report.wants(&name) {
            let rounds = meter
                .turns(
                    || marked(database, meter, count, batch),
                    || unmarked(database, meter, count, batch),
                )
                .await?;
            report.print(Case::new(name, "P1i", goal, rounds))?;
        }
    }
    Ok(())
}

async fn marked(database: &Database, meter: &Meter, count: usize, batch: usize) -> Result<f64> {
    let postgres = database.connect(Wake::Off).await?;
    let (messages, effects) = prepare(database, count).await?;
    let group = GroupName::parse("bench")?;
    let rate = meter
        .rate(count, async {
            for batch in messages.chunks(batch) {
                handle(&postgres, &group, batch, &effects).await?;
            }
            Ok(())
        })
        .await?;
    postgres.close().await?;
    Ok(rate)
}

async fn handle(postgres: &Postgres, group: &GroupName, batch: &[Message], effects: &str) -> Result<()> {
    let marks: Vec<_> = batch
        .iter()
        .map(|message| (Arrival::of(group, message, true), Hold::Absent))
        .collect();
    let mut tx = postgres.begin_to_mark().await?;
    let marked = tx.mark_processed(&marks).await?;
    ensure!(
        marked.iter().all(|marked| *marked == Marked::Now),
        "a mark was refused: {marked:?}"
    );
    write(tx.conn(), batch, effects).await?;
    Box::new(tx).commit().await?;
    Ok(())
}

async fn unmarked(database: &Database, meter: &Meter, count: usize, batch: usize) -> Result<f64> {
    let (messages, effects) = prepare(database, count).await?;
    meter
        .rate(count, async {
            for batch in messages.chunks(batch) {
                let mut tx = database.raw.begin().await?;
                write(&mut tx, batch, &effects).await?;
                tx.commit().await?;
            }
            Ok(())
        })
        .await
}

/// The messages, and the statement of their effects.
async fn prepare(database: &Database, count: usize) -> Result<(Vec<Message>, String)> {
    database
        .script(include_str!("../../queries/raw/create_effects.sql"))
        .await?;
    let messages = Samples::new("bench", 110)?.many(count, |n| Some(format!("key-{}", n % 10_000)))?;
    let effects = include_str!("../../queries/raw/insert_effects.sql")
        .replace("into effect", &format!("into {}.effect", database.schema));
    Ok((messages, effects))
}

async fn write(conn: &mut PgConnection, batch: &[Message], effects: &str) -> Result<()> {
    // The text is this crate's, and the schema's name is a valid identifier.
    sqlx::query(AssertSqlSafe(effects.to_owned()))
        .bind(batch.iter().map(|m| m.id.as_uuid()).collect::<Vec<_>>())
        .bind(batch.iter().map(|m| m.payload.as_ref()).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}
