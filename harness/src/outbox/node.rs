//! One node of a case, with every part of its store at hand.

use std::{sync::Arc, time::Duration};

use headless_abstractions::{
    Claim, ClaimOutbox, ClaimParked, DeadLetterQueries, DeadLetterStore, GroupName, InFlight, InboxQueries,
    InboxStore, Message, OutboxQueries, OutboxRow, OutboxStore, OwnedTx, Owner, ParkedRow, ParkedStore,
    PulseStore, Result, Settled, Store, StoreTx,
};

use super::samples::LONG;
use crate::{
    case::{CaseError, CaseResult},
    cx::Cx,
    fixture::{StoreFixture, StoreNode},
    wait::elapse,
};

/// Lets a lease, or a delay, of [`Cx::lease`] end.
pub(crate) async fn outlast_lease<F: StoreFixture>(cx: &Cx<F>) {
    // By the store's clock, which may be that of another machine: a little longer than by ours.
    elapse(cx.lease() + Duration::from_millis(300)).await;
}

/// Fails where a call that must settle all that it names has not.
pub(crate) fn nothing_lost(settled: &Settled) -> CaseResult {
    if settled.is_complete() {
        return Ok(());
    }
    Err(CaseError::failed(format!(
        "the owner's own claims are lost: {:?}",
        settled.lost
    )))
}

/// A node with the parts of its store: what one process of a service would have.
pub(crate) struct Node<S: Store> {
    /// The typed store, which begins transactions.
    pub(crate) store: S,
    pub(crate) outbox: Arc<dyn OutboxStore>,
    pub(crate) outbox_queries: Arc<dyn OutboxQueries>,
    pub(crate) inbox: Arc<dyn InboxStore>,
    pub(crate) inbox_queries: Arc<dyn InboxQueries>,
    pub(crate) parked: Arc<dyn ParkedStore>,
    pub(crate) letters: Arc<dyn DeadLetterStore>,
    pub(crate) letter_queries: Arc<dyn DeadLetterQueries>,
    pub(crate) pulse: Arc<dyn PulseStore>,
    process: StoreNode<S>,
}

impl<S: Store> Node<S> {
    /// Another node of the case.
    pub(crate) async fn join<F: StoreFixture<Store = S>>(cx: &Cx<F>) -> CaseResult<Self> {
        let process = cx.store_node().await?;
        let store = process.store.clone();
        let parts = store.parts();
        let (Some(outbox), Some(inbox), Some(pulse)) = (parts.outbox, parts.inbox, parts.pulse) else {
            return Err(CaseError::failed(
                "a store for messages offers an outbox, an inbox and a pulse",
            ));
        };
        Ok(Self {
            store,
            outbox: outbox.store,
            outbox_queries: outbox.queries,
            inbox: inbox.inbox,
            inbox_queries: inbox.queries,
            parked: inbox.parked,
            letters: inbox.dead_letters,
            letter_queries: inbox.dead_letter_queries,
            pulse,
            process,
        })
    }

    /// Cuts the node off as a crash of its process would.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// Claims at most `limit` rows of the outbox for long, of each key its head alone.
    pub(crate) async fn claim(&self, owner: Owner, limit: usize) -> Result<Vec<OutboxRow>> {
        Ok(self
            .outbox
            .claim(&ClaimOutbox::new(owner, limit, LONG))
            .await?
            .rows)
    }

    /// Claims at most `limit` rows of the outbox for long, runs of a key among them.
    pub(crate) async fn claim_runs(&self, owner: Owner, limit: usize) -> Result<Vec<OutboxRow>> {
        let request = ClaimOutbox::new(owner, limit, LONG).with_in_flight(InFlight::RunPerKey);
        Ok(self.outbox.claim(&request).await?.rows)
    }

    /// Claims at most `limit` parked messages of `group` for long.
    pub(crate) async fn claim_parked(
        &self,
        owner: Owner,
        group: &GroupName,
        limit: usize,
    ) -> Result<Vec<ParkedRow>> {
        self.parked
            .claim(&ClaimParked::new(owner, group.clone(), limit, LONG))
            .await
    }

    /// Acknowledges claims of which none may be lost.
    pub(crate) async fn ack_all(&self, owner: Owner, claims: &[Claim]) -> CaseResult {
        nothing_lost(&self.outbox.ack(owner, claims).await?)
    }

    /// Appends messages in a transaction of their own that the case commits itself.
    pub(crate) async fn append_in_transaction(&self, messages: &[Message]) -> Result<()> {
        let mut tx = self.store.begin().await?;
        tx.append(messages).await?;
        Box::new(tx).commit().await
    }
}
