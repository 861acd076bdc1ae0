//! The settings of the provider.

use std::{fmt, num::NonZeroUsize, path::PathBuf, time::Duration};

use headless_abstractions::{Error, Result};

use crate::Namespace;

mod url;

/// The largest payload that a RabbitMQ of version 3.10 takes, in bytes.
const LARGEST_PAYLOAD: usize = 128 * 1024 * 1024;

/// The settings of the provider. Its `Debug` shows no secret.
#[derive(Clone)]
#[non_exhaustive]
pub struct RabbitMqConfig {
    pub(crate) server: Server,
    /// What all names on the server begin with. Default `headless`. Two namespaces are two brokers.
    pub namespace: Namespace,
    /// How often each side shows that it is there; whole seconds, 1 s to 60 s. A connection without a sign for two of
    /// them is dead. Default 10 s. A connection that the application makes has to do so as often, at least.
    pub heartbeat: Duration,
    /// How long connecting may take. Default 10 s, at most an hour, as every time-out here.
    pub connect_timeout: Duration,
    /// How long a call may take before it answers `Timeout`. Default 30 s.
    pub call_timeout: Duration,
    /// The server's `consumer_timeout`, 1 s to a year: a delivery is given back before the server would close the
    /// channel for it. Default 30 min, as the server's.
    pub consumer_timeout: Duration,
    /// The largest payload in bytes, at most 128 MiB. Default 8 MiB.
    pub max_payload: NonZeroUsize,
    /// How many messages of one send wait for their confirms at a time, at most 65 535. Default 1 000.
    pub publish_window: NonZeroUsize,
    /// How many sends are under way at a time, each on a channel of its own, at most 64; others wait. Default 8.
    pub publish_channels: NonZeroUsize,
    /// After how many redeliveries a message of an unordered topic goes to its group's dead queue, at most a million.
    /// Default 1 000. It is fixed when the queue is made.
    pub delivery_limit: NonZeroUsize,
    /// A file with the certificates (PEM) that the server's is checked against, beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// A file with the certificate (PEM) that this client shows; needs [`Self::key_file`].
    pub cert_file: Option<PathBuf>,
    /// A file with its key (PEM, PKCS #8).
    pub key_file: Option<PathBuf>,
}

/// Where the server is, and who asks.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) is_tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) vhost: String,
    pub(crate) user: String,
    pub(crate) password: String,
    /// User or password were given, and not left to be what a new server lets in.
    pub(crate) has_login: bool,
}

impl RabbitMqConfig {
    /// The settings for the server at this URL (`amqp://user:password@host:port/vhost`, or `amqps://…` for TLS).
    ///
    /// Its parameters may name every setting of this type, as `namespace=billing`, `heartbeat=10s` (with a unit: `ms`,
    /// `s`, `m` or `h`), `publish_window=500`; the others keep their defaults. Left out, user and password are
    /// `guest`, the host is `localhost`, the port 5672 (5671 with TLS) and the virtual host `/`.
    ///
    /// # Errors
    /// `Invalid` for what is no such URL, and for a parameter that is unknown or has a bad value, which it names. It
    /// shows nothing else of the URL.
    pub fn new(url: &str) -> Result<Self> {
        url::read(url)
    }

