//! The envelope: everything that travels with a payload.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::{
    ContentType, CorrelationId, Error, Headers, IdempotencyKey, MessageId, MessageType, PartitionKey, Result,
    Tenant, TopicName, TraceContext,
};

/// How soon a message is taken before others that are ready: 0 (the default) to 9, higher first.
///
/// ```
/// use headless_abstractions::Priority;
///
/// assert!(Priority::new(9).unwrap() > Priority::default());
/// assert!(Priority::new(10).is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Priority(u8);

impl Priority {
    /// The highest.
    pub const MAX: Self = Self(9);

    /// The priority with this value.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) above 9.
    pub fn new(value: u8) -> Result<Self> {
        if value > Self::MAX.0 {
            return Err(Error::invalid(format!(
                "priority is {value}, the highest is {}",
                Self::MAX.0
            )));
        }
        Ok(Self(value))
    }

    /// The value.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// A message: its payload and its envelope.
///
/// Each field is valid by its type; a topic's rules (an ordered one needs a key) and size limits are checked where
/// the message is published.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Assigned by the publisher, never changed by a retry or a redelivery.
    pub id: MessageId,
    /// Where it is published.
    pub topic: TopicName,
    /// What kind of event or command it is; a consumer picks its handler by it. `None` from a foreign producer.
    pub message_type: Option<MessageType>,
    /// Messages of one topic and key keep their order.
    pub key: Option<PartitionKey>,
    /// The body.
    pub payload: Bytes,
    /// How the body is encoded.
    pub content_type: Option<ContentType>,
    /// The user's own headers.
    pub headers: Headers,
    /// When it happened, by the publisher's clock.
    pub occurred_at: DateTime<Utc>,
    /// The conversation that it belongs to.
    pub correlation_id: Option<CorrelationId>,
    /// The message whose handler published it.
    pub causation_id: Option<MessageId>,
    /// The tenant.
    pub tenant: Option<Tenant>,
    /// The business operation.
    pub idempotency_key: Option<IdempotencyKey>,
    /// How soon it is taken before others.
    pub priority: Priority,
    /// Not to be delivered before this much time has passed since it was published. At most
    /// [`Message::MAX_DELAY`].
    pub deliver_after: Option<Duration>,
    /// Of no use after this moment, by the publisher's clock.
    pub expires_at: Option<DateTime<Utc>>,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
}

impl Message {
    /// The longest delay: a hundred years, so that no store's arithmetic on it can overflow.
    pub const MAX_DELAY: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

    /// A message with these fields and no others.
    #[must_use]
    pub const fn new(id: MessageId, topic: TopicName, occurred_at: DateTime<Utc>, payload: Bytes) -> Self {
        Self {
            id,
            topic,
            message_type: None,
            key: None,
            payload,
            content_type: None,
            headers: Headers::new(),
            occurred_at,
            correlation_id: None,
            causation_id: None,
            tenant: None,
            idempotency_key: None,
            priority: Priority(0),
            deliver_after: None,
            expires_at: None,
            trace: None,
        }
    }

    /// With this partition key.
    #[must_use]
    pub fn with_key(mut self, key: PartitionKey) -> Self {
        self.key = Some(key);
        self
    }

    /// With this idempotency key.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: IdempotencyKey) -> Self {
        self.idempotency_key = Some(key);
        self
    }

    /// With these headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Whether it is of no use any more at `now`.
    #[must_use]
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The time to write as `occurred_at`: `at` cut to the microseconds that every store keeps.
    #[must_use]
    pub fn microseconds(at: DateTime<Utc>) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at)
    }
}
