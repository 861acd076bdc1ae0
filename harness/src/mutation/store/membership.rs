//! The mutations of the membership.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Beat, Buried, Cursor, ErrorKind, Incarnation, LivingNode, MembershipStore, NodeEntry, NodeFacts,
    NodeState, Owner, Page, Registration, Result,
};

use super::Mutant;
use crate::mutation::Mutation;

/// The most nodes of one list.
const MANY: usize = 1_000;

/// A membership with a bug in it, or in what a death does to the other parts.
#[derive(Debug)]
pub(super) struct MutantMembership {
    pub(super) inner: Arc<dyn MembershipStore>,
    pub(super) mutant: Arc<Mutant>,
}

impl MutantMembership {
    fn is(&self, mutation: Mutation) -> bool {
        self.mutant.bug.is(mutation)
    }

    /// The owners of the nodes in this state, as the store has them.
    async fn owners(&self, state: NodeState) -> Result<Vec<Owner>> {
        let nodes = self.inner.list(None, MANY).await?.items;
        let nodes = nodes.into_iter().filter(|node| node.state == state);
        Ok(nodes.map(|node| node.owner).collect())
    }

    async fn free(&self, owners: impl IntoIterator<Item = Owner>) -> Result<()> {
        for owner in owners {
            self.mutant.outbox.release_owner(owner).await?;
            self.mutant.inbox.release_owner(owner).await?;
        }
        Ok(())
    }

    /// The deaths that are to be told, and nothing else done about them.
    async fn told_alone(&self) -> Result<Vec<Buried>> {
        let nodes = self.inner.list(None, MANY).await?.items;
        let dead = nodes.into_iter().filter(|node| node.state == NodeState::Dead);
        // As many as each case holds.
        let deaths = dead.map(|node| Buried::new(node.incarnation, node.owner, node.node, 3));
        let deaths: Vec<Buried> = deaths.collect();
        Ok(self.mutant.bug.seen(|seen| {
            let new = deaths.into_iter().filter(|death| !seen.deaths.contains(death));
            let new: Vec<Buried> = new.collect();
            seen.deaths.extend(new.iter().cloned());
            new
        }))
    }
}

#[async_trait]
impl MembershipStore for MutantMembership {
    async fn register(&self, registration: &Registration) -> Result<Incarnation> {
        let mut registration = registration.clone();
        if self.is(Mutation::RebirthKeepsClaims) {
            // As if nobody ever died: an earlier incarnation has left by this, and nothing is freed.
            registration = registration.with_silence(Registration::SHORTEST, Registration::LONGEST)?;
        }
        let incarnation = self.inner.register(&registration).await?;
        let first = self.mutant.bug.seen(|seen| {
            let all = seen.incarnations.entry(registration.owner).or_default();
            all.push(incarnation);
            all[0]
        });
        Ok(if self.is(Mutation::IncarnationStands) {
            first
        } else {
            incarnation
        })
    }

    async fn heartbeat(&self, owner: Owner, incarnation: Incarnation, facts: &NodeFacts) -> Result<Beat> {
        if self.is(Mutation::HeartbeatForgotten) {
            return Ok(Beat::Accepted);
        }
        let none = NodeFacts::none();
        let facts = if self.is(Mutation::FactsForgotten) {
            &none
        } else {
            facts
        };
        let beat = self.inner.heartbeat(owner, incarnation, facts).await?;
        self.mutant.bug.seen(|seen| seen.beaten.insert(incarnation));
        Ok(if self.is(Mutation::BeatEveryone) {
            Beat::Accepted
        } else {
            beat
        })
    }

    async fn leave(&self, owner: Owner, incarnation: Incarnation) -> Result<bool> {
        if self.is(Mutation::LeaveForgotten) {
            return Ok(true);
        }
        if self.is(Mutation::LateLeaveFrees) {
            self.free([owner]).await?;
        }
        if self.is(Mutation::LeaveKeepsClaims) {
            // Out by another registration, which keeps its claims.
            let nodes = self.inner.list(None, MANY).await?.items;
            let Some(node) = nodes.into_iter().find(|node| node.incarnation == incarnation) else {
                return Ok(false);
            };
            let registration = Registration::new(owner, &node.service, &node.node)?;
            self.inner.register(&registration).await?;
            return Ok(true);
        }
        self.inner.leave(owner, incarnation).await
    }

