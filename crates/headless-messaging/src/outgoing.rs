//! How envelopes are made: encoded, stamped, and refused before anything has happened when they could never arrive.

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use headless_abstractions::{
    Clock, ContentType, CorrelationId, Error, IdempotencyKey, Message, MessageId, MessageType,
    OrderingGuarantee, PartitionKey, Priority, Result, Tenant, TopicName, TraceContext, TransportInfo,
};
use headless_core::{Codecs, Environment, Event, metric, store_call, trace};
use serde::Serialize;
use tracing::Span;

use crate::Topics;

/// The limits of what a process publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutgoingLimits {
    /// The largest encoded payload in bytes, where the transport's own limit is not smaller. Default 1 MiB.
    pub max_payload: usize,
}

impl OutgoingLimits {
    /// With this payload limit in bytes.
    #[must_use]
    pub const fn with_max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }
}

impl Default for OutgoingLimits {
    fn default() -> Self {
        Self {
            max_payload: 1024 * 1024,
        }
    }
}

/// Makes the envelopes of one process.
///
/// Every message that it hands out has been checked: it fits the limits, and follows the rules of its topic and of the
/// transport. Put into the [`State`](headless_core::State) of a unit of work, it is what
/// [`PublishExt`](crate::PublishExt) publishes with.
#[derive(Clone, Debug)]
pub struct Outgoing {
    shared: Arc<Shared>,
    cause: Option<Arc<Cause>>,
}

#[derive(Debug)]
struct Shared {
    environment: Environment,
    topics: Topics,
    codecs: Codecs,
    limits: OutgoingLimits,
    transport: Option<TransportInfo>,
}

/// What a message inherits from the one whose handler publishes it.
#[derive(Debug)]
struct Cause {
    id: MessageId,
    correlation_id: Option<CorrelationId>,
    tenant: Option<Tenant>,
    trace: Option<TraceContext>,
}

