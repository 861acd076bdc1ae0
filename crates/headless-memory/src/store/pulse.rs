//! The one question that an idle node asks.

use std::{collections::BTreeSet, ops::Bound, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{MessageId, Pulse, PulseStore, Result};
use uuid::Uuid;

use super::{
    inbox_table::InboxTable,
    wait::{SHORTEST, first_of},
};
use crate::Memory;

/// The most leases of each kind that one pulse reaps.
const REAPED: usize = 1_000;
/// Later than every message of the same moment.
const LAST: MessageId = MessageId::from_uuid(Uuid::max());

/// What a connection's last wait has seen, so that the next one notices what happened between the two.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    generation: u64,
    until: Duration,
}

#[async_trait]
impl PulseStore for Memory {
    async fn pulse(&self) -> Result<Pulse> {
        self.link.check("pulse").await?;
        Ok(self.server.database.write(|state, now| {
            state.outbox.reap_expired(REAPED, now);
            let (inbox, view) = state.inbox(now);
            inbox.reap_all(REAPED, &view);
            let (parked, inbox_lease) = inbox.next(now);
            let (outbox, outbox_lease) = state.outbox.next(now);
            let lease = outbox_lease.into_iter().chain(inbox_lease).min();
            Pulse::idle()
                .with_outbox(outbox)
                .with_parked(parked)
                .with_expired_lease(lease)
                .with_control(state.control.revision())
        }))
    }

    async fn wait_ready(&self, at_most: Duration) -> Result<()> {
        self.link.check("wait_ready").await?;
        let database = &self.server.database;
        let deadline = database.monotonic().saturating_add(at_most);
        loop {
            let hinted = database.ready.notified();
            let left = database.read(|state, now| {
                let mut seen = self.link.seen();
                let due = [
                    state.outbox.first_due_after(seen.until),
                    state.inbox.first_due_after(seen.until),
                ];
                let until = due.into_iter().flatten().min().unwrap_or(deadline).min(deadline);
                if until > now && state.generation == seen.generation {
                    return Some(until - now);
                }
                *seen = Seen {
                    generation: state.generation,
                    until: now,
                };
                None
            });
            let Some(left) = left else { return Ok(()) };
            first_of(
                tokio::time::timeout(left.max(SHORTEST), hinted),
                self.link.ended(),
            )
            .await;
            self.link.check("wait_ready").await?;
        }
    }
}

impl InboxTable {
    /// How soon a parked row is due, and when the first lease ends, in any group.
    fn next(&self, now: Duration) -> (Option<Duration>, Option<Duration>) {
        let due = self
            .groups
            .values()
            .flat_map(|group| group.due.values())
            .filter_map(BTreeSet::first);
        let due = due.map(|(due, ..)| due.saturating_sub(now));
        let park_leases = self.groups.values().filter_map(|group| group.park_leases.first());
        let park_lease = park_leases.map(|(until, _)| until.saturating_sub(now)).min();
        // A delivery whose lease has ended is met by its redelivery alone: it is nothing to wake up for.
        let live = (Bound::Excluded((now, LAST)), Bound::Unbounded);
        let delivery_leases = self
            .groups
            .values()
            .filter_map(|group| group.delivery_leases.range(live).next());
        let delivery_lease = delivery_leases.map(|(until, _)| until.saturating_sub(now)).min();
        let lease = park_lease.into_iter().chain(delivery_lease).min();
        (due.chain(park_lease.filter(Duration::is_zero)).min(), lease)
    }

    /// The first moment after this at which something becomes claimable by itself.
    fn first_due_after(&self, moment: Duration) -> Option<Duration> {
        let due_after = (Bound::Excluded((moment, u64::MAX, LAST)), Bound::Unbounded);
        let due = self.groups.values().flat_map(|group| group.due.values());
        let due = due
            .filter_map(|rows| rows.range(due_after).next())
            .map(|(due, ..)| *due);
        let lease_after = (Bound::Excluded((moment, LAST)), Bound::Unbounded);
        let leases = self
            .groups
            .values()
            .filter_map(|group| group.park_leases.range(lease_after).next());
        due.chain(leases.map(|(until, _)| *until)).min()
    }
}
