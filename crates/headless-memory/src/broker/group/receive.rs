//! One look of a member for deliveries.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use headless_abstractions::{Delivery, DeliveryToken, Message, Partition, Received, Redelivery, Revoked};

use super::{Group, Moment, Numbers, Step};
use crate::broker::{
    entry::Entry,
    member::{Lent, Member},
    queue::{Lane, Ordered, Shape, Shared},
};

/// A member that waits renews its hold this many times within its visibility time.
const RENEWALS: u32 = 4;

/// One hand-out: to whom, how many, and what it has come to.
struct HandOut<'a> {
    session: u64,
    max: usize,
    now: Moment,
    wall: DateTime<Utc>,
    numbers: &'a mut Numbers,
    deliveries: Vec<Delivery>,
}

impl Group {
    /// Renews the member's hold, then looks for what it is to be given; `None` if it is no member.
    ///
    /// What is returned has been taken, so the caller returns it without waiting for anything in between.
    pub(in crate::broker) fn step(
        &mut self,
        session: u64,
        max: usize,
        (now, wall): (Moment, DateTime<Utc>),
        numbers: &mut Numbers,
    ) -> Option<Step> {
        self.sweep(now, numbers);
        let mut revoked = self.renew(session, now)?;
        if self.is_moving() {
            let given_up = self.free_wanted_elsewhere(session);
            if !given_up.is_empty() {
                self.wake.notify_waiters();
            }
            revoked.extend(given_up);
        }
        if !revoked.is_empty() {
            return Some(Step::Return(Received::new(Vec::new(), revoked)));
        }
        if self.is_moving() {
            self.take_over(session);
        }
        let deliveries = Vec::new();
        let deliveries = self.hand_out(HandOut {
            session,
            max,
            now,
            wall,
            numbers,
            deliveries,
        })?;
        if deliveries.is_empty() {
            return Some(Step::Wait(self.until_next_change(session, now)?));
        }
        Some(Step::Return(Received::new(deliveries, Vec::new())))
    }

    /// Renews the member's hold. Returns what it lost if that had lapsed.
    fn renew(&mut self, session: u64, now: Moment) -> Option<Vec<Revoked>> {
        let member = self.members.get_mut(&session)?;
        member.until = now.saturating_add(member.visibility);
        let until = member.until;
        let revoked = std::mem::take(&mut member.revoked);
        if !std::mem::replace(&mut member.live, true) {
            self.expect_lapse(until);
            self.reassign();
        }
        Some(revoked)
    }

    fn is_moving(&self) -> bool {
        self.queues
            .values()
            .any(|queue| matches!(&queue.shape, Shape::Ordered(ordered) if ordered.moving))
    }

    fn take_over(&mut self, session: u64) {
        for queue in self.queues.values_mut() {
            if let Shape::Ordered(ordered) = &mut queue.shape {
                ordered.take_over(session);
            }
        }
    }

    fn hand_out(&mut self, mut out: HandOut<'_>) -> Option<Vec<Delivery>> {
        let member = self.members.get_mut(&out.session)?;
        member.starved = false;
        if member.paused {
            return Some(out.deliveries);
        }
        member.turn = member.turn.wrapping_add(1);
        for n in 0..member.topics.len() {
            let topic = member.topics[member.turn.wrapping_add(n) % member.topics.len()].clone();
            let Some(queue) = self.queues.get_mut(&topic) else {
                continue;
            };
            queue.len -= match &mut queue.shape {
                Shape::Shared(shared) => {
                    let first = out.deliveries.len();
                    let expired = out.of_shared(shared, member);
                    for delivery in &out.deliveries[first..] {
                        let until = out.now.saturating_add(member.visibility);
                        self.deadlines.insert((until, out.session, delivery.token.get()));
                    }
                    expired
                }
                Shape::Ordered(ordered) => out.of_ordered(ordered, member),
            };
        }
        Some(out.deliveries)
    }

