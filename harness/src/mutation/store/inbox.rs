//! The mutations of the inbox.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    Abandon, Admission, Arrival, AttemptUse, Claim, Epoch, GroupName, Hold, InboxState, InboxStore, Marked,
    Message, Owner, PartitionKey, Result, Settled,
};

use super::{
    Bug, Mutant,
    seen::{Held, named_again},
};
use crate::mutation::Mutation;

/// A hold for the call that should be refused, since it is held by nobody.
const NOBODY: Hold = Hold::Running {
    owner: Owner::from_bits(u128::MAX),
    epoch: Epoch::new(u64::MAX >> 1),
};

impl Bug {
    /// The message as the buggy group meets it.
    pub(super) fn met(&self, arrival: &Arrival) -> Arrival {
        let mut arrival = arrival.clone();
        match self.mutation {
            Some(Mutation::ForgetIdempotencyKey) => arrival.idempotency_key = None,
            Some(Mutation::ForgetKeyOrder) => arrival.key = None,
            Some(Mutation::OrderForAll) => {
                arrival.key = arrival.key.or_else(|| PartitionKey::parse("none").ok());
            }
            Some(Mutation::MixGroupRows) => {
                arrival.group = self.seen(|seen| {
                    seen.first_group
                        .get_or_insert_with(|| arrival.group.clone())
                        .clone()
                });
            }
            _ => {}
        }
        arrival
    }

    /// The hold as the bug checks it.
    pub(super) fn checked(&self, arrival: &Arrival, hold: Hold) -> Hold {
        let Hold::Running { owner, epoch } = hold else {
            return hold;
        };
        let held = self.seen(|seen| seen.inbox.get(&(arrival.group.clone(), arrival.id)).copied());
        let Some(held) = held else { return hold };
        match self.mutation {
            Some(Mutation::DropOwnerCheck) => Hold::Running {
                owner: held.owner,
                epoch,
            },
            Some(Mutation::DropEpochCheck | Mutation::EpochStands) => Hold::Running {
                owner,
                epoch: held.epoch,
            },
            Some(Mutation::LateIsLost) if held.has_ended() => NOBODY,
            _ => hold,
        }
    }

    /// The answer as the bug gives it.
    pub(super) fn told(&self, marked: Marked) -> Marked {
        match (self.mutation, marked) {
            (Some(Mutation::SkipDedupe), Marked::Already(InboxState::Processed))
            | (Some(Mutation::TerminalMovable), Marked::Already(InboxState::Dead | InboxState::Discarded))
            | (Some(Mutation::HideLost), Marked::LeaseLost) => Marked::Now,
            (Some(Mutation::BusyWithoutTime), Marked::Busy { .. }) => Marked::Busy {
                lease_left: Duration::ZERO,
            },
            (_, marked) => marked,
        }
    }
}

/// A settling call on running rows, with what it carries.
#[derive(Clone, Copy)]
pub(super) enum RowCall<'a> {
    Renew(Duration),
    Release(AttemptUse),
    Abandon(&'a Abandon),
}

impl Mutant {
    async fn send_row(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        call: RowCall<'_>,
    ) -> Result<Settled> {
        match call {
            RowCall::Renew(lease) => {
                let settled = self
                    .inbox
                    .renew(group, owner, claims, self.bug.lease(lease))
                    .await?;
                self.bug.seen(|seen| {
                    for claim in claims.iter().filter(|claim| !settled.lost.contains(claim)) {
                        seen.hold_inbox(owner, group, *claim, lease);
                    }
                });
                Ok(settled)
            }
            RowCall::Release(_) if self.bug.is(Mutation::ReleaseKeepsHold) => {
                self.inbox
                    .renew(group, owner, claims, Duration::from_millis(1))
                    .await
            }
            RowCall::Release(attempt) => {
                self.inbox
                    .release(group, owner, claims, self.bug.attempt(attempt))
                    .await
            }
            RowCall::Abandon(how) => {
                self.bug
                    .seen(|seen| seen.given_back.extend(claims.iter().map(|claim| claim.id)));
                self.parked
                    .abandon(group, owner, claims, &self.bug.abandon(how))
                    .await
            }
        }
    }

