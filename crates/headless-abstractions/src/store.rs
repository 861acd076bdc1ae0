//! A store and the parts that it offers.

use std::sync::Arc;

use crate::{
    ControlStore, DeadLetterQueries, DeadLetterStore, InboxQueries, InboxStore, MembershipStore,
    OutboxQueries, OutboxStore, ParkedStore, PulseStore, UnitOfWorkStore,
};

/// Which store: equal for two handles if and only if a transaction of one covers the rows of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreId(u128);

impl StoreId {
    /// The id with these bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreInfo {
    /// The provider's name: `memory`, `postgres`.
    pub name: &'static str,
    /// Which store it is.
    pub id: StoreId,
    /// Whether what was committed survives this process.
    pub durable: bool,
    /// Where it is, without secrets.
    pub endpoint: String,
}

impl StoreInfo {
    /// These facts.
    #[must_use]
    pub fn new(name: &'static str, id: StoreId, durable: bool, endpoint: impl Into<String>) -> Self {
        Self {
            name,
            id,
            durable,
            endpoint: endpoint.into(),
        }
    }
}

/// An outbox and what may be asked of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OutboxParts {
    /// The outbox.
    pub store: Arc<dyn OutboxStore>,
    /// Reading it.
    pub queries: Arc<dyn OutboxQueries>,
}

/// An inbox with its parked messages and dead letters: one state machine, in one store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InboxParts {
    /// Which store they are in.
    pub store_id: StoreId,
    /// The inbox.
    pub inbox: Arc<dyn InboxStore>,
    /// Its parked messages.
    pub parked: Arc<dyn ParkedStore>,
    /// Its dead letters.
    pub dead_letters: Arc<dyn DeadLetterStore>,
    /// Reading the inbox.
    pub queries: Arc<dyn InboxQueries>,
    /// Reading the dead letters.
    pub dead_letter_queries: Arc<dyn DeadLetterQueries>,
}

/// The parts that a store offers; each is optional.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreParts {
    /// The store's facts.
    pub info: StoreInfo,
    /// Its outbox.
    pub outbox: Option<OutboxParts>,
    /// Its inbox, parked messages and dead letters.
    pub inbox: Option<InboxParts>,
    /// Its idle question. A store that has any part that is polled has it.
    pub pulse: Option<Arc<dyn PulseStore>>,
    /// The nodes that use it, and the end of the claims of those that die.
    pub membership: Option<Arc<dyn MembershipStore>>,
    /// What operators want of the services that use it.
    pub control: Option<Arc<dyn ControlStore>>,
}

impl StoreParts {
    /// A store without parts.
    #[must_use]
    pub const fn new(info: StoreInfo) -> Self {
        Self {
            info,
            outbox: None,
            inbox: None,
            pulse: None,
            membership: None,
            control: None,
        }
    }

    /// With this outbox.
    #[must_use]
    pub fn with_outbox<S: OutboxStore + OutboxQueries>(mut self, store: Arc<S>) -> Self {
        self.outbox = Some(OutboxParts {
            store: store.clone(),
            queries: store,
        });
        self
    }

    /// With this inbox, its parked messages and its dead letters: always of one store, since one transaction moves
    /// a row between them.
    #[must_use]
    pub fn with_inbox<S>(mut self, store: Arc<S>) -> Self
    where
        S: InboxStore + ParkedStore + DeadLetterStore + InboxQueries + DeadLetterQueries,
    {
        self.inbox = Some(InboxParts {
            store_id: self.info.id,
            inbox: store.clone(),
            parked: store.clone(),
            dead_letters: store.clone(),
            queries: store.clone(),
            dead_letter_queries: store,
        });
        self
    }

    /// With this idle question.
    #[must_use]
    pub fn with_pulse(mut self, store: Arc<dyn PulseStore>) -> Self {
        self.pulse = Some(store);
        self
    }

    /// With these nodes. Their deaths must free the claims of every other part that is given.
    #[must_use]
    pub fn with_membership(mut self, store: Arc<dyn MembershipStore>) -> Self {
        self.membership = Some(store);
        self
    }

    /// With this desired state.
    #[must_use]
    pub fn with_control(mut self, store: Arc<dyn ControlStore>) -> Self {
        self.control = Some(store);
        self
    }
}

/// A store: it begins transactions, and says which parts it offers.
pub trait Store: UnitOfWorkStore + Clone {
    /// The parts.
    ///
    /// Never blocks.
    fn parts(&self) -> StoreParts;
}
