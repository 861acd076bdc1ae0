//! RabbitMQ servers by URL.

use std::sync::Arc;

use headless_abstractions::{Clock, Finding, Result};
use headless_rabbitmq::{RabbitMq, RabbitMqConfig};

use super::{Connected, ProviderUrl};

/// A transport alone: RabbitMQ stores nothing that is asked for later.
pub(super) async fn connect(url: ProviderUrl) -> Result<Connected> {
    Ok(Connected::new().with_transport(RabbitMq::connect(url.expose()).await?))
}

/// The server's clock is not compared with any: it does not tell its time.
pub(super) async fn examine(url: ProviderUrl, _clock: Arc<dyn Clock>) -> Result<Vec<Finding>> {
    let config = RabbitMqConfig::new(url.expose())?;
    Ok(RabbitMq::examine(&config).await)
}
