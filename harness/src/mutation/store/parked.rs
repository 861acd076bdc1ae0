//! The mutations of the park.

use std::{num::NonZeroUsize, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, Claim, ClaimParked, GroupName, Hold, Owner, Park, ParkLimits, Parked, ParkedRow, ParkedStore,
    Result, Settled,
};

use super::{Mutant, inbox::RowCall, seen::reorder_keys};
use crate::mutation::Mutation;

impl Mutant {
    fn parked_as(&self, park: &Park) -> Park {
        let mut park = park.clone();
        park.arrival = self.bug.met(&park.arrival);
        park.hold = self.bug.checked(&park.arrival, park.hold);
        park.attempt = self.bug.attempt(park.attempt);
        match self.bug.mutation {
            Some(Mutation::ParkForgetsKey) => park.arrival.key = None,
            Some(Mutation::ParkFreesOperation) => park.arrival.idempotency_key = None,
            Some(Mutation::ParkForgetsDelay) => park.after = Duration::ZERO,
            Some(Mutation::ForgetFailures) => park.failures.clear(),
            Some(Mutation::KeyFreeParks) => park.only_behind = false,
            _ => {}
        }
        park
    }

    /// Gives back what others have claimed from the park, whether or not their leases last.
    async fn take_back_parked(&self) -> Result<u64> {
        let mut taken = 0;
        for (group, owner, claim) in self.running() {
            if self
                .bug
                .seen(|seen| seen.from_park.contains(&(group.clone(), claim.id)))
            {
                let how = Abandon::unused();
                taken += u64::from(
                    self.parked
                        .abandon(&group, owner, &[claim], &how)
                        .await?
                        .is_complete(),
                );
            }
        }
        Ok(taken)
    }

    /// Keeps the first row of each key and gives the others back.
    async fn heads_alone(&self, request: &ClaimParked, rows: Vec<ParkedRow>) -> Result<Vec<ParkedRow>> {
        let mut heads: Vec<ParkedRow> = Vec::new();
        for row in rows {
            let follows = row.arrival.key.is_some()
                && heads.iter().any(|head| {
                    head.arrival.key == row.arrival.key && head.arrival.topic == row.arrival.topic
                });
            if follows {
                let how = Abandon::unused();
                let _back = self
                    .parked
                    .abandon(&request.group, request.owner, &[row.claim], &how)
                    .await?;
            } else {
                heads.push(row);
            }
        }
        Ok(heads)
    }
}

#[async_trait]
impl ParkedStore for Mutant {
    async fn park(&self, parks: &[Park], limits: ParkLimits) -> Result<Vec<Parked>> {
        let limits = if self.bug.is(Mutation::ParkUnbounded) {
            ParkLimits::new(NonZeroUsize::MAX, NonZeroUsize::MAX)
        } else {
            limits
        };
        let parks: Vec<_> = parks.iter().map(|park| self.parked_as(park)).collect();
        let mut answers = self.parked.park(&parks, limits).await?;
        self.bug.seen(|seen| {
            for (park, answer) in parks.iter().zip(&answers) {
                if *answer != Parked::Now {
                    continue;
                }
                if park.hold != Hold::Absent {
                    seen.given_back.insert(park.arrival.id);
                }
                if park.only_behind && self.bug.is(Mutation::BehindReserves) {
                    seen.take(&park.arrival);
                }
            }
        });
        if self.bug.is(Mutation::HideLost) {
            for answer in &mut answers {
                if *answer == Parked::LeaseLost {
                    *answer = Parked::Now;
                }
            }
        }
        Ok(answers)
    }

    async fn claim(&self, request: &ClaimParked) -> Result<Vec<ParkedRow>> {
        let mut asked = request.clone();
        asked.lease = self.bug.lease(asked.lease);
        asked.limit = self.bug.limit(asked.limit);
        match self.bug.mutation {
            Some(Mutation::ExceptIgnored) => asked.except_topics.clear(),
            Some(Mutation::ClaimIgnoresLease) => {
                self.take_back_parked().await?;
            }
            _ => {}
        }
        let mut rows = self.parked.claim(&asked).await?;
        if self.bug.is(Mutation::RunCutShort) {
            rows = self.heads_alone(request, rows).await?;
        }
        self.bug.seen(|seen| {
            for row in &rows {
                seen.hold_inbox(request.owner, &request.group, row.claim, request.lease);
                seen.from_park.insert((request.group.clone(), row.claim.id));
            }
            let key = |row: &ParkedRow| row.arrival.key.clone();
            match self.bug.mutation {
                Some(Mutation::AbandonToTail) => {
                    reorder_keys(&mut rows, key, |row| seen.given_back.contains(&row.claim.id));
                }
                Some(Mutation::RedriveKeepsPlace) => {
                    reorder_keys(&mut rows, key, |row| !seen.redriven.contains_key(&row.claim.id));
                }
                Some(Mutation::RedriveKeepsRounds) => {
                    for row in &mut rows {
                        row.rounds += seen.redriven.get(&row.claim.id).copied().unwrap_or(0);
                    }
                }
                Some(Mutation::ClaimReversed) => rows.reverse(),
                _ => {}
            }
        });
        for row in &mut rows {
            row.claim.epoch = self.bug.epoch(row.claim.epoch);
            self.bug.shown(&mut row.message);
            if self.bug.is(Mutation::ForgetRounds) {
                row.rounds = 1;
            }
        }
        Ok(rows)
    }

    async fn abandon(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        how: &Abandon,
    ) -> Result<Settled> {
        self.settle_rows(group, owner, claims, RowCall::Abandon(how))
            .await
    }

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        match self.bug.mutation {
            Some(Mutation::ReapForgotten) => Ok(0),
            Some(Mutation::ReapLive) => self.take_back_parked().await,
            _ => self.parked.reap_expired(self.bug.batch(limit)).await,
        }
    }
}
