//! What the cases publish.

use std::fmt::Display;

use bytes::Bytes;
use headless_abstractions::{ContentType, IdempotencyKey, Message, MessageType, PartitionKey, TopicName};
use headless_core::Event;
use serde::{Deserialize, Serialize};

use crate::cx::{Cx, topic};

/// A piece of work: its number, and its key where it has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) n: u32,
    pub(super) key: String,
}

impl Event for Work {
    const TOPIC: &'static str = "work";
}

/// Another type of the same topic.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Other {
    pub(super) n: u32,
}

impl Event for Other {
    const TOPIC: &'static str = Work::TOPIC;
    const TYPE: &'static str = "other";
}

/// An event of another topic.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Elsewhere {
    pub(super) n: u32,
}

impl Event for Elsewhere {
    const TOPIC: &'static str = "elsewhere";
}

/// The topic of [`Work`].
pub(super) fn work_topic() -> TopicName {
    topic(Work::TOPIC)
}

impl<F> Cx<F> {
    /// A piece of work as a message, without a key if that is empty.
    pub(super) fn work(&self, n: u32, key: &str) -> Message {
        let message = self.event(&Work {
            n,
            key: key.to_owned(),
        });
        keyed(message, key)
    }

    /// The works `1..=count`, spread over the keys in turn.
    pub(super) fn works(&self, count: u32, keys: &[&str]) -> Vec<Message> {
        let key = |n: u32| {
            keys.iter()
                .cycle()
                .nth(n as usize - 1)
                .copied()
                .unwrap_or_default()
        };
        (1..=count).map(|n| self.work(n, key(n))).collect()
    }

    /// An event as a message.
    pub(super) fn event<M: Event>(&self, event: &M) -> Message {
        let mut message = self.message(&topic(M::TOPIC), "");
        message.payload = json(event);
        message.message_type = Some(parsed(MessageType::parse(M::TYPE)));
        message.content_type = Some(parsed(ContentType::parse("application/json")));
        message
    }
}

/// The message with this partition key, without one if it is empty.
pub(super) fn keyed(message: Message, key: &str) -> Message {
    if key.is_empty() {
        message
    } else {
        message.with_key(parsed(PartitionKey::parse(key)))
    }
}

/// The message with this idempotency key.
pub(super) fn standing_for(message: Message, operation: impl Display) -> Message {
    message.with_idempotency_key(parsed(IdempotencyKey::parse(operation.to_string())))
}

#[expect(clippy::expect_used, reason = "the events of cases are plain")]
fn json<M: Event>(event: &M) -> Bytes {
    serde_json::to_vec(event).expect("a plain event").into()
}

#[expect(clippy::expect_used, reason = "the texts of cases are valid")]
fn parsed<T>(text: headless_abstractions::Result<T>) -> T {
    text.expect("a valid text")
}
