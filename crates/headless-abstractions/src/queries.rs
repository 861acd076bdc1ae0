//! What an operator may ask of a store. Reading never changes anything and returns copies.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;

use crate::{Failure, GroupName, InboxState, Message, MessageId, Owner, PartitionKey, Result, TopicName};

/// Where a page ends, opaque to everyone but the store that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// The cursor with this content.
    #[must_use]
    pub fn new(content: impl Into<String>) -> Self {
        Self(content.into())
    }

    /// Its content.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One page of a list. Rows that are there throughout appear on exactly one page, whatever is written meanwhile.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The rows, at most as many as were asked for.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<Cursor>,
}

impl<T> Page<T> {
    /// This page.
    #[must_use]
    pub const fn new(items: Vec<T>, next: Option<Cursor>) -> Self {
        Self { items, next }
    }
}

/// Where a row of the outbox stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutboxState {
    /// Its delay has not passed.
    Delayed,
    /// A claim may take it, or must wait for an earlier row of its key alone.
    Ready,
    /// With a relay.
    Leased,
    /// Abandoned until a time.
    Retrying,
}

/// Which rows of the outbox. Every condition that is set must hold.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OutboxFilter {
    /// Of this topic.
    pub topic: Option<TopicName>,
    /// Of this key.
    pub key: Option<PartitionKey>,
    /// In this state.
    pub state: Option<OutboxState>,
}

impl OutboxFilter {
    /// All rows.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            topic: None,
            key: None,
            state: None,
        }
    }

    /// Of this topic.
    #[must_use]
    pub fn with_topic(mut self, topic: TopicName) -> Self {
        self.topic = Some(topic);
        self
    }

    /// Of this key.
    #[must_use]
    pub fn with_key(mut self, key: PartitionKey) -> Self {
        self.key = Some(key);
        self
    }

    /// In this state.
    #[must_use]
    pub const fn with_state(mut self, state: OutboxState) -> Self {
        self.state = Some(state);
        self
    }
}

/// A row of the outbox.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OutboxEntry {
    /// The message.
    pub message: Message,
    /// Where it stands.
    pub state: OutboxState,
    /// How many attempts were consumed; one that is under way is not yet.
    pub attempts: u32,
    /// What failed in them.
    pub failures: Vec<Failure>,
    /// Who holds it; `None` once the lease has ended.
    pub owner: Option<Owner>,
}

impl OutboxEntry {
    /// A row that was never tried.
    #[must_use]
    pub const fn new(message: Message, state: OutboxState) -> Self {
        Self {
            message,
            state,
            attempts: 0,
            failures: Vec::new(),
            owner: None,
        }
    }
}

/// The outbox in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxStats {
    /// Rows in state `Delayed`.
    pub delayed: u64,
    /// Rows in state `Ready`.
    pub ready: u64,
    /// Rows in state `Leased`.
    pub leased: u64,
    /// Rows in state `Retrying`.
    pub retrying: u64,
    /// How long the oldest row that is not delayed has been due.
    pub oldest: Option<Duration>,
}

impl OutboxStats {
    /// All rows.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.delayed + self.ready + self.leased + self.retrying
    }
}

/// Reading the outbox.
#[async_trait]
pub trait OutboxQueries: Debug + Send + Sync + 'static {
    /// Rows that match, the oldest first, at most `limit` (1 to 1 000).
    ///
    /// # Errors
    /// `Invalid` for a limit out of range or a foreign cursor; `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn list(
        &self,
        filter: &OutboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<OutboxEntry>>;

    /// The row of this message.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn get(&self, id: MessageId) -> Result<Option<OutboxEntry>>;

    /// The outbox in figures.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn stats(&self) -> Result<OutboxStats>;
}

/// Which rows of the inbox. Every condition that is set must hold.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct InboxFilter {
    /// Of this group.
    pub group: Option<GroupName>,
    /// Of this topic.
    pub topic: Option<TopicName>,
    /// In this state.
    pub state: Option<InboxState>,
}

impl InboxFilter {
    /// All rows.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            group: None,
            topic: None,
            state: None,
        }
    }

    /// Of this group.
    #[must_use]
    pub fn with_group(mut self, group: GroupName) -> Self {
        self.group = Some(group);
        self
    }

    /// Of this topic.
    #[must_use]
    pub fn with_topic(mut self, topic: TopicName) -> Self {
        self.topic = Some(topic);
        self
    }

    /// In this state.
    #[must_use]
    pub const fn with_state(mut self, state: InboxState) -> Self {
        self.state = Some(state);
        self
    }
}

/// A row of the inbox.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct InboxEntry {
    /// The group.
    pub group: GroupName,
    /// The message.
    pub id: MessageId,
    /// Its topic.
    pub topic: TopicName,
    /// Where it stands.
    pub state: InboxState,
    /// How many rounds were counted.
    pub rounds: u32,
    /// What failed in them.
    pub failures: Vec<Failure>,
    /// Who runs it.
    pub owner: Option<Owner>,
    /// Until a parked one is due; zero when it is, `None` when it waits behind another.
    pub due_in: Option<Duration>,
}

impl InboxEntry {
    /// A row without rounds.
    #[must_use]
    pub const fn new(group: GroupName, id: MessageId, topic: TopicName, state: InboxState) -> Self {
        Self {
            group,
            id,
            topic,
            state,
            rounds: 0,
            failures: Vec::new(),
            owner: None,
            due_in: None,
        }
    }
}

/// The inbox of all groups in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InboxStats {
    /// Rows in state `Running`.
    pub running: u64,
    /// Rows in state `Parked`.
    pub parked: u64,
    /// Rows in state `Processed`.
    pub processed: u64,
    /// Rows in state `Dead`.
    pub dead: u64,
    /// Rows in state `Discarded`.
    pub discarded: u64,
}

/// Reading the inbox, parked rows among it.
#[async_trait]
pub trait InboxQueries: Debug + Send + Sync + 'static {
    /// Rows that match, in a stable order, at most `limit` (1 to 1 000).
    ///
    /// # Errors
    /// `Invalid` for a limit out of range or a foreign cursor; `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn list(
        &self,
        filter: &InboxFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<InboxEntry>>;

    /// The row of this group and message. What an open unit of work has marked is not yet seen.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn get(&self, group: &GroupName, id: MessageId) -> Result<Option<InboxEntry>>;

    /// The rows in figures, of one group or of all.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn stats(&self, group: Option<&GroupName>) -> Result<InboxStats>;
}
