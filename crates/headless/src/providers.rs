//! Stores and transports chosen by URL.

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc};

use headless_abstractions::{Clock, Error, Finding, Result};

mod connected;
mod examination;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod url;

pub use self::{
    connected::{AnyStore, AnyTransport, Connected},
    examination::Examination,
    url::ProviderUrl,
};

type Connecting = Pin<Box<dyn Future<Output = Result<Connected>> + Send>>;
type Factory = dyn Fn(ProviderUrl) -> Connecting + Send + Sync;
type Examining = Pin<Box<dyn Future<Output = Result<Vec<Finding>>> + Send>>;
type Examiner = dyn Fn(ProviderUrl, Arc<dyn Clock>) -> Examining + Send + Sync;

/// The schemes of providers of headless, and the feature that builds each in. Those of later versions are named too,
/// so that their error can say so.
const FEATURES: [(&str, &str); 10] = [
    ("amqp", "rabbitmq"),
    ("amqps", "rabbitmq"),
    ("kafka", "kafka"),
    ("memory", "memory"),
    ("nats", "nats"),
    ("postgres", "postgres"),
    ("postgresql", "postgres"),
    ("redis", "redis"),
    ("rediss", "redis"),
    ("sqlite", "sqlite"),
];

/// Connects to stores and transports by URL; the scheme says which provider.
///
/// ```
/// use headless::{Headless, Providers};
///
/// # #[tokio::main]
/// # async fn main() -> headless::Result<()> {
/// let connected = Providers::builtin().connect("memory:").await?;
/// let runtime = Headless::builder("orders")
///     .any_store(&connected.store()?)
///     .any_transport(&connected.transport()?)
///     .start()
///     .await?;
/// # runtime.shutdown(std::time::Duration::from_secs(1)).await
/// # }
/// ```
#[derive(Clone)]
pub struct Providers {
    factories: BTreeMap<String, Arc<Factory>>,
    examiners: BTreeMap<String, Arc<Examiner>>,
}

impl Providers {
    /// The providers that are compiled in. `memory:` is a new, empty server at each connect; `memory:name` is the same
    /// server at each connect of these providers and their clones. `postgres://…` is a handle of its own at each connect,
    /// whose store and transport share it: connect once for both sides. `amqp://…` and `amqps://…` are RabbitMQ, a transport
    /// alone.
    #[must_use]
    pub fn builtin() -> Self {
        let providers = Self {
            factories: BTreeMap::new(),
            examiners: BTreeMap::new(),
        };
        #[cfg(feature = "memory")]
        let providers = {
            let servers = memory::Servers::default();
            providers
                .with("memory", move |url| {
                    let connected = servers.connect(&url);
                    async { connected }
                })
                .with_examiner("memory", memory::examine)
        };
        #[cfg(feature = "postgres")]
        let providers = providers
            .with("postgres", postgres::connect)
            .with("postgresql", postgres::connect)
            .with_examiner("postgres", postgres::examine)
            .with_examiner("postgresql", postgres::examine);
        #[cfg(feature = "rabbitmq")]
        let providers = providers
            .with("amqp", rabbitmq::connect)
            .with("amqps", rabbitmq::connect)
            .with_examiner("amqp", rabbitmq::examine)
            .with_examiner("amqps", rabbitmq::examine);
        providers
    }

    /// With a provider of the user's own for this scheme, in place of any other and of how that is examined. Schemes are
    /// compared in lower case.
    #[must_use]
    pub fn with<F, Fut>(mut self, scheme: &str, factory: F) -> Self
    where
        F: Fn(ProviderUrl) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Connected>> + Send + 'static,
    {
        let factory: Arc<Factory> = Arc::new(move |url| Box::pin(factory(url)));
        let scheme = scheme.to_ascii_lowercase();
        self.examiners.remove(&scheme);
        self.factories.insert(scheme, factory);
        self
    }

    /// With how a server of this scheme is examined: without changing anything on it. `Err` is for a URL that cannot be
    /// read; what is wrong with the server is a finding.
    #[must_use]
    pub fn with_examiner<F, Fut>(mut self, scheme: &str, examiner: F) -> Self
    where
        F: Fn(ProviderUrl, Arc<dyn Clock>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<Finding>>> + Send + 'static,
    {
        let examiner: Arc<Examiner> = Arc::new(move |url, clock| Box::pin(examiner(url, clock)));
        self.examiners.insert(scheme.to_ascii_lowercase(), examiner);
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// `Invalid` for what is no URL and for an unknown scheme, `Unsupported` for one that is not compiled in, both naming
    /// what there is; else what the provider answers. No error shows more of the URL than scheme, host and port.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no connection behind.
    pub async fn connect(&self, url: &str) -> Result<Connected> {
        let url = ProviderUrl::parse(url)?;
        match self.factories.get(url.scheme()) {
            Some(factory) => factory(url).await,
            None => Err(self.missing(&url).with_operation("connect")),
        }
    }

    /// Looks at a server as a service would meet it, and changes nothing of what is kept there: whether it can be reached,
    /// its version, the rights of the user, its clock beside `clock`, and whatever else its provider looks at. Of a
    /// provider that nobody has said how to examine, it only sees whether it can be connected to.
    ///
    /// # Errors
    /// As [`connect`](Self::connect) for the URL itself. What is wrong with the server is a finding.
    ///
    /// # Cancel safety
    /// Dropping the future leaves no connection behind.
    pub async fn examine(&self, url: &str, clock: Arc<dyn Clock>) -> Result<Examination> {
        let url = ProviderUrl::parse(url)?;
        let endpoint = url.to_string();
        let findings = match (self.examiners.get(url.scheme()), self.factories.get(url.scheme())) {
            (Some(examiner), _) => examiner(url, clock).await?,
            (None, Some(factory)) => vec![examination::of_connecting(factory(url).await)?],
            (None, None) => return Err(self.missing(&url).with_operation("examine")),
        };
        Ok(Examination::new(endpoint, findings))
    }

    /// Refuses a scheme that is unknown or not compiled in.
    pub(crate) fn check(&self, url: &ProviderUrl) -> Result<()> {
        match self.factories.contains_key(url.scheme()) {
            true => Ok(()),
            false => Err(self.missing(url)),
        }
    }

    fn missing(&self, url: &ProviderUrl) -> Error {
        let scheme = url.scheme();
        let known = self
            .factories
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", ");
        let known = if known.is_empty() { "none" } else { &known };
        let feature = FEATURES
            .iter()
            .find(|(of, _)| *of == scheme)
            .map(|(_, feature)| feature);
        match feature {
            Some(feature @ (&"memory" | &"postgres" | &"rabbitmq")) => Error::unsupported(format!(
                "the scheme {scheme:?} needs the feature {feature:?} of headless: enable it (compiled in: {known})"
            )),
            Some(feature) => Error::unsupported(format!(
                "the scheme {scheme:?} needs the feature {feature:?} of headless, which is not built into this version \
                 (compiled in: {known})"
            )),
            None => Error::invalid(format!(
                "the scheme {scheme:?} is unknown (compiled in: {known}): correct it, or add a provider of your own with \
                 Providers::with"
            )),
        }
    }
}

impl Default for Providers {
    fn default() -> Self {
        Self::builtin()
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.factories.keys()).finish()
    }
}

#[cfg(feature = "memory")]
#[cfg(test)]
mod tests;
