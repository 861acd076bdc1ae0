//! The inbox on PostgreSQL beside raw SQL, and a whole consumer.

mod consumer;
mod mark;

use anyhow::Result;

use crate::{args::Args, database::Database, measure::Meter, report::Report};

pub(crate) async fn run(args: &Args, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let database = Database::open(&args.store).await?;
    let measured = async {
        mark::run(args, &database, meter, report).await?;
        consumer::run(args, &database, meter, report).await
    }
    .await;
    database.drop().await?;
    measured
}
