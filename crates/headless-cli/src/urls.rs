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

/// The URL, so that connecting changes no schema unless it says so itself: who looks at a store does not update the
/// services that use it.
pub(crate) fn unmigrated(url: &str) -> String {
    let scheme = url.split(':').next().unwrap_or_default().to_ascii_lowercase();
    if !["postgres", "postgresql"].contains(&&*scheme) || says_migrate(url) {
        return url.to_owned();
    }
    let sign = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sign}migrate=check")
}

/// Whether its query has the key `migrate`, and not a password with such a word in it.
fn says_migrate(url: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| pair.starts_with("migrate="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_migrate_nothing_when_the_url_does_not_ask_for_it() {
        for (url, connected) in [
            ("postgres://h/db", "postgres://h/db?migrate=check"),
            (
                "PostgreSQL://h/db?schema=a",
                "PostgreSQL://h/db?schema=a&migrate=check",
            ),
            ("postgres://h/db?migrate=auto", "postgres://h/db?migrate=auto"),
            (
                "postgres://u:migrate=1@h/db",
                "postgres://u:migrate=1@h/db?migrate=check",
            ),
            ("memory:", "memory:"),
        ] {
            assert_eq!(unmigrated(url), connected);
        }
    }
}
