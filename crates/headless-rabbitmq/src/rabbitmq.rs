//! A handle.

use std::{fmt, sync::Arc};

use futures::FutureExt;
use headless_abstractions::{Error, Finding, Result, TopicName};
use tokio::{
    sync::{OnceCell, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    RabbitMqConfig,
    connection::{Connect, Link, Live},
    error::{NAME, closed, overdue},
    examine,
    registry::{Known, Registry},
};

/// A RabbitMQ server as a transport. Clones are one handle, with two connections: one that publishes and one that
/// consumes. Dropping the last clone closes them without a good-bye.
///
/// ```no_run
/// use headless_rabbitmq::RabbitMq;
///
/// # async fn example() -> headless_abstractions::Result<()> {
/// let rabbitmq = RabbitMq::connect("amqp://app:secret@rabbit/shop").await?;
/// # let _ = rabbitmq;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RabbitMq {
    pub(crate) shared: Arc<Shared>,
}

/// What the clones of a handle share.
pub(crate) struct Shared {
    pub(crate) config: RabbitMqConfig,
    pub(crate) publish: Link,
    pub(crate) consume: Link,
    /// What [`RabbitMq::client`] gives away: whatever happens to it, the provider's own go on.
    client: Link,
    pub(crate) registry: Registry,
    /// One permit for each send that may be under way.
    pub(crate) sends: Arc<Semaphore>,
    /// Closing has begun: nothing new begins.
    pub(crate) closing: CancellationToken,
    /// What is under way and is awaited when closing.
    pub(crate) tasks: TaskTracker,
    closed: OnceCell<()>,
}

impl RabbitMq {
    /// Connects to the server at this URL; see [`RabbitMqConfig::new`] for what it may say.
    ///
    /// # Errors
    /// `Invalid` for a bad URL; `Denied` for credentials, rights or certificates; `Unavailable`, `Timeout`.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(RabbitMqConfig::new(url)?).await
    }

    /// Connects with these settings. The connection that consumes is made when it is first needed.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_with(config: RabbitMqConfig) -> Result<Self> {
        Self::open(config, None).await
    }

    /// Looks at the server as a service with these settings would meet it: whether it can be reached, its version (not over
    /// TLS, where it is not told), whether the namespace is there, the rights of the user, and whether it takes messages.
    /// Each finding says what to do where something should be done. What cannot be looked at because of an earlier finding
    /// is left out.
    ///
    /// A queue and an exchange of names of their own are made for it, and go with its connection. Blocks for a few round
    /// trips, each within the time-outs of the settings.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn examine(config: &RabbitMqConfig) -> Vec<Finding> {
        examine::examine(config).await
    }

    /// As [`Self::connect_with`], on connections that the application makes: with its own way to the server, credentials,
    /// certificates and names. It is called for each connection of the handle, up to three, and again when one was lost.
    /// Within `connect_timeout` it has to give one that is open, that nobody else closes, and whose heartbeat is at most
    /// that of the settings (10 s; a server's own is 60 s). The handle closes all of them when it is closed.
    ///
    /// **It may not be told to recover by itself** (`enable_auto_recover`): what is unsettled would silently become somebody
    /// else's. The client does not say whether it was, so that nothing checks this.
    ///
    /// The host of the settings' URL is what the handle says of where it is; user and password are the connection's.
    ///
    /// ```no_run
    /// use headless_rabbitmq::{RabbitMq, RabbitMqConfig};
    /// use lapin::{Connection, ConnectionProperties};
    ///
    /// # async fn example() -> headless_abstractions::Result<()> {
    /// let connect = || {
    ///     Connection::connect("amqp://app:secret@rabbit/shop?heartbeat=10", ConnectionProperties::default())
    /// };
    /// let config = RabbitMqConfig::new("amqp://rabbit/shop?namespace=billing")?;
    /// let rabbitmq = RabbitMq::from_client(connect, config).await?;
    /// # let _ = rabbitmq;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::connect`]; `Invalid` for user, password or certificates in the settings, which would not be used, and for
    /// a connection without a heartbeat or with one that is longer than the settings say.
    pub async fn from_client<F>(
        connect: impl Fn() -> F + Send + Sync + 'static,
        config: RabbitMqConfig,
    ) -> Result<Self>
    where
        F: Future<Output = lapin::Result<lapin::Connection>> + Send + 'static,
    {
        for (name, is_there) in [
            ("ca_file", config.ca_file.is_some()),
            ("cert_file", config.cert_file.is_some()),
            ("user or password of the URL", config.server.has_login),
        ] {
            if is_there {
                return Err(Error::invalid(format!(
                    "{name} is of no use with from_client: the application's connections have credentials and certificates \
                     of their own; leave it out"
                ))
                .with_provider(NAME));
            }
        }
        let connect: Connect = Arc::new(move || connect().boxed());
        Self::open(config, Some(connect)).await
    }

    async fn open(config: RabbitMqConfig, connect: Option<Connect>) -> Result<Self> {
        config.validate().map_err(|error| error.with_provider(NAME))?;
        let shared = Shared {
            sends: Arc::new(Semaphore::new(config.publish_channels.get())),
            config,
            publish: Link::new("publish", connect.clone()),
            consume: Link::new("consume", connect.clone()),
            client: Link::new("client", connect),
            registry: Registry::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            closed: OnceCell::new(),
        };
        shared.publish.first(&shared.config).await?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// A channel of the client's, for whatever the provider does not offer. It is on a connection of its own, which is
    /// made when this is first called: whatever becomes of it, the provider goes on. It is closed with the handle.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    pub async fn client(&self) -> Result<lapin::Channel> {
        self.shared
            .guarded("client", async {
                self.shared
                    .client
                    .live(&self.shared.config)
                    .await?
                    .raw_channel()
                    .await
            })
            .await
    }
}

