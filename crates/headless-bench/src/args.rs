//! What the command takes.

use clap::{Parser, ValueEnum};

/// headless beside the raw clients, in one run: ratios, not absolute speeds. Run it in release mode on a quiet machine.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// What to measure.
    pub(crate) name: Name,
    /// Prints one line of JSON for each case.
    #[arg(long)]
    pub(crate) json: bool,
    /// The database; its cases make a schema of their own and drop it.
    #[arg(
        long,
        value_name = "URL",
        default_value = "postgres://postgres@127.0.0.1:5432/test"
    )]
    pub(crate) store: String,
    /// Smaller, in less than 40 seconds: to see that it runs, not how fast.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) only: String,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// The transport in memory beside a bounded channel.
    Memory,
    /// The outbox on PostgreSQL beside raw SQL.
    Outbox,
    /// The inbox on PostgreSQL beside raw SQL, and a whole consumer.
    Consume,
    /// The transport on PostgreSQL beside raw SQL.
    Transport,
}

impl Name {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Outbox => "outbox",
            Self::Consume => "consume",
            Self::Transport => "transport",
        }
    }
}
