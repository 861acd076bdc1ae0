//! Stores and transports by URL, with the flag that named them in each error.

use std::{any::Any, fmt::Display};

use headless::{AnyStore, AnyTransport, Providers, Result};

use crate::bad_input::BadInput;

/// What `--store` names.
pub(crate) async fn store(providers: &Providers, url: &str) -> Result<AnyStore, BadInput> {
    let connected = providers.connect(url).await.map_err(wrong("--store"))?;
    connected.store().map_err(wrong("--store"))
}

/// What `--transport` names.
pub(crate) async fn transport(providers: &Providers, url: &str) -> Result<AnyTransport, BadInput> {
    let connected = providers.connect(url).await.map_err(wrong("--transport"))?;
    connected.transport().map_err(wrong("--transport"))
}

/// What `--store` names, where it has to be of this type.
pub(crate) async fn store_as<S: Any + Clone>(providers: &Providers, url: &str) -> Result<S, BadInput> {
    let store = store(providers, url).await?;
    store.typed().ok_or_else(|| unfit("--store", store.name()))
}

/// What `--transport` names, where it has to be of this type.
pub(crate) async fn transport_as<T: Any + Clone>(providers: &Providers, url: &str) -> Result<T, BadInput> {
    let transport = transport(providers, url).await?;
    transport
        .typed()
        .ok_or_else(|| unfit("--transport", transport.name()))
}

fn unfit(flag: &str, name: &str) -> BadInput {
    BadInput::new(format!(
        "{flag}: this command cannot run on {name} in this version"
    ))
}

fn wrong<E: Display>(flag: &str) -> impl Fn(E) -> BadInput {
    move |error| BadInput::new(format!("{flag}: {error}"))
}
