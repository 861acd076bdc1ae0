//! In-memory servers by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use headless_abstractions::{Check, Clock, Error, Finding, Result};
use headless_memory::Memory;

use super::{Connected, ProviderUrl};

/// What there is to know of any of them.
pub(super) async fn examine(url: ProviderUrl, _clock: Arc<dyn Clock>) -> Result<Vec<Finding>> {
    Servers::default().connect(&url)?;
    Ok(vec![
        Finding::good(Check::Reachable, "it is in this process"),
        Finding::doubtful(
            Check::Durable,
            "nothing of it outlives its process",
            "use it for tests and trials; for work that must not be lost, give a URL of postgres: or of another server",
        ),
    ])
}

/// The servers that have a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers(Arc<Mutex<BTreeMap<String, Memory>>>);

impl Servers {
    pub(super) fn connect(&self, url: &ProviderUrl) -> Result<Connected> {
        let Some(name) = url.opaque() else {
            return Err(Error::invalid(
                "a memory server is named as \"memory:\" (a new one) or \"memory:name\", without \"/\", \"?\" and \"#\"",
            )
            .with_operation("connect")
            .with_provider("memory"));
        };
        let memory = if name.is_empty() {
            Memory::new()
        } else {
            // An insert is whole or has not happened: the map is valid after any panic.
            let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            servers.entry(name.to_owned()).or_default().connect()
        };
        Ok(Connected::new().with_store(&memory).with_transport(memory))
    }
}
