//! What a provider gives the harness: a namespace of a server, and nodes in it.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{GroupName, Result, Store, TopicName, Transport, UnitOfWorkStore};
use uuid::Uuid;

/// The part of a server that one case has for itself: a schema, a prefix, a virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// A namespace that nobody else has.
    #[must_use]
    pub fn unique() -> Self {
        Self(format!("hl_{}", Uuid::new_v4().simple()))
    }

    /// Its name: `[a-z][a-z0-9_]*`, at most 40 bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a fixture could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unavailable {
    /// There is no such service here: the case is ignored with this reason, or fails where the service is required.
    Absent(String),
    /// The service is there and does not work: the case fails.
    Broken(String),
}

impl From<headless_abstractions::Error> for Unavailable {
    fn from(error: headless_abstractions::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// A namespace of a server: one value for each case.
#[async_trait]
pub trait Fixture: fmt::Debug + Send + Sync + Sized + 'static {
    /// Whether the provider runs wholly in tokio's time. Its cases then run on one thread in paused time.
    const VIRTUAL_TIME: bool = false;

    /// The lease and visibility time that cases ask for where they wait for its end: the shortest that the provider
    /// keeps to.
    const LEASE: Duration = Duration::from_secs(2);

    /// How long cases wait for what must happen.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// How long cases look for what must not happen.
    const QUIET: Duration = Duration::from_millis(300);

    /// Makes the namespace.
    ///
    /// # Errors
    /// [`Unavailable::Absent`] without a server, [`Unavailable::Broken`] with one that does not work.
    async fn open(namespace: Namespace) -> Result<Self, Unavailable>;

    /// Makes the namespace on a server that [`restart_server`](Self::restart_server) may restart. Unless a provider says
    /// otherwise, that is where it is made in any case.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    async fn open_restartable(namespace: Namespace) -> Result<Self, Unavailable> {
        Self::open(namespace).await
    }

    /// The server's version, for the conformance matrix.
    fn version(&self) -> String;

    /// Restarts the server, where the fixture has one of its own; `false` where it cannot. Nodes made before are
    /// dead; the namespace lasts as far as the server keeps it.
    ///
    /// # Errors
    /// When the server does not come back.
    async fn restart_server(&self) -> Result<bool> {
        Ok(false)
    }

    /// Removes the namespace with all that is in it.
    ///
    /// # Errors
    /// When something of it is left behind.
    async fn drop_namespace(self) -> Result<()>;
}

/// A namespace of a broker.
#[async_trait]
pub trait TransportFixture: Fixture {
    /// A handle with a connection of its own, as another process would have.
    ///
    /// # Errors
    /// When it cannot be connected.
    async fn node(&self) -> Result<TransportNode>;

    /// Sends a payload to a declared, unordered topic as a foreign producer would: without any header of ours.
    /// `false` where there can be none. Needed with `stable_foreign_ids`.
    ///
    /// # Errors
    /// When it cannot be sent.
    async fn send_foreign(&self, topic: &TopicName, payload: &[u8]) -> Result<bool> {
        let _ = (topic, payload);
        Ok(false)
    }

    /// Whether anything of this group is left on the broker. `None` where only the driver can tell.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    async fn group_exists(&self, group: &GroupName) -> Result<Option<bool>> {
        let _ = group;
        Ok(None)
    }
}

/// A namespace of a store.
#[async_trait]
pub trait StoreFixture: Fixture {
    /// The store.
    type Store: Store;

    /// A handle with connections of its own, as another process would have.
    ///
    /// # Errors
    /// When it cannot be connected.
    async fn node(&self) -> Result<StoreNode<Self::Store>>;

    /// Writes a row into the case's user table, within a transaction. A key is written once.
    ///
    /// # Errors
    /// When the row cannot be written.
    async fn write_row(tx: &mut <Self::Store as UnitOfWorkStore>::Tx, key: &str, value: &str) -> Result<()>;

    /// The committed rows of the case's user table, in the order of their keys.
    ///
    /// # Errors
    /// When they cannot be read.
    async fn rows(&self) -> Result<Vec<(String, String)>>;
}

/// A transport handle that stands for a process.
#[derive(Clone)]
pub struct TransportNode {
    /// The handle.
    pub driver: Arc<dyn Transport>,
    kill: Kill,
}

impl TransportNode {
    /// The handle, and how its connection is cut.
    #[must_use]
    pub fn new(driver: Arc<dyn Transport>, kill: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            driver,
            kill: Kill(Arc::new(kill)),
        }
    }

    /// Cuts the handle off as a crash of its process would: no good-bye, no call of it takes effect any more.
    pub fn kill(&self) {
        (self.kill.0)();
    }

    /// The same node with its driver wrapped.
    #[must_use]
    pub(crate) fn map(self, wrap: impl FnOnce(Arc<dyn Transport>) -> Arc<dyn Transport>) -> Self {
        Self {
            driver: wrap(self.driver),
            kill: self.kill,
        }
    }
}

/// A store handle that stands for a process.
#[derive(Clone)]
pub struct StoreNode<S> {
    /// The handle.
    pub store: S,
    kill: Kill,
}

impl<S> StoreNode<S> {
    /// The handle, and how its connections are cut.
    #[must_use]
    pub fn new(store: S, kill: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            store,
            kill: Kill(Arc::new(kill)),
        }
    }

    /// Cuts the handle off as a crash of its process would: no good-bye, no call of it takes effect any more, its
    /// transactions end.
    pub fn kill(&self) {
        (self.kill.0)();
    }

    /// The same node with its store wrapped.
    #[must_use]
    pub(crate) fn map<T>(self, wrap: impl FnOnce(S) -> T) -> StoreNode<T> {
        StoreNode {
            store: wrap(self.store),
            kill: self.kill,
        }
    }
}

#[derive(Clone)]
struct Kill(Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for TransportNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TransportNode").field(&self.driver).finish()
    }
}

impl<S: fmt::Debug> fmt::Debug for StoreNode<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreNode").field(&self.store).finish()
    }
}