impl Shared {
    /// Refuses when closing has begun, counts as under way, and is over within `call_timeout`.
    pub(crate) async fn guarded<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        // Taken before the look, so that closing waits for it or it sees that closing has begun.
        let _under_way = self.tasks.token();
        if self.closing.is_cancelled() {
            return Err(closed(operation));
        }
        timeout(self.config.call_timeout, work)
            .await
            .unwrap_or_else(|_elapsed| Err(overdue(operation, "call_timeout")))
            .map_err(|error| error.with_operation(operation).with_provider(NAME))
    }

    /// The registry as it is now.
    pub(crate) async fn known(&self, live: &Live) -> Result<Arc<Known>> {
        let stream = self.config.namespace.registry();
        self.registry.read(live, stream, self.config.call_timeout).await
    }

    /// The registry as it was last seen if it knows all of these topics, and otherwise as it is now.
    pub(crate) async fn known_with(
        &self,
        live: &Live,
        mut topics: impl Iterator<Item = &TopicName>,
    ) -> Result<Arc<Known>> {
        let cached = self.registry.cached();
        // Who has no group may have got one since: what is sent after its declaration is not to be missed.
        if topics.all(|topic| cached.topic(topic).is_some() && cached.is_attended(topic)) {
            return Ok(cached);
        }
        self.known(live).await
    }

    pub(crate) async fn close(&self) -> Result<()> {
        // Others that close wait for the one that does.
        self.closed
            .get_or_try_init(|| async {
                self.closing.cancel();
                self.tasks.close();
                let ended = timeout(self.config.call_timeout, self.tasks.wait()).await;
                let ended = ended.map_err(|_elapsed| overdue("close", "call_timeout"));
                let (publish, consume, client) = tokio::join!(
                    self.publish.close(&self.config),
                    self.consume.close(&self.config),
                    self.client.close(&self.config)
                );
                ended
                    .and(publish)
                    .and(consume)
                    .and(client)
                    .map_err(|error: Error| error.with_operation("close"))
            })
            .await?;
        Ok(())
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}
