//! `headless dead`: dead letters as an operator handles them.

mod args;
mod change;
mod json;
mod list;
mod show;
mod text;

use std::env;

use anyhow::{Context as _, Result};
use headless::{Change, DeadId, DeadLetterFilter, DeadLetters, Origin, Providers};

use self::args::{ByArgs, FilterArgs, PlaceArgs};
pub(crate) use self::args::{DeadArgs, DeadCommand};
use crate::{bad_input::BadInput, urls};

/// Whether everything that was asked for is there, and was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is.
    Whole,
    /// Something of it is not; what was printed says what.
    InPart,
}

/// Does what the arguments say.
pub(crate) async fn run(args: &DeadArgs) -> Result<Answer> {
    match &args.command {
        DeadCommand::List(args) => list::run(args).await,
        DeadCommand::Show(args) => show::run(args).await,
        DeadCommand::Edit(args) => change::edit(args).await,
        DeadCommand::Redrive(args) => change::redrive(args).await,
        DeadCommand::Discard(args) => change::discard(args).await,
    }
}

/// The dead letters of the store.
async fn open(place: &PlaceArgs) -> Result<DeadLetters> {
    let url = unmigrated(&place.store);
    let (store, _) = urls::connect(&Providers::builtin(), Some(&url), None).await?;
    let store = store.context("--store names one")?;
    store.dead_letters().map_err(urls::wrong("--store"))
}

/// The URL, so that connecting changes no schema unless it says so itself: who looks at dead letters does not update the
/// services that made them.
fn unmigrated(url: &str) -> String {
    let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if !["postgres", "postgresql"].contains(&&*scheme) || url.contains("migrate=") {
        return url.to_owned();
    }
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}migrate=check")
}

/// What a filter of the command line says.
async fn filter(dead: &DeadLetters, args: &FilterArgs) -> Result<DeadLetterFilter> {
    let mut filter = match args.like {
        Some(id) => match dead.get(id).await? {
            Some(letter) => DeadLetterFilter::like(&letter),
            None => return Err(BadInput::new(format!("--like {id}: there is no such dead letter")).into()),
        },
        None => DeadLetterFilter::open(),
    };
    if let Some(group) = &args.group {
        filter = filter.with_origin(Origin::Group(group.clone()));
    }
    if args.relay {
        filter = filter.with_origin(Origin::Relay);
    }
    if let Some(topic) = &args.topic {
        filter = filter.with_topic(topic.clone());
    }
    if let Some(key) = &args.key {
        filter = filter.with_key(key.clone());
    }
    if let Some(message) = args.message {
        filter = filter.with_message(message);
    }
    if let Some(cause) = args.cause {
        filter = filter.with_cause(cause);
    }
    if let Some(text) = &args.error {
        filter = filter.with_error_containing(text);
    }
    Ok(filter.with_span(args.since, args.until))
}

/// Who asks.
fn by(args: &ByArgs) -> Result<String> {
    let by = args.by.clone().or_else(|| env::var("USER").ok());
    match by.filter(|by| !by.is_empty()) {
        Some(by) => Ok(by),
        None => Err(BadInput::new("--by: say who asks, since the variable USER does not").into()),
    }
}

/// An error of the store, as the user's mistake where it is one.
fn failed(error: headless::Error) -> anyhow::Error {
    if urls::is_bad_input(&error) {
        BadInput::new(error).into()
    } else {
        error.into()
    }
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Group(group) => group.to_string(),
        Origin::Relay => "(relay)".to_owned(),
    }
}

/// What was done, in one word.
const fn deed(change: &Change) -> &'static str {
    match change {
        Change::Edited { .. } => "edited",
        Change::Redriven { .. } => "redriven",
        Change::Discarded => "discarded",
    }
}

fn unknown(id: DeadId) -> String {
    format!("there is no dead letter {id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_migrate_nothing_when_the_url_does_not_ask_for_it() {
        for (url, connected) in [
            ("postgres://h/db", "postgres://h/db?migrate=check"),
            (
                "PostgreSQL://h/db?schema=a",
                "PostgreSQL://h/db?schema=a&migrate=check",
            ),
            ("postgres://h/db?migrate=auto", "postgres://h/db?migrate=auto"),
            ("memory:", "memory:"),
        ] {
            assert_eq!(unmigrated(url), connected);
        }
    }
}
