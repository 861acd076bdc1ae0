//! Dead letters as JSON.

use chrono::{DateTime, SecondsFormat, Utc};
use headless::{Change, DeadLetter, DeadLetterChange, DeadLetterTally, Message, Origin};
use serde_json::{Map, Value, json};

use super::deed;
use crate::text::hex;

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
        "message": message(&letter.message),
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

fn message(message: &Message) -> Value {
    let headers: Map<String, Value> = message
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_string())))
        .collect();
    json!({
        "id": message.id.to_string(),
        "topic": message.topic.as_str(),
        "type": message.message_type.as_ref().map(ToString::to_string),
        "key": message.key.as_ref().map(ToString::to_string),
        "idempotency_key": message.idempotency_key.as_ref().map(ToString::to_string),
        "correlation_id": message.correlation_id.as_ref().map(ToString::to_string),
        "causation_id": message.causation_id.map(|id| id.to_string()),
        "tenant": message.tenant.as_ref().map(ToString::to_string),
        "occurred_at": time(message.occurred_at),
        "content_type": message.content_type.as_ref().map(ToString::to_string),
        "headers": headers,
        "payload": payload(&message.payload),
    })
}

/// `{"json": …}`, `{"text": …}` or `{"hex": …}`, whichever is the first that holds it.
fn payload(payload: &[u8]) -> Value {
    if let Ok(value) = serde_json::from_slice::<Value>(payload) {
        return json!({ "json": value });
    }
    match std::str::from_utf8(payload) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "hex": hex(payload) }),
    }
}

/// Parsed again, it is the same moment: stores keep microseconds.
fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
