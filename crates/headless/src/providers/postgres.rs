//! PostgreSQL databases by URL.

use std::sync::Arc;

use headless_abstractions::{Clock, Finding, Result};
use headless_postgres::{Postgres, PostgresConfig};

use super::{Connected, ProviderUrl};

/// One handle for both sides: a store and a transport of one URL share its connections.
pub(super) async fn connect(url: ProviderUrl) -> Result<Connected> {
    let postgres = Postgres::connect(url.expose()).await?;
    Ok(Connected::new().with_store(&postgres).with_transport(postgres))
}

pub(super) async fn examine(url: ProviderUrl, clock: Arc<dyn Clock>) -> Result<Vec<Finding>> {
    let config = PostgresConfig::new(url.expose())?;
    Ok(Postgres::examine(&config, &*clock).await)
}
