//! One owner's hands in one group: the calls of a consumer, a message at a time.

use std::time::Duration;

use headless_abstractions::{
    Admission, Arrival, Bury, Claim, Epoch, Failure, GroupName, Hold, InboxState, Marked, Message, MessageId,
    Owner, Park, ParkLimits, Parked, ParkedRow, Result, Store,
};

use crate::{
    case::{CaseResult, fail},
    cx::group,
    outbox::{
        node::Node,
        samples::{LONG, failure},
    },
};

/// What one owner does in one group through one node. Messages with a key are in the order of their key.
pub(crate) struct Worker<'a, S: Store> {
    pub(crate) node: &'a Node<S>,
    pub(crate) group: GroupName,
    pub(crate) owner: Owner,
}

impl<'a, S: Store> Worker<'a, S> {
    /// A worker of the group `billing`.
    pub(crate) fn new(node: &'a Node<S>, owner: Owner) -> Self {
        Self::of(node, "billing", owner)
    }

    /// A worker of this group.
    pub(crate) fn of(node: &'a Node<S>, name: &str, owner: Owner) -> Self {
        Self {
            node,
            group: group(name),
            owner,
        }
    }

    pub(crate) fn arrival(&self, message: &Message) -> Arrival {
        Arrival::of(&self.group, message, true)
    }

    /// The hold of this worker with this epoch.
    pub(crate) fn hold(&self, epoch: Epoch) -> Hold {
        Hold::Running {
            owner: self.owner,
            epoch,
        }
    }

    pub(crate) async fn admit(&self, message: &Message) -> Result<Admission> {
        self.admit_for(message, LONG).await
    }

    pub(crate) async fn admit_for(&self, message: &Message, lease: Duration) -> Result<Admission> {
        let answers = self
            .node
            .inbox
            .admit(self.owner, lease, &[self.arrival(message)])
            .await?;
        Ok(answers[0])
    }

    /// Admits a message that must be given to this worker.
    pub(crate) async fn run(&self, message: &Message) -> CaseResult<Hold> {
        self.run_for(message, LONG).await
    }

    pub(crate) async fn run_for(&self, message: &Message, lease: Duration) -> CaseResult<Hold> {
        match self.admit_for(message, lease).await? {
            Admission::Run { epoch, .. } => Ok(self.hold(epoch)),
            other => fail!("message {} was not admitted: {other:?}", message.id),
        }
    }

    pub(crate) async fn mark(&self, message: &Message, hold: Hold) -> Result<Marked> {
        Ok(self.node.inbox.mark(&[(self.arrival(message), hold)]).await?[0])
    }

    pub(crate) async fn discard(&self, message: &Message, hold: Hold) -> Result<Marked> {
        Ok(self.node.inbox.discard(&[(self.arrival(message), hold)]).await?[0])
    }

    pub(crate) async fn bury(&self, message: &Message, hold: Hold, failures: Vec<Failure>) -> Result<Marked> {
        let burial = Bury::new(message.clone(), self.arrival(message), hold, failures);
        Ok(self.node.letters.bury(&[burial]).await?[0])
    }

    /// Parks a message that failed.
    pub(crate) async fn park(&self, message: &Message, hold: Hold, after: Duration) -> Result<Parked> {
        let park = Park::failed(
            message.clone(),
            self.arrival(message),
            hold,
            after,
            vec![failure("failed")],
        );
        self.park_as(park).await
    }

    /// Parks a message behind another.
    pub(crate) async fn park_behind(&self, message: &Message, hold: Hold) -> Result<Parked> {
        self.park_as(Park::behind(message.clone(), self.arrival(message), hold))
            .await
    }

    pub(crate) async fn park_as(&self, park: Park) -> Result<Parked> {
        Ok(self.node.parked.park(&[park], ParkLimits::default()).await?[0])
    }

    /// Claims at most `limit` parked messages of the group, for long.
    pub(crate) async fn claim(&self, limit: usize) -> Result<Vec<ParkedRow>> {
        self.node.claim_parked(self.owner, &self.group, limit).await
    }

    /// Where the message stands with the group; `None` when there is no row.
    pub(crate) async fn state(&self, id: MessageId) -> Result<Option<InboxState>> {
        Ok(self
            .node
            .inbox_queries
            .get(&self.group, id)
            .await?
            .map(|entry| entry.state))
    }
}

/// The claim on this message with the epoch of this hold.
pub(crate) const fn claim_of(message: &Message, hold: Hold) -> Claim {
    match hold {
        Hold::Absent => Claim::new(message.id, Epoch::new(0)),
        Hold::Running { epoch, .. } => Claim::new(message.id, epoch),
    }
}

/// The hold of the owner of this parked row.
pub(crate) const fn hold_of(owner: Owner, row: &ParkedRow) -> Hold {
    Hold::Running {
        owner,
        epoch: row.claim.epoch,
    }
}