    async fn bury(&self, limit: usize) -> Result<Vec<Buried>> {
        let limit = if self.is(Mutation::NodesUnchecked) {
            limit.clamp(1, MANY)
        } else {
            limit
        };
        if self.is(Mutation::DeathKeepsClaims) {
            return self.told_alone().await;
        }
        if self.is(Mutation::DeathReturnsRounds) {
            self.free(self.owners(NodeState::Dead).await?).await?;
        }
        if self.is(Mutation::DeathFreesEveryone) {
            self.free(self.owners(NodeState::Alive).await?).await?;
        }
        if self.is(Mutation::DeathFreesStrangers) {
            let strangers: Vec<Owner> = self.mutant.bug.seen(|seen| {
                let held = seen.outbox.values().chain(seen.inbox.values());
                let owners = held.map(|held| held.owner);
                owners
                    .filter(|owner| !seen.incarnations.contains_key(owner))
                    .collect()
            });
            self.free(strangers).await?;
        }
        if self.is(Mutation::SuspicionFrees) {
            self.free(self.owners(NodeState::Suspected).await?).await?;
        }
        if self.is(Mutation::BuryReborn) {
            let reborn: Vec<Owner> = self.mutant.bug.seen(|seen| {
                let owners = seen.incarnations.iter().filter(|(_, all)| all.len() > 1);
                owners.map(|(owner, _)| *owner).collect()
            });
            self.free(reborn).await?;
        }
        let buried = self.inner.bury(limit).await?;
        if !self.is(Mutation::DeathToldTwice) {
            return Ok(buried);
        }
        Ok(self.mutant.bug.seen(|seen| {
            seen.deaths.extend(buried);
            seen.deaths.clone()
        }))
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        let limit = if self.is(Mutation::NodesUnchecked) {
            limit.clamp(1, MANY)
        } else {
            limit
        };
        if self.is(Mutation::SweepForgotten) {
            return Ok(0);
        }
        if self.is(Mutation::SweepFreesEveryone) {
            self.free(self.owners(NodeState::Alive).await?).await?;
        }
        if self.is(Mutation::SweepFreesReborn) {
            let dead = self.owners(NodeState::Dead).await?;
            self.free(dead).await?;
        }
        self.inner.sweep(limit).await
    }

    async fn forget(&self, older_than: Duration, limit: usize) -> Result<u64> {
        if self.is(Mutation::ForgetNobody) {
            return Ok(0);
        }
        if self.is(Mutation::ForgetLive) {
            for node in self.inner.list(None, MANY).await?.items {
                if !node.state.is_final() {
                    self.inner.leave(node.owner, node.incarnation).await?;
                }
            }
        }
        self.inner.forget(older_than, limit).await
    }

    async fn list(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<NodeEntry>> {
        let mut page = match self.inner.list(after, limit).await {
            Err(error) if error.kind() == ErrorKind::Invalid && self.is(Mutation::NodesUnchecked) => {
                self.inner.list(None, limit.clamp(1, MANY)).await?
            }
            answer => answer?,
        };
        if self.is(Mutation::RegisterUnseen) {
            let bug = &self.mutant.bug;
            page.items
                .retain(|node| bug.seen(|seen| seen.beaten.contains(&node.incarnation)));
        }
        if self.is(Mutation::SuspicionHidden) {
            for node in &mut page.items {
                if node.state == NodeState::Suspected {
                    node.state = NodeState::Alive;
                }
            }
        }
        if self.is(Mutation::OneNodePage) {
            page.next = None;
        }
        Ok(page)
    }

    async fn living(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<LivingNode>> {
        let mut page = match self.inner.living(after, limit).await {
            Err(error) if error.kind() == ErrorKind::Invalid && self.is(Mutation::NodesUnchecked) => {
                self.inner.living(None, limit.clamp(1, MANY)).await?
            }
            answer => answer?,
        };
        if self.is(Mutation::LivingWithEnded) && after.is_none() {
            let nodes = self.inner.list(None, MANY).await?.items;
            let ended = nodes.into_iter().filter(|node| node.state == NodeState::Left);
            let ended =
                ended.map(|node| LivingNode::new(node.incarnation, node.owner, node.node, node.state));
            page.items.extend(ended);
        }
        if self.is(Mutation::LivingHideSuspected) {
            page.items.retain(|node| node.state != NodeState::Suspected);
        }
        if self.is(Mutation::OneNodePage) {
            page.next = None;
        }
        Ok(page)
    }
}
