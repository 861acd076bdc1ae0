//! A URL that never shows its secrets.

use std::fmt;

use headless_abstractions::{Error, Result};
use url::Url;

/// The URL of a provider. It shows scheme, host and port and nothing else: user, password, path and query may be or
/// hold secrets.
#[derive(Clone)]
pub struct ProviderUrl(Url);

impl ProviderUrl {
    pub(super) fn parse(text: &str) -> Result<Self> {
        match Url::parse(text) {
            Ok(url) => Ok(Self(url)),
            // The text itself stays out of the error: it may hold a password.
            Err(error) => Err(Error::invalid(format!(
                "this is no provider's URL ({error}): write one such as \"memory:\""
            ))
            .with_operation("connect")),
        }
    }

    /// Its scheme, in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    /// The whole of it, secrets included: for the client that connects with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// What follows the scheme in a URL without `//`: `name` of `memory:name`.
    #[cfg(feature = "memory")]
    pub(super) fn opaque(&self) -> Option<&str> {
        let alone = self.0.cannot_be_a_base() && self.0.query().is_none() && self.0.fragment().is_none();
        alone.then(|| self.0.path())
    }
}

impl fmt::Display for ProviderUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.0.scheme())?;
        if let Some(host) = self.0.host_str() {
            write!(f, "//{host}")?;
        }
        match self.0.port() {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ProviderUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProviderUrl({self})")
    }
}
