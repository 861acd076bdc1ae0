//! Publisher, outbox relay, consumers, inbox, retries and dead letters.
//!
//! Publisher → (outbox → relay) → transport → consumer → inbox → handler → settle. Each arrow survives a crash at any
//! point. Policy lives here, once; what moves and stores messages is behind the driver traits of
//! `headless-abstractions`.
//!
//! Applications depend on the `headless` crate, which assembles these parts.

mod plant;
mod topics;

#[cfg(feature = "planted-bugs")]
pub use plant::Plant;
pub use plant::Planted;
pub use topics::{Ordered, Topics};