    /// How long this member may wait before it has to look again, if nothing wakes it.
    fn until_next_change(&self, session: u64, now: Moment) -> Option<Duration> {
        let member = self.members.get(&session)?;
        let heads = member
            .topics
            .iter()
            .filter_map(|topic| match &self.queues.get(topic)?.shape {
                Shape::Shared(_) => None,
                Shape::Ordered(ordered) => ordered.next_head(session, now),
            });
        let next = heads
            .chain(self.delayed.first_key_value().map(|((due, _), _)| *due))
            .chain(self.deadlines.first().map(|(until, ..)| *until))
            .chain(self.next_lapse)
            .min();
        let renewal = member.visibility / RENEWALS;
        Some(next.map_or(renewal, |next| renewal.min(next.saturating_sub(now))))
    }
}

impl Ordered {
    /// When the next head of this member's partitions that is kept back by a requeue comes.
    fn next_head(&self, session: u64, now: Moment) -> Option<Moment> {
        let mine = self.lanes.iter().filter(|lane| lane.holder == Some(session));
        mine.filter_map(|lane| Some(lane.waiting.first_key_value()?.1.not_before))
            .filter(|at| *at > now)
            .min()
    }
}

impl HandOut<'_> {
    /// Hands out of an unordered topic; returns how many expired messages it dropped.
    fn of_shared(&mut self, shared: &mut Shared, member: &mut Member) -> usize {
        let mut expired = 0;
        while self.has_room() {
            if member.shared >= member.prefetch {
                member.starved |= !shared.is_empty();
                break;
            }
            let Some(entry) = shared.take() else { break };
            if entry.message.is_expired(self.wall) {
                expired += 1;
            } else {
                member.shared += 1;
                self.lend(entry, member);
            }
        }
        expired
    }

    /// Hands out of the partitions that the member holds, beginning with another one each time; returns how many
    /// expired messages it dropped.
    fn of_ordered(&mut self, ordered: &mut Ordered, member: &mut Member) -> usize {
        // A round over the topics comes before the next partition, so that each is first on its topic's turn.
        let first = member.turn / member.topics.len() % ordered.lanes.len();
        let (before, from) = ordered.lanes.split_at_mut(first);
        let mut expired = 0;
        for lane in from.iter_mut().chain(before) {
            if !self.has_room() {
                break;
            }
            if lane.holder == Some(self.session) {
                expired += self.of_lane(lane, member);
            }
        }
        expired
    }

    fn of_lane(&mut self, lane: &mut Lane, member: &mut Member) -> usize {
        let mut expired = 0;
        while self.has_room()
            && let Some(head) = lane.waiting.first_entry()
        {
            if head.get().not_before > self.now {
                break;
            }
            if head.get().message.is_expired(self.wall) {
                head.remove();
                expired += 1;
                continue;
            }
            if lane.lent.len() >= member.prefetch {
                member.starved = true;
                break;
            }
            let token = self.lend(head.remove(), member);
            lane.lent.insert(token);
        }
        expired
    }

    fn has_room(&self) -> bool {
        self.deliveries.len() < self.max
    }

    fn lend(&mut self, mut entry: Entry, member: &mut Member) -> u64 {
        let token = self.numbers.next();
        self.deliveries
            .push(delivery(token, &entry.message, entry.partition, entry.deliveries));
        entry.deliveries = entry.deliveries.saturating_add(1);
        member.lent.insert(
            token,
            Lent {
                entry,
                until: self.now.saturating_add(member.visibility),
            },
        );
        token
    }
}

fn delivery(token: u64, message: &Arc<Message>, partition: Option<Partition>, before: u32) -> Delivery {
    let copy = Message::clone(message);
    let delivery = Delivery::new(DeliveryToken::new(token), copy).with_redelivery(match before {
        0 => Redelivery::First,
        times => Redelivery::Again(times),
    });
    match partition {
        Some(partition) => delivery.with_partition(partition),
        None => delivery,
    }
}
