//! Connections: one that publishes and one that consumes, so that a server which holds publishers back for want of
//! memory still takes acknowledgements.
//!
//! A connection that was lost is made anew by the next call that needs one, once for each call: when to call again is
//! decided by the caller.

use std::{
    fmt, fs, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use headless_abstractions::{Error, ErrorKind, Result};
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{ConfirmSelectOptions, QueueDeclareOptions},
    tcp::{OwnedIdentity, OwnedTLSConfig},
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use tokio::time::timeout;

use crate::{
    RabbitMqConfig,
    channel::Chan,
    error::{NAME, fault, overdue},
    publisher::Publisher,
};

/// The reply code of a good-bye.
const BYE: u16 = 200;
/// What stands in a file with certificates, and in one with a key as the client reads it (RFC 7468).
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const KEY: &str = "-----BEGIN PRIVATE KEY-----";

/// Makes connections as the application does.
pub(crate) type Connect = Arc<dyn Fn() -> BoxFuture<'static, lapin::Result<Connection>> + Send + Sync>;

/// A connection's place: empty at first and when the connection was lost.
pub(crate) struct Link {
    purpose: &'static str,
    /// How it is made; `None` when as the settings say.
    connect: Option<Connect>,
    live: tokio::sync::Mutex<Option<Arc<Live>>>,
}

/// A connection.
pub(crate) struct Live {
    connection: Connection,
    /// How long what was given up half-way may take to end.
    patience: Duration,
    /// Channels in confirm mode that no send is using.
    spare: Mutex<Vec<Chan>>,
    /// The channel for what members say to each other.
    talk: tokio::sync::Mutex<Option<Chan>>,
}

impl Link {
    pub(crate) fn new(purpose: &'static str, connect: Option<Connect>) -> Self {
        Self {
            purpose,
            connect,
            live: tokio::sync::Mutex::default(),
        }
    }

    /// The connection, made anew when there is none. Callers that come meanwhile wait for the same one. A server that lets
    /// us in no more is away, and nothing of what was to be done there is refused: it waits until somebody has mended that.
    pub(crate) async fn live(&self, config: &RabbitMqConfig) -> Result<Arc<Live>> {
        self.first(config).await.map_err(|error| match error.kind() {
            ErrorKind::Denied => Error::new(ErrorKind::Unavailable, error.message().to_owned())
                .with_operation("connect")
                .with_provider(NAME)
                .with_resource(config.endpoint())
                .with_source(error),
            _ => error,
        })
    }

    /// As [`live`](Self::live), where a handle begins: who is not let in is told so.
    pub(crate) async fn first(&self, config: &RabbitMqConfig) -> Result<Arc<Live>> {
        let mut place = self.live.lock().await;
        if let Some(live) = place.as_ref().filter(|live| live.is_up()) {
            return Ok(live.clone());
        }
        *place = None;
        let live = Arc::new(Live {
            connection: self.connect(config).await?,
            patience: config.call_timeout,
            spare: Mutex::default(),
            talk: tokio::sync::Mutex::default(),
        });
        *place = Some(live.clone());
        Ok(live)
    }

    async fn connect(&self, config: &RabbitMqConfig) -> Result<Connection> {
        let connecting = async {
            match &self.connect {
                None => connect(config, self.purpose).await,
                Some(connect) => {
                    let connection = connect().await.map_err(fault)?;
                    if !connection.status().connected() {
                        return Err(Error::new(
                            ErrorKind::Unavailable,
                            "the connection that the application made was closed before it was used",
                        ));
                    }
                    match signs_of_life(&connection, config.heartbeat) {
                        Ok(()) => Ok(connection),
                        Err(error) => {
                            // What was refused is what is told.
                            let _closed = connection.close(BYE, "bye".into()).await;
                            Err(error)
                        }
                    }
                }
            }
        };
        timeout(config.connect_timeout, connecting)
            .await
            .unwrap_or_else(|_elapsed| Err(overdue("connect", "connect_timeout")))
            .map_err(|error| {
                error
                    .with_operation("connect")
                    .with_provider(NAME)
                    .with_resource(config.endpoint())
            })
    }

    /// Says good-bye, within the call's time-out.
    pub(crate) async fn close(&self, config: &RabbitMqConfig) -> Result<()> {
        let closing = async {
            // Waits for whoever is connecting.
            let live = self.live.lock().await.take();
            let Some(live) = live.filter(|live| live.is_up()) else {
                return Ok(());
            };
            match live.connection.close(BYE, "bye".into()).await.map_err(fault) {
                // What broke while it was being closed is closed.
                Err(error) if !live.is_closing() => Err(error),
                _ => Ok(()),
            }
        };
        let closed = timeout(config.call_timeout, closing).await;
        closed.unwrap_or_else(|_elapsed| Err(overdue("close", "call_timeout")))
    }
}

impl Live {
    pub(crate) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    fn is_closing(&self) -> bool {
        let status = self.connection.status();
        status.closing() || status.closed() || status.errored()
    }

    /// Whether the server holds publishers back.
    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// A channel of the client's, as it is.
    pub(crate) async fn raw_channel(&self) -> Result<Channel> {
        self.connection.create_channel().await.map_err(fault)
    }

    pub(crate) async fn channel(&self) -> Result<Chan> {
        self.raw_channel().await.map(Chan::new)
    }

    /// A channel in confirm mode, for one send alone: the client attributes a returned message to any confirm that comes
    /// next on its channel, so that only who has the channel for itself can tell whose it was.
    pub(crate) async fn publisher(self: &Arc<Self>) -> Result<Publisher> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let channel = match spare.filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => {
                let channel = self.channel().await?;
                channel
                    .confirm_select(ConfirmSelectOptions::default())
                    .await
                    .map_err(fault)?;
                channel
            }
        };
        Ok(Publisher::new(channel, self.clone(), self.patience))
    }

    /// Takes back a channel on which every message is confirmed.
    pub(crate) fn give_back(&self, channel: Chan) {
        self.spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(channel);
    }

    /// The channel for what members say to each other.
    pub(crate) async fn talker(&self) -> Result<Chan> {
        let mut talk = self.talk.lock().await;
        if let Some(channel) = talk.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.channel().await?;
        *talk = Some(channel.clone());
        Ok(channel)
    }
}

