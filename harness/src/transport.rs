//! The suite of `Transport` and `Subscriber`, the drivers alone.

mod member;
mod node;

use crate::{case::Case, fixture::TransportFixture};

/// Every case of the suite.
pub(crate) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    Vec::new()
}
