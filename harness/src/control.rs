//! The suite of `ControlStore`, the driver alone.

mod changing;
mod operator;
mod reading;

use crate::{Suites, case::Case, fixture::StoreFixture};

impl Suites {
    /// The suite of [`ControlStore`](headless_abstractions::ControlStore): what operators want of services, changed by
    /// several at once, and how it is read.
    #[must_use]
    pub fn control<F: StoreFixture>(self) -> Self {
        self.suite("control", cases::<F>())
    }
}

/// Every case of the suite.
pub(crate) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    [changing::cases(), reading::cases()]
        .into_iter()
        .flatten()
        .collect()
}
