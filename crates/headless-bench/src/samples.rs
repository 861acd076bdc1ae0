//! Messages to measure with.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use headless_abstractions::{Clock, Message, MessageId, MessageType, PartitionKey, Result, TopicName};
use headless_core::SystemClock;
use uuid::Uuid;

/// Makes messages whose ids follow time, as publishers do.
#[derive(Debug)]
pub(crate) struct Samples {
    topic: TopicName,
    kind: MessageType,
    payload: Bytes,
    at: DateTime<Utc>,
    next: u128,
}

impl Samples {
    /// Of this topic, with a payload of this many bytes.
    pub(crate) fn new(topic: &str, payload: usize) -> Result<Self> {
        let at = SystemClock::new().now();
        let since_epoch = u128::try_from(at.timestamp_millis()).unwrap_or_default();
        Ok(Self {
            topic: TopicName::parse(topic)?,
            kind: MessageType::parse(topic)?,
            payload: vec![b'x'; payload].into(),
            at,
            // UUIDv7 (RFC 9562): milliseconds in the first 48 bits, then the version; a random start against collisions.
            next: since_epoch << 80 | 0x7 << 76 | 0x2 << 62 | Uuid::new_v4().as_u128() >> 68 << 6,
        })
    }

    /// The next message, with this key.
    pub(crate) fn message(&mut self, key: Option<&str>) -> Result<Message> {
        self.next += 1;
        let id = MessageId::from_uuid(Uuid::from_u128(self.next));
        let mut message = Message::new(id, self.topic.clone(), self.at, self.payload.clone());
        message.message_type = Some(self.kind.clone());
        message.key = key.map(PartitionKey::parse).transpose()?;
        Ok(message)
    }

    /// `count` messages whose keys `key_of` gives by their number.
    pub(crate) fn many(
        &mut self,
        count: usize,
        key_of: impl Fn(usize) -> Option<String>,
    ) -> Result<Vec<Message>> {
        (0..count).map(|n| self.message(key_of(n).as_deref())).collect()
    }
}
