//! What the suites need of the toy: a server for each case, and nodes on it.

use std::sync::Arc;

use async_trait::async_trait;
use headless_abstractions::Result;
use headless_harness::{
    Fixture, Namespace, StoreFixture, StoreNode, TransportFixture, TransportNode, Unavailable,
};
use toy_provider::{ToyServer, ToyStore, ToyTransport, ToyTx};

/// A server of its own is the strongest namespace.
#[derive(Debug)]
pub(crate) struct ToyFixture(ToyServer);

#[async_trait]
impl Fixture for ToyFixture {
    const VIRTUAL_TIME: bool = true;

    async fn open(_namespace: Namespace) -> Result<Self, Unavailable> {
        Ok(Self(ToyServer::start()))
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").to_owned()
    }

    async fn drop_namespace(self) -> Result<()> {
        Ok(())
    }
}

// page: nodes
#[async_trait]
impl TransportFixture for ToyFixture {
    async fn node(&self) -> Result<TransportNode> {
        let node = ToyTransport::from_client(&self.0);
        Ok(TransportNode::new(Arc::new(node.clone()), move || node.cut()))
    }
}
// page: end

#[async_trait]
impl StoreFixture for ToyFixture {
    type Store = ToyStore;

    async fn node(&self) -> Result<StoreNode<ToyStore>> {
        let node = ToyStore::from_client(&self.0);
        Ok(StoreNode::new(node.clone(), move || node.cut()))
    }

    async fn write_row(tx: &mut ToyTx, key: &str, value: &str) -> Result<()> {
        tx.put(key, value).await
    }

    async fn rows(&self) -> Result<Vec<(String, String)>> {
        Ok(self.0.rows())
    }
}
