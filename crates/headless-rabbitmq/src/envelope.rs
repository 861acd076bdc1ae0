//! A message as RabbitMQ carries it: the envelope's headers as a table of texts, and beside them the properties that
//! other clients look for.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use headless_abstractions::{Error, Message, MessageId, TopicName, wire};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use uuid::Uuid;

use crate::clock;

/// A property is at most this long (AMQP 0-9-1, section 4.2.5.3).
const SHORT: usize = 255;
/// Written to disk, where the queue is durable.
const PERSISTENT: u8 = 2;
/// What the server itself puts into the headers.
const OF_THE_SERVER: [&str; 5] = [
    "x-death",
    "x-delivery-count",
    "x-first-death-",
    "x-last-death-",
    "x-opt-",
];
/// The namespace of ids made from a foreign producer's `message_id` (UUID version 5).
const FOREIGN: Uuid = Uuid::from_u128(0x0c5d_5f4e_61a3_4c0b_9d6e_6f2a_5b1c_7e90);

/// The properties of a message that is sent.
pub(crate) fn properties(message: &Message) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in wire::encode(message) {
        headers.insert(name.into(), AMQPValue::LongString(value.as_bytes().into()));
    }
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message.id.to_string().into())
        .with_headers(headers);
    if let Some(content_type) = message.content_type.as_ref().map(|kind| kind.as_str())
        && content_type.len() <= SHORT
    {
        properties = properties.with_content_type(content_type.into());
    }
    properties
}

/// The message of a delivery, and what was wrong with its envelope.
pub(crate) fn message(
    topic: TopicName,
    properties: &BasicProperties,
    payload: Vec<u8>,
) -> (Message, Option<Error>) {
    let foreign = wire::Foreign::new(foreign_id(properties), received_at(properties));
    let mut wrong = None;
    let headers = properties.headers().as_ref();
    let pairs = headers.into_iter().flatten().filter_map(|(name, value)| {
        let name = name.as_str();
        if OF_THE_SERVER.iter().any(|of_it| name.starts_with(of_it)) {
            return None;
        }
        match text(value) {
            Some(text) => Some((name, text)),
            None if wire::is_reserved(name) => {
                wrong.get_or_insert_with(|| {
                    Error::invalid("is not text")
                        .with_operation("decode")
                        .with_resource(format!("header {name}"))
                });
                None
            }
            // A foreign producer's number or table: it was never promised to arrive.
            None => None,
        }
    });
    let pairs: Vec<(&str, &str)> = pairs.collect();
    let (mut message, malformed) = wire::decode(topic, pairs, Bytes::from(payload), &foreign);
    if message.content_type.is_none()
        && let Some(kind) = properties.content_type()
    {
        message.content_type = headless_abstractions::ContentType::parse(kind.as_str()).ok();
    }
    (message, wrong.or(malformed))
}

fn text(value: &AMQPValue) -> Option<&str> {
    match value {
        AMQPValue::LongString(text) => str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

/// The id of a message without `hl-id`: of its `message_id` where it has one, so that it is the same at each delivery, or
/// a new one at each.
fn foreign_id(properties: &BasicProperties) -> MessageId {
    let id = properties.message_id().as_ref().map(ShortString::as_str);
    MessageId::from_uuid(match id.filter(|id| !id.is_empty()) {
        Some(id) => Uuid::parse_str(id).unwrap_or_else(|_not| Uuid::new_v5(&FOREIGN, id.as_bytes())),
        None => Uuid::new_v4(),
    })
}

fn received_at(properties: &BasicProperties) -> DateTime<Utc> {
    properties
        .timestamp()
        .and_then(|seconds| DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0))
        .unwrap_or_else(clock::wall)
}

#[cfg(test)]
mod tests {
    use headless_abstractions::{ContentType, PartitionKey};

    use super::*;

    fn topic() -> TopicName {
        TopicName::parse("orders").unwrap()
    }

    #[test]
    fn should_come_back_equal_when_it_was_ours() {
        let mut sent = Message::new(
            MessageId::from_uuid(Uuid::from_u128(7)),
            topic(),
            DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap(),
            Bytes::from_static(b"x"),
        )
        .with_key(PartitionKey::parse("k").unwrap());
        sent.content_type = Some(ContentType::parse("text/plain").unwrap());
        sent.headers.insert("empty", "").unwrap();
        let (came, wrong) = message(topic(), &properties(&sent), b"x".to_vec());
        assert!(wrong.is_none(), "{wrong:?}");
        assert_eq!(came, sent);
    }

    #[test]
    fn should_keep_a_foreign_id_when_it_is_there() {
        let id = |text: &str| foreign_id(&BasicProperties::default().with_message_id(text.into()));
        assert_eq!(id("order-1"), id("order-1"));
        assert_ne!(id("order-1"), id("order-2"));
        let uuid = Uuid::from_u128(9).to_string();
        assert_eq!(id(&uuid).as_uuid(), Uuid::from_u128(9));
        let none = BasicProperties::default();
        assert_ne!(foreign_id(&none), foreign_id(&none));
    }

    #[test]
    fn should_say_what_is_wrong_when_a_header_of_ours_is_not_text() {
        for (name, value) in [
            ("hl-id", AMQPValue::LongInt(5)),
            ("hl-tenant", AMQPValue::LongString(vec![0xff, 0xfe].into())),
            ("hl-id", AMQPValue::LongString("not a uuid".into())),
        ] {
            let mut headers = FieldTable::default();
            headers.insert(name.into(), value);
            headers.insert("count".into(), AMQPValue::LongInt(5));
            let properties = BasicProperties::default().with_headers(headers);
            let (message, wrong) = message(topic(), &properties, Vec::new());
            assert!(wrong.unwrap().to_string().contains(name));
            assert!(message.tenant.is_none() && message.headers.is_empty());
        }
    }
}
