//! How an envelope travels: one header name for each field, the same on every transport.
//!
//! | field | header |
//! | --- | --- |
//! | id | `hl-id` |
//! | type | `hl-type` |
//! | key | `hl-key` |
//! | content type | `content-type` |
//! | occurred at | `hl-occurred-at` (RFC 3339, microseconds, UTC) |
//! | correlation id | `hl-correlation-id` |
//! | causation id | `hl-causation-id` |
//! | tenant | `hl-tenant` |
//! | idempotency key | `hl-idempotency-key` |
//! | priority | `hl-priority` (absent when 0) |
//! | delay | `hl-deliver-after` (milliseconds; for transports that delay by a header) |
//! | expiry | `hl-expires-at` (RFC 3339, microseconds, UTC) |
//! | trace context | `traceparent`, `tracestate` |
//!
//! A topic and a payload travel as the transport's own. Headers of a user keep their names. [`encode`] and
//! [`decode`] are inverse; a provider maps the pairs onto its client's header type and nothing else.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};

use crate::{
    ContentType, CorrelationId, Error, HeaderValue, Headers, IdempotencyKey, Message, MessageId, MessageType,
    PartitionKey, Priority, Result, Tenant, TopicName, TraceContext,
};

/// [`Message::id`].
pub const ID: &str = "hl-id";
/// [`Message::message_type`].
pub const TYPE: &str = "hl-type";
/// [`Message::key`].
pub const KEY: &str = "hl-key";
/// [`Message::content_type`].
pub const CONTENT_TYPE: &str = "content-type";
/// [`Message::occurred_at`].
pub const OCCURRED_AT: &str = "hl-occurred-at";
/// [`Message::correlation_id`].
pub const CORRELATION_ID: &str = "hl-correlation-id";
/// [`Message::causation_id`].
pub const CAUSATION_ID: &str = "hl-causation-id";
/// [`Message::tenant`].
pub const TENANT: &str = "hl-tenant";
/// [`Message::idempotency_key`].
pub const IDEMPOTENCY_KEY: &str = "hl-idempotency-key";
/// [`Message::priority`].
pub const PRIORITY: &str = "hl-priority";
/// [`Message::deliver_after`].
pub const DELIVER_AFTER: &str = "hl-deliver-after";
/// [`Message::expires_at`].
pub const EXPIRES_AT: &str = "hl-expires-at";
/// The first half of [`Message::trace`].
pub const TRACEPARENT: &str = "traceparent";
/// The second half of [`Message::trace`].
pub const TRACESTATE: &str = "tracestate";

const PREFIX: &str = "hl-";

/// Whether a header name belongs to the envelope: everything that starts with `hl-`, and the three standard names.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name.starts_with(PREFIX) || matches!(name, CONTENT_TYPE | TRACEPARENT | TRACESTATE)
}

/// The headers that carry this message's envelope, and after them its user's own.
#[must_use]
pub fn encode(message: &Message) -> Vec<(&str, Cow<'_, str>)> {
    let mut pairs: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(6 + message.headers.len());
    pairs.push((ID, message.id.to_string().into()));
    pairs.push((OCCURRED_AT, time(message.occurred_at).into()));
    let key = message.key.as_ref().map(PartitionKey::as_str);
    pairs.extend(key.map(|key| (KEY, key.into())));
    let content_type = message.content_type.as_ref().map(ContentType::as_str);
    pairs.extend(content_type.map(|content_type| (CONTENT_TYPE, content_type.into())));
    push_rest(message, &mut pairs);
    pairs
}

/// The same without id, time, key and content type: for a store that has columns of its own for these.
#[must_use]
pub fn encode_rest(message: &Message) -> Vec<(&str, Cow<'_, str>)> {
    let mut pairs = Vec::with_capacity(2 + message.headers.len());
    push_rest(message, &mut pairs);
    pairs
}

