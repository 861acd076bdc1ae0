//! The mutations of a store: its outbox, its inbox, and what transactions do to them.

mod control;
mod dead_letters;
mod inbox;
mod membership;
mod outbox;
mod parked;
mod reading;
mod seen;
mod transaction;

use std::sync::Arc;

use async_trait::async_trait;
use headless_abstractions::{
    DeadLetterQueries, DeadLetterStore, InboxQueries, InboxStore, OutboxQueries, OutboxStore, ParkedStore,
    PulseStore, Result, Store, StoreId, StoreParts, UnitOfWorkStore,
};

pub(crate) use self::seen::Shared;
use self::{control::MutantControl, membership::MutantMembership, seen::Seen, transaction::MutantTx};
use super::{Mutated, Mutation};
use crate::fixture::{StoreFixture, StoreNode};

/// The bug that is planted, if one is, and what the mutants of the namespace have seen.
#[derive(Clone, Debug)]
struct Bug {
    mutation: Option<Mutation>,
    shared: Shared,
}

impl Bug {
    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        self.shared.with(look)
    }
}

/// A store with a bug.
#[derive(Clone, Debug)]
pub(crate) struct MutantStore<S> {
    inner: S,
    bug: Bug,
    /// Which handle it is, of those that were made in the namespace.
    handle: u128,
}

#[async_trait]
impl<S: Store> UnitOfWorkStore for MutantStore<S> {
    type Tx = MutantTx<S::Tx>;

    fn store_id(&self) -> StoreId {
        let id = self.inner.store_id();
        if self.bug.is(Mutation::StoreIdPerHandle) {
            StoreId::from_bits(id.bits() ^ self.handle)
        } else {
            id
        }
    }

    async fn begin(&self) -> Result<Self::Tx> {
        Ok(MutantTx::new(
            self.inner.begin().await?,
            self.inner.parts(),
            self.bug.clone(),
        ))
    }
}

impl<S: Store> Store for MutantStore<S> {
    fn parts(&self) -> StoreParts {
        let parts = self.inner.parts();
        let (Some(outbox), Some(inbox), Some(pulse)) = (&parts.outbox, &parts.inbox, &parts.pulse) else {
            return parts;
        };
        let mutant = Arc::new(Mutant {
            outbox: outbox.store.clone(),
            outbox_queries: outbox.queries.clone(),
            inbox: inbox.inbox.clone(),
            inbox_queries: inbox.queries.clone(),
            parked: inbox.parked.clone(),
            letters: inbox.dead_letters.clone(),
            letter_queries: inbox.dead_letter_queries.clone(),
            pulse: pulse.clone(),
            bug: self.bug.clone(),
        });
        let mut info = parts.info;
        info.id = self.store_id();
        let mutated = StoreParts::new(info)
            .with_outbox(mutant.clone())
            .with_inbox(mutant.clone())
            .with_pulse(mutant.clone());
        let mutated = match parts.control {
            Some(inner) => mutated.with_control(Arc::new(MutantControl {
                inner,
                mutant: mutant.clone(),
            })),
            None => mutated,
        };
        match parts.membership {
            Some(inner) => mutated.with_membership(Arc::new(MutantMembership { inner, mutant })),
            None => mutated,
        }
    }
}

/// Every part of a store, with a bug in one of them.
#[derive(Debug)]
struct Mutant {
    outbox: Arc<dyn OutboxStore>,
    outbox_queries: Arc<dyn OutboxQueries>,
    inbox: Arc<dyn InboxStore>,
    inbox_queries: Arc<dyn InboxQueries>,
    parked: Arc<dyn ParkedStore>,
    letters: Arc<dyn DeadLetterStore>,
    letter_queries: Arc<dyn DeadLetterQueries>,
    pulse: Arc<dyn PulseStore>,
    bug: Bug,
}

#[async_trait]
impl<F: StoreFixture> StoreFixture for Mutated<F> {
    type Store = MutantStore<F::Store>;

    async fn node(&self) -> Result<StoreNode<Self::Store>> {
        let bug = Bug {
            mutation: self.mutation,
            shared: self.store.clone(),
        };
        let handle = bug.seen(Seen::next_handle);
        Ok(self
            .inner
            .node()
            .await?
            .map(|inner| MutantStore { inner, bug, handle }))
    }

    async fn write_row(tx: &mut <Self::Store as UnitOfWorkStore>::Tx, key: &str, value: &str) -> Result<()> {
        F::write_row(&mut tx.inner, key, value).await
    }

    async fn rows(&self) -> Result<Vec<(String, String)>> {
        self.inner.rows().await
    }
}
