//! The calls of a member. Those that answer say `None` where the group or the session is gone.

use chrono::{DateTime, Utc};
use headless_abstractions::{DeliveryToken, GroupName, Result, Settlement};

use super::State;
use crate::broker::{Moment, group::Step};

impl State {
    /// Renews the member's hold and takes at most `max` deliveries for it, or what was revoked.
    pub(crate) fn step(
        &mut self,
        group: &GroupName,
        session: u64,
        max: usize,
        time: (Moment, DateTime<Utc>),
    ) -> Option<Step> {
        self.groups
            .get_mut(group)?
            .step(session, max, time, &mut self.numbers)
    }

    pub(crate) fn settle(
        &mut self,
        group: &GroupName,
        session: u64,
        settlement: Settlement,
        now: Moment,
    ) -> Option<Result<()>> {
        self.groups.get_mut(group)?.settle(session, settlement, now)
    }

    pub(crate) fn extend(
        &mut self,
        group: &GroupName,
        session: u64,
        token: DeliveryToken,
        until: Moment,
    ) -> Option<Result<()>> {
        self.groups.get_mut(group)?.extend(session, token, until)
    }

    pub(crate) fn set_paused(&mut self, group: &GroupName, session: u64, paused: bool) -> Option<()> {
        let group = self.groups.get_mut(group)?;
        group.member(session)?.paused = paused;
        group.wake.notify_waiters();
        Some(())
    }

    pub(crate) fn leave(&mut self, group: &GroupName, session: u64) {
        if let Some(group) = self.groups.get_mut(group) {
            group.leave(session);
        }
    }
}
