//! Which dead letters.

use chrono::{DateTime, Utc};

use crate::{DeadLetter, Failure, FailureCause, MessageId, Origin, PartitionKey, TopicName};

/// Which dead letters. Every condition that is set must hold; closed ones are left out unless asked for.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DeadLetterFilter {
    /// Of this origin.
    pub origin: Option<Origin>,
    /// Of this topic.
    pub topic: Option<TopicName>,
    /// Of this key.
    pub key: Option<PartitionKey>,
    /// Of this message: it may have died in several groups, and several times.
    pub message: Option<MessageId>,
    /// Whose last failure has this cause.
    pub cause: Option<FailureCause>,
    /// Whose last failure's message contains this text.
    pub error_contains: Option<String>,
    /// Whose last failure's message has this [shape](Failure::shape).
    pub error_shape: Option<String>,
    /// That died at this moment or later.
    pub since: Option<DateTime<Utc>>,
    /// That died before this moment.
    pub until: Option<DateTime<Utc>>,
    /// Also those that were redriven or discarded.
    pub with_closed: bool,
}

impl DeadLetterFilter {
    /// All that are open.
    #[must_use]
    pub const fn open() -> Self {
        Self {
            origin: None,
            topic: None,
            key: None,
            message: None,
            cause: None,
            error_contains: None,
            error_shape: None,
            since: None,
            until: None,
            with_closed: false,
        }
    }

    /// Of this origin.
    #[must_use]
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Of this topic.
    #[must_use]
    pub fn with_topic(mut self, topic: TopicName) -> Self {
        self.topic = Some(topic);
        self
    }

    /// Of this key.
    #[must_use]
    pub fn with_key(mut self, key: PartitionKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Of this message.
    #[must_use]
    pub const fn with_message(mut self, message: MessageId) -> Self {
        self.message = Some(message);
        self
    }

    /// Whose last failure has this cause.
    #[must_use]
    pub const fn with_cause(mut self, cause: FailureCause) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Whose last failure's message contains this text.
    #[must_use]
    pub fn with_error_containing(mut self, text: impl Into<String>) -> Self {
        self.error_contains = Some(text.into());
        self
    }

    /// Whose last failure's message has this [shape](Failure::shape).
    #[must_use]
    pub fn with_error_shape(mut self, shape: impl Into<String>) -> Self {
        self.error_shape = Some(shape.into());
        self
    }

    /// Like this one: died in the same place, of the same topic, with the same cause and an error of the same shape.
    #[must_use]
    pub fn like(letter: &DeadLetter) -> Self {
        let last = letter.failures.last();
        let mut filter = Self::open()
            .with_origin(letter.origin.clone())
            .with_topic(letter.message.topic.clone());
        filter.cause = last.map(|failure| failure.cause);
        filter.error_shape = last.map(Failure::shape);
        filter
    }

    /// That died in this span, the end excluded.
    #[must_use]
    pub const fn with_span(mut self, since: Option<DateTime<Utc>>, until: Option<DateTime<Utc>>) -> Self {
        self.since = since;
        self.until = until;
        self
    }

    /// Also those that were redriven or discarded.
    #[must_use]
    pub const fn with_closed(mut self) -> Self {
        self.with_closed = true;
        self
    }

    /// Whether `letter` matches.
    #[must_use]
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        let last = letter.failures.last();
        (self.with_closed || letter.is_open())
            && self.origin.as_ref().is_none_or(|origin| *origin == letter.origin)
            && self
                .topic
                .as_ref()
                .is_none_or(|topic| *topic == letter.message.topic)
            && self
                .key
                .as_ref()
                .is_none_or(|key| Some(key) == letter.message.key.as_ref())
            && self.message.is_none_or(|id| id == letter.message.id)
            && self
                .cause
                .is_none_or(|cause| last.is_some_and(|f| f.cause == cause))
            && self
                .error_contains
                .as_ref()
                .is_none_or(|text| last.is_some_and(|f| f.message.contains(text)))
            && self
                .error_shape
                .as_ref()
                .is_none_or(|shape| last.is_some_and(|f| f.shape() == *shape))
            && self.since.is_none_or(|since| letter.buried_at >= since)
            && self.until.is_none_or(|until| letter.buried_at < until)
    }
}
