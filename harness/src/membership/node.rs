//! What the cases of the membership are written with.

use std::{sync::Arc, time::Duration};

use headless_abstractions::{
    Beat, Incarnation, MembershipStore, NodeEntry, NodeFacts, NodeState, Owner, Registration, Result, Store,
};

use crate::{
    case::{CaseError, CaseResult},
    cx::Cx,
    fixture::StoreFixture,
    outbox::{node::Node, samples::LONG},
};

/// A node of a case, with the membership of its store at hand.
pub(super) struct Member<S: Store> {
    pub(super) node: Node<S>,
    pub(super) membership: Arc<dyn MembershipStore>,
}

impl<S: Store> Member<S> {
    /// Another process of the case. It is not registered yet.
    pub(super) async fn join<F: StoreFixture<Store = S>>(cx: &Cx<F>) -> CaseResult<Self> {
        let node = Node::join(cx).await?;
        match node.store.parts().membership {
            Some(membership) => Ok(Self { node, membership }),
            None => Err(CaseError::unproved("absent: the store has no membership")),
        }
    }

    /// Registers an owner that is dead after this much silence, and suspected after half of it.
    pub(super) async fn register(&self, owner: Owner, dead_after: Duration) -> CaseResult<Incarnation> {
        let registration =
            Registration::new(owner, "orders", "a node")?.with_silence(dead_after / 2, dead_after)?;
        Ok(self.membership.register(&registration).await?)
    }

    /// Registers an owner that outlives the case in silence.
    pub(super) async fn register_for_long(&self, owner: Owner) -> CaseResult<Incarnation> {
        self.register(owner, LONG).await
    }

    /// A heartbeat without facts.
    pub(super) async fn beat(&self, owner: Owner, incarnation: Incarnation) -> Result<Beat> {
        self.membership
            .heartbeat(owner, incarnation, &NodeFacts::none())
            .await
    }

    /// Every node that is not forgotten.
    pub(super) async fn nodes(&self) -> Result<Vec<NodeEntry>> {
        Ok(self.membership.list(None, 100).await?.items)
    }

    /// The state of this incarnation, if it is there.
    pub(super) async fn state(&self, incarnation: Incarnation) -> Result<Option<NodeState>> {
        let nodes = self.nodes().await?;
        let node = nodes.into_iter().find(|node| node.incarnation == incarnation);
        Ok(node.map(|node| node.state))
    }
}
