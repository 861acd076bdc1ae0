//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, value_parser};
use clap_complete::Shell;

use crate::{dead::DeadArgs, groups::GroupsArgs, status::StatusArgs, tail::TailArgs, topics::TopicsArgs};

/// Publish, and watch that nothing is lost.
#[derive(Debug, Parser)]
#[command(name = "headless", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  all went well
  1  something failed
  2  the input or the usage is wrong
  3  the demo found something lost, doubled or overtaken; `migrate --check` found migrations that are missing; `dead`
     did not find, or could not change, something of what was asked for, and says why; `doctor` found something bad;
     `groups --wait` stored what is wanted, and not every live node has applied it in time; `groups remove` did not
     find the group, or messages wait for it; `topics repartition` did not find the topic, or messages of it wait

RUST_LOG sets what is logged to standard error, as in RUST_LOG=headless=debug; by default warnings.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print what a shell needs to complete this command
    Completions(CompletionsArgs),
    /// Print every setting that a configuration comes to, and where each came from; nothing is connected to
    Config(ConfigArgs),
    /// Publish messages through an outbox, handle them with two members, and count what was lost, doubled or overtaken
    Demo(DemoArgs),
    /// Look at dead letters, count, edit, redrive and discard them
    Dead(DeadArgs),
    /// Look at the servers of a service: reachable? version? rights? clock? schema? Each finding says what to do
    Doctor(DoctorArgs),
    /// One process of a demo
    #[command(hide = true)]
    DemoMember(DemoMemberArgs),
    /// List, pause, resume and limit consumer groups, in every process of a service
    Groups(GroupsArgs),
    /// Bring the schema of a store up to date; any number of processes at once are safe
    Migrate(MigrateArgs),
    /// Publish one message, or each line of a file
    Publish(PublishArgs),
    /// Show how much there is in a store, the nodes that use it with their tasks, and their groups
    Status(StatusArgs),
    /// Show the messages of a topic as they go by; none is taken from any group
    Tail(TailArgs),
    /// Give a topic another count of partitions
    Topics(TopicsArgs),
}

/// The arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

/// The arguments of `config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// A configuration in TOML; may be repeated, a later one goes before an earlier one. Without it, the file that the
    /// variable HEADLESS__CONFIG names. Variables as HEADLESS__RELAY__BATCH go before both
    #[arg(long = "file", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Look at this store
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Look at this transport
    #[arg(long, value_name = "URL")]
    pub(crate) transport: Option<String>,
    /// Look at what this configuration in TOML names; may be repeated, and variables go before it, as for `config`.
    /// Without any of these, at what the variables name
    #[arg(long = "file", value_name = "FILE", conflicts_with_all = ["store", "transport"])]
    pub(crate) files: Vec<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the messages of the demo are made from.
#[derive(Debug, Args)]
pub(crate) struct LinesArgs {
    /// JSON lines with id (the idempotency key), key (the partition key), event (a header) and payload (the body), or
    /// `-` for standard input; without it, orders are made up
    #[arg(long, value_name = "FILE", conflicts_with_all = ["keys", "messages"])]
    pub(crate) input: Option<PathBuf>,
    /// How many customers the orders are made up for
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// How many orders are made up
    #[arg(long, default_value_t = 20_000)]
    pub(crate) messages: u64,
}

/// The arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    pub(crate) lines: LinesArgs,
    /// The store: `memory:`, or `postgres://…`, where the demo works in a schema of its own and removes it at its end
    #[arg(long, value_name = "URL", default_value = "memory:")]
    pub(crate) store: String,
    /// The transport: likewise, or `amqp://…`, where the demo works in a namespace of its own. Unless one of the two is
    /// memory, the members are processes
    #[arg(long, value_name = "URL", default_value = "memory:")]
    pub(crate) transport: String,
    /// Take one member away after N handled messages, as a crash would (with SIGKILL, where it is a process), and start
    /// another
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    pub(crate) crash_after: Option<u64>,
    /// Print the figures as JSON, on the last line
    #[arg(long)]
    pub(crate) json: bool,
}

/// The arguments of `demo-member`. It ends when its standard input has ended and everything is settled.
#[derive(Debug, Args)]
pub(crate) struct DemoMemberArgs {
    /// What it does
    #[arg(long)]
    pub(crate) role: Role,
    /// The store, with the schema of the demo
    #[arg(long, value_name = "URL")]
    pub(crate) store: String,
    /// The transport
    #[arg(long, value_name = "URL")]
    pub(crate) transport: String,
    #[command(flatten)]
    pub(crate) lines: LinesArgs,
}

/// What a process of a demo does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Publishes what is not published yet, and ends.
    Producer,
    /// Sends the outbox.
    Relay,
    /// Handles.
    Consumer,
    /// Relays and handles.
    Member,
}

/// The arguments of `migrate`.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// The store
    #[arg(long, value_name = "URL")]
    pub(crate) store: String,
    /// Change nothing, list what is missing, and end with 3 if there is any
    #[arg(long)]
    pub(crate) check: bool,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The arguments of `publish`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["data", "lines"]))]
#[command(group = ArgGroup::new("where").required(true).multiple(true).args(["store", "transport"]))]
pub(crate) struct PublishArgs {
    /// The topic
    #[arg(long)]
    pub(crate) topic: String,
    /// The topic keeps the order of keys over this many partitions; without it, the topic keeps no order
    #[arg(long, value_name = "N")]
    pub(crate) partitions: Option<u16>,
    /// The partition key
    #[arg(long, conflicts_with = "lines")]
    pub(crate) key: Option<String>,
    /// The idempotency key
    #[arg(long, conflicts_with = "lines")]
    pub(crate) idempotency_key: Option<String>,
    /// A header, as NAME=VALUE; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// Send DATA as the bytes that it is, instead of as JSON
    #[arg(long, conflicts_with = "lines")]
    pub(crate) raw: bool,
    /// Publish through the outbox of this store; a service that relays it sends the message
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// The transport: messages are sent to it directly. With --store as well, this process relays what waits in that outbox,
    /// whoever stored it, until it ends
    #[arg(long, value_name = "URL")]
    pub(crate) transport: Option<String>,
    /// Print a JSON object for each message, instead of its id
    #[arg(long)]
    pub(crate) json: bool,
    /// Publish each line of FILE (`-` for standard input): JSON with payload and, if wanted, id (the idempotency key),
    /// key, event (a header) and headers
    #[arg(long, value_name = "FILE")]
    pub(crate) lines: Option<PathBuf>,
    /// The body as JSON, or `-` to read it from standard input
    pub(crate) data: Option<String>,
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("write it as NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn should_be_consistent_when_clap_checks_it() {
        Cli::command().debug_assert();
    }
}
