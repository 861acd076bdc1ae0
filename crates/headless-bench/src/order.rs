//! The trial of the order of keys, for as long as one likes: no figure of speed, but whether promises are kept.

use std::{
    io::{self, Write},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use headless_abstractions::{Error, ErrorKind};
use headless_harness::{
    FaultProxy, Fixture, Namespace, OrderCheck, OrderReport, StoreFixture, StoreNode, Unavailable,
};
use headless_postgres::{Postgres, PostgresConfig, PostgresTx};
use serde_json::json;

use crate::{args::Args, database::Database};

/// The longest trial, in minutes: a day.
const LONGEST: f64 = 24.0 * 60.0;

/// Runs the trial, and prints what it has shown.
///
/// # Errors
/// When something was lost, overtaken or repeated without a reason, too.
pub(crate) async fn run(args: &Args) -> Result<()> {
    ensure!(
        args.minutes > 0.0 && args.minutes <= LONGEST,
        "--minutes must be above 0, and {LONGEST} at most"
    );
    let trial = Trial {
        database: Database::open(&args.store).await?,
        url: args.store.clone(),
        ways: Mutex::default(),
    };
    let report = OrderCheck::lasting(Duration::from_secs_f64(60.0 * args.minutes))
        .with_seed(args.seed)
        .run(&trial)
        .await;
    trial.database.drop().await?;
    let report = report.context("the trial did not come to its end")?;
    print(args, &report)?;
    ensure!(report.is_sound(), "a promise was broken");
    Ok(())
}

fn print(args: &Args, report: &OrderReport) -> Result<()> {
    let duplicates = report.repeated + report.late + report.unexplained;
    let mut out = io::stdout().lock();
    if !args.json {
        writeln!(
            out,
            "order, {} minutes, seed {}: {report}",
            args.minutes, args.seed
        )?;
        return Ok(());
    }
    let figures = json!({
        "bench": args.name.as_str(),
        "minutes": args.minutes,
        "seed": args.seed,
        "committed": report.committed,
        "sent": report.sent,
        "dead": report.dead,
        "violations": report.violations,
        "example": report.example,
        "lost": report.lost,
        "ghosts": report.ghosts,
        "duplicates": duplicates,
        "duplicates_after_deaths": report.repeated,
        "duplicates_after_late_acks": report.late,
        "duplicates_unexplained": report.unexplained,
        "deaths": report.deaths,
        "kills": report.kills,
    });
    writeln!(out, "{figures}")?;
    Ok(())
}

/// The schema of a trial, and the ways of its processes to the server, which a kill cuts for good.
#[derive(Debug)]
struct Trial {
    database: Database,
    url: String,
    ways: Mutex<Vec<Arc<FaultProxy>>>,
}

#[async_trait]
impl Fixture for Trial {
    const LEASE: Duration = Duration::from_millis(1_500);

    async fn open(_: Namespace) -> Result<Self, Unavailable> {
        Err(Unavailable::Absent(
            "a trial is made for the database of --store".to_owned(),
        ))
    }

    fn version(&self) -> String {
        String::new()
    }

    async fn drop_namespace(self) -> headless_abstractions::Result<()> {
        self.database
            .drop()
            .await
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
    }
}

#[async_trait]
impl StoreFixture for Trial {
    type Store = Postgres;

    async fn node(&self) -> headless_abstractions::Result<StoreNode<Postgres>> {
        const FEW: NonZeroU32 = NonZeroU32::new(3).unwrap();
        let way = Arc::new(FaultProxy::in_front_of(&self.url).map_err(no_way)?);
        self.ways
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(way.clone());
        let config = PostgresConfig::new(&way.url_for(&self.url).map_err(no_way)?)?
            .with_schema(self.database.schema.clone())
            .with_max_connections(FEW)
            .with_control_connections(FEW);
        let postgres = Postgres::connect_with(config).await?;
        Ok(StoreNode::new(postgres, move || way.reset()))
    }

    async fn write_row(_: &mut PostgresTx, _: &str, _: &str) -> headless_abstractions::Result<()> {
        Err(Error::unsupported("a trial has no table of the application"))
    }

    async fn rows(&self) -> headless_abstractions::Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }
}

fn no_way(error: io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "no way to the server of --store, which must be a TCP address",
    )
    .with_source(error)
}
