//! PostgreSQL databases by URL.

use headless_abstractions::Result;
use headless_postgres::Postgres;

use super::{Connected, ProviderUrl};

/// One handle for both sides: a store and a transport of one URL share its connections.
pub(super) async fn connect(url: ProviderUrl) -> Result<Connected> {
    let postgres = Postgres::connect(url.expose()).await?;
    Ok(Connected::new().with_store(&postgres).with_transport(postgres))
}
