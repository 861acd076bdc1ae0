//! The mutations of the outbox.

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, Appended, AttemptUse, Claim, ClaimOutbox, ClaimedOutbox, Epoch, Failure, InFlight, Message,
    OutboxStore, Owner, Priority, Result, Settled,
};

use super::{
    Bug, Mutant,
    seen::{named_again, reorder_keys},
};
use crate::{mutation::Mutation, wait::elapse};

/// How long a call of a buggy server is under way where others come between.
const UNDER_WAY: Duration = Duration::from_millis(1);

/// A settling call, with what it carries.
#[derive(Clone, Copy)]
enum Call<'a> {
    Ack,
    Abandon(&'a Abandon),
    Fail(&'a Failure),
    Renew(Duration),
}

impl Bug {
    /// The messages as the bug stores them.
    pub(super) fn stored(&self, messages: &[Message]) -> Vec<Message> {
        self.seen(|seen| seen.note_append(messages));
        let mut messages = messages.to_vec();
        for message in &mut messages {
            match self.mutation {
                Some(Mutation::ForgetDelay) => message.deliver_after = None,
                Some(Mutation::FlattenPriority) => message.priority = Priority::default(),
                Some(Mutation::ClaimIgnoresKeys) => {
                    if let Some(key) = message.key.take() {
                        self.seen(|seen| seen.keys.insert(message.id, key));
                    }
                }
                _ => {}
            }
        }
        messages
    }

    /// The message as the bug hands it out.
    pub(super) fn shown(&self, message: &mut Message) {
        if self.is(Mutation::TruncateEnvelope) {
            message.headers = headless_abstractions::Headers::new();
            message.trace = None;
        }
    }

    pub(super) fn lease(&self, lease: Duration) -> Duration {
        match self.mutation {
            Some(Mutation::LeaseForever) => lease * 1_000,
            Some(Mutation::AcceptZero) if lease.is_zero() => Duration::from_millis(1),
            _ => lease,
        }
    }

    pub(super) fn limit(&self, limit: usize) -> usize {
        match self.mutation {
            Some(Mutation::ClaimOverLimit) => limit + 1,
            Some(Mutation::AcceptZero) => limit.max(1),
            _ => limit,
        }
    }

    /// The bound on a batch of reaping or purging.
    pub(super) fn batch(&self, limit: usize) -> usize {
        if self.is(Mutation::IgnoreBatchLimit) {
            1_000_000
        } else {
            limit
        }
    }

    pub(super) fn age(&self, age: Duration) -> Duration {
        if self.is(Mutation::PurgeIgnoresAge) {
            Duration::ZERO
        } else {
            age
        }
    }

    pub(super) fn attempt(&self, attempt: AttemptUse) -> AttemptUse {
        match self.mutation {
            Some(Mutation::AttemptAlwaysCounted) => AttemptUse::Consume,
            Some(Mutation::AttemptNeverCounted) => AttemptUse::Return,
            _ => attempt,
        }
    }

    pub(super) fn abandon(&self, how: &Abandon) -> Abandon {
        let mut how = how.clone();
        how.attempt = self.attempt(how.attempt);
        match self.mutation {
            Some(Mutation::AbandonForgetsDelay) => how.after = Duration::ZERO,
            Some(Mutation::ForgetFailures) => how.failure = None,
            _ => {}
        }
        how
    }

    /// The epoch that a claim shows.
    pub(super) fn epoch(&self, epoch: Epoch) -> Epoch {
        if self.is(Mutation::EpochStands) {
            Epoch::new(1)
        } else {
            epoch
        }
    }
}

impl Mutant {
    async fn send(&self, owner: Owner, claims: &[Claim], call: Call<'_>) -> Result<Settled> {
        match call {
            Call::Ack => self.outbox.ack(owner, claims).await,
            Call::Abandon(how) => {
                self.bug
                    .seen(|seen| seen.given_back.extend(claims.iter().map(|claim| claim.id)));
                self.outbox.abandon(owner, claims, &self.bug.abandon(how)).await
            }
            Call::Fail(_) if self.bug.is(Mutation::FailForgetsLetter) => self.outbox.ack(owner, claims).await,
            Call::Fail(failure) => self.outbox.fail(owner, claims, failure).await,
            Call::Renew(lease) => {
                let settled = self.outbox.renew(owner, claims, self.bug.lease(lease)).await?;
                self.bug.seen(|seen| {
                    for claim in claims.iter().filter(|claim| !settled.lost.contains(claim)) {
                        seen.hold_outbox(owner, *claim, lease);
                    }
                });
                Ok(settled)
            }
        }
    }

    async fn settle(&self, owner: Owner, claims: &[Claim], call: Call<'_>) -> Result<Settled> {
        let held = |claim: &Claim| self.bug.seen(|seen| seen.outbox.get(&claim.id).copied());
        let settled = match self.bug.mutation {
            Some(Mutation::DropOwnerCheck) => {
                let mut lost = Vec::new();
                for claim in claims {
                    let holder = held(claim).map_or(owner, |held| held.owner);
                    lost.extend(self.send(holder, std::slice::from_ref(claim), call).await?.lost);
                }
                Settled::without(lost)
            }
            Some(Mutation::DropEpochCheck | Mutation::EpochStands) => {
                self.send_current(owner, claims, call).await?
            }
            Some(Mutation::DropEpochOnRenew) if matches!(call, Call::Renew(_)) => {
                self.send_current(owner, claims, call).await?
            }
            Some(Mutation::LateIsLost) => {
                let (late, live): (Vec<_>, Vec<_>) = claims
                    .iter()
                    .copied()
                    .partition(|claim| held(claim).is_some_and(|held| held.has_ended()));
                let mut settled = self.send(owner, &live, call).await?;
                settled.lost.extend(late);
                settled
            }
            Some(Mutation::RenewalHidesBatch) => match call {
                Call::Renew(_) => self.renew_slowly(owner, claims, call).await?,
                _ if self
                    .bug
                    .seen(|seen| seen.renewing.get(&owner).is_some_and(|calls| *calls > 0)) =>
                {
                    Settled::without(claims.to_vec())
                }
                _ => self.send(owner, claims, call).await?,
            },
            Some(Mutation::AckForgotten) if matches!(call, Call::Ack) => Settled::all(),
            Some(Mutation::RenewForgotten) if matches!(call, Call::Renew(_)) => Settled::all(),
            _ => self.send(owner, claims, call).await?,
        };
        Ok(if self.bug.is(Mutation::HideLost) {
            Settled::all()
        } else {
            settled
        })
    }

    /// A renewal that others can see to be under way.
    async fn renew_slowly(&self, owner: Owner, claims: &[Claim], call: Call<'_>) -> Result<Settled> {
        self.bug
            .seen(|seen| *seen.renewing.entry(owner).or_default() += 1);
        elapse(UNDER_WAY).await;
        let answer = self.send(owner, claims, call).await;
        self.bug
            .seen(|seen| *seen.renewing.entry(owner).or_default() -= 1);
        answer
    }

    /// With the epochs that the rows have now, whatever was named.
    async fn send_current(&self, owner: Owner, claims: &[Claim], call: Call<'_>) -> Result<Settled> {
        let current: Vec<_> = self.bug.seen(|seen| {
            let epoch = |claim: &Claim| seen.outbox.get(&claim.id).map_or(claim.epoch, |held| held.epoch);
            claims
                .iter()
                .map(|claim| Claim::new(claim.id, epoch(claim)))
                .collect()
        });
        Ok(named_again(claims, &self.send(owner, &current, call).await?))
    }

    /// Every claim that was handed out, by owner.
    fn handed_out(&self) -> Vec<(Owner, Claim)> {
        self.bug.seen(|seen| {
            seen.outbox
                .iter()
                .map(|(id, held)| (held.owner, Claim::new(*id, held.epoch)))
                .collect()
        })
    }

    /// Takes every row back from whoever holds it.
    async fn take_back(&self) -> Result<u64> {
        self.take_back_from(self.handed_out()).await
    }

    /// Takes the rows back that are over now, though not at once.
    async fn take_back_later(&self) -> Result<u64> {
        let mut over = self.handed_out();
        self.bug.seen(|seen| {
            over.retain(|(_, claim)| seen.outbox.get(&claim.id).is_some_and(|held| held.has_ended()));
        });
        elapse(UNDER_WAY).await;
        self.take_back_from(over).await
    }

    async fn take_back_from(&self, holders: Vec<(Owner, Claim)>) -> Result<u64> {
        let mut taken = 0;
        for (owner, claim) in holders {
            let settled = self.outbox.abandon(owner, &[claim], &Abandon::unused()).await?;
            taken += u64::from(settled.is_complete());
        }
        Ok(taken)
    }
}

#[async_trait]
impl OutboxStore for Mutant {
    async fn append(&self, messages: &[Message]) -> Result<Vec<Appended>> {
        let stored = self.bug.stored(messages);
        let mut answers = self.outbox.append(&stored).await?;
        if self.bug.is(Mutation::StoreDuplicates) {
            for (message, answer) in stored.iter().zip(&mut answers) {
                if *answer == Appended::Duplicate {
                    let copy = self.bug.seen(|seen| seen.copy_of(message));
                    *answer = self.outbox.append(&[copy]).await?[0];
                }
            }
        }
        Ok(answers)
    }

    async fn claim(&self, request: &ClaimOutbox) -> Result<ClaimedOutbox> {
        let mut asked = request.clone();
        asked.lease = self.bug.lease(asked.lease);
        asked.limit = self.bug.limit(asked.limit);
        // The acknowledgement goes by the same checks as any other.
        asked.ack = Vec::new();
        let acked = match self.bug.mutation {
            _ if request.ack.is_empty() => Settled::all(),
            Some(Mutation::ClaimForgetsAck) => Settled::all(),
            _ => self.settle(request.owner, &request.ack, Call::Ack).await?,
        };
        match self.bug.mutation {
            Some(Mutation::RunForHead) => asked.in_flight = InFlight::RunPerKey,
            Some(Mutation::HeadForRun) => asked.in_flight = InFlight::OnePerKey,
            Some(Mutation::ClaimIgnoresLease) => {
                self.take_back().await?;
            }
            Some(Mutation::ClaimForgetsRenewal) => {
                self.take_back_later().await?;
            }
            _ => {}
        }
        let mut rows = self.outbox.claim(&asked).await?.rows;
        self.bug.seen(|seen| {
            for row in &mut rows {
                seen.hold_outbox(request.owner, row.claim, request.lease);
                if let Some(key) = seen.keys.get(&row.claim.id) {
                    row.message.key = Some(key.clone());
                }
            }
            let key = |row: &headless_abstractions::OutboxRow| row.message.key.clone();
            match self.bug.mutation {
                Some(Mutation::DelayKeepsPlace) => {
                    reorder_keys(&mut rows, key, |row| seen.appended.get(&row.claim.id).copied());
                }
                Some(Mutation::AbandonToTail) => {
                    reorder_keys(&mut rows, key, |row| seen.given_back.contains(&row.claim.id));
                }
                Some(Mutation::RedriveKeepsPlace) => {
                    reorder_keys(&mut rows, key, |row| !seen.redriven.contains_key(&row.claim.id));
                }
                Some(Mutation::ClaimReversed) => rows.reverse(),
                _ => {}
            }
        });
        for row in &mut rows {
            row.claim.epoch = self.bug.epoch(row.claim.epoch);
            self.bug.shown(&mut row.message);
        }
        Ok(ClaimedOutbox::new(rows, acked))
    }

    async fn ack(&self, owner: Owner, claims: &[Claim]) -> Result<Settled> {
        self.settle(owner, claims, Call::Ack).await
    }

    async fn abandon(&self, owner: Owner, claims: &[Claim], how: &Abandon) -> Result<Settled> {
        self.settle(owner, claims, Call::Abandon(how)).await
    }

    async fn fail(&self, owner: Owner, claims: &[Claim], failure: &Failure) -> Result<Settled> {
        self.settle(owner, claims, Call::Fail(failure)).await
    }

    async fn renew(&self, owner: Owner, claims: &[Claim], lease: Duration) -> Result<Settled> {
        self.settle(owner, claims, Call::Renew(lease)).await
    }

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        match self.bug.mutation {
            Some(Mutation::ReapForgotten) => Ok(0),
            Some(Mutation::ReapLive) => self.take_back().await,
            _ => self.outbox.reap_expired(self.bug.batch(limit)).await,
        }
    }

    async fn release_owner(&self, owner: Owner) -> Result<u64> {
        let holders = self.handed_out();
        match self.bug.mutation {
            Some(Mutation::ReleaseForgotten) => {
                Ok(holders.iter().filter(|(holder, _)| *holder == owner).count() as u64)
            }
            Some(Mutation::ReleaseAll) => {
                for (other, _) in holders.iter().filter(|(holder, _)| *holder != owner) {
                    self.outbox.release_owner(*other).await?;
                }
                self.outbox.release_owner(owner).await
            }
            _ => self.outbox.release_owner(owner).await,
        }
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        if self.bug.is(Mutation::PurgeUnfinished) {
            let sweeper = Owner::from_bits(u128::MAX);
            let request = ClaimOutbox::new(sweeper, limit, Duration::from_secs(60));
            let rows = self.outbox.claim(&request).await?.rows;
            let claims: Vec<_> = rows.iter().map(|row| row.claim).collect();
            return Ok(claims.len() as u64 - self.outbox.ack(sweeper, &claims).await?.lost.len() as u64);
        }
        self.outbox
            .purge(self.bug.age(older_than), self.bug.batch(limit))
            .await
    }
}
