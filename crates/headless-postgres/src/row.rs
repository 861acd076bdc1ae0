//! A message as columns, the same in every table.
//!
//! `id uuid, topic text, key text, occurred_at timestamptz, content_type text, headers text, payload bytea`; `headers` is a
//! JSON object of the rest of the envelope and the user's headers under their names of [`wire`], null when there are none.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use headless_abstractions::{Error, ErrorKind, Message, MessageId, PartitionKey, Result, TopicName, wire};
use serde::Serializer;
use sha2::{Digest, Sha256};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::error::fault;

/// Many messages, column by column, to be bound as arrays.
#[derive(Debug, Default)]
pub(crate) struct Columns<'a> {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) topics: Vec<&'a str>,
    pub(crate) keys: Vec<Option<&'a str>>,
    pub(crate) occurred_at: Vec<DateTime<Utc>>,
    pub(crate) content_types: Vec<Option<&'a str>>,
    pub(crate) headers: Vec<Option<String>>,
    pub(crate) payloads: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    /// The columns of these messages.
    ///
    /// # Errors
    /// `TooLarge` for a payload over `max_payload` bytes.
    pub(crate) fn of(messages: impl IntoIterator<Item = &'a Message>, max_payload: usize) -> Result<Self> {
        let mut columns = Self::default();
        for message in messages {
            if message.payload.len() > max_payload {
                return Err(Error::too_large("payload", message.payload.len(), max_payload)
                    .with_resource(format!("message {}", message.id)));
            }
            columns.push(message)?;
        }
        Ok(columns)
    }

    fn push(&mut self, message: &'a Message) -> Result<()> {
        self.ids.push(message.id.as_uuid());
        self.topics.push(message.topic.as_str());
        self.keys.push(message.key.as_ref().map(PartitionKey::as_str));
        self.occurred_at.push(message.occurred_at);
        self.content_types
            .push(message.content_type.as_ref().map(|of| of.as_str()));
        self.headers.push(headers(message)?);
        self.payloads.push(&message.payload);
        Ok(())
    }
}

/// This column, or null where it holds nothing but null: that is shorter on its way, and the server pads it.
pub(crate) fn unless_empty<T>(column: &[Option<T>]) -> Option<&[Option<T>]> {
    column.iter().any(Option::is_some).then_some(column)
}

/// The rest of the envelope, and the user's headers. No name is there twice: those of the envelope are refused elsewhere.
fn headers(message: &Message) -> Result<Option<String>> {
    let rest = wire::encode_rest(message);
    if rest.is_empty() {
        return Ok(None);
    }
    let mut text = Vec::with_capacity(128);
    serde_json::Serializer::new(&mut text)
        .collect_map(rest)
        .map_err(|error| unwritten().with_source(error))?;
    String::from_utf8(text)
        .map(Some)
        .map_err(|error| unwritten().with_source(error))
}

fn unwritten() -> Error {
    Error::new(ErrorKind::Internal, "headers could not be written as JSON")
}

/// The message of a row that has the columns of this module, and what was wrong with its envelope.
///
/// # Errors
/// `Internal` for a row that no statement of ours has written.
pub(crate) fn message(row: &PgRow) -> Result<(Message, Option<Error>)> {
    let id: Uuid = row.try_get("id").map_err(fault)?;
    let topic: &str = row.try_get("topic").map_err(fault)?;
    let key: Option<&str> = row.try_get("key").map_err(fault)?;
    let occurred_at: DateTime<Utc> = row.try_get("occurred_at").map_err(fault)?;
    let content_type: Option<&str> = row.try_get("content_type").map_err(fault)?;
    let headers: Option<&str> = row.try_get("headers").map_err(fault)?;
    let payload: &[u8] = row.try_get("payload").map_err(fault)?;

    let (headers, unreadable) =
        match headers.map(serde_json::from_str::<BTreeMap<Cow<'_, str>, Cow<'_, str>>>) {
            Some(Ok(headers)) => (headers, None),
            None => (BTreeMap::new(), None),
            // As with an envelope that is malformed: whoever gets it judges what becomes of the message.
            Some(Err(error)) => {
                let unreadable =
                    Error::invalid(format!("the headers of message {id} are no JSON object of texts"));
                (BTreeMap::new(), Some(unreadable.with_source(error)))
            }
        };
    let foreign = wire::Foreign::new(MessageId::from_uuid(id), occurred_at);
    let envelope = [(wire::KEY, key), (wire::CONTENT_TYPE, content_type)];
    let pairs = envelope
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .chain(
            headers
                .iter()
                .map(|(name, value)| (name.as_ref(), value.as_ref())),
        );
    let topic = TopicName::parse_stored(topic)?;
    let (message, malformed) = wire::decode(topic, pairs, Bytes::copy_from_slice(payload), &foreign);
    Ok((message, unreadable.or(malformed)))
}

/// What is to be said of a row that cannot be read: the error, and the beginning of what is in it beside the payload.
pub(crate) fn unreadable(row: &PgRow, error: &Error) -> String {
    let mut text = error.to_string();
    for column in ["topic", "key", "content_type", "headers"] {
        if let Ok(Some(value)) = row.try_get::<Option<&str>, _>(column) {
            let value: String = value.chars().take(500).collect();
            text = format!("{text}; {column} {value:?}");
        }
    }
    text
}

/// The hash of a key of a topic, as the function `key_hash` of the schema computes it.
pub(crate) fn key_hash(topic: &str, key: &str) -> i64 {
    let digest = Sha256::new()
        .chain_update(topic)
        .chain_update("\n")
        .chain_update(key)
        .finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(first)
}
