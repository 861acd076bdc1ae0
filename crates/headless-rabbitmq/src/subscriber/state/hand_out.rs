//! What a receive is given: what has gone, and then what has come.

use headless_abstractions::{Delivery, DeliveryToken, Error, Received, Redelivery, Result, Revoked};

use super::{State, far, removed};
use crate::{clock::Moment, subscriber::push::Settles};

impl<C: Settles> State<C> {
    /// What a receive of at most `max` returns, if there is anything.
    pub(in crate::subscriber) fn take(&mut self, max: usize, now: Moment) -> Option<Result<Received>> {
        if self.gone {
            return Some(Err(removed()));
        }
        let told = self.tell();
        if !told.is_empty() {
            return Some(Ok(Received::new(Vec::new(), told)));
        }
        if let Some(error) = self.error.take() {
            return Some(Err(error));
        }
        if self.paused || max == 0 {
            return None;
        }
        let deliveries = self.hand_out(max, now);
        (!deliveries.is_empty()).then(|| Ok(Received::new(deliveries, Vec::new())))
    }

    /// The partitions that a receive now tells of.
    fn tell(&mut self) -> Vec<Revoked> {
        let mut told = std::mem::take(&mut self.revoked);
        for at in std::mem::take(&mut self.wanted) {
            let is_open = self.lanes.get(at).is_some_and(|lane| lane.channel.is_some());
            if is_open && self.given_up.insert(at) {
                self.forget_items(at);
                told.insert(at);
            }
        }
        let revoked = told.into_iter().filter_map(|at| {
            let lane = self.lanes.get(at)?;
            Some(Revoked::new(lane.topic.clone(), lane.partition?))
        });
        revoked.collect()
    }

    fn hand_out(&mut self, max: usize, now: Moment) -> Vec<Delivery> {
        let until = far(now, self.visibility);
        let mut deliveries = Vec::new();
        let count = self.lanes.len();
        let mut dry = 0;
        while deliveries.len() < max && dry < count {
            let at = self.turn % count.max(1);
            let before = deliveries.len();
            let room = max - before;
            self.hand_out_of(at, room, until, &mut deliveries);
            dry = if deliveries.len() == before { dry + 1 } else { 0 };
            self.turn = self.turn.wrapping_add(1);
        }
        deliveries
    }

    fn hand_out_of(&mut self, at: usize, room: usize, until: Moment, deliveries: &mut Vec<Delivery>) {
        // Others get what was in hand before anything that follows it.
        if self.given_up.contains(&at) {
            return;
        }
        let Some(lane) = self.lanes.get_mut(at) else {
            return;
        };
        for _ in 0..room {
            if !lane.is_ordered() && self.shared_given >= self.prefetch {
                return;
            }
            let Some(tag) = lane.ready.pop_first() else { return };
            let Some(item) = lane.items.get_mut(&tag) else {
                continue;
            };
            let kept = if lane.partition.is_some() {
                item.message.clone()
            } else {
                None
            };
            let Some(message) = std::mem::replace(&mut item.message, kept) else {
                continue;
            };
            let token = self.next_token;
            self.next_token += 1;
            self.tokens.insert(token, (at, tag));
            let redelivery = match (item.redelivery, item.rounds) {
                (redelivery, 0) => redelivery,
                (Redelivery::First, rounds) => Redelivery::Again(rounds),
                (Redelivery::Again(before), rounds) => Redelivery::Again(before.saturating_add(rounds)),
                (Redelivery::Unknown, _) => Redelivery::Unknown,
            };
            item.rounds = item.rounds.saturating_add(1);
            item.given = Some((token, until));
            let malformed = match lane.partition {
                // It may be handed out again, and an error is not for copying.
                Some(_) => item.malformed.as_ref().map(copy),
                None => item.malformed.take(),
            };
            let mut delivery = Delivery::new(DeliveryToken::new(token), message)
                .with_redelivery(redelivery)
                .with_malformed(malformed);
            if let Some(partition) = lane.partition {
                delivery = delivery.with_partition(partition);
            } else {
                self.shared_given += 1;
            }
            deliveries.push(delivery);
        }
    }
}

/// The same error once more.
fn copy(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message().to_owned());
    if let Some(operation) = error.operation() {
        copy = copy.with_operation(operation);
    }
    if let Some(resource) = error.resource() {
        copy = copy.with_resource(resource.to_owned());
    }
    copy
}