/// The options that only ask whether a queue is there.
pub(crate) fn passive() -> QueueDeclareOptions {
    QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    }
}

/// Refuses a connection of the application's that shows less often than this that it is there: a frozen process would hold
/// what it has for longer than the settings promise.
fn signs_of_life(connection: &Connection, at_least_each: Duration) -> Result<()> {
    let heartbeat = connection.configuration().heartbeat();
    let is_often = heartbeat > 0 && Duration::from_secs(heartbeat.into()) <= at_least_each;
    if is_often {
        return Ok(());
    }
    let each = if heartbeat == 0 {
        "has no heartbeat".to_owned()
    } else {
        format!("has a heartbeat of {heartbeat} s")
    };
    Err(Error::invalid(format!(
        "the connection that the application made {each}, and heartbeat in the settings is {at_least_each:?}: let it ask for \
         that (heartbeat=<seconds> in lapin's URL), or set heartbeat, which may be 60 s at most"
    )))
}

async fn connect(config: &RabbitMqConfig, purpose: &str) -> Result<Connection> {
    let server = &config.server;
    let uri = AMQPUri {
        scheme: if server.is_tls {
            AMQPScheme::AMQPS
        } else {
            AMQPScheme::AMQP
        },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: server.user.clone(),
                password: server.password.clone(),
            },
            host: server.host.clone(),
            port: server.port,
        },
        vhost: server.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: u16::try_from(config.heartbeat.as_secs()).ok(),
            ..AMQPQueryString::default()
        },
    };
    let name = format!("headless {} {purpose}", config.namespace);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = lapin::runtime::default_runtime().map_err(fault)?;
    Connection::connect_uri_with_config(uri, properties, tls(config)?, runtime)
        .await
        .map_err(fault)
}

fn tls(config: &RabbitMqConfig) -> Result<OwnedTLSConfig> {
    let cert_chain = match &config.ca_file {
        None => None,
        Some(file) => Some(
            String::from_utf8(read("ca_file", file, CERTIFICATE)?)
                .map_err(|error| Error::invalid("ca_file is not PEM").with_source(error))?,
        ),
    };
    let identity = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => Some(OwnedIdentity::PKCS8 {
            pem: read("cert_file", cert, CERTIFICATE)?,
            key: read("key_file", key, KEY)?,
        }),
        _ => None,
    };
    Ok(OwnedTLSConfig { identity, cert_chain })
}

/// Reads a file that is to hold this. The client passes over a file without, and then trusts nobody.
fn read(setting: &str, file: &Path, needed: &str) -> Result<Vec<u8>> {
    let text = fs::read(file).map_err(|error: io::Error| {
        Error::invalid(format!("{setting} {} cannot be read", file.display()))
            .with_provider(NAME)
            .with_source(error)
    })?;
    if !text.windows(needed.len()).any(|part| part == needed.as_bytes()) {
        return Err(Error::invalid(format!(
            "{setting} {} holds no PEM that says {needed}",
            file.display()
        ))
        .with_provider(NAME));
    }
    Ok(text)
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}
