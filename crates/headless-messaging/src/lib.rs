//! Publisher, outbox relay, consumers, inbox, retries and dead letters.
//!
//! Publisher → (outbox → relay) → transport → consumer → inbox → handler → settle. Each arrow survives a crash at any
//! point. Policy lives here, once; what moves and stores messages is behind the driver traits of
//! `headless-abstractions`.
//!
//! Applications depend on the `headless` crate, which assembles these parts.

mod consumer;
mod context;
mod control;
mod dead_letters;
mod handler;
mod maintenance;
mod messaging;
mod outgoing;
mod plan;
mod plant;
mod publisher;
mod relay;
mod tail;
mod topics;

pub use consumer::{
    CircuitBreaker, Consumer, ConsumerHandle, ConsumerSettings, ConsumerStats, GroupSetting, Inbox,
    ParkSettings, PauseReason, SubscriptionStatus,
};
pub use context::{Attempt, BatchContext, Context};
pub use control::{ControlConfig, ControlHandle, ControlStatus};
pub use dead_letters::{DeadLetters, DiscardMatching, Matched, RedriveMatching};
pub use maintenance::{GaugesConfig, PulseConfig, PurgeConfig, spawn_gauges, spawn_pulse, spawn_purge};
pub use messaging::{Lag, Lags, Messaging};
pub use outgoing::{Outgoing, OutgoingLimits};
pub use plan::Plan;
#[cfg(feature = "planted-bugs")]
pub use plant::Plant;
pub use plant::Planted;
pub use publisher::{MessageBuilder, PublishExt, PublishOutcome, Published, Publisher};
pub use relay::{Relay, RelayConfig, RelayStatus};
pub use tail::{Seen, Tail};
pub use topics::{Ordered, Topics};
