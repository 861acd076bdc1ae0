//! What the members of a group say to each other, over an exchange with the group's name as the key. All of it is hints
//! for sharing partitions and counting; which member has a partition is decided by the server.

use headless_abstractions::{Error, ErrorKind, Owner, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::NAME;

/// A member as others know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) session: Uuid,
    owner: Uuid,
    /// The ordered topics whose partitions it shares in; none while its hold has lapsed.
    pub(crate) topics: Vec<String>,
}

impl Peer {
    pub(crate) fn new(session: Uuid, owner: Owner, topics: Vec<String>) -> Self {
        Self {
            session,
            owner: Uuid::from_u128(owner.bits()),
            topics,
        }
    }

    /// What its partitions are decided by.
    pub(crate) fn bits(&self) -> [u8; 32] {
        let mut bits = [0; 32];
        let (owner, session) = bits.split_at_mut(16);
        owner.copy_from_slice(self.owner.as_bytes());
        session.copy_from_slice(self.session.as_bytes());
        bits
    }
}

/// Something that is said to a group, or to one of its members.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Say {
    /// A member is there; with a place for answers it wants to know who else is.
    Here(Peer),
    /// A member goes.
    Gone(Uuid),
    /// How many messages does each of you hold? Answered with an [`Answer`].
    Count,
}

/// How many messages a member holds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) session: Uuid,
    pub(crate) held: u64,
}

impl Say {
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(unwritable)
    }

    /// `None` for what is not ours, which is passed over.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

impl Answer {
    pub(crate) fn to_bytes(self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self).map_err(unwritable)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Internal, "what members say cannot be written")
        .with_provider(NAME)
        .with_source(error)
}
