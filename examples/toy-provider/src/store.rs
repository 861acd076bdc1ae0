//! The store: what it says of itself, and its parts.

use std::sync::Arc;

use headless_abstractions::{Claim, Error, Result, Settled, Store, StoreId, StoreInfo, StoreParts};

use crate::{
    error::{Fault, NAME},
    server::{Link, ToyServer},
};

/// A connection to the database of a [`ToyServer`], with all parts that a store can have.
#[derive(Clone, Debug)]
pub struct ToyStore {
    pub(crate) link: Arc<Link>,
}

impl ToyStore {
    /// A handle with a connection of its own.
    #[must_use]
    pub fn from_client(server: &ToyServer) -> Self {
        Self {
            link: Link::connect(server),
        }
    }

    /// Cuts the connection without a good-bye, as the death of the process would: its transactions end.
    pub fn cut(&self) {
        self.link.fail(Fault::Cut, |state| state.end_all(self.link.id));
    }

    pub(crate) fn id(&self) -> StoreId {
        StoreId::from_bits(self.link.server.address())
    }
}

impl Store for ToyStore {
    fn parts(&self) -> StoreParts {
        let this = Arc::new(self.clone());
        StoreParts::new(StoreInfo::new(NAME, self.id(), false, "toy:"))
            .with_outbox(this.clone())
            .with_inbox(this.clone())
            .with_pulse(this)
    }
}

// page: settled
/// Changes what each claim names, and answers with those that `change` did not find.
pub(crate) fn settle(claims: &[Claim], mut change: impl FnMut(&Claim) -> bool) -> Settled {
    Settled::without(claims.iter().filter(|claim| !change(claim)).copied().collect())
}
// page: end

/// A lease, a limit or the like that must not be nothing.
pub(crate) fn check_some(what: &'static str, some: bool) -> Result<()> {
    if some {
        return Ok(());
    }
    Err(Error::invalid(format!("{what} is zero")).with_provider(NAME))
}