fn push_rest<'m>(message: &'m Message, pairs: &mut Vec<(&'m str, Cow<'m, str>)>) {
    let mut push = |name, value: Option<Cow<'m, str>>| pairs.extend(value.map(|value| (name, value)));
    let trace = message.trace.as_ref();
    push(TYPE, message.message_type.as_ref().map(|of| of.as_str().into()));
    push(
        CORRELATION_ID,
        message.correlation_id.as_ref().map(|id| id.as_str().into()),
    );
    push(CAUSATION_ID, message.causation_id.map(|id| id.to_string().into()));
    push(TENANT, message.tenant.as_ref().map(|of| of.as_str().into()));
    push(
        IDEMPOTENCY_KEY,
        message.idempotency_key.as_ref().map(|key| key.as_str().into()),
    );
    push(EXPIRES_AT, message.expires_at.map(|at| time(at).into()));
    push(
        DELIVER_AFTER,
        message.deliver_after.map(|d| d.as_millis().to_string().into()),
    );
    push(TRACEPARENT, trace.map(|t| t.traceparent.as_str().into()));
    push(
        TRACESTATE,
        trace
            .and_then(|t| t.tracestate.as_ref())
            .map(|state| state.as_str().into()),
    );
    if message.priority != Priority::default() {
        push(PRIORITY, Some(message.priority.get().to_string().into()));
    }
    pairs.extend(
        message
            .headers
            .iter()
            .map(|(name, value)| (name, Cow::Borrowed(value))),
    );
}

/// What a transport knows of a message whose producer did not write an envelope.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Foreign {
    /// The id to give it where `hl-id` is absent, derived from the transport's own stable coordinates.
    pub id: MessageId,
    /// When the transport received it.
    pub received_at: DateTime<Utc>,
    /// The partition key as the transport itself carries it, if it does.
    pub key: Option<PartitionKey>,
}

impl Foreign {
    /// These coordinates, without a key.
    #[must_use]
    pub const fn new(id: MessageId, received_at: DateTime<Utc>) -> Self {
        Self {
            id,
            received_at,
            key: None,
        }
    }
}

/// The message with this envelope, and what was wrong with it, if anything.
///
/// What is absent is taken from `foreign`. A malformed envelope header is passed over as if it were absent, and the
/// first such error, which names the header, is returned beside the message for
/// [`Delivery::malformed`](crate::Delivery::malformed): core then dead-letters it, so that nothing is lost. A trace
/// context is no such header: a malformed one is ignored. Headers that a foreign producer set under names that we would
/// refuse (upper case, say) are left out: they were never promised to arrive.
pub fn decode<'a>(
    topic: TopicName,
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    payload: Bytes,
    foreign: &Foreign,
) -> (Message, Option<Error>) {
    let mut envelope = Envelope {
        message: Message::new(foreign.id, topic, foreign.received_at, payload),
        traceparent: None,
        tracestate: None,
    };
    envelope.message.key.clone_from(&foreign.key);
    let mut malformed = None;
    for (name, value) in pairs {
        if let Err(error) = envelope.read(name, value) {
            malformed.get_or_insert(
                error
                    .with_operation("decode")
                    .with_resource(format!("header {name}")),
            );
        }
    }
    let Envelope {
        mut message,
        traceparent,
        tracestate,
    } = envelope;
    message.trace = traceparent.map(|parent| TraceContext::new(parent, tracestate));
    (message, malformed)
}

struct Envelope {
    message: Message,
    traceparent: Option<HeaderValue>,
    tracestate: Option<HeaderValue>,
}

impl Envelope {
    fn read(&mut self, name: &str, value: &str) -> Result<()> {
        let message = &mut self.message;
        match name {
            ID => message.id = value.parse()?,
            OCCURRED_AT => message.occurred_at = parse_time(value)?,
            TYPE => message.message_type = Some(MessageType::parse(value)?),
            KEY => message.key = Some(PartitionKey::parse(value)?),
            CONTENT_TYPE => message.content_type = Some(ContentType::parse(value)?),
            CORRELATION_ID => message.correlation_id = Some(CorrelationId::parse(value)?),
            CAUSATION_ID => message.causation_id = Some(value.parse()?),
            TENANT => message.tenant = Some(Tenant::parse(value)?),
            IDEMPOTENCY_KEY => message.idempotency_key = Some(IdempotencyKey::parse(value)?),
            EXPIRES_AT => message.expires_at = Some(parse_time(value)?),
            DELIVER_AFTER => message.deliver_after = Some(Duration::from_millis(number(value)?)),
            PRIORITY => message.priority = Priority::new(number(value)?)?,
            // A trace that cannot be followed is no reason to refuse the message: the standard has it ignored.
            TRACEPARENT => self.traceparent = HeaderValue::parse(value).ok(),
            TRACESTATE => self.tracestate = HeaderValue::parse(value).ok(),
            _ if is_reserved(name) => {}
            _ => keep_if_valid(&mut message.headers, name, value),
        }
        Ok(())
    }
}

