//! The inbox as a node of the simulation reaches it.

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{
    Admission, Arrival, AttemptUse, Claim, GroupName, Hold, InboxState, InboxStore, Marked, Owner, Result,
    Settled,
};

use super::{SimStore, found, marked, settled};
use crate::simulation::{
    gate::{Gate, Op},
    history::Fact,
    label::{Label, list},
};

#[async_trait]
impl InboxStore for SimStore {
    async fn admit(&self, owner: Owner, lease: Duration, arrivals: &[Arrival]) -> Result<Vec<Admission>> {
        let call = self.memory.admit(owner, lease, arrivals);
        let tell = |answers: &Vec<Admission>| {
            for (arrival, answer) in arrivals.iter().zip(answers) {
                if let Admission::Run { epoch, .. } = answer {
                    self.gate
                        .fact(Fact::Granted(arrival.group.clone(), arrival.id, *epoch));
                    self.gate
                        .fact(Fact::HeldBy(arrival.group.clone(), arrival.id, self.gate.name()));
                }
            }
            let each = arrivals.iter().zip(answers);
            list(each.map(|(arrival, answer)| format!("{} {} {answer:?}", arrival.group, Label(arrival.id))))
        };
        self.gate.call(Op::any("admit"), call, tell).await
    }

    async fn mark(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        let call = self.memory.mark(marks);
        let tell = |answers: &Vec<Marked>| ended(&self.gate, marks, answers, InboxState::Processed);
        self.gate.call(Op::any("mark"), call, tell).await
    }

    async fn discard(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        let call = InboxStore::discard(&self.memory, marks);
        let tell = |answers: &Vec<Marked>| ended(&self.gate, marks, answers, InboxState::Discarded);
        self.gate.call(Op::any("discard"), call, tell).await
    }

    async fn renew(
        &self,
        group: &GroupName,
        owner: Owner,
        named: &[Claim],
        lease: Duration,
    ) -> Result<Settled> {
        let call = InboxStore::renew(&self.memory, group, owner, named, lease);
        let tell = |answer: &Settled| {
            for claim in found(named, answer) {
                self.gate
                    .fact(Fact::Renewed(group.clone(), claim.id, claim.epoch));
            }
            format!("{group} {}", settled(named, answer))
        };
        self.gate.call(Op::any("renew"), call, tell).await
    }

    async fn release(
        &self,
        group: &GroupName,
        owner: Owner,
        named: &[Claim],
        attempt: AttemptUse,
    ) -> Result<Settled> {
        let call = self.memory.release(group, owner, named, attempt);
        let tell = |answer: &Settled| format!("{group} {} {attempt:?}", settled(named, answer));
        self.gate.call(Op::any("release"), call, tell).await
    }

    async fn release_owner(&self, owner: Owner) -> Result<u64> {
        let call = InboxStore::release_owner(&self.memory, owner);
        self.gate
            .call(Op::any("release owner"), call, |released| released.to_string())
            .await
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        let call = InboxStore::purge(&self.memory, older_than, limit);
        self.gate
            .call(Op::any("purge"), call, |purged| purged.to_string())
            .await
    }
}

/// Records what was ended, and says it.
pub(super) fn ended(gate: &Gate, marks: &[(Arrival, Hold)], answers: &[Marked], state: InboxState) -> String {
    let each = || marks.iter().zip(answers);
    for ((arrival, hold), answer) in each() {
        if *answer == Marked::Now {
            gate.fact(reached(arrival, *hold, state));
        }
    }
    list(each().map(|((arrival, hold), answer)| {
        format!(
            "{} {} {} {}",
            arrival.group,
            Label(arrival.id),
            held(*hold),
            marked(answer)
        )
    }))
}

/// The fact that a message reached a state.
pub(super) fn reached(arrival: &Arrival, hold: Hold, state: InboxState) -> Fact {
    let epoch = match hold {
        Hold::Absent => None,
        Hold::Running { epoch, .. } => Some(epoch),
    };
    Fact::Reached(arrival.group.clone(), arrival.id, state, epoch)
}

/// `@2` for a hold with epoch 2, `fresh` for none.
pub(super) fn held(hold: Hold) -> String {
    match hold {
        Hold::Absent => "fresh".to_owned(),
        Hold::Running { epoch, .. } => format!("@{epoch}"),
    }
}
