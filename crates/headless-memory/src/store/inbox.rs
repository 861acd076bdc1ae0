//! The inbox.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    Admission, Arrival, AttemptUse, Claim, GroupName, Hold, InboxState, InboxStore, Marked, MessageId, Owner,
    Result, Settled,
};

use super::{
    LockKey, State, View,
    inbox_table::{InboxTable, Phase, ReservationKey, Reserved, Row, RowKey, Running, Source},
    require,
};
use crate::Memory;

/// How soon to ask again for a row that an open transaction holds.
pub(super) const HELD: Duration = Duration::from_millis(50);

/// What the asking transaction has marked and not committed yet.
#[derive(Default)]
pub(super) struct MarkedHere {
    pub(super) rows: BTreeSet<RowKey>,
    pub(super) reservations: BTreeMap<ReservationKey, MessageId>,
}

/// How a message without a row stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fresh {
    Free,
    Processed,
    Behind,
    Locked,
}

#[async_trait]
impl InboxStore for Memory {
    async fn admit(&self, owner: Owner, lease: Duration, arrivals: &[Arrival]) -> Result<Vec<Admission>> {
        self.link.check("admit").await?;
        require("admit", None, Some(lease))?;
        Ok(self.server.database.write(|state, now| {
            let (inbox, view) = state.inbox(now);
            let until = now.saturating_add(lease);
            arrivals
                .iter()
                .map(|arrival| inbox.admit(arrival, owner, until, &view))
                .collect()
        }))
    }

    async fn mark(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        self.link.check("mark").await?;
        Ok(self.server.database.write(|state, now| {
            let (inbox, view) = state.inbox(now);
            let mark = |(arrival, hold): &(Arrival, Hold)| {
                let answer = inbox.judge_mark(arrival, *hold, &MarkedHere::default(), &view);
                if answer == Marked::Now {
                    inbox.end(arrival, Phase::Processed, &view);
                }
                answer
            };
            marks.iter().map(mark).collect()
        }))
    }

    async fn discard(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        self.link.check("discard").await?;
        Ok(self.server.database.write(|state, now| {
            let (inbox, view) = state.inbox(now);
            let discard = |(arrival, hold): &(Arrival, Hold)| {
                let answer = inbox.judge_row(arrival, *hold, &view).unwrap_or(Marked::Now);
                if answer == Marked::Now {
                    inbox.end(arrival, Phase::Discarded, &view);
                }
                answer
            };
            marks.iter().map(discard).collect()
        }))
    }

    async fn renew(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        lease: Duration,
    ) -> Result<Settled> {
        self.link.check("renew").await?;
        require("renew", None, Some(lease))?;
        Ok(self.server.database.write(|state, now| {
            let (inbox, view) = state.inbox(now);
            #[cfg(feature = "planted-bugs")]
            let claims = &if self.server.config.epoch_dropped_on_renew {
                inbox.with_present_epochs(group, claims)
            } else {
                claims.to_vec()
            };
            let (lost, held) = inbox.sort_claims(group, owner, claims, |_, _| true);
            for key in held {
                inbox.change(&key, &view, |row| {
                    if let Phase::Running(running) = &mut row.phase {
                        running.until = now.saturating_add(lease);
                    }
                });
            }
            Settled::without(lost)
        }))
    }

    async fn release(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        attempt: AttemptUse,
    ) -> Result<Settled> {
        self.link.check("release").await?;
        Ok(self.server.database.write(|state, now| {
            let (inbox, view) = state.inbox(now);
            inbox.give_up(
                group,
                owner,
                claims,
                &view,
                |_| true,
                |inbox, key| inbox.release(key, attempt, &view),
            )
        }))
    }

    async fn release_owner(&self, owner: Owner) -> Result<u64> {
        self.link.check("release_owner").await?;
        Ok(self.server.database.write(|state, now| {
            let (inbox, view) = state.inbox(now);
            inbox.release_owner(owner, AttemptUse::Return, &view)
        }))
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        self.link.check("purge").await?;
        Ok(self.server.database.write(|state, now| {
            let (inbox, view) = state.inbox(now);
            inbox.purge(older_than, limit, &view)
        }))
    }
}

