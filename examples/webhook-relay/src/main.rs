//! A service that takes GitHub's webhooks: it checks their signature, stores each with its message in one transaction,
//! relays it, and counts it per repository effectively once and in order. The README says how to run it.

mod args;
mod refusal;
mod server;
mod service;
mod signature;
mod statistics;
mod storage;
mod trace;
mod webhook;

use std::{io, process::ExitCode};

use clap::Parser;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::args::Args;

/// What is logged unless RUST_LOG says otherwise. The AMQP client logs as errors what the provider expects and handles.
const LOGGED: &str = "info,lapin=off";

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(LOGGED));
    let printed = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_filter(filter);
    let provider = SdkTracerProvider::builder().build();
    tracing_subscriber::registry()
        .with(printed)
        .with(trace::layer(&provider))
        .init();
    match service::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
