//! The suite of `MembershipStore`, the driver alone, and of what the death of a node does to the other parts of its store.

mod deaths;
mod node;
mod registering;

use crate::{Suites, case::Case, fixture::StoreFixture};

impl Suites {
    /// The suite of [`MembershipStore`](headless_abstractions::MembershipStore): registration, heartbeats, good-byes, and
    /// what becomes of the claims of those who are silent for too long.
    #[must_use]
    pub fn membership<F: StoreFixture>(self) -> Self {
        self.suite("membership", cases::<F>())
    }
}

/// Every case of the suite.
pub(crate) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    [registering::cases(), deaths::cases()]
        .into_iter()
        .flatten()
        .collect()
}