impl Outgoing {
    /// Makes envelopes for these topics, encoded by the codec that writes.
    ///
    /// `transport` is where the messages will go, directly or through a relay. Without it, what it cannot take is
    /// found out by the relay only.
    #[must_use]
    pub fn new(
        environment: &Environment,
        topics: Topics,
        codecs: Codecs,
        limits: OutgoingLimits,
        transport: Option<TransportInfo>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                environment: environment.clone(),
                topics,
                codecs,
                limits,
                transport,
            }),
            cause: None,
        }
    }

    /// Makes envelopes of messages that `cause` has caused: they carry its id as their causation, share its
    /// conversation (its correlation id, or its id where it has none), its tenant and, unless they are published within
    /// a span whose ids are known, its trace context.
    #[must_use]
    pub fn correlated_to(&self, cause: &Message) -> Self {
        let correlation_id = cause
            .correlation_id
            .clone()
            // The text of a UUID is a valid correlation id.
            .or_else(|| CorrelationId::parse(cause.id.to_string()).ok());
        Self {
            shared: self.shared.clone(),
            cause: Some(Arc::new(Cause {
                id: cause.id,
                correlation_id,
                tenant: cause.tenant.clone(),
                trace: cause.trace.clone(),
            })),
        }
    }

    /// The message of an event. It gets its trace context when it is published.
    ///
    /// # Errors
    /// `Invalid`, `TooLarge` or `Unsupported`, naming the field and its limit, or the rule of the topic.
    pub fn event<M: Event>(&self, event: &M) -> Result<Message> {
        self.envelope(M::TOPIC, event)
            .and_then(|mut message| {
                message.message_type = Some(MessageType::parse(M::TYPE)?);
                message.key = event.key().map(PartitionKey::parse).transpose()?;
                message.idempotency_key = event.idempotency_key().map(IdempotencyKey::parse).transpose()?;
                Ok(message)
            })
            .and_then(|message| self.checked(message))
            .map_err(|error| refused(error, M::TOPIC))
    }

    /// A message with what every one has, not checked yet.
    pub(crate) fn envelope<T: Serialize + ?Sized>(&self, topic: &str, payload: &T) -> Result<Message> {
        let topic = TopicName::parse(topic)?;
        let codec = self.shared.codecs.writer();
        let bytes = codec.encode(&payload)?;
        let environment = &self.shared.environment;
        let now = Message::microseconds(environment.clock.now());
        let message_type = MessageType::parse(&topic)?;
        let mut message = Message::new(environment.new_message_id(), topic, now, bytes);
        message.message_type = Some(message_type);
        message.content_type = Some(ContentType::parse(codec.content_type())?);
        if let Some(cause) = &self.cause {
            message.causation_id = Some(cause.id);
            message.correlation_id.clone_from(&cause.correlation_id);
            message.tenant.clone_from(&cause.tenant);
        }
        Ok(message)
    }

    /// Begins to publish these messages, of which there is at least one: makes the span, and has those that were given
    /// no trace context carry on its own, or that of the current span, or that of their cause.
    pub(crate) fn begin(&self, route: &'static str, messages: &mut [Message]) -> Publishing {
        let clock = &self.shared.environment.clock;
        Publishing {
            topic: messages[0].topic.clone(),
            began: clock.monotonic(),
            span: self.trace(route, messages),
            clock: clock.clone(),
        }
    }

    /// What it stamps and measures by: that of its runtime.
    #[must_use]
    pub fn environment(&self) -> &Environment {
        &self.shared.environment
    }

    /// Makes a call of the store, and measures it.
    pub(crate) async fn store_call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        store_call(&*self.shared.environment.clock, operation, call).await
    }

    fn trace(&self, route: &'static str, messages: &mut [Message]) -> Span {
        let propagator = &*self.shared.environment.propagator;
        let span = trace::publish(propagator, self.system(), route, messages);
        // The span may be seen by others than who knows the ids: filtered from what is exported, and still printed.
        let known = propagator
            .context_of(&span)
            .or_else(|| propagator.context_of(&Span::current()));
        let of_cause = || {
            let trace = self.cause.as_ref()?.trace.clone()?;
            trace.ids().map(|_| trace)
        };
        let Some(context) = known.or_else(of_cause) else {
            return span;
        };
        for message in messages.iter_mut().filter(|message| message.trace.is_none()) {
            message.trace = Some(context.clone());
        }
        span
    }

    /// What moves the messages, as spans call it.
    pub(crate) fn system(&self) -> &'static str {
        let transport = self.shared.transport.as_ref();
        transport.map_or("headless", |transport| transport.name)
    }

    /// The message, if it could be sent: now or, where it waits in an outbox, later.
    pub(crate) fn checked(&self, message: Message) -> Result<Message> {
        self.check_payload(&message)?;
        self.check_order(&message)?;
        check_times(&message)?;
        self.check_priority(&message)?;
        Ok(message)
    }

    /// Succeeds if the transport itself can do what the message asks for: no outbox will hold it back until it is due.
    pub(crate) fn check_direct(&self, message: &Message) -> Result<()> {
        match &self.shared.transport {
            Some(transport) if message.deliver_after.is_some() && !transport.capabilities.delayed_send => {
                Err(lacking(
                    transport,
                    "delayed_send",
                    "publish it durably, so that the outbox holds it until it is due, or without a delay",
                ))
            }
            _ => Ok(()),
        }
    }

    fn check_payload(&self, message: &Message) -> Result<()> {
        let transport = self.shared.transport.as_ref();
        let offered = transport
            .and_then(|transport| transport.capabilities.max_payload)
            .map_or(usize::MAX, std::num::NonZero::get);
        let limit = self.shared.limits.max_payload.min(offered);
        if message.payload.len() > limit {
            return Err(Error::too_large("payload", message.payload.len(), limit));
        }
        Ok(())
    }

    fn check_order(&self, message: &Message) -> Result<()> {
        if !self.shared.topics.order(&message.topic).is_ordered() {
            return Ok(());
        }
        if message.key.is_none() {
            return Err(Error::invalid(
                "the topic is ordered and the message has no key: give it one with `.key(..)` or `Event::key`, or \
                 declare the topic as `Ordered::no()`",
            ));
        }
        if message.priority > Priority::default() {
            return Err(Error::invalid(
                "priority and order exclude each other: leave the priority off, or declare the topic as `Ordered::no()`",
            ));
        }
        match &self.shared.transport {
            Some(transport) if transport.capabilities.ordering == OrderingGuarantee::None => Err(lacking(
                transport,
                "ordering",
                "declare the topic as `Ordered::no()`, or use a transport that keeps order",
            )),
            _ => Ok(()),
        }
    }

    fn check_priority(&self, message: &Message) -> Result<()> {
        match &self.shared.transport {
            Some(transport) if message.priority > Priority::default() && !transport.capabilities.priority => {
                Err(lacking(
                    transport,
                    "priority",
                    "leave the priority off, or use a transport that offers it",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// A call of `publish` that is under way.
#[derive(Debug)]
pub(crate) struct Publishing {
    topic: TopicName,
    began: Duration,
    pub(crate) span: Span,
    clock: Arc<dyn Clock>,
}

impl Publishing {
    /// Says what became of it: the first error, if there was one.
    pub(crate) fn end(self, error: Option<&Error>) {
        show_failure(&self.span, error);
        let took = self.clock.monotonic().saturating_sub(self.began);
        let topic = self.topic.as_str().to_owned();
        metrics::histogram!(metric::PUBLISH_SECONDS, "topic" => topic).record(took.as_secs_f64());
    }
}

/// Shows on a span what failed first.
pub(crate) fn show_failure(span: &Span, error: Option<&Error>) {
    if let Some(error) = error {
        trace::fail(span, error.kind().as_str());
    }
}

fn check_times(message: &Message) -> Result<()> {
    let delay = message.deliver_after.unwrap_or_default();
    at_most_the_longest("delay", delay)?;
    let due = TimeDelta::from_std(delay)
        .ok()
        .and_then(|delay| message.occurred_at.checked_add_signed(delay));
    if delay > Duration::ZERO && due.is_some_and(|due| message.is_expired(due)) {
        return Err(Error::invalid(
            "the message expires before its delay is over: shorten the delay, or let it expire later",
        ));
    }
    Ok(())
}

/// Refuses a time that a store's arithmetic could overflow on.
pub(crate) fn at_most_the_longest(field: &str, time: Duration) -> Result<()> {
    if time > Message::MAX_DELAY {
        return Err(Error::invalid(format!(
            "{field} is {} s, the limit is {} s",
            time.as_secs(),
            Message::MAX_DELAY.as_secs()
        )));
    }
    Ok(())
}

/// The context of an error about one message.
pub(crate) fn refused(error: Error, topic: &str) -> Error {
    // A topic that is none may be of any length and content; the error itself quotes what is needed of it.
    let error = error.with_operation("publish");
    match TopicName::parse_stored(topic) {
        Ok(topic) => error.with_resource(format!("topic {topic}")),
        Err(_) => error,
    }
}

fn lacking(transport: &TransportInfo, capability: &str, instead: &str) -> Error {
    Error::unsupported(format!(
        "the transport does not offer the capability `{capability}`: {instead}"
    ))
    .with_provider(transport.name)
}
