//! Stores and transports by URL, with the flag that named them in each error.

use anyhow::{Context as _, Result};
use headless::{AnyStore, AnyTransport, Connected, ErrorKind, Providers};

use crate::bad_input::BadInput;

pub(crate) const STORE: &str = "--store";
pub(crate) const TRANSPORT: &str = "--transport";

/// A store and a transport, connected to.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) store: AnyStore,
    pub(crate) transport: AnyTransport,
}

impl Place {
    /// Where both are named.
    pub(crate) async fn connect(providers: &Providers, [store, transport]: &[String; 2]) -> Result<Self> {
        let (store, transport) = connect(providers, Some(store), Some(transport)).await?;
        let (store, transport) = store.zip(transport).context("there is a URL for each")?;
        Ok(Self { store, transport })
    }
}

/// What `--store` and `--transport` name. One URL for both is connected to once.
pub(crate) async fn connect(
    providers: &Providers,
    store: Option<&str>,
    transport: Option<&str>,
) -> Result<(Option<AnyStore>, Option<AnyTransport>)> {
    let stored = at(providers, STORE, store).await?;
    let moved = match &stored {
        Some(stored) if store == transport => Some(stored.clone()),
        _ => at(providers, TRANSPORT, transport).await?,
    };
    Ok((
        stored
            .map(|part| part.store())
            .transpose()
            .map_err(wrong(STORE))?,
        moved
            .map(|part| part.transport())
            .transpose()
            .map_err(wrong(TRANSPORT))?,
    ))
}

async fn at(providers: &Providers, flag: &'static str, url: Option<&str>) -> Result<Option<Connected>> {
    match url {
        Some(url) => Ok(Some(providers.connect(url).await.map_err(wrong(flag))?)),
        None => Ok(None),
    }
}

/// Whether the user has to mend the input, rather than the world.
pub(crate) fn is_bad_input(error: &headless::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Unsupported
    )
}

/// Says which flag an error is about.
pub(crate) fn wrong(flag: &'static str) -> impl Fn(headless::Error) -> anyhow::Error {
    move |error| {
        if is_bad_input(&error) {
            BadInput::new(format!("{flag}: {error}")).into()
        } else {
            anyhow::Error::new(error).context(flag)
        }
    }
}
