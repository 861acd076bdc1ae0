//! One message, said fluently.

use std::{fmt::Display, time::Duration};

use chrono::TimeDelta;
use headless_abstractions::{
    CorrelationId, Error, IdempotencyKey, Message, MessageId, MessageType, PartitionKey, Priority, Result,
    StoreTx, Tenant, TraceContext,
};
use headless_core::UnitOfWork;

use super::{Published, Publisher, work};
use crate::outgoing::{at_most_the_longest, refused};

/// A message that is being put together, to be published by `To`: a [`Publisher`], or a unit of work.
///
/// A setter that is given something wrong does not fail; [`send`](MessageBuilder::send) then reports the first such
/// mistake, and has published nothing.
#[must_use = "nothing is published before `send`"]
#[derive(Debug)]
pub struct MessageBuilder<To> {
    to: To,
    topic: String,
    message: Result<Message>,
}

impl<To> MessageBuilder<To> {
    pub(super) fn new(to: To, topic: &str, message: Result<Message>) -> Self {
        Self {
            to,
            topic: topic.to_owned(),
            message,
        }
    }

    /// The key whose messages keep their order: not empty, at most 512 bytes. An ordered topic needs one.
    pub fn key(self, key: impl Display) -> Self {
        self.set(|message| {
            message.key = Some(PartitionKey::parse(key.to_string())?);
            Ok(())
        })
    }

    /// The business operation that it stands for, at most 512 bytes: a group acts on one message per idempotency key.
    pub fn idempotency_key(self, key: impl Display) -> Self {
        self.set(|message| {
            message.idempotency_key = Some(IdempotencyKey::parse(key.to_string())?);
            Ok(())
        })
    }

    /// A header of the user's own; see [`Headers`](headless_abstractions::Headers) for what they may be.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.set(|message| message.headers.insert(name, value))
    }

    /// What it is called among the types of its topic, at most 256 bytes. By default the topic's name.
    pub fn message_type(self, name: &str) -> Self {
        self.set(|message| {
            message.message_type = Some(MessageType::parse(name)?);
            Ok(())
        })
    }

    /// The conversation that it belongs to, at most 256 bytes.
    pub fn correlation_id(self, id: impl Display) -> Self {
        self.set(|message| {
            message.correlation_id = Some(CorrelationId::parse(id.to_string())?);
            Ok(())
        })
    }

    /// On whose behalf it is published, at most 256 bytes. A label, not a credential.
    pub fn tenant(self, tenant: impl Display) -> Self {
        self.set(|message| {
            message.tenant = Some(Tenant::parse(tenant.to_string())?);
            Ok(())
        })
    }

    /// The trace that it belongs to, in the place of the one that it is published in: for a context that came from
    /// elsewhere. What is none by the standard travels and is ignored.
    pub fn trace(self, context: TraceContext) -> Self {
        self.set(|message| {
            message.trace = Some(context);
            Ok(())
        })
    }

    /// How soon it is taken before others: 0 (the default) to 9. Excluded by order.
    pub fn priority(self, priority: u8) -> Self {
        self.set(|message| {
            message.priority = Priority::new(priority)?;
            Ok(())
        })
    }

    /// Not to be delivered before this much time has passed: at most a hundred years.
    pub fn delay(self, delay: Duration) -> Self {
        self.set(|message| {
            at_most_the_longest("delay", delay)?;
            message.deliver_after = Some(delay).filter(|delay| *delay > Duration::ZERO);
            Ok(())
        })
    }

    /// Of no use once this much time has passed, by this process's clock: at most a hundred years.
    pub fn expires_after(self, time: Duration) -> Self {
        self.set(|message| {
            at_most_the_longest("expires_after", time)?;
            let at = TimeDelta::from_std(time)
                .ok()
                .and_then(|time| message.occurred_at.checked_add_signed(time))
                .ok_or_else(|| {
                    Error::invalid("expires_after ends after the last time that can be written")
                })?;
            message.expires_at = Some(Message::microseconds(at));
            Ok(())
        })
    }

    /// Its identity, to publish the same message again: it is stored once. By default a fresh one.
    pub fn id(self, id: MessageId) -> Self {
        self.set(|message| {
            message.id = id;
            Ok(())
        })
    }

    fn set(mut self, set: impl FnOnce(&mut Message) -> Result<()>) -> Self {
        if let Ok(message) = &mut self.message
            && let Err(error) = set(message)
        {
            self.message = Err(error);
        }
        self
    }
}

impl MessageBuilder<Publisher> {
    /// Straight to the broker.
    pub fn direct(mut self) -> Self {
        self.to = self.to.direct();
        self
    }

    /// Through the outbox.
    pub fn durable(mut self) -> Self {
        self.to = self.to.durable();
        self
    }

    /// Publishes it. When this has returned, the message is safe.
    ///
    /// # Errors
    /// The first mistake made in putting it together, naming the field; else as [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the message published or not.
    pub async fn send(self) -> Result<Published> {
        let message = self
            .message
            .and_then(|message| self.to.outgoing.checked(message))
            .map_err(|error| refused(error, &self.topic));
        self.to.send_one(message).await
    }
}

impl<Tx: StoreTx> MessageBuilder<&mut UnitOfWork<Tx>> {
    /// Publishes it when the unit of work commits.
    ///
    /// # Errors
    /// The first mistake made in putting it together, naming the field; else as
    /// [`PublishExt::publish`](crate::PublishExt::publish). The unit of work is doomed then.
    ///
    /// # Cancel safety
    /// After dropping the future the unit of work is to be rolled back.
    pub async fn send(self) -> Result<Published> {
        let outgoing = work::outgoing(self.to);
        let message = self
            .message
            .and_then(|message| outgoing?.checked(message))
            .map_err(|error| refused(error, &self.topic));
        work::append_one(self.to, message).await
    }
}
