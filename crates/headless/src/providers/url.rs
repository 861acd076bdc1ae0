//! A URL that never shows its secrets.

use std::fmt;

use headless_abstractions::{Error, Result};
use url::Url;

/// The URL of a provider. It shows scheme, host and port and nothing else: user, password, path and query may be or
/// hold secrets.
#[derive(Clone)]
pub struct ProviderUrl(Url);

impl ProviderUrl {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match Url::parse(text) {
            Ok(url) if Self(url.clone()).is_cut_in_a_password() => Err(Error::invalid(
                "this is no provider's URL (an @ follows what ends the host): in a password write / as %2F, ? as %3F and # as %23",
            )
            .with_operation("connect")),
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

    /// Whether there is a password in it, where a URL has one or in its query.
    pub(crate) fn has_password(&self) -> bool {
        self.0.password().is_some() || self.has_query_password()
    }

    /// Whether there is a password in its query.
    pub(crate) fn has_query_password(&self) -> bool {
        self.0.query_pairs().any(|(name, _)| name == "password")
    }

    /// Whether what was to be a password is elsewhere: it had a `/`, `?` or `#` in it that was not encoded, and what precedes
    /// that was taken for host and port, which are shown; with an `@` in it as well, what precedes that for user and password.
    fn is_cut_in_a_password(&self) -> bool {
        let url = &self.0;
        let in_query = url.query().and_then(|query| query.split_once('@'));
        url.has_host()
            && (url.path().contains('@')
                || url.fragment().is_some_and(|fragment| fragment.contains('@'))
                || in_query.is_some_and(|(before, _)| !before.contains('=')))
    }

    /// Puts a password in, as it is; `false` when a URL of this form takes none.
    pub(crate) fn set_password(&mut self, password: &str) -> bool {
        // What else has a meaning in a URL is encoded there; a percent sign is taken for one that encodes already.
        self.0.set_password(Some(&password.replace('%', "%25"))).is_ok()
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
