//! The parts that the store offers.

use std::sync::Arc;

use headless_abstractions::{Store, StoreInfo, StoreParts};

use crate::{Postgres, error::NAME};

impl Store for Postgres {
    fn parts(&self) -> StoreParts {
        let info = StoreInfo::new(NAME, self.shared.id, true, self.shared.config.endpoint());
        let store = Arc::new(self.clone());
        StoreParts::new(info)
            .with_outbox(store.clone())
            .with_inbox(store.clone())
            .with_membership(store.clone())
            .with_control(store.clone())
            .with_pulse(store)
    }
}
