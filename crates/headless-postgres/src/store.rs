//! The parts that the store offers.

use headless_abstractions::{Store, StoreInfo, StoreParts};

use crate::{Postgres, error::NAME};

impl Store for Postgres {
    fn parts(&self) -> StoreParts {
        let info = StoreInfo::new(NAME, self.shared.id, true, self.shared.config.endpoint());
        StoreParts::new(info)
    }
}
