//! What becomes of nodes, as events: each is told once as a rule, by the node that notices.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use headless_abstractions::{Incarnation, LivingNode, NodeState, Owner};

use crate::metric;

/// What becomes of a node. The words are those of the events and of the metric's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It has registered; it says so itself.
    Joined,
    /// It has been silent for long.
    Suspected,
    /// It was suspected, and is heard again.
    Recovered,
    /// It is buried; who buried it says so.
    Died,
    /// It said good-bye; it says so itself.
    Left,
}

impl Change {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Suspected => "suspected",
            Self::Recovered => "recovered",
            Self::Died => "died",
            Self::Left => "left",
        }
    }

    /// Logs and counts that this became of a node.
    pub(super) fn tell(self, node: &str, incarnation: Incarnation, freed: u64) {
        let event = self.as_str();
        match self {
            Self::Joined | Self::Recovered | Self::Left => {
                tracing::info!(event, node, %incarnation, "the state of a node has changed");
            }
            Self::Suspected | Self::Died => {
                tracing::warn!(event, node, %incarnation, freed, "the state of a node has changed");
            }
        }
        metrics::counter!(metric::NODE_CHANGED, "reason" => event).increment(1);
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The states of the others when they were last looked at; `None` before the first look.
#[derive(Debug, Default)]
pub(super) struct Watched(Mutex<Option<BTreeMap<Incarnation, NodeState>>>);

impl Watched {
    /// Notes these states, and answers who has been suspected or has recovered since the last look.
    ///
    /// Of all that look, the first of the living tells, so that each change is told once as a rule: `me` is told nothing
    /// while somebody who registered before lives.
    pub(super) fn look<'a>(&self, me: Owner, nodes: &'a [LivingNode]) -> Vec<(Change, &'a LivingNode)> {
        let now = nodes.iter().map(|node| (node.incarnation, node.state)).collect();
        // Replaced whole: valid after any panic.
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        let first = nodes.iter().find(|node| node.state == NodeState::Alive);
        let Some(before) = before.filter(|_| first.is_some_and(|node| node.owner == me)) else {
            return Vec::new();
        };
        let change = |node: &LivingNode| match (before.get(&node.incarnation)?, node.state) {
            (NodeState::Alive, NodeState::Suspected) => Some(Change::Suspected),
            (NodeState::Suspected, NodeState::Alive) => Some(Change::Recovered),
            _ => None,
        };
        nodes
            .iter()
            .filter_map(|node| Some((change(node)?, node)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of these states that have not ended.
    fn nodes(states: &[NodeState]) -> Vec<LivingNode> {
        let node = |(number, state): (u64, &NodeState)| {
            LivingNode::new(Incarnation::new(number), owner(number), "a node", *state)
        };
        let living = (1..).zip(states).filter(|(_, state)| !state.is_final());
        living.map(node).collect()
    }

    fn owner(number: u64) -> Owner {
        Owner::from_bits(number.into())
    }

    #[test]
    fn should_tell_of_who_is_suspected_and_recovers_when_it_is_the_first_of_the_living() {
        use NodeState::{Alive, Dead, Left, Suspected};
        let (first, second) = (Watched::default(), Watched::default());
        let mut told = Vec::new();
        for states in [
            [Alive, Alive, Alive],
            [Alive, Alive, Suspected],
            [Alive, Alive, Alive],
            // Now the second is the first of the living.
            [Suspected, Alive, Alive],
            [Dead, Left, Alive],
        ] {
            let nodes = nodes(&states);
            for (who, watched) in [(1, &first), (2, &second)] {
                let changes = watched.look(owner(who), &nodes);
                told.extend(
                    changes
                        .iter()
                        .map(|(change, node)| (who, change.to_string(), node.incarnation.get())),
                );
            }
        }
        let expected = [(1, "suspected", 3), (1, "recovered", 3), (2, "suspected", 1)];
        assert_eq!(
            told,
            expected.map(|(who, change, node)| (who, change.to_owned(), node))
        );
    }
}
