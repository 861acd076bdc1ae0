//! The command line of `headless groups`.

use std::{num::NonZeroU32, time::Duration};

use clap::{Args, Subcommand};
use headless::{GroupName, TopicName};

use crate::operator::{ByArgs, PlaceArgs};

/// The longest that is waited for acknowledgements.
const MOST_WAIT: Duration = Duration::from_hours(1);

/// The arguments of `groups`.
#[derive(Debug, Args)]
pub(crate) struct GroupsArgs {
    #[command(subcommand)]
    pub(crate) command: GroupsCommand,
}

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupsCommand {
    /// List the groups of a service, what is wanted of them, and how they are doing
    List(ListArgs),
    /// Start no more handlers of a group, in no process of the service, also after a restart; what runs is let finish
    Pause(PauseArgs),
    /// Take back a pause
    Resume(PauseArgs),
    /// Limit how many handler calls of a group run at once in each process
    Concurrency(ConcurrencyArgs),
    /// End a group on the transport, with the messages that wait for it: for one that nobody will attend to any more
    Remove(RemoveArgs),
}

/// Which service, and where.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The service
    #[arg(long, value_name = "NAME")]
    pub(crate) service: String,
}

/// The arguments of `groups list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
}

/// How a change is made.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) by: ByArgs,
    /// Wait for so long, as in 30s, until every live node has applied it; end with 3 where one has not
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) wait: Option<Duration>,
    /// Also a group, a topic or a service that no node is known to have: for those that start later
    #[arg(long)]
    pub(crate) force: bool,
}

/// The arguments of `groups pause` and `groups resume`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// The group, by the name that it was configured with
    #[arg(value_parser = |text: &str| GroupName::parse(text))]
    pub(crate) group: GroupName,
    /// One topic of it; without it, all
    #[arg(long, value_parser = |text: &str| TopicName::parse_stored(text))]
    pub(crate) topic: Option<TopicName>,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// The arguments of `groups remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The group
    #[arg(value_parser = |text: &str| GroupName::parse(text))]
    pub(crate) group: GroupName,
    /// The transport
    #[arg(long, value_name = "URL")]
    pub(crate) transport: String,
    /// The store whose live nodes are asked whether one of them has the group
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Also when messages wait for it, which are gone then, when a node has it, or when no store is named that would know
    #[arg(long)]
    pub(crate) force: bool,
    /// Print a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The arguments of `groups concurrency`.
#[derive(Debug, Args)]
pub(crate) struct ConcurrencyArgs {
    /// The group, by the name that it was configured with
    #[arg(value_parser = |text: &str| GroupName::parse(text))]
    pub(crate) group: GroupName,
    /// At most this many at once in each process, 1 to 100000; or `default` for what is configured
    #[arg(value_name = "N|default", value_parser = most)]
    pub(crate) most: Most,
    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// A concurrency that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Most {
    /// What is configured.
    Default,
    /// This.
    Of(NonZeroU32),
}

fn most(text: &str) -> Result<Most, String> {
    match text {
        "default" => Ok(Most::Default),
        number => match number.parse() {
            Ok(most) => Ok(Most::Of(most)),
            Err(_) => Err("it is a number from 1 to 100000, or `default`".to_owned()),
        },
    }
}

/// A time of an argument, as in 30s.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("write it as in 30s, 500ms or 2min; the most is {MOST_WAIT:?}");
    let digits = text
        .trim_end_matches(|c: char| c.is_ascii_alphabetic())
        .trim_end();
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let millis = match text[digits.len()..].trim_start() {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "min" => number.checked_mul(60_000),
        _ => None,
    };
    let time = millis
        .map(Duration::from_millis)
        .filter(|time| *time <= MOST_WAIT);
    time.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_read_times_with_their_units_and_nothing_else() {
        for (text, wanted) in [
            ("30s", Duration::from_secs(30)),
            ("500 ms", Duration::from_millis(500)),
            ("2min", Duration::from_mins(2)),
            ("0s", Duration::ZERO),
        ] {
            assert_eq!(time(text), Ok(wanted));
        }
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "2h",
            "61min",
            "18446744073709551615min",
            "3ß",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
