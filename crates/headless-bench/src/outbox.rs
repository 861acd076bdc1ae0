//! The outbox on PostgreSQL beside raw SQL.

mod claim;
mod cost;
mod enqueue;
mod raw;

use anyhow::Result;

use crate::{args::Args, database::Database, measure::Meter, report::Report};

/// The bytes of a payload, as in the figures of the performance page.
const PAYLOAD: usize = 110;

pub(crate) async fn run(args: &Args, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let database = Database::open(&args.store).await?;
    let measured = async {
        claim::run(args, &database, meter, report).await?;
        enqueue::run(args, &database, meter, report).await?;
        cost::run(args, &database, meter, report).await
    }
    .await;
    database.drop().await?;
    measured
}
