//! RabbitMQ servers by URL.

use headless_abstractions::Result;
use headless_rabbitmq::RabbitMq;

use super::{Connected, ProviderUrl};

/// A transport alone: RabbitMQ stores nothing that is asked for later.
pub(super) async fn connect(url: ProviderUrl) -> Result<Connected> {
    Ok(Connected::new().with_transport(RabbitMq::connect(url.expose()).await?))
}
