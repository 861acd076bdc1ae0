//! Messages, owners, failures and spans of time that the cases of a store are written with.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use headless_abstractions::{
    Claim, ContentType, CorrelationId, Failure, FailureCause, HeaderValue, Headers, IdempotencyKey, Message,
    MessageId, MessageType, OutboxRow, Owner, ParkedRow, PartitionKey, Result, Tenant, TopicName,
    TraceContext,
};
use uuid::Uuid;

use crate::cx::topic;

/// A lease or delay that does not end within a case.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// The bits of a UUIDv7, the numbers of a case in its last part.
const ID_BASE: u128 = 0x0199_a000_0000_7000_8000_0000_0000_0000;

/// The owner with this number.
pub(crate) const fn owner(n: u128) -> Owner {
    Owner::from_bits(0x6f77_6e65_7200_0000_0000_0000_0000_0000 + n)
}

/// The id of the message with this number.
pub(crate) const fn id(n: u64) -> MessageId {
    MessageId::from_uuid(Uuid::from_u128(ID_BASE + n as u128))
}

/// The number of the message with this id.
pub(crate) fn number(id: MessageId) -> u64 {
    u64::try_from(id.as_uuid().as_u128().wrapping_sub(ID_BASE)).unwrap_or(u64::MAX)
}

/// The topic of all messages that are not said to be of another.
pub(crate) fn orders() -> TopicName {
    topic("orders")
}

/// Another topic.
pub(crate) fn payments() -> TopicName {
    topic("payments")
}

/// A partition key.
pub(crate) fn key(text: &str) -> PartitionKey {
    known(PartitionKey::parse(text))
}

/// An idempotency key.
pub(crate) fn operation(text: &str) -> IdempotencyKey {
    known(IdempotencyKey::parse(text))
}

/// A moment that every store keeps exactly.
pub(crate) fn moment() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 123_456_000).unwrap_or_default()
}

/// The message with this number, without a key.
pub(crate) fn message(n: u64) -> Message {
    Message::new(id(n), orders(), moment(), Bytes::from(format!("payload {n}")))
}

/// The message with this number and partition key.
pub(crate) fn keyed(n: u64, text: &str) -> Message {
    message(n).with_key(key(text))
}

/// The message with this number and a value, out of the ordinary where it can be, in every field but its delay.
pub(crate) fn complete(n: u64) -> Message {
    let mut headers = Headers::new();
    for (name, value) in [
        ("empty", ""),
        ("city", "Zürich 東京 🦀"),
        ("quoted", "a\"b\\c,d;e='f'"),
    ] {
        known(headers.insert(name, value));
    }
    let mut message = keyed(n, "Kunde/ä'\"\\%").with_headers(headers);
    message.payload = (0..=u8::MAX).collect::<Vec<_>>().into();
    message.message_type = Some(known(MessageType::parse("order.placed")));
    message.content_type = Some(known(ContentType::parse("application/octet-stream")));
    message.correlation_id = Some(known(CorrelationId::parse("conversation 7")));
    message.causation_id = Some(id(1_000_000));
    message.tenant = Some(known(Tenant::parse("Ümlaut & sons")));
    message.idempotency_key = Some(operation("order 7: place"));
    message.expires_at = Some(moment() + Duration::from_hours(24 * 365 * 50));
    message.trace = Some(TraceContext::new(
        known(HeaderValue::parse(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )),
        Some(known(HeaderValue::parse("vendor=value"))),
    ));
    message
}

/// A failure that says this.
pub(crate) fn failure(text: &str) -> Failure {
    Failure::new(FailureCause::Error, text, "node-1", moment())
}

/// A failure of this cause that says this.
pub(crate) fn failure_of(cause: FailureCause, text: &str) -> Failure {
    Failure::new(cause, text, "node-1", moment())
}

/// What rows of the outbox and of the park have in common.
pub(crate) trait Claimed {
    /// The right to settle it.
    fn claim(&self) -> Claim;
}

impl Claimed for OutboxRow {
    fn claim(&self) -> Claim {
        self.claim
    }
}

impl Claimed for ParkedRow {
    fn claim(&self) -> Claim {
        self.claim
    }
}

/// The claims of these rows.
pub(crate) fn claims(rows: &[impl Claimed]) -> Vec<Claim> {
    rows.iter().map(Claimed::claim).collect()
}

/// The numbers of the messages of these rows, in their order.
pub(crate) fn numbers(rows: &[impl Claimed]) -> Vec<u64> {
    rows.iter().map(|row| number(row.claim().id)).collect()
}

/// As [`numbers`], in ascending order: for rows between which there is no order.
pub(crate) fn sorted(rows: &[impl Claimed]) -> Vec<u64> {
    let mut numbers = numbers(rows);
    numbers.sort_unstable();
    numbers
}

#[expect(
    clippy::expect_used,
    reason = "the texts of the samples are valid by the rules of their types"
)]
fn known<T>(sample: Result<T>) -> T {
    sample.expect("a sample is valid")
}
