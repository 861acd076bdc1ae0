//! A channel in the hands of one send.

use std::{ops::Deref, sync::Arc, time::Duration};

use tokio::{runtime::Handle, sync::OwnedSemaphorePermit, time::timeout};

use crate::{channel::Chan, connection::Live};

/// A channel in confirm mode that one send has for itself. Given back whole, the next one has it; dropped, it is closed
/// once everything on it is answered for.
///
/// Not before: a server that ends a channel by itself, say because of an exchange that is not there, answers our good-bye
/// as well if the two cross. The client knows the channel no more by then, and ends the connection for it, with all other
/// sends.
pub(crate) struct Publisher {
    channel: Chan,
    live: Arc<Live>,
    is_given_back: bool,
    /// How long the answers may take.
    patience: Duration,
    /// What counts as under way until the channel is free or closed.
    permit: Option<OwnedSemaphorePermit>,
}

impl Publisher {
    pub(crate) const fn new(channel: Chan, live: Arc<Live>, patience: Duration) -> Self {
        Self {
            channel,
            live,
            is_given_back: false,
            patience,
            permit: None,
        }
    }

    /// Keeps this for as long as the channel is in use: also when the send was given up.
    pub(crate) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Some(permit);
    }

    /// Lets the next send have the channel. Every message on it is confirmed.
    pub(crate) fn give_back(mut self) {
        self.is_given_back = true;
        self.live.give_back(self.channel.clone());
    }
}

impl Deref for Publisher {
    type Target = Chan;

    fn deref(&self) -> &Chan {
        &self.channel
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if self.is_given_back {
            return;
        }
        // Without a runtime it goes with the connection.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let (channel, permit, patience) = (self.channel.clone(), self.permit.take(), self.patience);
        runtime.spawn(async move {
            match timeout(patience, channel.wait_for_confirms()).await {
                Ok(Ok(_answered)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a channel has gone, and a send that was given up with it");
                }
                Err(_elapsed) => tracing::debug!("a send that was given up is not answered for in time"),
            }
            if channel.status().connected() {
                channel.end().await;
            }
            drop(permit);
        });
    }
}
