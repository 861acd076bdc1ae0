//! What a service would meet, looked at before it is started.

use std::sync::Arc;

use headless_abstractions::{Clock, Result};
use headless_core::SystemClock;

use super::Builder;
use crate::Examination;

impl Builder {
    /// Looks at the store and the transport of the configuration as this service would meet them, and changes nothing of
    /// what is kept there: what [`Providers::examine`](crate::Providers::examine) finds of each, the store first. One URL
    /// for both is looked at once. Those given in code are connected already, and not looked at.
    ///
    /// # Errors
    /// `Invalid` with every problem of the configuration, as [`check`](Self::check). What is wrong with a server is a
    /// finding.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no connection behind.
    pub async fn examine(&self) -> Result<Vec<Examination>> {
        self.check()?;
        let clock: Arc<dyn Clock> = match &self.environment {
            Some(environment) => environment.clock.clone(),
            None => Arc::new(SystemClock::new()),
        };
        let (store, transport) = (&self.configured.store, &self.configured.transport);
        let mut urls: Vec<&str> = [store, transport]
            .into_iter()
            .flatten()
            .map(|endpoint| endpoint.url.expose())
            .collect();
        urls.dedup();
        let mut examinations = Vec::new();
        for url in urls {
            examinations.push(self.providers.examine(url, clock.clone()).await?);
        }
        Ok(examinations)
    }
}
