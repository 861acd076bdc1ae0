//! The park: messages that wait for their next round, or behind one that does.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, AttemptUse, Claim, ClaimParked, Failure, GroupName, Hold, InboxState, Owner, Park, ParkLimits,
    Parked, ParkedRow, ParkedStore, Result, Settled,
};

use crate::{
    inbox::{Inbox, Row, RowKey, Stay},
    server::{Sequence, State},
    store::{ToyStore, check_some, settle},
};

impl Inbox {
    fn park(&mut self, park: &Park, limits: ParkLimits, now: Duration, sequence: &mut Sequence) -> Parked {
        let arrival = &park.arrival;
        let key = (arrival.group.clone(), arrival.id);
        if self.locks.contains_key(&key) {
            return Parked::LeaseLost;
        }
        let mut row = match (self.rows.get(&key), park.hold) {
            (Some(row), _) if row.state != InboxState::Running => return Parked::Already(row.state),
            (Some(row), Hold::Running { owner, epoch }) if row.is_held(owner, epoch) => row.clone(),
            (None, Hold::Absent) if self.is_done(arrival) => return Parked::Already(InboxState::Processed),
            (None, Hold::Absent) => Row::new(arrival),
            _ => return Parked::LeaseLost,
        };
        let first = self.is_first(arrival, row.stay.as_ref().map(|stay| stay.place));
        if park.only_behind && first {
            return Parked::KeyFree;
        }
        if row.stay.is_none() && self.is_full(&row, limits) {
            return Parked::Full;
        }
        // What waits behind another reserves nothing: the two might wait for each other.
        row.reserves = first && arrival.idempotency_key.is_some();
        row.stay = Some(Stay {
            place: row.stay.map_or_else(|| sequence.next(), |stay| stay.place),
            message: park.message.clone(),
            due: now,
        });
        if park.hold == Hold::Absent && park.attempt == AttemptUse::Consume {
            row.rounds = 1;
        }
        row.give_back(now.saturating_add(park.after), park.attempt);
        Failure::append(&mut row.failures, park.failures.iter().cloned());
        self.rows.insert(key, row);
        Parked::Now
    }

    fn is_full(&self, new: &Row, limits: ParkLimits) -> bool {
        let stays = |row: &&Row| row.stay.is_some() && row.arrival.group == new.arrival.group;
        let of_group = self.rows.values().filter(stays);
        let of_key = of_group.clone().filter(|row| {
            row.arrival.key.is_some()
                && (&row.arrival.topic, &row.arrival.key) == (&new.arrival.topic, &new.arrival.key)
        });
        of_key.count() >= limits.per_key.get() || of_group.count() >= limits.per_group.get()
    }

    /// Each key's messages in their places; a message without a key stands alone.
    pub(crate) fn lanes(&self) -> Vec<Vec<(&RowKey, &Row, &Stay)>> {
        let mut stays: Vec<_> = self
            .rows
            .iter()
            .filter_map(|(key, row)| Some((key, row, row.stay.as_ref()?)))
            .collect();
        stays.sort_by_key(|(.., stay)| stay.place);
        let mut lanes = BTreeMap::<_, Vec<_>>::new();
        for (key, row, stay) in stays {
            let alone = row.arrival.key.is_none().then_some(stay.place);
            let lane = (&row.arrival.group, &row.arrival.topic, &row.arrival.key, alone);
            lanes.entry(lane).or_default().push((key, row, stay));
        }
        lanes.into_values().collect()
    }

    /// Parks again what was claimed from the park and whose lease has ended.
    pub(crate) fn reap(&mut self, now: Duration, limit: usize) -> u64 {
        let Self { rows, locks } = self;
        let lapsed = rows.iter_mut().filter(|(key, row)| {
            row.state == InboxState::Running
                && row.stay.is_some()
                && row.lease_left(now).is_zero()
                && !locks.contains_key(*key)
        });
        let reaped = lapsed
            .take(limit)
            .map(|(_, row)| row.give_back(now, AttemptUse::Consume))
            .count();
        self.free_waiting();
        reaped as u64
    }

    /// Ends what another message of its idempotency key has done.
    fn finish_done(&mut self, group: &GroupName, now: Duration) {
        let parked = |row: &&Row| row.state == InboxState::Parked && row.arrival.group == *group;
        let done = self
            .rows
            .values()
            .filter(parked)
            .filter(|row| self.is_done(&row.arrival));
        for key in done.map(Row::key).collect::<Vec<_>>() {
            if let Some(row) = self.rows.get_mut(&key) {
                row.finish(InboxState::Processed, now);
                // Its key is reserved for the one that did the work.
                row.reserves = false;
            }
        }
    }

    fn claim(&mut self, request: &ClaimParked, now: Duration) -> Vec<ParkedRow> {
        self.reap(now, usize::MAX);
        self.finish_done(&request.group, now);
        let mut runs: Vec<(Duration, Vec<RowKey>)> = Vec::new();
        for lane in self.lanes() {
            let (_, head, stay) = lane[0];
            let idle = lane.iter().all(|(_, row, _)| row.state == InboxState::Parked);
            if idle
                && head.arrival.group == request.group
                && !request.except_topics.contains(&head.arrival.topic)
            {
                let due = lane.iter().take_while(|(.., stay)| stay.due <= now);
                runs.push((stay.due, due.map(|(key, ..)| (*key).clone()).collect()));
            }
        }
        runs.sort();
        let mut claimed = Vec::new();
        for (_, run) in runs {
            for key in run {
                let taken = self.rows.get(&key).is_none_or(|row| self.is_taken(&row.arrival));
                if taken || claimed.len() == request.limit {
                    break;
                }
                claimed.extend(
                    self.rows
                        .get_mut(&key)
                        .and_then(|row| hand_out(row, request, now)),
                );
            }
        }
        claimed
    }
}

fn hand_out(row: &mut Row, request: &ClaimParked, now: Duration) -> Option<ParkedRow> {
    let message = row.stay.as_ref()?.message.clone();
    row.run(request.owner, now.saturating_add(request.lease));
    let claim = Claim::new(message.id, row.epoch);
    Some(ParkedRow::new(
        claim,
        row.arrival.clone(),
        message,
        row.rounds,
        row.failures.clone(),
    ))
}

#[async_trait]
impl ParkedStore for ToyStore {
    async fn park(&self, parks: &[Park], limits: ParkLimits) -> Result<Vec<Parked>> {
        let mut server = self.link.change("park")?;
        let now = server.now;
        let State { inbox, sequence, .. } = &mut *server;
        Ok(parks
            .iter()
            .map(|park| inbox.park(park, limits, now, sequence))
            .collect())
    }

    async fn claim(&self, request: &ClaimParked) -> Result<Vec<ParkedRow>> {
        check_some("the limit", request.limit > 0)?;
        check_some("the lease", !request.lease.is_zero())?;
        let mut server = self.link.change("claim")?;
        let now = server.now;
        Ok(server.inbox.claim(request, now))
    }

    async fn abandon(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        how: &Abandon,
    ) -> Result<Settled> {
        let mut server = self.link.change("abandon")?;
        let due = server.now.saturating_add(how.after);
        let settled = settle(claims, |claim| {
            let row = server.inbox.loose(group, owner, claim);
            row.filter(|row| row.stay.is_some())
                .map(|row| {
                    row.give_back(due, how.attempt);
                    Failure::append(&mut row.failures, how.failure.clone());
                })
                .is_some()
        });
        server.inbox.free_waiting();
        Ok(settled)
    }

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        let mut server = self.link.change("reap")?;
        let now = server.now;
        Ok(server.inbox.reap(now, limit))
    }
}