fn keep_if_valid(headers: &mut Headers, name: &str, value: &str) {
    // The refusal is the rule here, not an error: see `decode`.
    let _refused = headers.insert(name, value).err();
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn parse_time(text: &str) -> Result<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text)
        .map(|at| at.with_timezone(&Utc))
        .map_err(|e| Error::invalid("is not an RFC 3339 time").with_source(e))
}

fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|e: std::num::ParseIntError| Error::invalid("is not a number in range").with_source(e))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn foreign() -> Foreign {
        Foreign::new(MessageId::from_uuid(Uuid::from_u128(9)), DateTime::UNIX_EPOCH)
    }

    fn round_trip(message: &Message) -> Message {
        let pairs = encode(message);
        let pairs = pairs.iter().map(|(name, value)| (*name, value.as_ref()));
        let (decoded, malformed) = decode(message.topic.clone(), pairs, message.payload.clone(), &foreign());
        assert!(malformed.is_none(), "{malformed:?}");
        decoded
    }

    proptest! {
        #[test]
        fn should_come_back_equal_when_encoded(
            id in any::<u128>(), micros in 0..4_000_000_000_000_000i64, key in "[^\\p{C}]{1,40}", value in "[^\\p{C}]{0,40}",
            priority in 0..=9u8, delay in proptest::option::of(0..1_000_000u64), payload in any::<Vec<u8>>(),
        ) {
            let at = DateTime::from_timestamp_micros(micros).unwrap();
            let mut message = Message::new(
                MessageId::from_uuid(Uuid::from_u128(id)), TopicName::parse("a.b").unwrap(), at, payload.into(),
            );
            message.key = Some(PartitionKey::parse(&key).unwrap());
            message.message_type = Some(MessageType::parse(&key).unwrap());
            message.content_type = Some(ContentType::parse("application/json").unwrap());
            message.correlation_id = Some(CorrelationId::parse(&key).unwrap());
            message.causation_id = Some(message.id);
            message.tenant = Some(Tenant::parse(&key).unwrap());
            message.idempotency_key = Some(IdempotencyKey::parse(&key).unwrap());
            message.priority = Priority::new(priority).unwrap();
            message.deliver_after = delay.map(Duration::from_millis);
            message.expires_at = Some(at);
            message.trace = Some(TraceContext::new(HeaderValue::parse("00-0").unwrap(), Some(HeaderValue::parse(&value).unwrap())));
            message.headers.insert("x", &value).unwrap();
            prop_assert_eq!(round_trip(&message), message);
        }
    }

    #[test]
    fn should_take_coordinates_when_the_producer_is_foreign() {
        let pairs = [("X-Upper", "left out"), ("kept", "v")];
        let (message, malformed) = decode(TopicName::parse("t").unwrap(), pairs, Bytes::new(), &foreign());
        assert!(malformed.is_none());
        assert_eq!(message.id, foreign().id);
        assert_eq!(message.headers.iter().collect::<Vec<_>>(), [("kept", "v")]);
    }

    #[test]
    fn should_take_the_message_when_its_trace_context_is_malformed() {
        for name in [TRACEPARENT, TRACESTATE] {
            let pairs = [(name, "\0")];
            let (message, malformed) =
                decode(TopicName::parse("t").unwrap(), pairs, Bytes::new(), &foreign());
            assert!(malformed.is_none());
            assert_eq!(message.trace, None);
        }
    }

    #[test]
    fn should_name_the_header_when_malformed() {
        for name in [
            ID,
            OCCURRED_AT,
            KEY,
            PRIORITY,
            DELIVER_AFTER,
            EXPIRES_AT,
            CAUSATION_ID,
            TENANT,
        ] {
            let (message, malformed) = decode(
                TopicName::parse("t").unwrap(),
                [(name, "\0")],
                Bytes::new(),
                &foreign(),
            );
            assert_eq!(message.id, foreign().id);
            assert!(malformed.unwrap().to_string().contains(name));
        }
    }
}
