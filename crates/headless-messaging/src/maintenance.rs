//! What keeps a store going: asking it what is due, removing what is over, showing what waits.

mod gauges;
mod pulse;
mod purge;

pub use gauges::{GaugesConfig, spawn_gauges};
pub use pulse::{PulseConfig, spawn_pulse};
pub use purge::{PurgeConfig, spawn_purge};
