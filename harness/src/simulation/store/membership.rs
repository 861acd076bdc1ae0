//! The nodes of a store as one of them reaches it.

use std::{sync::atomic::Ordering, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Beat, Buried, Cursor, InboxStore, Incarnation, LivingNode, MembershipStore, NodeEntry, NodeFacts,
    NodeState, OutboxStore, Owner, Page, Registration, Result,
};

use super::SimStore;
use crate::simulation::{gate::Op, history::Fact, label::list};

#[async_trait]
impl MembershipStore for SimStore {
    async fn register(&self, registration: &Registration) -> Result<Incarnation> {
        let call = self.memory.register(registration);
        let tell = |incarnation: &Incarnation| {
            self.gate.fact(Fact::Heard(self.gate.name()));
            if self.was_registered.swap(true, Ordering::Relaxed) {
                self.gate.count(|stats| stats.registrations_anew += 1);
            }
            incarnation.to_string()
        };
        self.gate.call(Op::any("register"), call, tell).await
    }

    async fn heartbeat(&self, owner: Owner, incarnation: Incarnation, facts: &NodeFacts) -> Result<Beat> {
        let call = self.memory.heartbeat(owner, incarnation, facts);
        let tell = |beat: &Beat| {
            if *beat == Beat::Accepted {
                self.gate.fact(Fact::Heard(self.gate.name()));
            }
            format!("{incarnation} {beat:?}")
        };
        self.gate.call(Op::any("heartbeat"), call, tell).await
    }

    async fn leave(&self, owner: Owner, incarnation: Incarnation) -> Result<bool> {
        let call = MembershipStore::leave(&self.memory, owner, incarnation);
        let tell = |left: &bool| format!("{incarnation} {left}");
        self.gate.call(Op::any("leave"), call, tell).await
    }

    async fn bury(&self, limit: usize) -> Result<Vec<Buried>> {
        let call = async {
            if self.suspected_are_buried {
                self.free_suspected().await?;
            }
            MembershipStore::bury(&self.memory, limit).await
        };
        let tell = |buried: &Vec<Buried>| {
            self.gate.count(|stats| stats.burials += buried.len() as u64);
            list(
                buried
                    .iter()
                    .map(|death| format!("{}@{} {}", death.node, death.incarnation, death.freed)),
            )
        };
        self.gate.call(Op::any("bury the dead"), call, tell).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        let call = MembershipStore::sweep(&self.memory, limit);
        let tell = |freed: &u64| freed.to_string();
        self.gate.call(Op::any("sweep"), call, tell).await
    }

    async fn forget(&self, older_than: Duration, limit: usize) -> Result<u64> {
        let call = self.memory.forget(older_than, limit);
        let tell = |forgotten: &u64| forgotten.to_string();
        self.gate.call(Op::any("forget"), call, tell).await
    }

    async fn list(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<NodeEntry>> {
        let call = MembershipStore::list(&self.memory, after, limit);
        let tell =
            |page: &Page<NodeEntry>| list(page.items.iter().map(|node| format!("{node} {}", node.state)));
        self.gate.call(Op::before("list nodes"), call, tell).await
    }

    async fn living(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<LivingNode>> {
        let call = MembershipStore::living(&self.memory, after, limit);
        let tell = |page: &Page<LivingNode>| {
            let nodes = page.items.iter();
            list(nodes.map(|node| format!("{}@{} {}", node.node, node.incarnation, node.state)))
        };
        self.gate.call(Op::before("living nodes"), call, tell).await
    }
}

impl SimStore {
    /// The bug that can be planted: what the suspected hold is taken from them.
    async fn free_suspected(&self) -> Result<()> {
        let nodes = MembershipStore::list(&self.memory, None, 1_000).await?.items;
        for node in nodes.iter().filter(|node| node.state == NodeState::Suspected) {
            OutboxStore::release_owner(&self.memory, node.owner).await?;
            InboxStore::release_owner(&self.memory, node.owner).await?;
        }
        Ok(())
    }
}
