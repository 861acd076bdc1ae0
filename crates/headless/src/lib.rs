//! Messaging that does not lose work: publish in your own transaction, handle effectively once.
//!
//! [`Headless::builder`] puts a [`Runtime`] together from a store, a transport, topics and [`Consumer`]s. In it run the
//! relay of the outbox, the consumers with their inbox, retries and dead letters, and what keeps the store tidy.
//!
//! - Publish within a transaction of the store: [`Runtime::begin`], then [`PublishExt::publish`].
//! - Publish by itself: [`Runtime::publisher`].
//! - Handle: [`Consumer::on`] with an async function of an [`Event`] and a [`Context`].
//!
//! What an operator sets is a [`Config`]: TOML and variables, for [`Headless::from_config`].
//!
//! The README has a quickstart. Settings and their defaults are in `docs/settings.md`, the guarantees in
//! `docs/guarantees.md`.
//!
//! # Features
//! - `memory` (default): the in-memory provider, `Memory`.
//! - `postgres`: the PostgreSQL provider, `Postgres`; its settings and its client are in the module `postgres`.
//! - `rabbitmq`: the RabbitMQ provider, `RabbitMq`, a transport; its client is lapin.
//! - `opentelemetry`: `Builder::opentelemetry`, which ties spans and messages together; `docs/telemetry.md` says how to
//!   export them.
//! - `testing`: members that can be taken away as a crash would, and a count of what became of every message.
//!
//! Who writes a provider depends on `headless-abstractions` instead of this crate.

mod builder;
mod config;
mod depths;
#[cfg(all(doctest, feature = "memory"))]
mod doc_tests;
mod node;
#[cfg(feature = "opentelemetry")]
mod open_telemetry;
#[cfg(feature = "postgres")]
pub mod postgres;
mod preset;
mod providers;
mod runtime;
mod sandbox;
mod settings;
#[cfg(feature = "testing")]
pub mod testing;

pub use builder::{Builder, Headless};
pub use config::Config;
pub use depths::Depths;
pub use headless_abstractions::{
    Change, Check, Condition, ContentType, ControlEntry, ControlSubject, ControlVersion, CorrelationId,
    Cursor, DeadId, DeadLetter, DeadLetterChange, DeadLetterFilter, DeadLetterStats, DeadLetterTally,
    DesiredState, Edit, Edited, Error, ErrorKind, Failure, FailureCause, Finding, GroupName, HeaderName,
    HeaderValue, Headers, IdempotencyKey, InboxStats, Incarnation, Message, MessageId, MessageType,
    NodeEntry, NodeFacts, NodeState, Origin, OutboxStats, Page, ParkLimits, PartitionKey, Priority,
    Redelivery, Redrive, Redriven, Result, RetryAdvice, StartFrom, Tenant, TopicName, TopicOrder,
    TraceContext, TraceIds,
};
pub use headless_core::{
    Backoff, Changed, Codec, Codecs, Control, Environment, Event, HandlerError, HandlerResult, Json,
    MessagePack, Nodes, Raw, RawBytes, Retry, SeededRandom, Spawner, State, SystemClock, SystemRandom,
    TaskStatus, UnitOfWork, Verdict, Wake, metric, trace,
};
#[cfg(feature = "memory")]
pub use headless_memory::{Memory, MemoryConfig, MemoryTx};
pub use headless_messaging::{
    Attempt, BatchContext, CircuitBreaker, Consumer, ConsumerHandle, ConsumerSettings, ConsumerStats,
    Context, ControlStatus, DeadLetters, DiscardMatching, GroupSetting, Inbox, Matched, MessageBuilder,
    Ordered, ParkSettings, PauseReason, PublishExt, PublishOutcome, Published, Publisher, RedriveMatching,
    RelayStatus, Seen, SubscriptionStatus, Tail,
};
#[cfg(feature = "postgres")]
pub use headless_postgres::{Postgres, PostgresTx};
#[cfg(feature = "rabbitmq")]
pub use headless_rabbitmq::{Namespace as RabbitMqNamespace, RabbitMq, RabbitMqConfig};
#[cfg(feature = "opentelemetry")]
pub use open_telemetry::OpenTelemetry;
pub use preset::Preset;
pub use providers::{AnyStore, AnyTransport, Connected, Examination, ProviderUrl, Providers};
pub use runtime::{
    Backlog, ControlReport, GroupHealth, GroupReport, Health, NodeReport, RelayReport, Runtime,
    SubscriptionReport, TaskReport,
};
pub use sandbox::Sandbox;
pub use settings::{Setting, Source};
