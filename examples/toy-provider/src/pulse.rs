//! The one question that an idle node asks.

use std::{pin::pin, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{InboxState, Pulse, PulseStore, Result};
use tokio::time::timeout;

use crate::{inbox::Inbox, outbox::Outbox, store::ToyStore};

/// How many leases one question reaps at most, of each kind.
const REAPED: usize = 1000;

impl Outbox {
    /// When the first row is due that waits for nothing but time.
    fn next_due(&self, now: Duration) -> Option<Duration> {
        let mut seen = self.leased_keys(now);
        let heads = self.in_place().into_iter().map(|(_, row)| row);
        let heads = heads.filter(|row| row.key().is_none_or(|key| seen.insert(key)) && !row.is_leased(now));
        let delayed = self.rows.values().filter(|row| row.place.is_none());
        heads.chain(delayed).map(|row| row.due).min()
    }
}

impl Inbox {
    fn next_due(&self) -> Option<Duration> {
        self.lanes()
            .into_iter()
            .filter(|lane| lane.iter().all(|(_, row, _)| row.state == InboxState::Parked))
            .filter_map(|lane| lane.into_iter().next())
            .filter(|(_, head, _)| !self.is_taken(&head.arrival))
            .map(|(.., stay)| stay.due)
            .min()
    }
}

#[async_trait]
impl PulseStore for ToyStore {
    async fn pulse(&self) -> Result<Pulse> {
        let mut server = self.link.look("pulse")?;
        let now = server.now;
        server.outbox.reap(now, REAPED);
        server.inbox.reap(now, REAPED);
        let outbox = server.outbox.rows.values().filter_map(|row| row.held);
        let inbox = server.inbox.rows.values().filter_map(|row| row.held);
        // A row that was admitted is nobody's to reap: once its lease has ended it waits for its delivery.
        let lease = outbox
            .chain(inbox)
            .map(|(_, until)| until)
            .filter(|until| *until > now)
            .min();
        let left = |at: Duration| at.saturating_sub(now);
        Ok(Pulse::idle()
            .with_outbox(server.outbox.next_due(now).map(left))
            .with_parked(server.inbox.next_due().map(left))
            .with_expired_lease(lease.map(left)))
    }

    async fn wait_ready(&self, at_most: Duration) -> Result<()> {
        let mut changed = pin!(self.link.changed().notified());
        changed.as_mut().enable();
        self.link.look("wait_ready")?;
        // A hint: woken and out of time mean the same.
        let _woken = timeout(at_most, changed).await;
        Ok(())
    }
}
