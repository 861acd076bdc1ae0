//! What the cases of the desired state are written with.

use std::{num::NonZeroU32, sync::Arc};

use headless_abstractions::{
    ControlChange, ControlEntry, ControlPut, ControlStore, ControlSubject, ControlVersion, DesiredState,
    GroupName, Result, Store,
};

use crate::{
    case::{CaseError, CaseResult},
    cx::Cx,
    fixture::StoreFixture,
    outbox::node::Node,
};

/// The service of all changes that are not said to be of another.
pub(super) const ORDERS: &str = "orders";

/// A process of a case, with the desired state of its store at hand.
pub(super) struct Operator<S: Store> {
    pub(super) node: Node<S>,
    pub(super) control: Arc<dyn ControlStore>,
}

impl<S: Store> Operator<S> {
    /// Another process of the case.
    pub(super) async fn join<F: StoreFixture<Store = S>>(cx: &Cx<F>) -> CaseResult<Self> {
        let node = Node::join(cx).await?;
        match node.store.parts().control {
            Some(control) => Ok(Self { node, control }),
            None => Err(CaseError::unproved("absent: the store keeps no desired state")),
        }
    }

    /// Stores this, which must be no conflict.
    pub(super) async fn stored(&self, change: &ControlChange) -> CaseResult<ControlVersion> {
        match self.control.put(change).await? {
            ControlPut::Stored(version) => Ok(version),
            ControlPut::Conflict(there) => {
                Err(CaseError::failed(format!("{change:?}: conflict with {there:?}")))
            }
        }
    }

    /// Tries to store this, which must be a conflict.
    pub(super) async fn refused(&self, change: &ControlChange) -> CaseResult<Option<ControlEntry>> {
        match self.control.put(change).await? {
            ControlPut::Conflict(there) => Ok(there),
            ControlPut::Stored(version) => Err(CaseError::failed(format!("{change:?}: stored as {version}"))),
        }
    }

    /// Every entry of the orders.
    pub(super) async fn entries(&self) -> Result<Vec<ControlEntry>> {
        Ok(self.control.list(ORDERS, None, 1_000).await?.items)
    }
}

/// A group with this name.
pub(super) fn group(name: &str) -> CaseResult<ControlSubject> {
    Ok(ControlSubject::group(GroupName::parse(name)?))
}

/// Paused.
pub(super) fn paused() -> DesiredState {
    DesiredState::nothing().with_paused(true)
}

/// With this concurrency.
pub(super) fn concurrency(most: u32) -> CaseResult<DesiredState> {
    Ok(DesiredState::nothing().with_concurrency(NonZeroU32::new(most))?)
}

/// A change of this subject of the orders, if it was never changed.
pub(super) fn change(subject: &ControlSubject, desired: DesiredState) -> CaseResult<ControlChange> {
    Ok(ControlChange::new(ORDERS, subject.clone(), desired, "ada")?)
}
