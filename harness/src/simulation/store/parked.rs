//! Parked messages and dead letters as a node of the simulation reaches them.

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, Bury, Claim, ClaimParked, DeadId, DeadLetterStore, Edit, Edited, GroupName, InboxState, Marked,
    Owner, Park, ParkLimits, Parked, ParkedRow, ParkedStore, Redrive, Redriven, Result, Settled,
};

use super::{
    SimStore, claims,
    inbox::{ended, held, reached},
    settled,
};
use crate::simulation::{
    gate::Op,
    history::Fact,
    label::{Label, list},
};

#[async_trait]
impl ParkedStore for SimStore {
    async fn park(&self, parks: &[Park], limits: ParkLimits) -> Result<Vec<Parked>> {
        let call = self.memory.park(parks, limits);
        let tell = |answers: &Vec<Parked>| {
            for (park, answer) in parks.iter().zip(answers) {
                if *answer == Parked::Now {
                    self.gate
                        .fact(reached(&park.arrival, park.hold, InboxState::Parked));
                }
            }
            list(parks.iter().zip(answers).map(|(park, answer)| {
                let how = if park.only_behind { "behind" } else { "failed" };
                let (group, id) = (&park.arrival.group, Label(park.message.id));
                format!(
                    "{group} {id} {} {how} for {:?} {answer:?}",
                    held(park.hold),
                    park.after
                )
            }))
        };
        self.gate.call(Op::any("park"), call, tell).await
    }

    async fn claim(&self, request: &ClaimParked) -> Result<Vec<ParkedRow>> {
        let call = ParkedStore::claim(&self.memory, request);
        let tell = |rows: &Vec<ParkedRow>| {
            for row in rows {
                let (id, epoch) = (row.claim.id, row.claim.epoch);
                self.gate.fact(Fact::Granted(request.group.clone(), id, epoch));
                self.gate
                    .fact(Fact::HeldBy(request.group.clone(), id, self.gate.name()));
            }
            let named: Vec<Claim> = rows.iter().map(|row| row.claim).collect();
            format!("{} {}", request.group, claims(&named))
        };
        self.gate.call(Op::any("claim"), call, tell).await
    }

    async fn abandon(
        &self,
        group: &GroupName,
        owner: Owner,
        named: &[Claim],
        how: &Abandon,
    ) -> Result<Settled> {
        let call = ParkedStore::abandon(&self.memory, group, owner, named, how);
        let tell = |answer: &Settled| format!("{group} {}", settled(named, answer));
        self.gate.call(Op::any("abandon"), call, tell).await
    }

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        let call = ParkedStore::reap_expired(&self.memory, limit);
        self.gate
            .call(Op::any("reap"), call, |reaped| reaped.to_string())
            .await
    }
}

#[async_trait]
impl DeadLetterStore for SimStore {
    async fn bury(&self, burials: &[Bury]) -> Result<Vec<Marked>> {
        let call = self.memory.bury(burials);
        let marks: Vec<_> = burials
            .iter()
            .map(|burial| (burial.arrival.clone(), burial.hold))
            .collect();
        let tell = |answers: &Vec<Marked>| ended(&self.gate, &marks, answers, InboxState::Dead);
        self.gate.call(Op::any("bury"), call, tell).await
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        let call = self.memory.redrive(request);
        self.gate
            .call(Op::any("redrive"), call, |answers| format!("{answers:?}"))
            .await
    }

    async fn edit(&self, request: &Edit) -> Result<Edited> {
        let call = DeadLetterStore::edit(&self.memory, request);
        self.gate
            .call(Op::any("edit dead"), call, |answer| format!("{answer:?}"))
            .await
    }

    async fn discard(&self, ids: &[DeadId], by: &str) -> Result<u64> {
        let call = DeadLetterStore::discard(&self.memory, ids, by);
        self.gate
            .call(Op::any("discard dead"), call, |count| count.to_string())
            .await
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        let call = DeadLetterStore::purge(&self.memory, older_than, limit);
        self.gate
            .call(Op::any("purge dead"), call, |purged| purged.to_string())
            .await
    }
}
