//! What the passing of time does to a group.
//!
//! There is no timer: whoever looks at a group first does what has become due.

use std::mem;

use headless_abstractions::{Partition, Revoked};

use super::{Group, Moment, Numbers};
use crate::broker::{
    member::{Lent, Member},
    queue::{Lane, Queue, Shape},
};

impl Group {
    /// Does everything that is due.
    pub(in crate::broker) fn sweep(&mut self, now: Moment, numbers: &mut Numbers) {
        self.release_due(now, numbers);
        self.take_back_overdue(now);
        self.lapse(now);
    }

    /// Puts delayed messages whose time has come into their queues.
    pub(in crate::broker) fn release_due(&mut self, now: Moment, numbers: &mut Numbers) {
        while let Some(first) = self.delayed.first_entry()
            && first.key().0 <= now
        {
            let mut entry = first.remove();
            let Some(queue) = self.queues.get_mut(&entry.message.topic) else {
                continue;
            };
            // A message had no place in its partition before its time; an unordered one that comes back keeps its own.
            if queue.is_ordered() {
                entry.place = numbers.next();
            }
            queue.put(entry);
            self.wake.notify_waiters();
        }
    }

    /// Takes back deliveries of unordered topics whose visibility time has passed.
    fn take_back_overdue(&mut self, now: Moment) {
        while let Some(&(until, session, token)) = self.deadlines.first()
            && until <= now
        {
            self.deadlines.pop_first();
            let Some(member) = self.members.get_mut(&session) else {
                continue;
            };
            let Some(Lent { entry, .. }) = member.lent.remove(&token) else {
                continue;
            };
            member.shared -= 1;
            member.lose(token);
            if member.is_abandoned() {
                self.members.remove(&session);
            }
            self.put(entry);
            self.wake.notify_waiters();
        }
    }

    /// Ends the hold of members that have not received for their visibility time.
    fn lapse(&mut self, now: Moment) {
        if self.next_lapse.is_none_or(|next| next > now) {
            return;
        }
        let gone: Vec<u64> = self
            .members
            .iter()
            .filter(|(_, m)| m.live && m.until <= now)
            .map(|(session, _)| *session)
            .collect();
        for &session in &gone {
            let revoked = self.free_partitions(session);
            if let Some(member) = self.members.get_mut(&session) {
                member.live = false;
                member.revoked.extend(revoked);
            }
        }
        self.members.retain(|_, member| !member.is_abandoned());
        self.next_lapse = self.members.values().filter(|m| m.live).map(|m| m.until).min();
        if !gone.is_empty() {
            self.reassign();
        }
    }

    /// Takes every partition from this member.
    pub(super) fn free_partitions(&mut self, session: u64) -> Vec<Revoked> {
        self.free(session, |lane| lane.holder == Some(session))
    }

    /// Takes those partitions from this member that are to go to another.
    pub(super) fn free_wanted_elsewhere(&mut self, session: u64) -> Vec<Revoked> {
        self.free(session, |lane| lane.is_leaving(session))
    }

    fn free(&mut self, session: u64, which: impl Fn(&Lane) -> bool) -> Vec<Revoked> {
        let Some(member) = self.members.get_mut(&session) else {
            return Vec::new();
        };
        let mut freed = Vec::new();
        for (topic, queue) in &mut self.queues {
            for partition in free_in(queue, member, &which) {
                freed.push(Revoked::new(topic.clone(), partition));
            }
        }
        freed
    }
}

/// Frees the partitions of one queue; what was unsettled goes back to its place.
fn free_in(queue: &mut Queue, member: &mut Member, which: impl Fn(&Lane) -> bool) -> Vec<Partition> {
    let Shape::Ordered(ordered) = &mut queue.shape else {
        return Vec::new();
    };
    let mut freed = Vec::new();
    for (partition, lane) in ordered.partitions().filter(|(_, lane)| which(lane)) {
        for token in mem::take(&mut lane.lent) {
            member.lose(token);
            if let Some(Lent { entry, .. }) = member.lent.remove(&token) {
                lane.waiting.insert(entry.place, entry);
            }
        }
        lane.holder = None;
        freed.push(partition);
    }
    ordered.moving |= !freed.is_empty();
    freed
}
