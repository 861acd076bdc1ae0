//! What waits for its turn, and what gathers for one call.

use std::{sync::Arc, time::Duration};

use headless_abstractions::{DeliveryToken, Partition};

use crate::{
    consumer::{item::Item, lanes::LaneKey, settle::Session},
    handler::{Handler, HandlerKind},
};

/// A message that waits for its turn, and the delivery that brought it.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) item: Item,
    pub(crate) delivery: DeliveryRef,
}

/// Where a message came from: to be settled there and nowhere else.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryRef {
    pub(crate) session: Arc<Session>,
    pub(crate) token: DeliveryToken,
    pub(crate) partition: Option<Partition>,
}

/// Messages that gather for one call.
#[derive(Debug)]
pub(crate) struct Gathering {
    pub(crate) handler: Handler,
    pub(crate) lanes: Vec<LaneKey>,
    pub(crate) items: Vec<Queued>,
    pub(crate) since: Duration,
}

impl Gathering {
    pub(crate) fn due_at(&self) -> Duration {
        match self.handler.kind {
            HandlerKind::Batch { wait, .. } => self.since.saturating_add(wait),
            HandlerKind::Single(_) => self.since,
        }
    }

    pub(crate) fn is_due(&self, now: Duration) -> bool {
        let full = matches!(self.handler.kind, HandlerKind::Batch { most, .. } if self.items.len() >= most);
        full || self.due_at() <= now
    }
}
