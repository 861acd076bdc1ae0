//! The nodes, and the end of the claims of those that die.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    AttemptUse, Beat, Buried, Cursor, Incarnation, LivingNode, MembershipStore, NodeEntry, NodeFacts,
    NodeState, Owner, Page, Registration, Result,
};

use super::{
    State,
    page::{Cursors, check_limit},
};
use crate::Memory;

/// Every registration that is not forgotten.
#[derive(Debug, Default)]
pub(super) struct NodeTable {
    nodes: BTreeMap<u64, Node>,
    last: u64,
}

#[derive(Debug)]
struct Node {
    registration: Registration,
    facts: NodeFacts,
    registered: Duration,
    /// When it was last heard of.
    heard: Duration,
    /// How it ended, and when.
    ended: Option<(NodeState, Duration)>,
    /// When its claims were last looked at, from its end until nothing more can come to it.
    swept: Option<Duration>,
}

impl Node {
    fn silent(&self, now: Duration) -> Duration {
        now.saturating_sub(self.heard)
    }

    /// Silent for too long, whether or not it is buried.
    fn is_overdue(&self, now: Duration) -> bool {
        self.ended.is_none() && self.silent(now) >= self.registration.dead_after
    }

    fn is_live(&self, now: Duration) -> bool {
        self.ended.is_none() && !self.is_overdue(now)
    }

    fn state(&self, now: Duration) -> NodeState {
        match self.ended {
            Some((state, _)) => state,
            None if self.is_overdue(now) => NodeState::Dead,
            None if self.silent(now) >= self.registration.suspect_after => NodeState::Suspected,
            None => NodeState::Alive,
        }
    }

    fn living(&self, number: u64, now: Duration) -> LivingNode {
        let Registration { owner, node, .. } = &self.registration;
        LivingNode::new(Incarnation::new(number), *owner, node.clone(), self.state(now))
    }

    fn entry(&self, number: u64, now: Duration) -> NodeEntry {
        NodeEntry::new(Incarnation::new(number), &self.registration)
            .with_state(
                self.state(now),
                now.saturating_sub(self.registered),
                self.silent(now),
            )
            .with_facts(self.facts.clone())
    }
}

impl NodeTable {
    /// At most this many of those that have ended and whose claims are still looked at, first who was longest ago.
    fn to_sweep(&self, most: usize) -> Vec<u64> {
        let looked_at = self
            .nodes
            .iter()
            .filter_map(|(number, node)| Some((node.swept?, *number)));
        let mut numbers: Vec<(Duration, u64)> = looked_at.collect();
        numbers.sort_unstable();
        numbers.into_iter().take(most).map(|(_, number)| number).collect()
    }

    /// Whether this owner has an incarnation that has not ended.
    fn is_open(&self, owner: Owner) -> bool {
        let mut nodes = self.nodes.values();
        nodes.any(|node| node.registration.owner == owner && node.ended.is_none())
    }

    /// The live node of this incarnation and owner.
    fn live(&mut self, owner: Owner, incarnation: Incarnation, now: Duration) -> Option<&mut Node> {
        let node = self.nodes.get_mut(&incarnation.get())?;
        (node.registration.owner == owner && node.is_live(now)).then_some(node)
    }
}

impl State {
    /// Ends an incarnation in this state, and frees the claims of its owner.
    fn end_node(&mut self, number: u64, state: NodeState, now: Duration) -> Option<Buried> {
        let node = self.nodes.nodes.get_mut(&number)?;
        node.ended = Some((state, now));
        node.swept = Some(now);
        let owner = node.registration.owner;
        let label = node.registration.node.clone();
        let freed = self.free_owner(owner, now);
        Some(Buried::new(Incarnation::new(number), owner, label, freed))
    }

    /// Looks again at the claims of one that has ended; says how many it has freed.
    fn sweep_node(&mut self, number: u64, now: Duration) -> u64 {
        let Some(node) = self.nodes.nodes.get(&number) else {
            return 0;
        };
        let (owner, dead_after) = (node.registration.owner, node.registration.dead_after);
        let ended = node.ended.map_or(now, |(_, at)| at);
        let is_open = self.nodes.is_open(owner);
        let freed = if is_open { 0 } else { self.free_owner(owner, now) };
        let is_over = now.saturating_sub(ended) >= dead_after;
        let is_done = is_open || (is_over && !self.outbox.is_held_by(owner) && !self.inbox.is_held_by(owner));
        if let Some(node) = self.nodes.nodes.get_mut(&number) {
            node.swept = (!is_done).then_some(now);
        }
        freed
    }

    fn free_owner(&mut self, owner: Owner, now: Duration) -> u64 {
        let of_outbox = self.outbox.release_owner(owner);
        let (inbox, view) = self.inbox(now);
        // The round counts: else a message that kills its process would never come to its last one.
        of_outbox + inbox.release_owner(owner, AttemptUse::Consume, &view)
    }
}

