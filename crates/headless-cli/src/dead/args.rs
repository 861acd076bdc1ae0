//! The command line of `headless dead`.

use std::{num::NonZeroU32, path::PathBuf};

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args, Subcommand, value_parser};
use headless::{DeadId, FailureCause, GroupName, MessageId, PartitionKey, TopicName};

use crate::operator::{ByArgs, PlaceArgs};

/// The arguments of `dead`.
#[derive(Debug, Args)]
pub(crate) struct DeadArgs {
    #[command(subcommand)]
    pub(crate) command: DeadCommand,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List dead letters, the oldest first, or count them by what they died of
    List(ListArgs),
    /// Show one with its message, every attempt's failure, and what was done to it
    Show(ShowArgs),
    /// Give one another payload, with which it is redriven later; the one before is kept
    Edit(EditArgs),
    /// Send some on their way again: to the group in which they died, or into the outbox
    Redrive(RedriveArgs),
    /// Close some without redriving them; they stay as a record
    Discard(DiscardArgs),
}

/// Which dead letters. Every condition that is given must hold.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// That died in this group
    #[arg(long, value_name = "GROUP", conflicts_with = "relay", value_parser = |text: &str| GroupName::parse(text))]
    pub(crate) group: Option<GroupName>,
    /// That died in the relay
    #[arg(long)]
    pub(crate) relay: bool,
    /// Of this topic
    #[arg(long, value_name = "TOPIC", value_parser = |text: &str| TopicName::parse(text))]
    pub(crate) topic: Option<TopicName>,
    /// Of this partition key
    #[arg(long, value_name = "KEY", value_parser = |text: &str| PartitionKey::parse(text))]
    pub(crate) key: Option<PartitionKey>,
    /// Of this message
    #[arg(long, value_name = "MESSAGE")]
    pub(crate) message: Option<MessageId>,
    /// Whose last failure has this cause: error, permanent, panic, timeout, undecodable, …
    #[arg(long, value_name = "CAUSE", value_parser = cause)]
    pub(crate) cause: Option<FailureCause>,
    /// Whose last failure's message contains this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) error: Option<String>,
    /// Like this one: of the same origin, topic and cause, and with an error that differs in numbers and ids alone
    #[arg(long, value_name = "ID", conflicts_with_all = ["group", "relay", "topic", "cause"])]
    pub(crate) like: Option<DeadId>,
    /// That died at this moment or later, as in 2026-11-21T08:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) since: Option<DateTime<Utc>>,
    /// That died before this moment
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) until: Option<DateTime<Utc>>,
}

/// Which dead letters are to be changed: some by their ids, or what matches.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).multiple(true).args([
    "ids", "all", "group", "relay", "topic", "key", "message", "cause", "error", "like", "since", "until",
]))]
pub(crate) struct WhichArgs {
    /// These
    #[arg(value_name = "ID", conflicts_with_all = [
        "all", "group", "relay", "topic", "key", "message", "cause", "error", "like", "since", "until", "most",
    ])]
    pub(crate) ids: Vec<DeadId>,
    /// All that are open
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// The most that are changed; it says when more match
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(crate) most: u32,
    /// Change nothing; count what matches, by what it died of
    #[arg(long, conflicts_with = "ids")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) by: ByArgs,
}

/// The arguments of `dead list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Also those that were redriven or discarded
    #[arg(long)]
    pub(crate) closed: bool,
    /// Count them by origin, topic, cause and error, the most frequent first; errors that differ in numbers and ids alone
    /// count together
    #[arg(long, conflicts_with = "after")]
    pub(crate) by_cause: bool,
    /// The most lines
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u16).range(1..=1_000))]
    pub(crate) limit: u16,
    /// Go on where a list has ended; it says how
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<String>,
}

/// The arguments of `dead show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Which
    pub(crate) id: DeadId,
    /// Print the payload alone, as the bytes that it is
    #[arg(long, conflicts_with = "json")]
    pub(crate) payload: bool,
}

/// The arguments of `dead edit`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["data", "file"]))]
pub(crate) struct EditArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Which
    pub(crate) id: DeadId,
    /// The payload, or `-` to read it from standard input
    pub(crate) data: Option<String>,
    /// The payload is the content of FILE, or of standard input for `-`
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Take a payload that is no JSON where the one before says that it is JSON
    #[arg(long)]
    pub(crate) raw: bool,
    /// Only if it has been edited so often, as `show` says. Without it, it is what `edit` reads itself
    #[arg(long, value_name = "N")]
    pub(crate) seen: Option<u32>,
    #[command(flatten)]
    pub(crate) by: ByArgs,
}

/// The arguments of `dead redrive`.
#[derive(Debug, Args)]
pub(crate) struct RedriveArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    /// The most in a second, where a filter says which
    #[arg(long, value_name = "N", default_value = "100", conflicts_with = "ids")]
    pub(crate) rate: NonZeroU32,
    /// The most redrives of one message
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) max_redrives: u32,
    /// Also what died more than seven days ago, of which the inbox may no longer know that it was done in the meantime
    #[arg(long)]
    pub(crate) force: bool,
}

/// The arguments of `dead discard`.
#[derive(Debug, Args)]
pub(crate) struct DiscardArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
}

fn cause(text: &str) -> Result<FailureCause, String> {
    let names = FailureCause::ALL.map(FailureCause::as_str).join(", ");
    FailureCause::from_name(text).ok_or_else(|| format!("it is one of {names}"))
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    match DateTime::parse_from_rfc3339(text) {
        Ok(time) => Ok(time.with_timezone(&Utc)),
        Err(error) => Err(format!("{error}: write it as in 2026-11-21T08:00:00Z")),
    }
}
