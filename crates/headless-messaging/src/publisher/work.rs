//! Publishing within a unit of work.

use std::{future::Future, sync::Arc};

use headless_abstractions::{Error, ErrorKind, Message, Result, StoreTx};
use headless_core::{Event, UnitOfWork, metric};
use serde::Serialize;
use tracing::Instrument;

use super::{MessageBuilder, Published, stored, taken, unanswered};
use crate::Outgoing;

/// Publishing within a unit of work: the messages leave if and only if it commits.
///
/// After any of these has failed the unit of work is doomed: it can only be rolled back. Messages are counted as
/// published once it has committed.
pub trait PublishExt: sealed::Sealed {
    /// Publishes an event when the unit of work commits. It takes its place in the order of its key now.
    ///
    /// # Errors
    /// `Conflict` when the unit of work is doomed already. `Invalid`, `TooLarge` or `Unsupported` for a message that
    /// could not arrive, and for a unit of work that was not begun through a runtime; else what the store answers.
    ///
    /// # Cancel safety
    /// After dropping the future the unit of work is to be rolled back.
    fn publish<M: Event>(&mut self, event: &M) -> impl Future<Output = Result<Published>> + Send;

    /// Publishes events in one round trip, all or none, and answers for each in their order.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); for the first event that is refused.
    ///
    /// # Cancel safety
    /// As [`publish`](Self::publish).
    fn publish_all<M: Event>(&mut self, events: &[M]) -> impl Future<Output = Result<Vec<Published>>> + Send;

    /// Begins a message with everything that an event does not say; `send` publishes it.
    ///
    /// Its type is the topic's name unless it is given another.
    fn message<T: Serialize + ?Sized>(&mut self, topic: &str, payload: &T) -> MessageBuilder<&mut Self>;
}

impl<Tx: StoreTx> PublishExt for UnitOfWork<Tx> {
    async fn publish<M: Event>(&mut self, event: &M) -> Result<Published> {
        let message = outgoing(self).and_then(|outgoing| outgoing.event(event));
        append_one(self, message).await
    }

    async fn publish_all<M: Event>(&mut self, events: &[M]) -> Result<Vec<Published>> {
        let messages =
            outgoing(self).and_then(|outgoing| events.iter().map(|event| outgoing.event(event)).collect());
        append(self, messages).await
    }

    fn message<T: Serialize + ?Sized>(&mut self, topic: &str, payload: &T) -> MessageBuilder<&mut Self> {
        let message = outgoing(self).and_then(|outgoing| outgoing.envelope(topic, payload));
        MessageBuilder::new(self, topic, message)
    }
}

pub(super) fn outgoing<Tx: StoreTx>(work: &UnitOfWork<Tx>) -> Result<Arc<Outgoing>> {
    work.state().get::<Outgoing>().ok_or_else(|| {
        Error::invalid(
            "this unit of work does not know how to publish: begin it through the runtime (`runtime.begin`, \
             `cx.begin`, `runtime.enlist`)",
        )
        .with_operation("publish")
    })
}

pub(super) async fn append_one<Tx: StoreTx>(
    work: &mut UnitOfWork<Tx>,
    message: Result<Message>,
) -> Result<Published> {
    append(work, message.map(|message| vec![message]))
        .await?
        .pop()
        .ok_or_else(unanswered)
}

async fn append<Tx: StoreTx>(
    work: &mut UnitOfWork<Tx>,
    messages: Result<Vec<Message>>,
) -> Result<Vec<Published>> {
    work.check()?;
    let outcome = append_all(work, messages).await;
    if outcome.is_err() {
        work.doom("publish");
    }
    outcome
}

async fn append_all<Tx: StoreTx>(
    work: &mut UnitOfWork<Tx>,
    messages: Result<Vec<Message>>,
) -> Result<Vec<Published>> {
    let mut messages = messages?;
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let outgoing = outgoing(work)?;
    let publishing = outgoing.begin("work", &mut messages);
    let append = outgoing.store_call("work.append", (**work).append(&messages));
    let appended = append.instrument(publishing.span.clone()).await;
    publishing.end(appended.as_ref().err());
    let appended = appended.map_err(|error| error.with_operation("publish"))?;
    if appended.len() != messages.len() {
        return Err(Error::new(
            ErrorKind::Internal,
            format!(
                "the store answered for {} of {} messages: a defect of the provider",
                appended.len(),
                messages.len()
            ),
        )
        .with_operation("publish"));
    }
    for topic in taken(&messages, &appended) {
        work.count_after_commit(metric::PUBLISHED, topic, 1);
    }
    work.wake_outbox_after_commit();
    Ok(stored(&messages, &appended).collect())
}

mod sealed {
    use super::{StoreTx, UnitOfWork};

    #[expect(unnameable_types, reason = "that is what seals it")]
    pub trait Sealed {}

    impl<Tx: StoreTx> Sealed for UnitOfWork<Tx> {}
}
