//! `headless-bench`: headless beside the raw clients, in one run.

mod args;
mod consume;
mod database;
mod flow;
mod lapin_by_hand;
mod measure;
mod memory;
mod order;
mod outbox;
mod quiet;
mod report;
mod samples;
mod transport;

use anyhow::Result;
use clap::Parser;

use crate::{
    args::{Args, Name},
    measure::Meter,
    report::Report,
};

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let (meter, report) = (Meter::new(args.quick), Report::new(&args));
    match args.name {
        Name::Memory => memory::run(&args, &meter, &report).await,
        Name::Outbox => outbox::run(&args, &meter, &report).await,
        Name::Consume => consume::run(&args, &meter, &report).await,
        Name::Transport => transport::run(&args, &meter, &report).await,
        Name::Flow => flow::run(&args, &meter, &report).await,
        Name::Order => order::run(&args).await,
    }
}
