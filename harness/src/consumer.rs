//! The suite of consumers: core over the drivers. A transport is tried with the memory store, a store with the memory
//! transport.
//!
//! Where a promise does not depend on the form of the inbox, its case runs in each: without a store, with marks
//! around the handler, and with the mark in the handler's own transaction.

mod batches;
mod begin;
mod books;
mod circuit;
mod dead_letters;
mod delivering;
mod event;
mod faults;
mod flaky;
mod idempotency;
mod lanes;
mod leases;
mod log;
mod odd;
mod pair;
mod parking;
mod process;
mod repartition;
mod retries;
mod shutdown;
mod steering;
mod take_over;
mod unit_of_work;

use headless_messaging::Inbox;

use self::pair::{OverStore, OverTransport};
use crate::{
    case::{Case, CaseError, CaseResult},
    fixture::{StoreFixture, TransportFixture},
    runner::Suites,
};

impl Suites {
    /// Core over a provider that is both a transport and a store.
    #[must_use]
    pub fn consumer<F: TransportFixture + StoreFixture>(self) -> Self {
        self.suite("consumer", cases::<F>())
    }

    /// Core over this transport, with the memory store.
    #[must_use]
    pub fn consumer_over_transport<F: TransportFixture>(self) -> Self {
        self.suite("consumer_over_transport", cases::<OverTransport<F>>())
    }

    /// Core over this store, with the memory transport.
    #[must_use]
    pub fn consumer_over_store<F: StoreFixture>(self) -> Self {
        self.suite("consumer_over_store", cases::<OverStore<F>>())
    }
}

/// A fixture of both sides: what core runs over.
pub(crate) trait Both: TransportFixture + StoreFixture {}

impl<F: TransportFixture + StoreFixture> Both for F {}

/// Every case of the suite.
pub(crate) fn cases<F: Both>() -> Vec<Case<F>> {
    [
        delivering::cases(),
        lanes::cases(),
        take_over::cases(),
        repartition::cases(),
        batches::cases(),
        retries::cases(),
        parking::cases(),
        dead_letters::cases(),
        idempotency::cases(),
        unit_of_work::cases(),
        begin::cases(),
        leases::cases(),
        circuit::cases(),
        steering::cases(),
        faults::cases(),
        shutdown::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Every form of the inbox.
const FORMS: [Inbox; 3] = [Inbox::Off, Inbox::Around, Inbox::Transactional];

/// The forms that use a store.
const STORED: [Inbox; 2] = [Inbox::Around, Inbox::Transactional];

/// Runs the body of a case in each of these forms.
async fn in_each(forms: &[Inbox], body: impl AsyncFn(Inbox) -> CaseResult) -> CaseResult {
    for form in forms {
        body(*form).await.map_err(|error| match error {
            CaseError::Failed(what) => CaseError::Failed(format!("Inbox::{form:?}: {what}")),
            unproved @ CaseError::Unproved(_) => unproved,
        })?;
    }
    Ok(())
}
