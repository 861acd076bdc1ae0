//! Dead letters as JSON.

use chrono::{DateTime, Utc};
use headless::{Change, DeadLetter, DeadLetterChange, DeadLetterTally, Origin};
use serde_json::{Value, json};

use super::deed;
use crate::message::{self, payload, time};

/// A dead letter with everything that is kept of it.
pub(super) fn letter(letter: &DeadLetter) -> Value {
    let failures = letter.failures.iter().map(|failure| {
        json!({
            "cause": failure.cause.as_str(),
            "message": failure.message,
            "node": failure.node,
            "at": time(failure.at),
        })
    });
    let closed = |closed: &Option<(String, DateTime<Utc>)>| {
        closed
            .as_ref()
            .map(|(by, at)| json!({ "by": by, "at": time(*at) }))
    };
    json!({
        "id": letter.id.to_string(),
        "origin": origin(&letter.origin),
        "buried_at": time(letter.buried_at),
        "rounds": letter.rounds,
        "redrives": letter.redrives,
        "edits": letter.edits,
        "previous": letter.previous.map(|id| id.to_string()),
        "redriven": closed(&letter.redriven),
        "discarded": closed(&letter.discarded),
        "failures": failures.collect::<Vec<_>>(),
        "message": message::json(&letter.message),
    })
}

/// What was done to one.
pub(super) fn change(change: &DeadLetterChange) -> Value {
    let mut object = json!({ "at": time(change.at), "by": change.by, "what": deed(&change.what) });
    match &change.what {
        Change::Edited { before } => object["before"] = payload(before),
        Change::Redriven { with: Some(with) } => object["with"] = payload(with),
        Change::Redriven { with: None } | Change::Discarded => {}
    }
    object
}

pub(super) fn tally(tally: &DeadLetterTally) -> Value {
    json!({
        "origin": origin(&tally.origin),
        "topic": tally.topic.as_str(),
        "cause": tally.cause.as_str(),
        "error": tally.error,
        "count": tally.count,
        "first": time(tally.first),
        "last": time(tally.last),
        "sample": tally.sample.to_string(),
    })
}

/// The group's name, or `{"relay": true}` in the place of one.
fn origin(origin: &Origin) -> Value {
    match origin {
        Origin::Group(group) => json!({ "group": group.as_str() }),
        Origin::Relay => json!({ "relay": true }),
    }
}
