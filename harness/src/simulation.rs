//! The simulation: core on virtual time over memory, where one seed decides everything that may happen.
//!
//! A run has a few nodes, each with a relay and the consumers of two groups, over one memory server that, in most runs,
//! watches over them. The seed draws what producers publish, what handlers do, how long every driver call takes, which of
//! them fail and which lose their answers; which nodes crash, freeze past their leases and their deaths, join and leave; and
//! whose wall clock is off, or stepped. Every call is recorded where it takes effect, and at the end
//! the history is judged: see [`Rule`] for the promises.
//!
//! A run is a function of its seed: [`Outcome::trace_hash`] is the same each time, and a seed that fails is replayed
//! by `cargo run -p headless-harness --bin simulate -- --seed N --trace`.

mod chance;
mod checker;
mod clock;
mod director;
mod gate;
mod handler;
mod history;
mod label;
mod node;
mod producer;
mod regime;
mod script;
mod store;
mod transport;

use headless_abstractions::{Error, ErrorKind, Result};
use headless_messaging::Planted;

pub(crate) use chance::Chance;
pub use checker::{Rule, Violation};
pub use history::Stats;

/// The size and roughness of a run.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct SimConfig {
    /// About how many messages producers publish. Default 40.
    pub messages: u64,
    /// How many of ten thousand driver calls fail before calm. Default 150.
    pub faults: u64,
    /// Whether the trace is kept line by line. Default false.
    pub trace: bool,
    /// A bug planted in core.
    pub planted: Planted,
    /// Whether the store forgets to compare the epoch when a hold is renewed.
    #[cfg(feature = "planted-bugs")]
    pub epoch_dropped_on_renew: bool,
    /// Whether what suspected nodes hold is taken from them, as if they were dead.
    #[cfg(feature = "planted-bugs")]
    pub suspected_are_buried: bool,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            messages: 40,
            faults: 150,
            trace: false,
            planted: Planted::default(),
            #[cfg(feature = "planted-bugs")]
            epoch_dropped_on_renew: false,
            #[cfg(feature = "planted-bugs")]
            suspected_are_buried: false,
        }
    }
}

impl SimConfig {
    /// With about this many messages.
    #[must_use]
    pub const fn with_messages(mut self, messages: u64) -> Self {
        self.messages = messages;
        self
    }

    /// With this many of ten thousand driver calls failing.
    #[must_use]
    pub const fn with_faults(mut self, faults: u64) -> Self {
        self.faults = faults;
        self
    }

    /// Keeping the trace.
    #[must_use]
    pub const fn with_trace(mut self) -> Self {
        self.trace = true;
        self
    }

    /// With this bug in core.
    #[must_use]
    pub const fn with_planted(mut self, planted: Planted) -> Self {
        self.planted = planted;
        self
    }

    /// With a store that does not compare epochs when a hold is renewed.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub const fn with_epoch_dropped_on_renew(mut self) -> Self {
        self.epoch_dropped_on_renew = true;
        self
    }

    /// With a store that takes from suspected nodes what they hold.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub const fn with_suspected_buried(mut self) -> Self {
        self.suspected_are_buried = true;
        self
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// A hash of the trace: of every driver call and handler call, with its moment and answer.
    pub trace_hash: u64,
    /// The promises that were broken.
    pub violations: Vec<Violation>,
    /// What happened, in figures.
    pub stats: Stats,
    /// The trace, where it was asked for.
    pub trace: Vec<String>,
}

impl Outcome {
    /// The command that runs this seed again and prints what happened.
    #[must_use]
    pub fn replay(&self) -> String {
        format!(
            "cargo run -p headless-harness --bin simulate -- --seed {} --trace",
            self.seed
        )
    }
}

/// Runs a seed, on a runtime of its own.
///
/// # Errors
/// When the runtime cannot be made, or a node cannot start: neither is a matter of the seed.
pub fn simulate(seed: u64, config: &SimConfig) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| Error::new(ErrorKind::Unavailable, "no runtime").with_source(error))?;
    runtime.block_on(director::run(seed, config))
}