#[async_trait]
impl MembershipStore for Memory {
    async fn register(&self, registration: &Registration) -> Result<Incarnation> {
        self.link.check("register").await?;
        Ok(self.server.database.write(|state, now| {
            let table = &state.nodes.nodes;
            let earlier: Vec<(u64, bool)> = table
                .iter()
                .filter(|(_, node)| node.registration.owner == registration.owner && node.ended.is_none())
                .map(|(number, node)| (*number, node.is_overdue(now)))
                .collect();
            let lives = earlier.iter().any(|(_, overdue)| !overdue);
            for (number, overdue) in earlier {
                if let Some(node) = state.nodes.nodes.get_mut(&number) {
                    let how = if overdue { NodeState::Dead } else { NodeState::Left };
                    node.ended = Some((how, now));
                }
            }
            if !lives {
                state.free_owner(registration.owner, now);
            }
            state.nodes.last += 1;
            let number = state.nodes.last;
            let node = Node {
                registration: registration.clone(),
                facts: registration.facts.clone(),
                registered: now,
                heard: now,
                ended: None,
                swept: None,
            };
            state.nodes.nodes.insert(number, node);
            Incarnation::new(number)
        }))
    }

    async fn heartbeat(&self, owner: Owner, incarnation: Incarnation, facts: &NodeFacts) -> Result<Beat> {
        self.link.check("heartbeat").await?;
        Ok(self.server.database.write(|state, now| {
            let Some(node) = state.nodes.live(owner, incarnation, now) else {
                return Beat::Ended;
            };
            node.heard = now;
            node.facts = facts.clone();
            Beat::Accepted
        }))
    }

    async fn leave(&self, owner: Owner, incarnation: Incarnation) -> Result<bool> {
        self.link.check("leave").await?;
        Ok(self.server.database.write(|state, now| {
            if state.nodes.live(owner, incarnation, now).is_none() {
                return false;
            }
            state.end_node(incarnation.get(), NodeState::Left, now).is_some()
        }))
    }

    async fn bury(&self, limit: usize) -> Result<Vec<Buried>> {
        self.link.check("bury").await?;
        check_limit(limit).map_err(|error| error.with_operation("bury"))?;
        Ok(self.server.database.write(|state, now| {
            let nodes = state.nodes.nodes.iter();
            let overdue: Vec<u64> = nodes
                .filter(|(_, node)| node.is_overdue(now))
                .map(|(number, _)| *number)
                .take(limit)
                .collect();
            overdue
                .into_iter()
                .filter_map(|number| state.end_node(number, NodeState::Dead, now))
                .collect()
        }))
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.link.check("sweep").await?;
        check_limit(limit).map_err(|error| error.with_operation("sweep"))?;
        Ok(self.server.database.write(|state, now| {
            let nodes = state.nodes.to_sweep(limit).into_iter();
            nodes.map(|number| state.sweep_node(number, now)).sum()
        }))
    }

    async fn forget(&self, older_than: Duration, limit: usize) -> Result<u64> {
        self.link.check("forget").await?;
        Ok(self.server.database.write(|state, now| {
            let is_old = |node: &Node| {
                let ended = node.ended.map(|(_, at)| now.saturating_sub(at));
                ended.is_some_and(|ago| ago >= older_than)
            };
            let nodes = state.nodes.nodes.iter();
            let old: Vec<u64> = nodes
                .filter(|(_, node)| is_old(node))
                .map(|(number, _)| *number)
                .take(limit)
                .collect();
            for number in &old {
                state.nodes.nodes.remove(number);
            }
            old.len() as u64
        }))
    }

    async fn list(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<NodeEntry>> {
        self.link.check("list").await?;
        let (cursors, after) = self.nodes_after("nodes", after)?;
        self.server.database.read(|state, now| {
            let nodes = state.nodes.nodes.range(after.saturating_add(1)..);
            cursors.page(
                limit,
                nodes.map(|(number, node)| (number.to_string(), node.entry(*number, now))),
            )
        })
    }

    async fn living(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<LivingNode>> {
        self.link.check("living").await?;
        let (cursors, after) = self.nodes_after("living nodes", after)?;
        self.server.database.read(|state, now| {
            let nodes = state.nodes.nodes.range(after.saturating_add(1)..);
            let living = nodes.filter(|(_, node)| node.ended.is_none());
            cursors.page(
                limit,
                living.map(|(number, node)| (number.to_string(), node.living(*number, now))),
            )
        })
    }
}

impl Memory {
    /// The cursors of a list of nodes, and the incarnation after which it goes on.
    fn nodes_after(&self, list: &'static str, after: Option<&Cursor>) -> Result<(Cursors, u64)> {
        let cursors = Cursors::new(list, self.server.id);
        let after = match cursors.read(after)? {
            Some(place) => place.parse().map_err(|_| cursors.foreign())?,
            None => 0,
        };
        Ok((cursors, after))
    }
}
