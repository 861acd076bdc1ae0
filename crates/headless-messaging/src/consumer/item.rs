//! A message in the hands of a group, on its way through its rounds.

use headless_abstractions::{
    Arrival, Delivery, Epoch, Error, Failure, FailureCause, Hold, Message, Owner, ParkedRow, Redelivery,
};
use tokio_util::sync::CancellationToken;

/// A message in the hands of a group.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) message: Message,
    pub(crate) arrival: Arrival,
    pub(crate) hold: Hold,
    /// The rounds that the store has counted, the present one included; 0 while it has no row.
    pub(crate) rounds: u32,
    /// What failed in earlier rounds.
    pub(crate) failures: Vec<Failure>,
    pub(crate) redelivery: Redelivery,
    /// What was wrong with its envelope.
    pub(crate) malformed: Option<Error>,
    /// Whether the store must be asked before the handler runs.
    pub(crate) must_admit: bool,
    /// Whether an earlier message of its key was parked since this one was admitted: it is parked behind that first.
    pub(crate) follows_parked: bool,
    pub(crate) from_park: bool,
    /// Cancelled when the delivery has gone to another member.
    pub(crate) revoked: CancellationToken,
}

impl Item {
    /// From the transport. A delivery that may not be the first is admitted before it is run, so that a message which
    /// kills its process is counted.
    pub(crate) fn delivered(
        delivery: Delivery,
        arrival: Arrival,
        around: bool,
        revoked: CancellationToken,
    ) -> Self {
        Self {
            must_admit: around || delivery.redelivery != Redelivery::First,
            message: delivery.message,
            arrival,
            hold: Hold::Absent,
            rounds: 0,
            failures: Vec::new(),
            redelivery: delivery.redelivery,
            malformed: delivery.malformed,
            follows_parked: false,
            from_park: false,
            revoked,
        }
    }

    /// From the park.
    pub(crate) fn parked(row: ParkedRow, owner: Owner) -> Self {
        Self {
            hold: Hold::Running {
                owner,
                epoch: row.claim.epoch,
            },
            message: row.message,
            arrival: row.arrival,
            rounds: row.rounds,
            malformed: malformed(&row.failures),
            failures: row.failures,
            redelivery: Redelivery::Again(row.rounds.saturating_sub(1)),
            must_admit: false,
            follows_parked: false,
            from_park: true,
            revoked: CancellationToken::new(),
        }
    }

    /// Whether a row admitted with this epoch may be older than what was parked of its key since: one that is taken
    /// over may, a fresh one is told that it is behind. Not the rounds, which a release gives back.
    pub(crate) fn may_follow_parked(&self, epoch: Epoch) -> bool {
        self.arrival.key.is_some() && epoch > Epoch::new(1)
    }

    /// The round that is under way, counted from 1.
    pub(crate) fn round(&self) -> u32 {
        self.rounds.max(1)
    }
}

/// What was wrong with the envelope of a message that had to wait before it could be buried for it.
fn malformed(failures: &[Failure]) -> Option<Error> {
    let noted = failures
        .iter()
        .rfind(|failure| failure.cause == FailureCause::Undecodable)?;
    Some(Error::invalid(noted.message.clone()))
}

/// How the way of a message through its present round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The group is done with it.
    Finished,
    /// It is parked: its delivery is done with, its key waits.
    Parked,
    /// The transport is to deliver it again after this time.
    Requeue(std::time::Duration),
    /// It was given up undone; it comes back by itself.
    Unsettled,
}
