//! Handlers without their types: what the consumer's runtime calls.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use headless_abstractions::{Message, Result};
use headless_core::{Codecs, Event, HandlerError, HandlerResult, decode, panic_message};
use tracing::Span;

use crate::{BatchContext, Context};

/// A handler's call with its payload decoded.
pub(crate) type Call = BoxFuture<'static, HandlerResult>;

/// Decodes a payload and makes the call; an error means that the payload is undecodable.
type Single = dyn Fn(&Message, &Codecs, Context) -> Result<Call> + Send + Sync;

/// Decoded payloads of a batch, on their way to its handler.
type Batch = dyn Fn(&[&Message], &Codecs, BatchContext) -> Result<Call, (usize, headless_abstractions::Error)>
    + Send
    + Sync;

/// A handler of one type of one topic.
#[derive(Clone)]
pub(crate) struct Handler {
    pub(crate) topic: &'static str,
    pub(crate) message_type: &'static str,
    pub(crate) kind: HandlerKind,
    /// Whether its calls go on when their future is dropped.
    pub(crate) blocking: bool,
}

#[derive(Clone)]
pub(crate) enum HandlerKind {
    Single(Arc<Single>),
    Batch {
        most: usize,
        wait: Duration,
        call: Arc<Batch>,
    },
}

impl Handler {
    pub(crate) fn single<M, F, Fut>(handler: F) -> Self
    where
        M: Event,
        F: Fn(M, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let call = move |message: &Message, codecs: &Codecs, cx: Context| -> Result<Call> {
            let event = decoded::<M>(message, codecs)?;
            let handler = handler.clone();
            // The handler is called within the future, where a panic of its first part is caught as well.
            Ok(Box::pin(async move { handler(event, cx).await }))
        };
        Self::of::<M>(HandlerKind::Single(Arc::new(call)))
    }

    pub(crate) fn blocking<M, F>(handler: F) -> Self
    where
        M: Event,
        F: Fn(M, Context) -> HandlerResult + Send + Sync + 'static,
    {
        let handler = Arc::new(handler);
        let single = Self::single(move |event: M, cx: Context| {
            let handler = handler.clone();
            async move {
                // Its thread knows nothing of the call's span unless it is told.
                let span = Span::current();
                let call = tokio::task::spawn_blocking(move || span.in_scope(|| handler(event, cx)));
                match call.await {
                    Ok(result) => result,
                    Err(ended) => match ended.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(cancelled) => Err(HandlerError::retry(cancelled)),
                    },
                }
            }
        });
        Self {
            blocking: true,
            ..single
        }
    }

    pub(crate) fn batch<M, F, Fut>(most: usize, wait: Duration, handler: F) -> Self
    where
        M: Event,
        F: Fn(Vec<M>, BatchContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let call = move |messages: &[&Message], codecs: &Codecs, cx: BatchContext| {
            let mut events = Vec::with_capacity(messages.len());
            for (n, message) in messages.iter().enumerate() {
                events.push(decoded::<M>(message, codecs).map_err(|error| (n, error))?);
            }
            let handler = handler.clone();
            let call: Call = Box::pin(async move { handler(events, cx).await });
            Ok(call)
        };
        Self::of::<M>(HandlerKind::Batch {
            most,
            wait,
            call: Arc::new(call),
        })
    }

    fn of<M: Event>(kind: HandlerKind) -> Self {
        Self {
            topic: M::TOPIC,
            message_type: M::TYPE,
            kind,
            blocking: false,
        }
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler")
            .field("topic", &self.topic)
            .field("type", &self.message_type)
            .finish_non_exhaustive()
    }
}

fn decoded<M: Event>(message: &Message, codecs: &Codecs) -> Result<M> {
    let codec = codecs.reader(message.content_type.as_ref())?;
    // The type's own `Deserialize` runs here: a panic in it says that this payload cannot be decoded, and nothing more.
    catch_unwind(AssertUnwindSafe(|| decode(codec, &message.payload))).unwrap_or_else(|panic| {
        let text = panic_message(&*panic);
        Err(headless_abstractions::Error::invalid(format!(
            "decoding the payload panicked: {text}"
        )))
    })
}
