//! Publishing: durably through the outbox, or straight to the broker.

mod builder;
mod count;
mod work;

use std::sync::Arc;

use headless_abstractions::{
    Appended, Error, ErrorKind, Message, MessageId, OutboxStore, Result, Sent, TopicName, Transport,
};
use headless_core::{CrashPoint, Event, Wakeups, metric};
use serde::Serialize;
use tracing::Instrument;

pub use builder::MessageBuilder;
pub(crate) use count::{count_by_topic, count_one};
pub use work::PublishExt;

use crate::{Outgoing, outgoing::refused};

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishOutcome {
    /// It is in the outbox, or will be when its unit of work commits.
    Stored,
    /// A message with its id is in the outbox already; nothing was changed.
    Duplicate,
    /// The broker has confirmed it.
    Accepted,
    /// The broker has accepted it, and no group takes it.
    Unrouted,
}

/// A message that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Its id.
    pub id: MessageId,
    /// What became of it.
    pub outcome: PublishOutcome,
}

/// Publishes messages, outside of any transaction. Within one, see [`PublishExt`].
///
/// By default durably where there is a store: a publish has succeeded when the outbox holds the message, whether the
/// broker is there or not. Without a store, or by [`direct`](Self::direct), when the broker has confirmed it.
///
/// ```
/// # use std::sync::Arc;
/// # use headless_core::{Codecs, Environment, Spawner};
/// # use headless_memory::Memory;
/// # use headless_messaging::{Outgoing, OutgoingLimits, PublishOutcome, Publisher, Topics};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> headless_abstractions::Result<()> {
/// # let environment = Environment::system(Spawner::current(), "node-1");
/// # let outgoing = Outgoing::new(&environment, Topics::default(), Codecs::new(), OutgoingLimits::default(), None);
/// let memory = Arc::new(Memory::new());
/// let publisher = Publisher::new(outgoing, Some(memory), None, environment.wakeups.clone());
/// let published = publisher
///     .message("orders.placed", &["book", "pen"])
///     .key(42)
///     .tenant("acme")
///     .send()
///     .await?;
/// assert_eq!(published.outcome, PublishOutcome::Stored);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Publisher {
    outgoing: Outgoing,
    outbox: Option<Arc<dyn OutboxStore>>,
    transport: Option<Arc<dyn Transport>>,
    wakeups: Wakeups,
    route: Route,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Durable,
    Direct,
}

impl Route {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Durable => "outbox",
            Self::Direct => "direct",
        }
    }
}

impl Publisher {
    /// A publisher into this outbox, or onto this transport; durable if there is an outbox.
    ///
    /// `wakeups` are those that the relay of this process listens to.
    #[must_use]
    pub fn new(
        outgoing: Outgoing,
        outbox: Option<Arc<dyn OutboxStore>>,
        transport: Option<Arc<dyn Transport>>,
        wakeups: Wakeups,
    ) -> Self {
        let route = if outbox.is_some() {
            Route::Durable
        } else {
            Route::Direct
        };
        Self {
            outgoing,
            outbox,
            transport,
            wakeups,
            route,
        }
    }

    /// What makes its envelopes: put it into the state of a unit of work to publish through that.
    #[must_use]
    pub fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    /// One that publishes straight to the broker.
    #[must_use]
    pub fn direct(&self) -> Self {
        self.routed(Route::Direct)
    }

    /// One that publishes through the outbox.
    #[must_use]
    pub fn durable(&self) -> Self {
        self.routed(Route::Durable)
    }

    /// One whose messages were caused by this one; see [`Outgoing::correlated_to`].
    #[must_use]
    pub fn correlated_to(&self, cause: &Message) -> Self {
        Self {
            outgoing: self.outgoing.correlated_to(cause),
            ..self.clone()
        }
    }

    /// Publishes an event. When this has returned, the message is safe.
    ///
    /// # Errors
    /// `Invalid`, `TooLarge` or `Unsupported` for a message that could not arrive, before anything has happened; else
    /// what the outbox or the transport answers, with [`Error::is_outcome_unknown`] where it may have happened.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the message published or not.
    pub async fn publish<M: Event>(&self, event: &M) -> Result<Published> {
        self.send_one(self.outgoing.event(event)).await
    }

    /// Publishes events in one round trip to the store, or one pipelined batch to the broker, and answers for each in
    /// their order. One that is refused does not keep the others back.
    ///
    /// # Errors
    /// For each event as [`publish`](Self::publish). The outbox takes the batch whole: when it fails, each has failed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves each message published or not; on the durable way all or none.
    pub async fn publish_all<M: Event>(&self, events: &[M]) -> Vec<Result<Published>> {
        let messages = events.iter().map(|event| self.outgoing.event(event)).collect();
        self.send_all(messages).await
    }

    /// Begins a message with everything that an event does not say; [`send`](MessageBuilder::send) publishes it.
    ///
    /// Its type is the topic's name unless it is given another.
    pub fn message<T: Serialize + ?Sized>(&self, topic: &str, payload: &T) -> MessageBuilder<Self> {
        MessageBuilder::new(self.clone(), topic, self.outgoing.envelope(topic, payload))
    }

    fn routed(&self, route: Route) -> Self {
        Self {
            route,
            ..self.clone()
        }
    }

    async fn send_one(&self, message: Result<Message>) -> Result<Published> {
        self.send_all(vec![message])
            .await
            .pop()
            .unwrap_or_else(|| Err(unanswered()))
    }

