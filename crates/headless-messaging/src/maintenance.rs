//! What keeps a store going: asking it what is due, and removing what is over.

mod pulse;
mod purge;

pub use pulse::{PulseConfig, spawn_pulse};
pub use purge::{PurgeConfig, spawn_purge};
