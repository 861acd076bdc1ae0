//! A provider that is as small as the conformance suites allow: read it beside `docs/adding-a-provider.md`.
//!
//! [`ToyServer`] stands for the service that a real provider reaches over a network: one lock, plain collections,
//! scans. [`ToyTransport`] and [`ToyStore`] are the provider: handles on it, each with a connection of its own.
//! Nothing here is fast, and nothing is left out that a caller was promised.

mod broker;
mod clock;
mod dead_letter;
mod error;
mod inbox;
mod outbox;
mod parked;
mod pulse;
mod queries;
mod server;
mod store;
mod subscriber;
mod transport;
mod unit_of_work;

pub use server::ToyServer;
pub use store::ToyStore;
pub use transport::ToyTransport;
pub use unit_of_work::ToyTx;