impl State {
    /// The inbox, and what a step over it sees beside its rows.
    pub(super) const fn inbox(&mut self, now: Duration) -> (&mut InboxTable, View<'_>) {
        (
            &mut self.inbox,
            View {
                now,
                locks: &self.locks,
                me: None,
            },
        )
    }
}

impl InboxTable {
    fn admit(&mut self, arrival: &Arrival, owner: Owner, until: Duration, view: &View<'_>) -> Admission {
        let key = key_of(arrival);
        if is_locked(arrival, view) {
            return Admission::Busy { lease_left: HELD };
        }
        let running = Phase::Running(Running {
            owner: Some(owner),
            until,
            from: Source::Delivery,
        });
        let Some(row) = self.row(&key) else {
            return match self.judge_fresh(arrival, &MarkedHere::default(), view) {
                Fresh::Free => {
                    self.reserve(arrival);
                    let mut row = Row::new(arrival.clone(), running, view.now);
                    row.epoch = row.epoch.next();
                    row.rounds = 1;
                    let run = run_of(&row);
                    self.insert(&key, row, view);
                    run
                }
                Fresh::Processed => Admission::Settled(InboxState::Processed),
                Fresh::Behind => Admission::Behind,
                Fresh::Locked => Admission::Busy { lease_left: HELD },
            };
        };
        let Phase::Running(held) = row.phase else {
            return Admission::Settled(row.phase.state());
        };
        if held.until > view.now {
            return Admission::Busy {
                lease_left: held.until - view.now,
            };
        }
        if held.from == Source::Park {
            self.park_again(&key, view.now, AttemptUse::Consume, view);
            return Admission::Settled(InboxState::Parked);
        }
        self.change(&key, view, |row| {
            row.phase = running;
            row.epoch = row.epoch.next();
            row.rounds = row.rounds.saturating_add(1);
        });
        self.row(&key).map_or(Admission::Behind, run_of)
    }

    /// What marking this message as processed answers. Nothing is changed; `Now` says that it may be done.
    pub(super) fn judge_mark(
        &self,
        arrival: &Arrival,
        hold: Hold,
        here: &MarkedHere,
        view: &View<'_>,
    ) -> Marked {
        if here.rows.contains(&key_of(arrival)) {
            return Marked::Already(InboxState::Processed);
        }
        let of_row = self.judge_row(arrival, hold, view);
        let place = self.row(&key_of(arrival)).and_then(|row| row.place);
        if of_row == Some(Marked::Now) && self.is_behind(arrival, place, &here.rows) {
            // An earlier message was parked since this one was admitted.
            return Marked::Behind;
        }
        of_row.unwrap_or_else(|| match self.judge_fresh(arrival, here, view) {
            Fresh::Free => Marked::Now,
            Fresh::Processed => Marked::Already(InboxState::Processed),
            Fresh::Behind => Marked::Behind,
            Fresh::Locked => Marked::Busy { lease_left: HELD },
        })
    }

    /// What ending this message answers as far as its own row says; `None` when there is none and none was named.
    pub(super) fn judge_row(&self, arrival: &Arrival, hold: Hold, view: &View<'_>) -> Option<Marked> {
        if is_locked(arrival, view) {
            return Some(Marked::Busy { lease_left: HELD });
        }
        let Some(row) = self.row(&key_of(arrival)) else {
            return (hold != Hold::Absent).then_some(Marked::LeaseLost);
        };
        Some(match (row.phase, hold) {
            (Phase::Running(_), Hold::Running { .. }) if row.is_held_by(hold) => Marked::Now,
            (Phase::Running(_) | Phase::Parked { .. }, Hold::Running { .. }) => Marked::LeaseLost,
            (Phase::Running(held), Hold::Absent) => Marked::Busy {
                lease_left: held.until.saturating_sub(view.now),
            },
            (phase, _) => Marked::Already(phase.state()),
        })
    }

