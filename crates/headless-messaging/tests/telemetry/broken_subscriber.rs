//! A subscriber that refuses so many of its next settlements.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{DeliveryToken, Error, ErrorKind, Received, Result, Settlement, Subscriber};

#[derive(Debug)]
pub(crate) struct BrokenSubscriber {
    pub(crate) inner: Box<dyn Subscriber>,
    pub(crate) refused: Arc<AtomicU32>,
}

#[async_trait]
impl Subscriber for BrokenSubscriber {
    async fn receive(&self, most: usize, wait: Duration) -> Result<Received> {
        self.inner.receive(most, wait).await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Vec<Result<()>> {
        let refused = self.refused.load(Ordering::SeqCst) > 0;
        if refused {
            self.refused.fetch_sub(1, Ordering::SeqCst);
            let refusal = |_| Err(Error::new(ErrorKind::Unavailable, "away"));
            return settlements.iter().map(refusal).collect();
        }
        self.inner.settle(settlements).await
    }

    async fn extend(&self, tokens: &[DeliveryToken], visibility: Duration) -> Vec<Result<()>> {
        self.inner.extend(tokens, visibility).await
    }

    async fn pause(&self) -> Result<()> {
        self.inner.pause().await
    }

    async fn resume(&self) -> Result<()> {
        self.inner.resume().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
