//! The suites in real time and on several threads, as every provider with a server runs them: a case that only
//! holds in paused time would show here.

use std::{process::ExitCode, time::Duration};

use async_trait::async_trait;
use headless_abstractions::Result;
use headless_harness::{
    Fixture, MemoryFixture, Namespace, StoreFixture, StoreNode, Suites, TransportFixture, TransportNode,
    Unavailable, run,
};
use headless_memory::{Memory, MemoryTx};

#[derive(Debug)]
struct RealTime(MemoryFixture);

#[async_trait]
impl Fixture for RealTime {
    const LEASE: Duration = Duration::from_secs(1);
    const QUIET: Duration = Duration::from_millis(200);

    async fn open(namespace: Namespace) -> Result<Self, Unavailable> {
        Ok(Self(MemoryFixture::open(namespace).await?))
    }

    fn version(&self) -> String {
        self.0.version()
    }

    async fn drop_namespace(self) -> Result<()> {
        self.0.drop_namespace().await
    }
}

#[async_trait]
impl TransportFixture for RealTime {
    async fn node(&self) -> Result<TransportNode> {
        TransportFixture::node(&self.0).await
    }
}

#[async_trait]
impl StoreFixture for RealTime {
    type Store = Memory;

    async fn node(&self) -> Result<StoreNode<Memory>> {
        StoreFixture::node(&self.0).await
    }

    async fn write_row(tx: &mut MemoryTx, key: &str, value: &str) -> Result<()> {
        MemoryFixture::write_row(tx, key, value).await
    }

    async fn rows(&self) -> Result<Vec<(String, String)>> {
        StoreFixture::rows(&self.0).await
    }
}

fn main() -> ExitCode {
    run(Suites::of("memory")
        .unreported()
        .transport::<RealTime>()
        .outbox::<RealTime>()
        .inbox::<RealTime>())
}
