//! What waits.

use std::fmt;

use headless_abstractions::{Result, StoreParts, Transport};
use headless_messaging::ConsumerHandle;

/// What waits in the store and the transport, for the groups of one runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// Messages in the outbox, delayed ones included.
    pub outbox: u64,
    /// Messages that wait in the transport, or are with a member and not settled.
    pub lag: u64,
    /// Messages that the inbox holds for a handler.
    pub running: u64,
    /// Messages parked until their next round.
    pub parked: u64,
    /// Messages that were given up: dead letters of the groups and of the relay. They wait for an operator.
    pub dead: u64,
}

impl Backlog {
    /// Whether nothing waits any more but for an operator.
    ///
    /// The figures are read one after the other in the direction in which messages move. So if they are all zero, what
    /// was published before they were read is settled.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.outbox == 0 && self.lag == 0 && self.running == 0 && self.parked == 0
    }

    pub(super) async fn of(
        store: Option<&StoreParts>,
        transport: Option<&dyn Transport>,
        consumers: &[ConsumerHandle],
    ) -> Result<Self> {
        let mut backlog = Self::default();
        if let Some(outbox) = store.and_then(|store| store.outbox.as_ref()) {
            backlog.outbox = outbox.queries.stats().await?.total();
        }
        if let Some(transport) = transport {
            for consumer in consumers {
                backlog.lag += transport.lag(consumer.group()).await?;
            }
        }
        if let Some(inbox) = store.and_then(|store| store.inbox.as_ref()) {
            for consumer in consumers {
                let stats = inbox.queries.stats(Some(consumer.group())).await?;
                backlog.running += stats.running;
                backlog.parked += stats.parked;
            }
            let dead = inbox.dead_letter_queries.stats().await?;
            backlog.dead = dead.iter().map(|stats| stats.count).sum();
        }
        Ok(backlog)
    }
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "outbox {}, lag {}, running {}, parked {}, dead {}",
            self.outbox, self.lag, self.running, self.parked, self.dead
        )
    }
}
