//! The server and the handles on it.

use std::{fmt, sync::Arc};

use headless_abstractions::{Clock, StoreId};
use uuid::Uuid;

use crate::{MemoryConfig, broker::Broker, clock::TokioClock, link::Link, store::Database};

/// A handle on an in-memory server: a [`Transport`](headless_abstractions::Transport) and a
/// [`Store`](headless_abstractions::Store) at once.
///
/// Cloning a handle shares its connection; [`connect`](Self::connect) makes another connection to the same server,
/// as another process would.
#[derive(Clone)]
pub struct Memory {
    pub(crate) server: Arc<Server>,
    pub(crate) link: Arc<Link>,
}

/// What all handles share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) id: StoreId,
    pub(crate) config: MemoryConfig,
    #[cfg(test)]
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) broker: Broker,
    pub(crate) database: Database,
}

impl Memory {
    /// A new, empty server with the default settings, and a first handle on it.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config(MemoryConfig::default())
    }

    /// A new, empty server with these settings, and a first handle on it.
    #[must_use]
    pub fn with_config(config: MemoryConfig) -> Self {
        let clock: Arc<dyn Clock> = config
            .clock
            .clone()
            .unwrap_or_else(|| Arc::new(TokioClock::new()));
        let server = Server {
            id: StoreId::from_bits(Uuid::new_v4().as_u128()),
            broker: Broker::new(&config, clock.clone()),
            database: Database::new(&config, clock.clone()),
            config,
            #[cfg(test)]
            clock,
        };
        Self {
            server: Arc::new(server),
            link: Arc::default(),
        }
    }

    /// Another connection to the same server.
    #[must_use]
    pub fn connect(&self) -> Self {
        Self {
            server: self.server.clone(),
            link: Arc::default(),
        }
    }

    /// Cuts this connection, and every clone of this handle with it, as a crash of its process would: its calls never
    /// answer from now on, its open transactions end, and its leases and partitions lapse by the server's clock.
    pub fn sever(&self) {
        if self.server.broker.sever(&self.link) {
            self.server.database.end_transactions_of(&self.link);
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("server", &self.server.id)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
