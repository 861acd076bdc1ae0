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
    /// The RabbitMQ; its cases make a namespace of their own and delete it.
    #[arg(long, value_name = "URL", default_value = "amqp://guest:guest@127.0.0.1:5672")]
    pub(crate) transport: String,
    /// Smaller, in less than 40 seconds: to see that it runs, not how fast.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) only: String,
    /// How long a trial lasts.
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    pub(crate) minutes: f64,
    /// Where a trial's chance begins.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
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
    /// The transports on PostgreSQL and RabbitMQ beside their clients by hand.
    Transport,
    /// From the outbox on PostgreSQL through RabbitMQ to the inbox, beside the same by hand.
    Flow,
    /// No speed, but a trial of `--minutes`: whether what is committed leaves the outbox in order, and nothing is lost,
    /// while publishers dawdle and relays fail and are killed.
    Order,
}

impl Name {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Outbox => "outbox",
            Self::Consume => "consume",
            Self::Transport => "transport",
            Self::Flow => "flow",
            Self::Order => "order",
        }
    }
}
