//! What a provider gives when it has connected.

use std::{any::Any, fmt, sync::Arc};

use headless_abstractions::{
    Error, GroupName, Result, StartFrom, Store, StoreParts, TopicName, TopicOrder, Transport,
};
use headless_core::{Control, Nodes, State, SystemRandom};
use headless_messaging::{DeadLetters, Ordered, Tail};

use crate::Depths;

/// What a provider gives when it has connected: a store, a transport, or both.
#[derive(Clone, Debug, Default)]
pub struct Connected {
    store: Option<AnyStore>,
    transport: Option<AnyTransport>,
}

impl Connected {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this store.
    #[must_use]
    pub fn with_store<S: Store>(mut self, store: &S) -> Self {
        self.store = Some(AnyStore::new(store));
        self
    }

    /// With this transport.
    #[must_use]
    pub fn with_transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(AnyTransport::new(transport));
        self
    }

    /// Its store.
    ///
    /// # Errors
    /// `Unsupported` when it has none.
    pub fn store(&self) -> Result<AnyStore> {
        self.store.clone().ok_or_else(|| lacking("store", "transport"))
    }

    /// Its transport.
    ///
    /// # Errors
    /// `Unsupported` when it has none.
    pub fn transport(&self) -> Result<AnyTransport> {
        self.transport
            .clone()
            .ok_or_else(|| lacking("transport", "store"))
    }
}

fn lacking(part: &str, other: &str) -> Error {
    Error::unsupported(format!(
        "this provider has no {part}: use it as the {other}, and another provider as the {part}"
    ))
    .with_operation("connect")
}

/// A store whose type is known at run time.
#[derive(Clone)]
pub struct AnyStore {
    parts: StoreParts,
    typed: Arc<dyn Any + Send + Sync>,
    register: fn(&(dyn Any + Send + Sync), State) -> State,
}

impl AnyStore {
    pub(crate) fn new<S: Store>(store: &S) -> Self {
        Self {
            parts: store.parts(),
            typed: Arc::new(store.clone()),
            register: |typed, state| match typed.downcast_ref::<S>() {
                Some(store) => state.with(store.clone()),
                // `typed` was made from an `S` above.
                None => state,
            },
        }
    }

    /// The provider's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.parts.info.name
    }

    /// The store, if it is of this type.
    #[must_use]
    pub fn typed<S: Any + Clone>(&self) -> Option<S> {
        self.typed.downcast_ref::<S>().cloned()
    }

    /// Its dead letters, to look at and to change from a process that runs nothing itself. Where a
    /// [`Runtime`](crate::Runtime) runs, it has them too.
    ///
    /// # Errors
    /// `Unsupported` when it keeps none.
    pub fn dead_letters(&self) -> Result<DeadLetters> {
        DeadLetters::of(&self.parts).ok_or_else(|| {
            Error::unsupported(format!("the store {} keeps no dead letters", self.name()))
                .with_operation("dead letters")
        })
    }

    /// The nodes that use it, of every service.
    ///
    /// # Errors
    /// `Unsupported` when it does not watch over its nodes.
    pub fn nodes(&self) -> Result<Nodes> {
        Nodes::of(&self.parts).ok_or_else(|| {
            Error::unsupported(format!("the store {} does not watch over its nodes", self.name()))
                .with_operation("nodes")
        })
    }

    /// What operators want of the services that use it, to read and to change.
    ///
    /// # Errors
    /// `Unsupported` when it keeps none.
    pub fn control(&self) -> Result<Control> {
        Control::of(&self.parts).ok_or_else(|| {
            Error::unsupported(format!(
                "the store {} does not keep what operators want",
                self.name()
            ))
            .with_operation("control")
        })
    }

    /// How much there is in it, of every service, and of these groups each. It counts rows one by one: its cost is that of
    /// reading outbox and inbox, once more for each group.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn depths(&self, groups: &[GroupName]) -> Result<Depths> {
        Depths::of(&self.parts, groups).await
    }

    pub(crate) fn parts(&self) -> StoreParts {
        self.parts.clone()
    }

    pub(crate) fn register(&self, state: State) -> State {
        (self.register)(&*self.typed, state)
    }
}

impl fmt::Debug for AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyStore").field(&self.parts.info).finish()
    }
}

/// A transport whose type is known at run time.
#[derive(Clone)]
pub struct AnyTransport {
    driver: Arc<dyn Transport>,
    typed: Arc<dyn Any + Send + Sync>,
}

impl AnyTransport {
    pub(crate) fn new<T: Transport>(transport: T) -> Self {
        let typed = Arc::new(transport);
        Self {
            driver: typed.clone(),
            typed,
        }
    }

    /// The provider's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.driver.info().name
    }

    /// The transport, if it is of this type.
    #[must_use]
    pub fn typed<T: Any + Clone>(&self) -> Option<T> {
        self.typed.downcast_ref::<T>().cloned()
    }

    /// Watches a topic with a group of its own, from a process that runs nothing itself; see [`Tail`].
    ///
    /// # Errors
    /// As [`Tail::open`].
    ///
    /// # Cancel safety
    /// As [`Tail::open`].
    pub async fn tail(&self, topic: TopicName, start: StartFrom) -> Result<Tail> {
        Tail::open(self.driver(), Arc::new(SystemRandom), topic, start).await
    }

    /// Ends a group on all its topics, with the messages that wait for it. Its members answer `NotFound` from then on,
    /// and declare it anew when they are started again. Repeating it changes nothing.
    ///
    /// # Errors
    /// What the transport answers.
    pub async fn remove_group(&self, group: &GroupName) -> Result<()> {
        self.driver.remove_group(group).await
    }

    /// How many messages wait for this group or are unsettled, over all its topics.
    ///
    /// # Errors
    /// `NotFound` for an unknown group; else what the transport answers.
    pub async fn lag(&self, group: &GroupName) -> Result<u64> {
        self.driver.lag(group).await
    }

    /// Gives a topic another count of partitions, or another order, once nothing of it is on the transport; answers with the
    /// order that it had. With the order that it has, nothing changes. Services that declare the topic with the former order
    /// are refused when they start: deploy the new one before they do. What of the topic is still in an outbox goes by the new
    /// order when it is sent.
    ///
    /// # Errors
    /// `Invalid` for a count out of its range; `NotFound` for an unknown topic; `Conflict` with advice to try again while groups
    /// hold messages of the topic, naming them and how many; `Unsupported` where the transport cannot; else what the transport
    /// answers. Nothing is changed by a request that is refused.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it done or not.
    pub async fn repartition(&self, topic: &TopicName, order: Ordered) -> Result<TopicOrder> {
        self.driver.repartition(topic, order.to_order()?).await
    }

    pub(crate) fn driver(&self) -> Arc<dyn Transport> {
        self.driver.clone()
    }
}

impl fmt::Debug for AnyTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyTransport").field(&self.driver.info()).finish()
    }
}
