//! The conformance suites of headless: the definition of every driver trait, written as tests.
//!
//! A provider implements a fixture and hands it to the suites of the traits that it has; that is its whole test
//! file (`harness = false`):
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use headless_harness::{MemoryFixture, Suites, run};
//!
//! fn main() -> ExitCode {
//!     run(Suites::of("memory").transport::<MemoryFixture>())
//! }
//! ```
//!
//! Each case runs in a runtime and a namespace of its own. What a capability turns off must be refused, or is
//! reported as absent. The harness tests itself with mutations: planted bugs that its cases must catch.

mod address;
mod capabilities;
mod case;
mod consumer;
mod control;
mod cx;
mod fault_proxy;
mod faults;
mod fixture;
mod inbox;
mod membership;
mod memory;
mod mutation;
mod outbox;
mod report;
mod restricted;
mod run;
mod runner;
mod self_test;
pub mod services;
pub mod simulation;
mod transport;
mod wait;

pub use fault_proxy::FaultProxy;
pub use faults::{FaultCount, Faults, FaultyStore, FaultyTransport, FaultyTx};
pub use fixture::{
    Fixture, Namespace, StoreFixture, StoreNode, TransportFixture, TransportNode, Unavailable,
};
pub use memory::MemoryFixture;
pub use outbox::{OrderCheck, OrderReport};
pub use report::{CaseReport, Report, State, matrix, states_of};
pub use restricted::Restricted;
pub use runner::{Suites, run};
pub use self_test::mutation_self_test;
