//! The suite of `InboxStore`, `ParkedStore` and `DeadLetterStore` with their transactions, the drivers alone.

mod admission;
mod contention;
mod dead_letters;
mod editing;
mod holds;
mod idempotency;
mod key_order;
mod parking;
mod purging;
mod reading;
mod redriving;
mod rounds;
mod states;
mod tallying;
mod unit_of_work;
pub(crate) mod worker;

use crate::{Suites, case::Case, fixture::StoreFixture};

impl Suites {
    /// The suite of [`InboxStore`](headless_abstractions::InboxStore),
    /// [`ParkedStore`](headless_abstractions::ParkedStore) and
    /// [`DeadLetterStore`](headless_abstractions::DeadLetterStore), their queries, and the transactions that mark.
    #[must_use]
    pub fn inbox<F: StoreFixture>(self) -> Self {
        self.suite("inbox", cases::<F>())
    }
}

/// Every case of the suite.
pub(crate) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    [
        states::cases(),
        admission::cases(),
        holds::cases(),
        idempotency::cases(),
        unit_of_work::cases(),
        contention::cases(),
        parking::cases(),
        rounds::cases(),
        key_order::cases(),
        dead_letters::cases(),
        redriving::cases(),
        editing::cases(),
        tallying::cases(),
        reading::cases(),
        purging::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
