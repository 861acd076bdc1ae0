//! Messages as JSON, the same in every command.

use chrono::{DateTime, SecondsFormat, Utc};
use headless::Message;
use serde_json::{Map, Value, json as object};

use crate::text::hex;

/// A message, without what a command knows of it beside.
pub(crate) fn json(message: &Message) -> Value {
    let headers: Map<String, Value> = message
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), object!(value.to_string())))
        .collect();
    object!({
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
pub(crate) fn payload(payload: &[u8]) -> Value {
    if let Ok(value) = serde_json::from_slice::<Value>(payload) {
        return object!({ "json": value });
    }
    match std::str::from_utf8(payload) {
        Ok(text) => object!({ "text": text }),
        Err(_) => object!({ "hex": hex(payload) }),
    }
}

/// Parsed again, it is the same moment: stores keep microseconds.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
