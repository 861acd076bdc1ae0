//! A group: its queues, its members and what they hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use headless_abstractions::{
    DeliveryToken, Message, Partition, Received, Result, Revoked, Settlement, Subscription, TopicName,
    TopicOrder,
};
use tokio::sync::Notify;

use super::{
    Moment,
    entry::{Entry, Numbers},
    member::{Lent, Member},
    queue::{Queue, Shape},
};
use crate::link::Link;

mod lapse;
mod receive;

#[derive(Debug, Default)]
pub(super) struct Group {
    /// Wakes pending receives: something has changed that one of them may have waited for.
    pub(super) wake: Arc<Notify>,
    queues: BTreeMap<TopicName, Queue>,
    members: BTreeMap<u64, Member>,
    /// Messages before their time, by it.
    delayed: BTreeMap<(Moment, u64), Entry>,
    /// When unsettled deliveries of unordered topics come back, with session and token.
    deadlines: BTreeSet<(Moment, u64, u64)>,
    /// No member lapses before this.
    next_lapse: Option<Moment>,
}

/// What a look for deliveries came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// This is to be returned.
    Return(Received),
    /// There is nothing; look again when the group is woken, or after this time.
    Wait(Duration),
}

impl Group {
    /// Begins to take a topic, unless it does already. Says whether it is new.
    pub(super) fn add_topic(&mut self, topic: &TopicName, order: TopicOrder) -> bool {
        let is_new = !self.takes(topic);
        if is_new {
            self.queues.insert(topic.clone(), Queue::new(order));
        }
        is_new
    }

    /// Gives a topic of which it has no message another order. Members are told of the partitions that there were.
    pub(super) fn reorder(&mut self, topic: &TopicName, order: TopicOrder) {
        let Some(queue) = self.queues.get_mut(topic) else {
            return;
        };
        if let Shape::Ordered(ordered) = &mut queue.shape {
            for (partition, lane) in ordered.partitions() {
                if let Some(member) = lane.holder.and_then(|holder| self.members.get_mut(&holder)) {
                    member.revoked.push(Revoked::new(topic.clone(), partition));
                }
            }
        }
        *queue = Queue::new(order);
        self.reassign();
    }

    pub(super) fn takes(&self, topic: &TopicName) -> bool {
        self.queues.contains_key(topic)
    }

    /// How many messages of this topic wait, are delayed or are unsettled.
    pub(super) fn len_of(&self, topic: &TopicName) -> usize {
        self.queues.get(topic).map_or(0, |queue| queue.len)
    }

    /// The same over all topics.
    pub(super) fn len(&self) -> usize {
        self.queues.values().map(|queue| queue.len).sum()
    }

    /// Takes a message of one of its topics.
    pub(super) fn accept(
        &mut self,
        message: Arc<Message>,
        partition: Option<Partition>,
        due: Moment,
        now: Moment,
        numbers: &mut Numbers,
    ) {
        // What has become due takes its place before a message that is sent now.
        self.release_due(now, numbers);
        let Some(queue) = self.queues.get_mut(&message.topic) else {
            return;
        };
        queue.len += 1;
        let entry = Entry::new(numbers.next(), message, partition);
        if due > now {
            self.delayed.insert((due, entry.place), entry);
        } else {
            queue.put(entry);
        }
    }

    /// Lets a member in and says its session.
    pub(super) fn join(
        &mut self,
        to: &Subscription,
        link: Arc<Link>,
        now: Moment,
        numbers: &mut Numbers,
    ) -> u64 {
        let session = numbers.next();
        let member = Member::new(to, link, now);
        self.expect_lapse(member.until);
        self.members.insert(session, member);
        self.reassign();
        session
    }

    /// Lets a member go: what it has not settled comes back at once, in place.
    pub(super) fn leave(&mut self, session: u64) {
        self.free_partitions(session);
        let Some(member) = self.members.remove(&session) else {
            return;
        };
        for (token, Lent { entry, until }) in member.lent {
            self.deadlines.remove(&(until, session, token));
            self.put(entry);
        }
        self.reassign();
    }

    /// The sessions that came through this link.
    pub(super) fn sessions_of(&self, link: &Arc<Link>) -> Vec<u64> {
        self.members
            .iter()
            .filter(|(_, m)| Arc::ptr_eq(&m.link, link))
            .map(|(session, _)| *session)
            .collect()
    }

    pub(super) fn member(&mut self, session: u64) -> Option<&mut Member> {
        self.members.get_mut(&session)
    }

    /// Settles one delivery of this member; `None` if it is no member.
    pub(super) fn settle(&mut self, session: u64, settlement: Settlement, now: Moment) -> Option<Result<()>> {
        let token = settlement.token();
        let member = self.members.get_mut(&session)?;
        let Some(Lent { mut entry, until }) = member.lent.remove(&token.get()) else {
            return Some(Err(member.missing(token)));
        };
        if std::mem::take(&mut member.starved) {
            self.wake.notify_waiters();
        }
        let queue = self.queues.get_mut(&entry.message.topic)?;
        match &mut queue.shape {
            Shape::Shared(_) => {
                member.shared -= 1;
                self.deadlines.remove(&(until, session, token.get()));
            }
            Shape::Ordered(ordered) => {
                ordered.lane(entry.partition).lent.remove(&token.get());
            }
        }
        match settlement {
            Settlement::Ack(_) | Settlement::Reject(_) => queue.len -= 1,
            Settlement::Requeue { after, .. } => {
                let due = now.saturating_add(after.unwrap_or_default());
                if due > now && !queue.is_ordered() {
                    self.delayed.insert((due, entry.place), entry);
                } else {
                    entry.not_before = due;
                    queue.put(entry);
                }
                self.wake.notify_waiters();
            }
        }
        Some(Ok(()))
    }

    /// Keeps one delivery of this member for longer; `None` if it is no member.
    pub(super) fn extend(&mut self, session: u64, token: DeliveryToken, until: Moment) -> Option<Result<()>> {
        let member = self.members.get_mut(&session)?;
        let Some(lent) = member.lent.get_mut(&token.get()) else {
            return Some(Err(member.missing(token)));
        };
        if lent.until < until && self.deadlines.remove(&(lent.until, session, token.get())) {
            lent.until = until;
            self.deadlines.insert((until, session, token.get()));
        }
        Some(Ok(()))
    }

    /// Whether a member's hold is still good.
    pub(super) fn is_attended(&self, now: Moment) -> bool {
        self.members.values().any(|member| member.until > now)
    }

    fn put(&mut self, entry: Entry) {
        if let Some(queue) = self.queues.get_mut(&entry.message.topic) {
            queue.put(entry);
        }
    }

    /// Decides anew which live member is to hold which partition.
    fn reassign(&mut self) {
        for (topic, queue) in &mut self.queues {
            if let Shape::Ordered(ordered) = &mut queue.shape {
                let reads = |member: &Member| member.live && member.topics.binary_search(topic).is_ok();
                let readers: Vec<_> = self
                    .members
                    .iter()
                    .filter(|(_, m)| reads(m))
                    .map(|(session, m)| (*session, m.owner))
                    .collect();
                ordered.reassign(topic, &readers);
            }
        }
        self.wake.notify_waiters();
    }

    fn expect_lapse(&mut self, at: Moment) {
        self.next_lapse = Some(self.next_lapse.map_or(at, |next| next.min(at)));
    }
}
