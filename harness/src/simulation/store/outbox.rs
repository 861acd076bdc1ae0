//! The outbox as a node of the simulation reaches it.

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, Appended, Claim, ClaimOutbox, ClaimedOutbox, Failure, Message, OutboxStore, Owner, Result,
    Settled,
};

use super::{SimStore, claims, found, settled};
use crate::simulation::{
    gate::Op,
    history::Fact,
    label::{Label, list},
};

#[async_trait]
impl OutboxStore for SimStore {
    async fn append(&self, messages: &[Message]) -> Result<Vec<Appended>> {
        let call = OutboxStore::append(&self.memory, messages);
        let tell = |answers: &Vec<Appended>| {
            for (message, answer) in messages.iter().zip(answers) {
                if *answer == Appended::Stored {
                    self.gate.fact(Fact::Stored(message.id));
                }
            }
            let each = messages.iter().zip(answers);
            list(each.map(|(message, answer)| format!("{} {answer:?}", Label(message.id))))
        };
        self.gate.call(Op::any("append"), call, tell).await
    }

    async fn claim(&self, request: &ClaimOutbox) -> Result<ClaimedOutbox> {
        let call = OutboxStore::claim(&self.memory, request);
        let tell = |claimed: &ClaimedOutbox| {
            for claim in found(&request.ack, &claimed.acked) {
                self.gate.fact(Fact::Left(claim.id));
            }
            for row in &claimed.rows {
                self.gate.fact(Fact::RelayGranted(row.claim.id, row.claim.epoch));
            }
            let rows: Vec<Claim> = claimed.rows.iter().map(|row| row.claim).collect();
            format!("{} ack {}", claims(&rows), settled(&request.ack, &claimed.acked))
        };
        self.gate.call(Op::any("relay claim"), call, tell).await
    }

    async fn ack(&self, owner: Owner, named: &[Claim]) -> Result<Settled> {
        let call = OutboxStore::ack(&self.memory, owner, named);
        let tell = |answer: &Settled| {
            for claim in found(named, answer) {
                self.gate.fact(Fact::Left(claim.id));
            }
            settled(named, answer)
        };
        self.gate.call(Op::any("relay ack"), call, tell).await
    }

    async fn abandon(&self, owner: Owner, named: &[Claim], how: &Abandon) -> Result<Settled> {
        let call = OutboxStore::abandon(&self.memory, owner, named, how);
        let tell = |answer: &Settled| settled(named, answer);
        self.gate.call(Op::any("relay abandon"), call, tell).await
    }

    async fn fail(&self, owner: Owner, named: &[Claim], failure: &Failure) -> Result<Settled> {
        let call = OutboxStore::fail(&self.memory, owner, named, failure);
        let tell = |answer: &Settled| {
            for claim in found(named, answer) {
                self.gate.fact(Fact::RelayDead(claim.id));
            }
            settled(named, answer)
        };
        self.gate.call(Op::any("relay fail"), call, tell).await
    }

    async fn renew(&self, owner: Owner, named: &[Claim], lease: Duration) -> Result<Settled> {
        let call = OutboxStore::renew(&self.memory, owner, named, lease);
        let tell = |answer: &Settled| {
            for claim in found(named, answer) {
                self.gate.fact(Fact::RelayRenewed(claim.id, claim.epoch));
            }
            settled(named, answer)
        };
        self.gate.call(Op::any("relay renew"), call, tell).await
    }

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        let call = OutboxStore::reap_expired(&self.memory, limit);
        self.gate
            .call(Op::any("relay reap"), call, |reaped| reaped.to_string())
            .await
    }

    async fn release_owner(&self, owner: Owner) -> Result<u64> {
        let call = OutboxStore::release_owner(&self.memory, owner);
        self.gate
            .call(Op::any("relay release"), call, |released| released.to_string())
            .await
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        let call = OutboxStore::purge(&self.memory, older_than, limit);
        self.gate
            .call(Op::any("relay purge"), call, |purged| purged.to_string())
            .await
    }
}