    pub(super) async fn settle_rows(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        call: RowCall<'_>,
    ) -> Result<Settled> {
        let held = |claim: &Claim| {
            self.bug
                .seen(|seen| seen.inbox.get(&(group.clone(), claim.id)).copied())
        };
        let settled = match self.bug.mutation {
            Some(Mutation::DropOwnerCheck) => {
                let mut lost = Vec::new();
                for claim in claims {
                    let holder = held(claim).map_or(owner, |held| held.owner);
                    lost.extend(
                        self.send_row(group, holder, std::slice::from_ref(claim), call)
                            .await?
                            .lost,
                    );
                }
                Settled::without(lost)
            }
            Some(Mutation::DropEpochCheck | Mutation::EpochStands) => {
                self.send_current_rows(group, owner, claims, call).await?
            }
            Some(Mutation::DropEpochOnRenew) if matches!(call, RowCall::Renew(_)) => {
                self.send_current_rows(group, owner, claims, call).await?
            }
            Some(Mutation::LateIsLost) => {
                let (late, live): (Vec<_>, Vec<_>) = claims
                    .iter()
                    .copied()
                    .partition(|claim| held(claim).is_some_and(|held| held.has_ended()));
                let mut settled = self.send_row(group, owner, &live, call).await?;
                settled.lost.extend(late);
                settled
            }
            Some(Mutation::RenewForgotten) if matches!(call, RowCall::Renew(_)) => Settled::all(),
            _ => self.send_row(group, owner, claims, call).await?,
        };
        Ok(if self.bug.is(Mutation::HideLost) {
            Settled::all()
        } else {
            settled
        })
    }

    /// With the epochs that the rows have now, whatever was named.
    async fn send_current_rows(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        call: RowCall<'_>,
    ) -> Result<Settled> {
        let current: Vec<_> = self.bug.seen(|seen| {
            let held = |claim: &Claim| seen.inbox.get(&(group.clone(), claim.id));
            let epoch = |claim: &Claim| held(claim).map_or(claim.epoch, |held| held.epoch);
            claims
                .iter()
                .map(|claim| Claim::new(claim.id, epoch(claim)))
                .collect()
        });
        Ok(named_again(
            claims,
            &self.send_row(group, owner, &current, call).await?,
        ))
    }

    /// Every row of the inbox that was handed out.
    pub(super) fn running(&self) -> Vec<(GroupName, Owner, Claim)> {
        self.bug.seen(|seen| {
            seen.inbox
                .iter()
                .map(|((group, id), held)| (group.clone(), held.owner, Claim::new(*id, held.epoch)))
                .collect()
        })
    }

    /// Gives each admitted row whose lease has ended another, ever so short.
    async fn renew_stranded(&self) -> Result<()> {
        for (group, owner, claim) in self.running() {
            let row = (group, claim.id);
            let stranded = self.bug.seen(|seen| {
                let ended = seen.inbox.get(&row).is_some_and(Held::has_ended);
                ended && !seen.from_park.contains(&row)
            });
            if stranded {
                // Whoever holds it under another epoch keeps it.
                let _lost = self
                    .inbox
                    .renew(&row.0, owner, &[claim], Duration::from_millis(1))
                    .await?;
            }
        }
        Ok(())
    }

    /// Discards each row that was handed out, whatever its lease.
    async fn end_running(&self) -> Result<()> {
        for (group, owner, claim) in self.running() {
            let Some(entry) = self.inbox_queries.get(&group, claim.id).await? else {
                continue;
            };
            let message = Message::new(claim.id, entry.topic, DateTime::default(), Bytes::new());
            let hold = Hold::Running {
                owner,
                epoch: claim.epoch,
            };
            self.inbox
                .discard(&[(Arrival::of(&group, &message, false), hold)])
                .await?;
        }
        Ok(())
    }

