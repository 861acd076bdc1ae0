//! The suite of `OutboxStore` and its transactions, the driver alone.

mod checker;
mod claiming;
mod contention;
mod key_order;
mod leases;
pub(crate) mod node;
mod reading;
pub(crate) mod samples;
mod settling;
mod storing;

pub use checker::{OrderCheck, OrderReport};

use crate::{Suites, case::Case, fixture::StoreFixture};

impl Suites {
    /// The suite of [`OutboxStore`](headless_abstractions::OutboxStore), its queries, and the transactions that
    /// append to it.
    #[must_use]
    pub fn outbox<F: StoreFixture>(self) -> Self {
        self.suite("outbox", cases::<F>())
    }
}

/// Every case of the suite.
pub(crate) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    [
        storing::cases(),
        claiming::cases(),
        key_order::cases(),
        leases::cases(),
        contention::cases(),
        settling::cases(),
        reading::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