    /// Answers for each message in its place: what was refused before, and what has become of the others.
    async fn send_all(&self, messages: Vec<Result<Message>>) -> Vec<Result<Published>> {
        let mut batch = Vec::with_capacity(messages.len());
        let places: Vec<Result<()>> = messages
            .into_iter()
            .map(|message| {
                let message = message?;
                self.check_route(&message)?;
                batch.push(message);
                Ok(())
            })
            .collect();
        let mut answers = self.deliver(batch).await.into_iter();
        places
            .into_iter()
            .map(|place| place.and_then(|()| answers.next().unwrap_or_else(|| Err(unanswered()))))
            .collect()
    }

    fn check_route(&self, message: &Message) -> Result<()> {
        match self.route {
            Route::Durable if self.outbox.is_none() => Err(Error::unsupported(
                "publishing durably needs a store with an outbox and there is none: register one, or publish with \
                 `.direct()`",
            )),
            Route::Direct if self.transport.is_none() => Err(Error::unsupported(
                "publishing directly needs a transport and there is none: register one, or publish with `.durable()`",
            )),
            Route::Durable => Ok(()),
            Route::Direct => self.outgoing.check_direct(message),
        }
        .map_err(|error| refused(error, message.topic.as_str()))
    }

    async fn deliver(&self, mut batch: Vec<Message>) -> Vec<Result<Published>> {
        if batch.is_empty() {
            return Vec::new();
        }
        let publishing = self.outgoing.begin(self.route.as_str(), &mut batch);
        let delivered = async {
            match (self.route, &self.outbox, &self.transport) {
                (Route::Durable, Some(outbox), _) => self.store(&**outbox, &batch).await,
                (Route::Direct, _, Some(transport)) => transmit(&**transport, &batch).await,
                // `check_route` has refused every message of a route that leads nowhere.
                (Route::Durable, None, _) | (Route::Direct, _, None) => Vec::new(),
            }
        };
        let answers = delivered.instrument(publishing.span.clone()).await;
        publishing.end(answers.iter().find_map(|answer| answer.as_ref().err()));
        answers
    }

    async fn store(&self, outbox: &dyn OutboxStore, batch: &[Message]) -> Vec<Result<Published>> {
        let append = async {
            CrashPoint::OutboxAppending.reach()?;
            let appended = outbox.append(batch).await?;
            CrashPoint::OutboxAppended.reach()?;
            Ok(appended)
        };
        let appended: Result<Vec<Appended>> = self.outgoing.store_call("outbox.append", append).await;
        match appended {
            Ok(appended) => {
                self.wakeups.outbox().wake();
                count_by_topic(metric::PUBLISHED, taken(batch, &appended));
                stored(batch, &appended).map(Ok).collect()
            }
            Err(error) => {
                let error = error.with_operation("publish");
                let others: Vec<_> = batch[1..].iter().map(|_| Err(repeat(&error))).collect();
                std::iter::once(Err(error)).chain(others).collect()
            }
        }
    }
}

/// The topics of what an outbox has taken, each as often as it took a message of it.
fn taken<'a>(batch: &'a [Message], appended: &'a [Appended]) -> impl Iterator<Item = &'a TopicName> {
    let answers = batch.iter().zip(appended);
    answers
        .filter(|(_, appended)| **appended == Appended::Stored)
        .map(|(message, _)| &message.topic)
}

/// What an outbox has answered.
fn stored(batch: &[Message], appended: &[Appended]) -> impl Iterator<Item = Published> {
    batch.iter().zip(appended).map(|(message, appended)| Published {
        id: message.id,
        outcome: match appended {
            Appended::Stored => PublishOutcome::Stored,
            Appended::Duplicate => PublishOutcome::Duplicate,
        },
    })
}

/// Asks the transport to send these; answers for each.
async fn send(transport: &dyn Transport, batch: &[Message]) -> Vec<Result<Sent>> {
    if let Err(error) = CrashPoint::DirectSending.reach() {
        return batch.iter().map(|_| Err(repeat(&error))).collect();
    }
    let answers = transport.send(batch).await;
    match CrashPoint::DirectSent.reach() {
        Ok(()) => answers,
        Err(error) => batch.iter().map(|_| Err(repeat(&error))).collect(),
    }
}

async fn transmit(transport: &dyn Transport, batch: &[Message]) -> Vec<Result<Published>> {
    let answers = send(transport, batch).await;
    let topics = |of: fn(&Sent) -> bool| {
        batch
            .iter()
            .zip(&answers)
            .filter(move |(_, answer)| answer.as_ref().is_ok_and(of))
            .map(|(message, _)| &message.topic)
    };
    count_by_topic(metric::PUBLISHED, topics(|_| true));
    count_by_topic(metric::UNROUTED, topics(|sent| *sent == Sent::Unrouted));
    batch
        .iter()
        .zip(answers)
        .map(|(message, answer)| {
            let outcome = match answer.map_err(|error| refused(error, message.topic.as_str()))? {
                Sent::Accepted => PublishOutcome::Accepted,
                Sent::Unrouted => PublishOutcome::Unrouted,
            };
            Ok(Published {
                id: message.id,
                outcome,
            })
        })
        .collect()
}

/// The same error for another message of the batch. The source stays with the first.
fn repeat(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message().to_owned()).with_advice(error.advice());
    if error.is_outcome_unknown() {
        copy = copy.with_outcome_unknown();
    }
    if let Some(operation) = error.operation() {
        copy = copy.with_operation(operation);
    }
    if let Some(provider) = error.provider() {
        copy = copy.with_provider(provider);
    }
    match error.resource() {
        Some(resource) => copy.with_resource(resource),
        None => copy,
    }
}

/// A driver that answers for fewer messages than it was given: whether the others were taken is not known.
fn unanswered() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the driver did not answer for this message: a defect of the provider",
    )
    .with_outcome_unknown()
    .with_operation("publish")
}