    async fn admit_one(&self, owner: Owner, lease: Duration, arrival: &Arrival) -> Result<Admission> {
        let met = self.bug.met(arrival);
        if self.bug.seen(|seen| seen.is_taken(&met)) {
            return Ok(Admission::Behind);
        }
        let row = (met.group.clone(), met.id);
        if self.bug.is(Mutation::AdmitIgnoresLease)
            && let Some(held) = self.bug.seen(|seen| seen.inbox.get(&row).copied())
        {
            let claim = Claim::new(met.id, held.epoch);
            let _held = self
                .inbox
                .release(&met.group, held.owner, &[claim], AttemptUse::Consume)
                .await?;
        }
        let leased = self.bug.lease(lease);
        let mut answer = self
            .inbox
            .admit(owner, leased, std::slice::from_ref(&met))
            .await?[0];
        match &mut answer {
            Admission::Run { epoch, rounds } => {
                let claim = Claim::new(met.id, *epoch);
                self.bug
                    .seen(|seen| seen.hold_inbox(owner, &met.group, claim, lease));
                *epoch = self.bug.epoch(*epoch);
                if self.bug.is(Mutation::ForgetRounds) {
                    *rounds = 1;
                }
            }
            Admission::Busy { lease_left } if self.bug.is(Mutation::BusyWithoutTime) => {
                *lease_left = Duration::ZERO;
            }
            _ => {}
        }
        let again = Admission::Run {
            epoch: Epoch::new(1),
            rounds: 1,
        };
        Ok(match (self.bug.mutation, answer) {
            (Some(Mutation::SkipDedupe), Admission::Settled(InboxState::Processed))
            | (
                Some(Mutation::TerminalMovable),
                Admission::Settled(InboxState::Dead | InboxState::Discarded),
            ) => again,
            (_, answer) => answer,
        })
    }
}

#[async_trait]
impl InboxStore for Mutant {
    async fn admit(&self, owner: Owner, lease: Duration, arrivals: &[Arrival]) -> Result<Vec<Admission>> {
        let mut answers = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            answers.push(self.admit_one(owner, lease, arrival).await?);
        }
        Ok(answers)
    }

    async fn mark(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        let mut answers = Vec::with_capacity(marks.len());
        for (arrival, hold) in marks {
            let met = self.bug.met(arrival);
            if self.bug.is(Mutation::MarkForgotten) {
                answers.push(Marked::Now);
            } else if self.bug.seen(|seen| seen.is_taken(&met)) {
                answers.push(Marked::Behind);
            } else {
                let hold = self.bug.checked(&met, *hold);
                answers.push(self.bug.told(self.inbox.mark(&[(met, hold)]).await?[0]));
            }
        }
        Ok(answers)
    }

    async fn discard(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        let mut answers = Vec::with_capacity(marks.len());
        for (arrival, hold) in marks {
            let met = self.bug.met(arrival);
            let hold = self.bug.checked(&met, *hold);
            let answer = self.inbox.discard(&[(met.clone(), hold)]).await?[0];
            if answer == Marked::Now && self.bug.is(Mutation::OperationOutlivesEnd) {
                self.bug.seen(|seen| seen.take(&met));
            }
            answers.push(self.bug.told(answer));
        }
        Ok(answers)
    }

    async fn renew(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        lease: Duration,
    ) -> Result<Settled> {
        self.settle_rows(group, owner, claims, RowCall::Renew(lease))
            .await
    }

    async fn release(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        attempt: AttemptUse,
    ) -> Result<Settled> {
        self.settle_rows(group, owner, claims, RowCall::Release(attempt))
            .await
    }

    async fn release_owner(&self, owner: Owner) -> Result<u64> {
        let running = self.running();
        match self.bug.mutation {
            Some(Mutation::ReleaseForgotten) => {
                Ok(running.iter().filter(|(_, holder, _)| *holder == owner).count() as u64)
            }
            Some(Mutation::ReleaseAll) => {
                for (_, other, _) in running.iter().filter(|(_, holder, _)| *holder != owner) {
                    self.inbox.release_owner(*other).await?;
                }
                self.inbox.release_owner(owner).await
            }
            _ => self.inbox.release_owner(owner).await,
        }
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        match self.bug.mutation {
            Some(Mutation::PurgeKeepsStranded) => self.renew_stranded().await?,
            Some(Mutation::PurgeEndsRunning) => self.end_running().await?,
            _ => {}
        }
        self.inbox
            .purge(self.bug.age(older_than), self.bug.batch(limit))
            .await
    }
}
