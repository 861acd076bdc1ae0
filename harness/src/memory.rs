//! The fixture of the memory provider: the reference, and the counterpart of every other provider.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{Error, Result};
use headless_memory::{Memory, MemoryConfig, MemoryTx};

use crate::fixture::{
    Fixture, Namespace, StoreFixture, StoreNode, TransportFixture, TransportNode, Unavailable,
};

/// The user's own table in cases.
const TABLE: &str = "case_rows";

/// A memory server of its own, in virtual time.
#[derive(Debug)]
pub struct MemoryFixture {
    server: Mutex<Memory>,
}

impl MemoryFixture {
    fn new_server() -> Memory {
        // Small enough that a case can send more than this without filling the machine.
        const LIMIT: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();
        Memory::with_config(MemoryConfig::default().with_max_payload(LIMIT))
    }

    fn connect(&self) -> Memory {
        self.server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .connect()
    }
}

#[async_trait]
impl Fixture for MemoryFixture {
    const VIRTUAL_TIME: bool = true;
    const LEASE: Duration = Duration::from_secs(2);
    const PATIENCE: Duration = Duration::from_secs(20);
    const QUIET: Duration = Duration::from_secs(1);

    async fn open(_namespace: Namespace) -> Result<Self, Unavailable> {
        Ok(Self {
            server: Mutex::new(Self::new_server()),
        })
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    /// A restart of a memory server leaves nothing.
    async fn restart_server(&self) -> Result<bool> {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Self::new_server();
        Ok(true)
    }

    async fn drop_namespace(self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl TransportFixture for MemoryFixture {
    async fn node(&self) -> Result<TransportNode> {
        let memory = self.connect();
        let severed = memory.clone();
        Ok(TransportNode::new(Arc::new(memory), move || severed.sever()))
    }
}

#[async_trait]
impl StoreFixture for MemoryFixture {
    type Store = Memory;

    async fn node(&self) -> Result<StoreNode<Memory>> {
        let memory = self.connect();
        let severed = memory.clone();
        Ok(StoreNode::new(memory, move || severed.sever()))
    }

    async fn write_row(tx: &mut MemoryTx, key: &str, value: &str) -> Result<()> {
        tx.put(TABLE, key, value.to_owned()).await
    }

    async fn rows(&self) -> Result<Vec<(String, String)>> {
        self.connect()
            .rows(TABLE)
            .into_iter()
            .map(|(key, value)| match String::from_utf8(value.to_vec()) {
                Ok(value) => Ok((key, value)),
                Err(error) => Err(Error::invalid("a case's row is not text").with_source(error)),
            })
            .collect()
    }
}
