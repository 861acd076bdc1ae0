//! `headless dead`: dead letters as an operator handles them.

mod args;
mod change;
mod json;
mod list;
mod show;

use anyhow::Result;
use headless::{Change, DeadId, DeadLetterFilter, DeadLetters, Origin};

use self::args::FilterArgs;
pub(crate) use self::args::{DeadArgs, DeadCommand};
use crate::{
    bad_input::BadInput,
    operator::{self, Answer, PlaceArgs},
    urls,
};

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
    let store = operator::store(place).await?;
    store.dead_letters().map_err(urls::wrong("--store"))
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
