//! The suite of `Transport` and `Subscriber`, the drivers alone.
//!
//! Control characters in texts and reserved header names have no case here: the types of a message do not admit
//! them, so that no driver ever sees one.

mod assignment;
mod declaring;
mod envelope;
mod facts;
mod groups;
mod load;
mod member;
mod node;
mod offers;
mod ordering;
mod receiving;
mod redelivery;
mod refusing;
mod repartition;
mod sending;
mod settling;
mod takeover;

use crate::{case::Case, fixture::TransportFixture};

/// Every case of the suite.
pub(crate) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    [
        sending::cases(),
        refusing::cases(),
        envelope::cases(),
        declaring::cases(),
        groups::cases(),
        receiving::cases(),
        settling::cases(),
        redelivery::cases(),
        offers::cases(),
        ordering::cases(),
        takeover::cases(),
        assignment::cases(),
        repartition::cases(),
        load::cases(),
        facts::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
