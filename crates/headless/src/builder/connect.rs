//! The store and the transport that a configuration names.

use headless_abstractions::{Error, Result};

use super::Builder;
use crate::{Connected, Source, config::Endpoint};

/// Where the store and the transport of a configuration are. They are connected to at start-up.
#[derive(Debug, Default)]
pub(crate) struct Configured {
    pub(crate) store: Option<Endpoint>,
    pub(crate) transport: Option<Endpoint>,
    /// Whether the configuration names a store, and a transport, be it of use or not.
    pub(crate) is_named: [bool; 2],
    is_connected: bool,
}

impl Configured {
    pub(super) const fn is_any(&self) -> bool {
        let [store, transport] = self.is_named;
        store || transport
    }

    /// Where the store, or the transport, came from.
    pub(super) fn source(endpoint: Option<&Endpoint>, is_given: bool) -> Source {
        match endpoint {
            Some(endpoint) => endpoint.source.clone(),
            None if is_given => Source::Builder,
            None => Source::Default,
        }
    }
}

impl Builder {
    /// What is wrong with the store and the transport of the configuration, as far as it is known before they answer.
    pub(super) fn configured_problems(&self) -> Vec<String> {
        if self.configured.is_connected {
            return Vec::new();
        }
        let store = self.store.as_ref().map(|store| store.info.name);
        let transport = self.transport.as_ref().map(|transport| transport.info().name);
        let mut problems = Vec::new();
        for (side, endpoint, other) in [
            ("store", &self.configured.store, store),
            ("transport", &self.configured.transport, transport),
        ] {
            let Some(endpoint) = endpoint else { continue };
            let place = endpoint.source.place();
            if let Some(other) = other {
                problems.push(format!(
                    "two {side}s are given, {other} in code and {}{place}: keep one",
                    endpoint.url
                ));
            }
            if let Err(error) = self.providers.check(&endpoint.url) {
                problems.push(format!("{side}.url{place}: {}", error.message()));
            }
        }
        problems
    }

    /// Connects to what the configuration names. One URL for both sides is connected to once.
    pub(super) async fn connect(&mut self) -> Result<()> {
        let (store, transport) = (&self.configured.store, &self.configured.transport);
        let stored = self.connected("store", store.as_ref()).await?;
        let is_shared = match (store, transport) {
            (Some(store), Some(transport)) => store.url.expose() == transport.url.expose(),
            _ => false,
        };
        let moved = if is_shared {
            stored.clone()
        } else {
            self.connected("transport", transport.as_ref()).await?
        };
        if let (Some(connected), Some(endpoint)) = (stored, store) {
            let store = connected.store().map_err(|error| at("store", endpoint, error))?;
            self.state = store.register(self.state.clone());
            self.store = Some(store.parts());
        }
        if let (Some(connected), Some(endpoint)) = (moved, transport) {
            let transport = connected
                .transport()
                .map_err(|error| at("transport", endpoint, error))?;
            self.transport = Some(transport.driver());
        }
        self.configured.is_connected = true;
        Ok(())
    }

    async fn connected(&self, side: &str, endpoint: Option<&Endpoint>) -> Result<Option<Connected>> {
        match endpoint {
            None => Ok(None),
            Some(endpoint) => {
                let connected = self.providers.connect(endpoint.url.expose()).await;
                connected.map(Some).map_err(|error| at(side, endpoint, error))
            }
        }
    }
}

/// Says which setting an error of a provider is about.
fn at(side: &str, endpoint: &Endpoint, error: Error) -> Error {
    let setting = format!("{side}.url{}", endpoint.source.place());
    let resource = match error.resource() {
        Some(resource) => format!("{resource}, {setting}"),
        None => setting,
    };
    error.with_resource(resource)
}
