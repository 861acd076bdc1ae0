//! Parked messages.

use std::collections::BTreeSet;

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, AttemptUse, Claim, ClaimParked, DeadId, Failure, GroupName, Hold, InboxState, Message, Owner,
    Park, ParkLimits, Parked, ParkedRow, ParkedStore, Result, Settled, TopicName,
};

use super::{
    View,
    inbox::{is_locked, key_of},
    inbox_table::{InboxTable, Phase, Reserved, Row, RowKey, Running, Source},
    require,
};
use crate::Memory;

#[async_trait]
impl ParkedStore for Memory {
    async fn park(&self, parks: &[Park], limits: ParkLimits) -> Result<Vec<Parked>> {
        self.link.check("park").await?;
        Ok(self.server.database.write(|state, now| {
            let (inbox, view) = state.inbox(now);
            parks.iter().map(|park| inbox.park(park, limits, &view)).collect()
        }))
    }

    async fn claim(&self, request: &ClaimParked) -> Result<Vec<ParkedRow>> {
        self.link.check("claim").await?;
        require("claim", Some(request.limit), Some(request.lease))?;
        Ok(self.server.database.write(|state, now| {
            let stirred = state.inbox.stirred;
            let (inbox, view) = state.inbox(now);
            let rows = inbox.claim_parked(request, &view);
            // What time alone made claimable needs no hint: waiters sleep until then themselves.
            inbox.stirred = stirred;
            rows
        }))
    }

    async fn abandon(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        how: &Abandon,
    ) -> Result<Settled> {
        self.link.check("abandon").await?;
        Ok(self.server.database.write(|state, now| {
            let (inbox, view) = state.inbox(now);
            let due = now.saturating_add(how.after);
            let from_park = |row: &Row| row.place.is_some();
            inbox.give_up(group, owner, claims, &view, from_park, |inbox, key| {
                inbox.change(key, &view, |row| {
                    Failure::append(&mut row.failures, how.failure.clone());
                });
                inbox.park_again(key, due, how.attempt, &view);
            })
        }))
    }

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        self.link.check("reap_expired").await?;
        Ok(self.server.database.write(|state, now| {
            let (inbox, view) = state.inbox(now);
            inbox.reap_all(limit, &view)
        }))
    }
}

impl InboxTable {
    fn park(&mut self, park: &Park, limits: ParkLimits, view: &View<'_>) -> Parked {
        let key = key_of(&park.arrival);
        if is_locked(&park.arrival, view) {
            return Parked::LeaseLost;
        }
        let (known, place, arrival) = match self.row(&key) {
            None if park.hold == Hold::Absent => (false, None, park.arrival.clone()),
            None => return Parked::LeaseLost,
            Some(row) => match row.phase {
                Phase::Running(_) if row.is_held_by(park.hold) => (true, row.place, row.arrival.clone()),
                Phase::Running(_) => return Parked::LeaseLost,
                phase => return Parked::Already(phase.state()),
            },
        };
        let reserved = self.reserved(&arrival, view);
        let blocked = matches!(reserved, Reserved::Other | Reserved::Locked);
        let behind = self.is_behind(&arrival, place, &BTreeSet::new());
        if reserved == Reserved::Processed {
            return Parked::Already(InboxState::Processed);
        }
        if park.only_behind && !behind && !blocked {
            return Parked::KeyFree;
        }
        if place.is_none() && self.is_full(park, limits) {
            return Parked::Full;
        }
        if behind {
            self.free(&arrival, view);
        } else if !blocked {
            self.reserve(&arrival);
        }
        let due = Phase::Parked {
            due: view.now.saturating_add(park.after),
        };
        if !known {
            let mut row = Row::new(arrival, due, view.now);
            row.rounds = u32::from(park.attempt == AttemptUse::Consume);
            row.message = Some(park.message.clone());
            Failure::append(&mut row.failures, park.failures.clone());
            self.insert(&key, row, view);
            return Parked::Now;
        }
        self.change(&key, view, |row| {
            row.phase = due;
            row.give_back(park.attempt);
            row.message = Some(park.message.clone());
            Failure::append(&mut row.failures, park.failures.clone());
        });
        Parked::Now
    }

