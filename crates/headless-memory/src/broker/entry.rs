//! A message in one group, and the numbers that tell one from another.

use std::sync::Arc;

use headless_abstractions::{Message, Partition};

use super::Moment;

/// Hands out rising numbers: places, tokens and sessions share them, so that none is ever mistaken for another.
#[derive(Debug, Default)]
pub(super) struct Numbers(u64);

impl Numbers {
    pub(super) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// A message in one group.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its place among its like. A message that comes back keeps it.
    pub(super) place: u64,
    pub(super) message: Arc<Message>,
    /// Its partition, on an ordered topic.
    pub(super) partition: Option<Partition>,
    /// How often it was handed out.
    pub(super) deliveries: u32,
    /// A requeue in place: the message and all behind it wait until then.
    pub(super) not_before: Moment,
}

impl Entry {
    pub(super) const fn new(place: u64, message: Arc<Message>, partition: Option<Partition>) -> Self {
        Self {
            place,
            message,
            partition,
            deliveries: 0,
            not_before: Moment::ZERO,
        }
    }
}