    fn at(server: Server) -> Self {
        const PAYLOAD: NonZeroUsize = NonZeroUsize::new(8 * 1024 * 1024).unwrap();
        const WINDOW: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
        const CHANNELS: NonZeroUsize = NonZeroUsize::new(8).unwrap();
        const DELIVERIES: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
        Self {
            server,
            namespace: Namespace::default(),
            heartbeat: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            consumer_timeout: Duration::from_secs(30 * 60),
            max_payload: PAYLOAD,
            publish_window: WINDOW,
            publish_channels: CHANNELS,
            delivery_limit: DELIVERIES,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }

    /// In this namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// With this time between signs of life.
    #[must_use]
    pub const fn with_heartbeat(mut self, time: Duration) -> Self {
        self.heartbeat = time;
        self
    }

    /// With this bound on connecting.
    #[must_use]
    pub const fn with_connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// With this bound on each call.
    #[must_use]
    pub const fn with_call_timeout(mut self, time: Duration) -> Self {
        self.call_timeout = time;
        self
    }

    /// For a server with this `consumer_timeout`.
    #[must_use]
    pub const fn with_consumer_timeout(mut self, time: Duration) -> Self {
        self.consumer_timeout = time;
        self
    }

    /// With this payload limit in bytes.
    #[must_use]
    pub const fn with_max_payload(mut self, bytes: NonZeroUsize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// With this many messages of one send without a confirm.
    #[must_use]
    pub const fn with_publish_window(mut self, messages: NonZeroUsize) -> Self {
        self.publish_window = messages;
        self
    }

    /// With this many sends at a time.
    #[must_use]
    pub const fn with_publish_channels(mut self, channels: NonZeroUsize) -> Self {
        self.publish_channels = channels;
        self
    }

    /// With this bound on redeliveries, for queues that are made from now on.
    #[must_use]
    pub const fn with_delivery_limit(mut self, deliveries: NonZeroUsize) -> Self {
        self.delivery_limit = deliveries;
        self
    }

    /// Trusting the certificates of this file too.
    #[must_use]
    pub fn with_ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// Showing this certificate, whose key is in the second file.
    #[must_use]
    pub fn with_identity(mut self, cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        self.cert_file = Some(cert_file.into());
        self.key_file = Some(key_file.into());
        self
    }

    /// Refuses settings that contradict each other, and bounds that bound nothing.
    pub(crate) fn validate(&self) -> Result<()> {
        const HOUR: Duration = Duration::from_secs(3600);
        const YEAR: Duration = Duration::from_secs(366 * 24 * 3600);
        for (name, time, least, most) in [
            (
                "heartbeat",
                self.heartbeat,
                Duration::from_secs(1),
                Duration::from_secs(60),
            ),
            (
                "connect_timeout",
                self.connect_timeout,
                Duration::from_millis(1),
                HOUR,
            ),
            ("call_timeout", self.call_timeout, Duration::from_millis(1), HOUR),
            (
                "consumer_timeout",
                self.consumer_timeout,
                Duration::from_secs(1),
                YEAR,
            ),
        ] {
            if time < least || time > most {
                return Err(Error::invalid(format!(
                    "{name} is {time:?}: it must be {least:?} to {most:?}"
                )));
            }
        }
        if self.heartbeat.subsec_nanos() != 0 {
            return Err(Error::invalid(format!(
                "heartbeat is {:?}: it must be whole seconds",
                self.heartbeat
            )));
        }
        for (name, number, most) in [
            ("max_payload", self.max_payload, LARGEST_PAYLOAD),
            ("publish_window", self.publish_window, 65_535),
            ("publish_channels", self.publish_channels, 64),
            ("delivery_limit", self.delivery_limit, 1_000_000),
        ] {
            if number.get() > most {
                return Err(Error::invalid(format!(
                    "{name} is {number}: it may be {most} at most"
                )));
            }
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            return Err(Error::invalid(
                "certfile and keyfile belong together: give both or neither",
            ));
        }
        if !self.server.is_tls && (self.ca_file.is_some() || self.cert_file.is_some()) {
            return Err(Error::invalid(
                "certificates are of no use without TLS: write the URL as amqps://",
            ));
        }
        Ok(())
    }

    /// Where the server is, without secrets.
    pub(crate) fn endpoint(&self) -> String {
        let Server {
            is_tls,
            host,
            port,
            vhost,
            ..
        } = &self.server;
        let scheme = if *is_tls { "amqps" } else { "amqp" };
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        let vhost = vhost.replace('%', "%25").replace('/', "%2F");
        format!("{scheme}://{host}:{port}/{vhost}")
    }
}

impl fmt::Debug for RabbitMqConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqConfig")
            .field("endpoint", &self.endpoint())
            .field("namespace", &self.namespace)
            .field("heartbeat", &self.heartbeat)
            .field("connect_timeout", &self.connect_timeout)
            .field("call_timeout", &self.call_timeout)
            .field("consumer_timeout", &self.consumer_timeout)
            .field("max_payload", &self.max_payload)
            .field("publish_window", &self.publish_window)
            .field("publish_channels", &self.publish_channels)
            .field("delivery_limit", &self.delivery_limit)
            .field("ca_file", &self.ca_file)
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .finish_non_exhaustive()
    }
}
