//! Our own rows, written with the messages and the marks of headless in one transaction.

use anyhow::{Result, bail};
use headless::{AnyStore, Context, HandlerResult, Memory, Postgres, Runtime};

use crate::{
    refusal::Refusal,
    statistics::Statistics,
    webhook::{Webhook, WebhookReceived},
};

mod memory;
mod postgres;

/// Where the rows are. A service of one's own would have one of the two.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    Postgres(Postgres),
    Memory(Memory),
}

/// What has become of a webhook.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stored {
    /// It is stored, as this one of its repository.
    Now { number: i64 },
    /// It had been stored before: nothing has changed.
    Before,
}

impl Storage {
    /// Makes room for the rows, in the store that also holds outbox and inbox.
    pub(crate) async fn open(store: &AnyStore) -> Result<Self> {
        if let Some(postgres) = store.typed::<Postgres>() {
            postgres::create(&postgres).await?;
            return Ok(Self::Postgres(postgres));
        }
        match store.typed::<Memory>() {
            Some(memory) => Ok(Self::Memory(memory)),
            None => bail!(
                "--store: the rows are kept in PostgreSQL or in memory, not in {}",
                store.name()
            ),
        }
    }

    /// Stores a webhook and publishes its message: both or neither. One that is there already is left alone.
    pub(crate) async fn store(&self, runtime: &Runtime, webhook: &Webhook) -> Result<Stored, Refusal> {
        match self {
            Self::Postgres(_) => postgres::store(runtime, webhook).await,
            Self::Memory(_) => memory::store(runtime, webhook).await,
        }
    }

    /// Counts a webhook and marks its message as processed: both or neither.
    pub(crate) async fn count(&self, cx: &Context, webhook: &WebhookReceived) -> HandlerResult {
        match self {
            Self::Postgres(_) => postgres::count(cx, webhook).await,
            Self::Memory(_) => memory::count(cx, webhook).await,
        }
    }

    /// What is known of the repositories after this name, at most `limit`.
    pub(crate) async fn statistics(&self, after: &str, limit: u16) -> Result<Vec<Statistics>, Refusal> {
        match self {
            Self::Postgres(postgres) => postgres::statistics(postgres, after, limit).await,
            Self::Memory(memory) => memory::statistics(memory, after, limit),
        }
    }
}
