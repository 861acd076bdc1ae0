//! Driver traits of headless, and the plain data that they exchange.
//!
//! A *provider* (memory, PostgreSQL, RabbitMQ, …) implements the traits of this crate; the *core* crates rely on
//! them and on nothing else of a provider. There is no runtime, no client and no policy here: retries, backoff,
//! concurrency and codecs live in core, once.
//!
//! Every promise in a trait's documentation is proved by a case of the conformance suite in `headless-harness`.
//! Read [`Transport`] and [`OutboxStore`] first; [`Store`] says how a provider offers its parts.
//!
//! Applications depend on the `headless` crate instead and never see a driver trait.

mod capabilities;
mod claim;
mod clock;
mod control;
mod dead_letter;
mod error;
mod failure;
mod finding;
mod header;
mod id;
mod inbox;
mod membership;
mod message;
mod name;
mod outbox;
mod parked;
mod partition;
mod pulse;
mod queries;
mod store;
mod subscriber;
mod text;
mod topology;
mod trace_context;
mod transport;
mod unit_of_work;
pub mod wire;

pub use capabilities::{OrderingGuarantee, TransportCapabilities};
pub use claim::{Abandon, AttemptUse, Claim, Settled};
pub use clock::{Clock, Random};
pub use control::{
    ControlChange, ControlEntry, ControlPut, ControlStore, ControlSubject, ControlVersion, DesiredState,
};
pub use dead_letter::{
    Bury, Change, DeadLetter, DeadLetterChange, DeadLetterFilter, DeadLetterQueries, DeadLetterStats,
    DeadLetterStore, DeadLetterTally, Edit, Edited, Origin, Redrive, Redriven,
};
pub use error::{Error, ErrorKind, Result, RetryAdvice};
pub use failure::{Failure, FailureCause};
pub use finding::{Check, Condition, Finding};
pub use header::{HeaderName, HeaderValue, Headers};
pub use id::{DeadId, Epoch, MessageId, Owner};
pub use inbox::{Admission, Arrival, Hold, InboxState, InboxStore, Marked};
pub use membership::{
    Beat, Buried, Incarnation, LivingNode, MembershipStore, NodeEntry, NodeFacts, NodeState, Registration,
};
pub use message::{Message, Priority};
pub use name::{GroupName, TopicName};
pub use outbox::{Appended, ClaimOutbox, ClaimedOutbox, InFlight, OutboxRow, OutboxStore};
pub use parked::{ClaimParked, Park, ParkLimits, Parked, ParkedRow, ParkedStore};
pub use partition::{Partition, Partitions};
pub use pulse::{Pulse, PulseStore};
pub use queries::{
    Cursor, InboxEntry, InboxFilter, InboxQueries, InboxStats, OutboxEntry, OutboxFilter, OutboxQueries,
    OutboxState, OutboxStats, Page,
};
pub use store::{InboxParts, OutboxParts, Store, StoreId, StoreInfo, StoreParts};
pub use subscriber::{Delivery, DeliveryToken, Received, Redelivery, Revoked, Settlement, Subscriber};
pub use text::{ContentType, CorrelationId, IdempotencyKey, MessageType, PartitionKey, Tenant};
pub use topology::{GroupSpec, StartFrom, TopicOrder, TopicSpec, Topology};
pub use trace_context::{TraceContext, TraceIds};
pub use transport::{Sent, Subscription, Transport, TransportInfo};
pub use unit_of_work::{DynUnitOfWorkStore, OwnedTx, StoreTx, UnitOfWorkStore};