    fn is_full(&self, park: &Park, limits: ParkLimits) -> bool {
        self.parked_of_key(&park.arrival) >= limits.per_key.get()
            || self.parked_of_group(&park.arrival.group) >= limits.per_group.get()
    }

    fn claim_parked(&mut self, request: &ClaimParked, view: &View<'_>) -> Vec<ParkedRow> {
        self.reap(&request.group, usize::MAX, view);
        let mut claimed = Vec::new();
        while claimed.len() < request.limit
            && let Some(head) = self.longest_due(&request.group, &request.except_topics, view)
        {
            self.claim_run(head, request, view, &mut claimed);
        }
        claimed
    }

    /// The listed row of this group that has been due for longest.
    fn longest_due(&self, group: &GroupName, except: &[TopicName], view: &View<'_>) -> Option<RowKey> {
        let topics = self
            .groups
            .get(group)?
            .due
            .iter()
            .filter(|(topic, _)| !except.contains(topic));
        let (due, _, id) = topics.filter_map(|(_, rows)| rows.first()).min()?;
        (*due <= view.now).then(|| (group.clone(), *id))
    }

    /// Claims a head and, in order and without a gap, what waits behind it.
    fn claim_run(
        &mut self,
        head: RowKey,
        request: &ClaimParked,
        view: &View<'_>,
        claimed: &mut Vec<ParkedRow>,
    ) {
        let mut next = Some(head);
        while let Some(key) = next
            && claimed.len() < request.limit
        {
            let Some(row) = self.row(&key) else { return };
            let (Phase::Parked { due }, Some(place)) = (row.phase, row.place) else {
                return;
            };
            let arrival = row.arrival.clone();
            if due > view.now {
                return;
            }
            next = self.follower(&arrival, place);
            match self.reserved(&arrival, view) {
                // Its key goes on: the row behind it becomes due, now or in this very run.
                Reserved::Processed => self.finish(&key, Phase::Processed, view),
                Reserved::Other | Reserved::Locked => return self.list_again(&key, view),
                Reserved::No | Reserved::Own => {
                    self.reserve(&arrival);
                    claimed.extend(self.hand_out(&key, request, view));
                }
            }
        }
    }

    fn hand_out(&mut self, key: &RowKey, request: &ClaimParked, view: &View<'_>) -> Option<ParkedRow> {
        let until = view.now.saturating_add(request.lease);
        self.change(key, view, |row| {
            row.phase = Phase::Running(Running {
                owner: Some(request.owner),
                until,
                from: Source::Park,
            });
            row.epoch = row.epoch.next();
            row.rounds = row.rounds.saturating_add(1);
        });
        let row = self.row(key)?;
        let claim = Claim::new(key.1, row.epoch);
        let message = row.message.clone()?;
        Some(ParkedRow::new(
            claim,
            row.arrival.clone(),
            message,
            row.rounds,
            row.failures.clone(),
        ))
    }

    pub(super) fn reap_all(&mut self, limit: usize, view: &View<'_>) -> u64 {
        let groups: Vec<GroupName> = self.groups.keys().cloned().collect();
        let mut reaped = 0;
        for group in groups {
            reaped += self.reap(
                &group,
                limit.saturating_sub(usize::try_from(reaped).unwrap_or(limit)),
                view,
            );
        }
        reaped
    }

    /// Puts the row of a dead letter behind all others of its key, due at once, as if it had never been run.
    pub(super) fn park_redriven(
        &mut self,
        key: &RowKey,
        message: Message,
        redriven: (DeadId, u32),
        view: &View<'_>,
    ) {
        let Some(arrival) = self.row(key).map(|row| row.arrival.clone()) else {
            return;
        };
        let behind = self.is_behind(&arrival, None, &BTreeSet::new());
        if !behind && self.reserved(&arrival, view) == Reserved::No {
            self.reserve(&arrival);
        }
        self.change(key, view, |row| {
            row.phase = Phase::Parked { due: view.now };
            row.epoch = row.epoch.next();
            row.rounds = 0;
            row.failures.clear();
            row.message = Some(message);
            row.redriven = Some(redriven);
        });
    }
}
