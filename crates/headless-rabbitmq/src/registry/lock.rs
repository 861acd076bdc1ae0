//! The lock of whoever changes the registry: an exclusive queue. It goes with its connection.
//!
//! AMQP tells nobody when such a queue has gone. So whoever lets go says so over the exchange on which members talk, and who
//! waits looks again then; what nobody could say is noticed a little later.

use std::time::Duration;

use futures::StreamExt;
use headless_abstractions::{ErrorKind, Result};
use lapin::{
    BasicProperties, Consumer, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::{runtime::Handle, time::timeout};

use crate::{Namespace, channel::Chan, connection::Live, error::fault};

/// When to look again though nobody has said anything: the holder's connection may have gone.
const AGAIN: Duration = Duration::from_secs(1);
/// What is said under this key is that the lock is free. No group has such a name.
const FREE: &str = "!lock";

/// The lock, held.
pub(super) struct Lock {
    /// Until it is let go.
    held: Option<(Chan, Namespace)>,
}

impl Lock {
    /// Waits for it. Whoever calls sees to it that this does not last for ever.
    pub(super) async fn take(live: &Live, namespace: &Namespace) -> Result<Self> {
        let mut word = None;
        loop {
            if let Some(channel) = try_take(live, namespace).await? {
                return Ok(Self {
                    held: Some((channel, namespace.clone())),
                });
            }
            match &mut word {
                // It may have been let go before anybody listened: it is tried once more at once.
                None => word = Some(listen(live, namespace).await?),
                Some((_channel, word)) => {
                    if let Ok(None | Some(Err(_))) = timeout(AGAIN, word.next()).await {
                        return Err(headless_abstractions::Error::new(
                            ErrorKind::Unavailable,
                            "the connection went while the registry's lock was waited for",
                        ));
                    }
                }
            }
        }
    }

    /// Lets others have it.
    pub(super) async fn release(mut self) -> Result<()> {
        match self.held.take() {
            Some((channel, namespace)) => let_go(&channel, &namespace).await,
            None => Ok(()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Given up half-way. Without a runtime the lock goes with the connection.
        if let Some((channel, namespace)) = self.held.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                if let Err(error) = let_go(&channel, &namespace).await {
                    tracing::debug!(%error, "the registry's lock goes with its connection");
                }
            });
        }
    }
}

/// The channel that it was got on; `None` while another connection has it.
async fn try_take(live: &Live, namespace: &Namespace) -> Result<Option<Chan>> {
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let channel = live.channel().await?;
    let taken = channel
        .queue_declare(namespace.lock(), options, FieldTable::default())
        .await
        .map_err(fault);
    match taken {
        Ok(_) => Ok(Some(channel)),
        // The one conflict that passes.
        Err(error) if error.kind() == ErrorKind::Conflict && error.is_retryable() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn let_go(channel: &Chan, namespace: &Namespace) -> Result<()> {
    channel
        .queue_delete(namespace.lock(), QueueDeleteOptions::default())
        .await
        .map_err(fault)?;
    talk_exchange(channel, namespace).await?;
    channel
        .basic_publish(
            namespace.talk(),
            FREE.into(),
            BasicPublishOptions::default(),
            &[],
            BasicProperties::default(),
        )
        .await
        .map(|_unconfirmed| ())
        .map_err(fault)
}

/// Hears from now on when the lock is let go.
async fn listen(live: &Live, namespace: &Namespace) -> Result<(Chan, Consumer)> {
    let channel = live.channel().await?;
    talk_exchange(&channel, namespace).await?;
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), options, FieldTable::default())
        .await
        .map_err(fault)?;
    let queue: ShortString = queue.name().clone();
    channel
        .queue_bind(
            queue.clone(),
            namespace.talk(),
            FREE.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(fault)?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let word = channel.consume(queue, options, FieldTable::default()).await?;
    Ok((channel, word))
}

/// The same exchange on which members talk.
async fn talk_exchange(channel: &Chan, namespace: &Namespace) -> Result<()> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(
            namespace.talk(),
            ExchangeKind::Direct,
            options,
            FieldTable::default(),
        )
        .await
        .map_err(fault)
}
