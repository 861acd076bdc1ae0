//! `headless dead list`.

use std::io::{self, Write};

use anyhow::Result;
use headless::{Cursor, DeadLetter, DeadLetterFilter, DeadLetterTally, DeadLetters};
use serde_json::json;

use super::{args::ListArgs, filter, json, open, origin};
use crate::{
    operator::{Answer, failed},
    text,
};

/// How much of an error, a key and a name is shown.
const ERROR: usize = 100;
const NAME: usize = 30;

/// Lists, or counts.
pub(super) async fn run(args: &ListArgs) -> Result<Answer> {
    let dead = open(&args.place).await?;
    let mut filter = filter(&dead, &args.filter).await?;
    if args.closed {
        filter = filter.with_closed();
    }
    if args.by_cause {
        return tally(&dead, &filter, args.limit.into(), args.place.json).await;
    }
    let after = args.after.as_ref().map(Cursor::new);
    let page = dead
        .list(&filter, after.as_ref(), args.limit.into())
        .await
        .map_err(failed)?;
    let next = page.next.as_ref().map(Cursor::as_str);
    let mut out = io::stdout().lock();
    if args.place.json {
        let items: Vec<_> = page.items.iter().map(json::letter).collect();
        writeln!(out, "{}", json!({ "dead_letters": items, "next": next }))?;
        return Ok(Answer::Whole);
    }
    let rows: Vec<_> = page.items.iter().map(row).collect();
    let head = [
        "ID", "DIED", "ORIGIN", "TOPIC", "KEY", "STATE", "ROUNDS", "REDRIVES", "CAUSE", "ERROR",
    ];
    write!(out, "{}", text::table(head, &rows))?;
    if let Some(next) = next {
        writeln!(out, "more: --after {next}")?;
    }
    Ok(Answer::Whole)
}

fn row(letter: &DeadLetter) -> [String; 10] {
    let last = letter.failures.last();
    let key = letter.message.key.as_ref().map_or("", |key| key.as_str());
    let state = match (&letter.redriven, &letter.discarded) {
        (Some(_), _) => "redriven",
        (None, Some(_)) => "discarded",
        (None, None) if letter.edits > 0 => "edited",
        (None, None) => "open",
    };
    [
        letter.id.to_string(),
        time(letter.buried_at),
        text::short(&origin(&letter.origin), NAME),
        text::short(letter.message.topic.as_str(), NAME),
        text::short(key, NAME),
        state.to_owned(),
        letter.rounds.to_string(),
        letter.redrives.to_string(),
        last.map_or(String::new(), |failure| failure.cause.to_string()),
        last.map_or(String::new(), |failure| text::short(&failure.message, ERROR)),
    ]
}

/// Counts what matches, and prints it.
pub(super) async fn tally(
    dead: &DeadLetters,
    filter: &DeadLetterFilter,
    limit: usize,
    as_json: bool,
) -> Result<Answer> {
    let tallies = dead.tally(filter, limit).await.map_err(failed)?;
    let mut out = io::stdout().lock();
    if as_json {
        let items: Vec<_> = tallies.iter().map(json::tally).collect();
        writeln!(out, "{}", json!({ "causes": items }))?;
        return Ok(Answer::Whole);
    }
    let row = |tally: &DeadLetterTally| {
        [
            tally.count.to_string(),
            text::short(&origin(&tally.origin), NAME),
            text::short(tally.topic.as_str(), NAME),
            tally.cause.to_string(),
            time(tally.first),
            time(tally.last),
            tally.sample.to_string(),
            text::short(&tally.error, ERROR),
        ]
    };
    let rows: Vec<_> = tallies.iter().map(row).collect();
    let head = [
        "COUNT",
        "ORIGIN",
        "TOPIC",
        "CAUSE",
        "FIRST",
        "LAST",
        "ONE OF THEM",
        "ERROR",
    ];
    write!(out, "{}", text::table(head, &rows))?;
    Ok(Answer::Whole)
}

fn time(at: chrono::DateTime<chrono::Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}
