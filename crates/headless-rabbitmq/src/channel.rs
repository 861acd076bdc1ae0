//! Channels that end in order.
//!
//! The client closes a channel, and cancels a consumer, when the last handle of it is dropped, and it ends the whole
//! connection when that finds the channel closed already. So neither is left to it: a channel is closed by a task of
//! ours, and its consumers are dropped after it.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use headless_abstractions::Result;
use lapin::{
    Channel, Consumer,
    options::{BasicCancelOptions, BasicConsumeOptions},
    types::{FieldTable, ShortString},
};
use tokio::runtime::Handle;

use crate::error::fault;

/// The reply code of a good-bye.
const BYE: u16 = 200;

/// A channel, closed when its last handle goes.
#[derive(Clone)]
pub(crate) struct Chan(Arc<Inner>);

struct Inner {
    channel: Channel,
    consumers: Mutex<Vec<Consumer>>,
}

impl Chan {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(Arc::new(Inner {
            channel,
            consumers: Mutex::default(),
        }))
    }

    /// Begins to consume. The consumer may be dropped at any time.
    pub(crate) async fn consume(
        &self,
        queue: ShortString,
        options: BasicConsumeOptions,
        arguments: FieldTable,
    ) -> Result<Consumer> {
        let consumed = self.0.channel.basic_consume(queue, "".into(), options, arguments);
        let consumer = consumed.await.map_err(fault)?;
        self.0.consumers().push(consumer.clone());
        Ok(consumer)
    }

    /// Ends a consumer. All that it brought has come when this returns.
    pub(crate) async fn cancel(&self, tag: &ShortString) -> Result<()> {
        let cancelled = self
            .0
            .channel
            .basic_cancel(tag.clone(), BasicCancelOptions::default());
        cancelled.await.map_err(fault)?;
        self.0.consumers().retain(|consumer| consumer.tag() != *tag);
        Ok(())
    }

    /// Closes it. One that cannot be closed has gone already.
    pub(crate) async fn end(&self) {
        if let Err(error) = self.0.channel.close(BYE, "bye".into()).await {
            tracing::debug!(%error, "a channel was closed before it was ended");
        }
    }
}

impl Inner {
    fn consumers(&self) -> std::sync::MutexGuard<'_, Vec<Consumer>> {
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Chan {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.0.channel
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.channel.status().connected() {
            return;
        }
        // Without a runtime it goes with the connection.
        if let Ok(runtime) = Handle::try_current() {
            let (channel, consumers) = (self.channel.clone(), std::mem::take(&mut *self.consumers()));
            runtime.spawn(async move {
                if let Err(error) = channel.close(BYE, "bye".into()).await {
                    tracing::debug!(%error, "a channel was closed before it was ended");
                }
                drop(consumers);
            });
        }
    }
}

impl fmt::Debug for Chan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chan").field(&self.0.channel.id()).finish()
    }
}