    /// Ends a message that was judged `Now`, whether or not it has a row.
    pub(super) fn end(&mut self, arrival: &Arrival, phase: Phase, view: &View<'_>) {
        let key = key_of(arrival);
        if self.row(&key).is_none() {
            self.insert(&key, Row::new(arrival.clone(), phase, view.now), view);
        }
        self.finish(&key, phase, view);
    }

    /// Gives up rows that `owner` holds as claimed, where they `may` be and no transaction holds them.
    pub(super) fn give_up(
        &mut self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        view: &View<'_>,
        may: impl Fn(&Row) -> bool,
        mut how: impl FnMut(&mut Self, &RowKey),
    ) -> Settled {
        let (lost, held) = self.sort_claims(group, owner, claims, |key, row| {
            may(row) && !view.is_locked(&LockKey::Inbox(key.0.clone(), key.1))
        });
        for key in &held {
            how(self, key);
        }
        Settled::without(lost)
    }

    /// Ends every hold of an owner, and says how many there were.
    pub(super) fn release_owner(&mut self, owner: Owner, attempt: AttemptUse, view: &View<'_>) -> u64 {
        let held = self.rows_of(owner, view);
        for key in &held {
            self.release(key, attempt, view);
        }
        held.len() as u64
    }

    fn release(&mut self, key: &RowKey, attempt: AttemptUse, view: &View<'_>) {
        let Some(row) = self.row(key) else { return };
        let Phase::Running(held) = row.phase else { return };
        if held.from == Source::Park {
            self.park_again(key, view.now, attempt, view);
        } else {
            self.change(key, view, |row| {
                row.phase = Phase::Running(Running {
                    owner: None,
                    until: view.now,
                    from: Source::Delivery,
                });
                row.give_back(attempt);
            });
        }
        self.change(key, view, |row| row.epoch = row.epoch.next());
    }

    /// Whether this owner holds anything, also what a transaction has locked.
    pub(super) fn is_held_by(&self, owner: Owner) -> bool {
        self.held_by(owner).next().is_some()
    }

    fn rows_of(&self, owner: Owner, view: &View<'_>) -> Vec<RowKey> {
        let held = self.held_by(owner);
        held.filter(|key| !view.is_locked(&LockKey::Inbox(key.0.clone(), key.1)))
            .collect()
    }

    fn held_by(&self, owner: Owner) -> impl Iterator<Item = RowKey> + '_ {
        let leases = self.groups.iter().flat_map(|(name, group)| {
            let ids = group.park_leases.iter().chain(&group.delivery_leases);
            ids.map(|(_, id)| (name.clone(), *id))
        });
        leases.filter(move |key| match self.row(key).map(|row| row.phase) {
            Some(Phase::Running(running)) => running.owner == Some(owner),
            _ => false,
        })
    }

    /// How a message without a row stands: to the message that has reserved its idempotency key, and to its key.
    fn judge_fresh(&self, arrival: &Arrival, here: &MarkedHere, view: &View<'_>) -> Fresh {
        let marked_here = arrival.idempotency_key.as_ref().is_some_and(|key| {
            !here.reservations.is_empty()
                && here
                    .reservations
                    .contains_key(&(arrival.group.clone(), key.clone()))
        });
        if marked_here {
            return Fresh::Processed;
        }
        match self.reserved(arrival, view) {
            Reserved::Processed => return Fresh::Processed,
            Reserved::Other => return Fresh::Behind,
            Reserved::Locked => return Fresh::Locked,
            Reserved::No | Reserved::Own => {}
        }
        if self.is_behind(arrival, None, &here.rows) {
            Fresh::Behind
        } else {
            Fresh::Free
        }
    }
}

pub(super) fn key_of(arrival: &Arrival) -> RowKey {
    (arrival.group.clone(), arrival.id)
}

pub(super) fn is_locked(arrival: &Arrival, view: &View<'_>) -> bool {
    view.is_locked(&LockKey::Inbox(arrival.group.clone(), arrival.id))
}

const fn run_of(row: &Row) -> Admission {
    Admission::Run {
        epoch: row.epoch,
        rounds: row.rounds,
    }
}
