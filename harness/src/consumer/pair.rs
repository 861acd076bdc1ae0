//! Fixtures of two providers: the one under test, and memory for the other side.

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{GroupName, Result, TopicName, UnitOfWorkStore};

use crate::{
    fixture::{Fixture, Namespace, StoreFixture, StoreNode, TransportFixture, TransportNode, Unavailable},
    memory::MemoryFixture,
};

/// A transport under test, with the memory store.
#[derive(Debug)]
pub(crate) struct OverTransport<T> {
    tested: T,
    memory: MemoryFixture,
}

/// A store under test, with the memory transport.
#[derive(Debug)]
pub(crate) struct OverStore<S> {
    tested: S,
    memory: MemoryFixture,
}

macro_rules! fixture {
    ($pair:ident of $side:ident) => {
        #[async_trait]
        impl<F: $side> Fixture for $pair<F> {
            const VIRTUAL_TIME: bool = F::VIRTUAL_TIME && MemoryFixture::VIRTUAL_TIME;
            const LEASE: Duration = F::LEASE;
            const PATIENCE: Duration = F::PATIENCE;
            const QUIET: Duration = F::QUIET;

            async fn open(namespace: Namespace) -> Result<Self, Unavailable> {
                Ok(Self {
                    tested: F::open(namespace.clone()).await?,
                    memory: MemoryFixture::open(namespace).await?,
                })
            }

            fn version(&self) -> String {
                self.tested.version()
            }

            async fn drop_namespace(self) -> Result<()> {
                self.tested.drop_namespace().await
            }
        }
    };
}

fixture!(OverTransport of TransportFixture);
fixture!(OverStore of StoreFixture);

#[async_trait]
impl<T: TransportFixture> TransportFixture for OverTransport<T> {
    async fn node(&self) -> Result<TransportNode> {
        self.tested.node().await
    }

    async fn send_foreign(&self, topic: &TopicName, payload: &[u8]) -> Result<bool> {
        self.tested.send_foreign(topic, payload).await
    }

    async fn group_exists(&self, group: &GroupName) -> Result<Option<bool>> {
        self.tested.group_exists(group).await
    }
}

#[async_trait]
impl<T: TransportFixture> StoreFixture for OverTransport<T> {
    type Store = <MemoryFixture as StoreFixture>::Store;

    async fn node(&self) -> Result<StoreNode<Self::Store>> {
        StoreFixture::node(&self.memory).await
    }

    async fn write_row(tx: &mut <Self::Store as UnitOfWorkStore>::Tx, key: &str, value: &str) -> Result<()> {
        MemoryFixture::write_row(tx, key, value).await
    }

    async fn rows(&self) -> Result<Vec<(String, String)>> {
        self.memory.rows().await
    }
}

#[async_trait]
impl<S: StoreFixture> TransportFixture for OverStore<S> {
    async fn node(&self) -> Result<TransportNode> {
        TransportFixture::node(&self.memory).await
    }
}

#[async_trait]
impl<S: StoreFixture> StoreFixture for OverStore<S> {
    type Store = S::Store;

    async fn node(&self) -> Result<StoreNode<Self::Store>> {
        self.tested.node().await
    }

    async fn write_row(tx: &mut <Self::Store as UnitOfWorkStore>::Tx, key: &str, value: &str) -> Result<()> {
        S::write_row(tx, key, value).await
    }

    async fn rows(&self) -> Result<Vec<(String, String)>> {
        self.tested.rows().await
    }
}
