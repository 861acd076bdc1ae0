//! Who is alive, and what becomes of the claims of those who are not.

use std::{fmt, fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{Cursor, Error, Owner, Page, Result};

/// Which registration of a node: the store issues it, and a later one is greater. With the node's label it is for
/// people, as in `orders-7f@12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(u64);

impl Incarnation {
    /// The incarnation of this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a node says of itself with each heartbeat: a JSON object, which the store keeps as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeFacts(Arc<str>);

impl NodeFacts {
    /// The longest text in bytes.
    pub const MOST: usize = 64 * 1024;

    /// Nothing: an empty object.
    #[must_use]
    pub fn none() -> Self {
        Self("{}".into())
    }

    /// These facts. Whether they are JSON is not looked at.
    ///
    /// # Errors
    /// `TooLarge` for more than [`MOST`](Self::MOST) bytes, `Invalid` for a NUL, which not every store can hold.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self> {
        let text = text.into();
        if text.len() > Self::MOST {
            return Err(Error::too_large("the facts of a node", text.len(), Self::MOST));
        }
        if text.contains('\0') {
            return Err(Error::invalid("the facts of a node hold a NUL"));
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Debug for NodeFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A node as it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registration {
    /// Who claims in its name.
    pub owner: Owner,
    /// The service that it is one of, for people.
    pub service: Arc<str>,
    /// What people call it. Never an identity.
    pub node: Arc<str>,
    /// It is suspected when it has been silent for this long.
    pub suspect_after: Duration,
    /// It is dead when it has been silent for this long.
    pub dead_after: Duration,
    /// What it says of itself at first.
    pub facts: NodeFacts,
}

impl Registration {
    /// The longest label in bytes.
    pub const MOST_LABEL: usize = 100;
    /// The shortest time after which a node may be suspected.
    pub const SHORTEST: Duration = Duration::from_millis(10);
    /// The longest time after which it is dead.
    pub const LONGEST: Duration = Duration::from_hours(24);

    /// A node of this service with this label, suspected after 30 s of silence and dead after 60 s.
    ///
    /// # Errors
    /// `Invalid` for a label, of the service or of the node, that is empty, longer than [`MOST_LABEL`](Self::MOST_LABEL)
    /// bytes, or has a control character.
    pub fn new(owner: Owner, service: &str, node: &str) -> Result<Self> {
        for (what, label) in [("service", service), ("node", node)] {
            let most = Self::MOST_LABEL;
            if label.is_empty() || label.len() > most || label.chars().any(char::is_control) {
                return Err(Error::invalid(format!(
                    "the {what}'s label {label:?} must be 1 to {most} bytes without control characters"
                )));
            }
        }
        Ok(Self {
            owner,
            service: service.into(),
            node: node.into(),
            suspect_after: Duration::from_secs(30),
            dead_after: Duration::from_secs(60),
            facts: NodeFacts::none(),
        })
    }

    /// Suspected and dead after so much silence.
    ///
    /// # Errors
    /// `Invalid` unless [`SHORTEST`](Self::SHORTEST) ≤ `suspect_after` < `dead_after` ≤ [`LONGEST`](Self::LONGEST).
    pub fn with_silence(mut self, suspect_after: Duration, dead_after: Duration) -> Result<Self> {
        if suspect_after < Self::SHORTEST || suspect_after >= dead_after || dead_after > Self::LONGEST {
            return Err(Error::invalid(format!(
                "suspect_after is {suspect_after:?} and dead_after is {dead_after:?}: they must be at least {:?}, one \
                 after the other, and at most {:?}",
                Self::SHORTEST,
                Self::LONGEST
            )));
        }
        self.suspect_after = suspect_after;
        self.dead_after = dead_after;
        Ok(self)
    }

    /// With these facts.
    #[must_use]
    pub fn with_facts(mut self, facts: NodeFacts) -> Self {
        self.facts = facts;
        self
    }
}

/// What a heartbeat answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "an incarnation lives on or does not: there is no third answer"
)]
#[must_use = "who is dead must stop what it does"]
pub enum Beat {
    /// The incarnation lives on.
    Accepted,
    /// It is dead, has left, or was never there. It stays so: the node may register anew.
    Ended,
}

/// How a node is doing, by the store's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NodeState {
    /// Its heartbeats come.
    Alive,
    /// It has been silent for long; what it holds is left to it.
    Suspected,
    /// It was silent for too long. Final for this incarnation.
    Dead,
    /// It said good-bye, or its owner registered anew. Final for this incarnation.
    Left,
}

impl NodeState {
    /// The state in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspected => "suspected",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }

    /// Whether it is dead or has left.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Dead | Self::Left)
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A node as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeEntry {
    /// Which registration.
    pub incarnation: Incarnation,
    /// Who claims in its name.
    pub owner: Owner,
    /// The service that it is one of.
    pub service: Arc<str>,
    /// What people call it.
    pub node: Arc<str>,
    /// How it is doing.
    pub state: NodeState,
    /// How long ago it registered.
    pub registered: Duration,
    /// How long it has been silent: since its registration or its last accepted heartbeat.
    pub silent: Duration,
    /// What it said of itself last.
    pub facts: NodeFacts,
}

impl NodeEntry {
    /// The entry of this registration, alive, just registered.
    #[must_use]
    pub fn new(incarnation: Incarnation, registration: &Registration) -> Self {
        Self {
            incarnation,
            owner: registration.owner,
            service: registration.service.clone(),
            node: registration.node.clone(),
            state: NodeState::Alive,
            registered: Duration::ZERO,
            silent: Duration::ZERO,
            facts: registration.facts.clone(),
        }
    }

    /// In this state, registered so long ago and silent for so long.
    #[must_use]
    pub const fn with_state(mut self, state: NodeState, registered: Duration, silent: Duration) -> Self {
        self.state = state;
        self.registered = registered;
        self.silent = silent;
        self
    }

    /// Saying this of itself.
    #[must_use]
    pub fn with_facts(mut self, facts: NodeFacts) -> Self {
        self.facts = facts;
        self
    }
}

impl fmt::Display for NodeEntry {
    /// As people name it: `orders-7f@12`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.node, self.incarnation)
    }
}

/// A node that has neither been buried nor has left, as whoever watches over the others sees it: without what it says of
/// itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LivingNode {
    /// Which registration.
    pub incarnation: Incarnation,
    /// Who claims in its name.
    pub owner: Owner,
    /// What people call it.
    pub node: Arc<str>,
    /// How it is doing: alive, suspected, or dead and not buried yet.
    pub state: NodeState,
}

impl LivingNode {
    /// The node of this incarnation, in this state.
    #[must_use]
    pub fn new(incarnation: Incarnation, owner: Owner, node: impl Into<Arc<str>>, state: NodeState) -> Self {
        Self {
            incarnation,
            owner,
            node: node.into(),
            state,
        }
    }
}

/// A node that was buried just now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Buried {
    /// Which registration.
    pub incarnation: Incarnation,
    /// Who claimed in its name.
    pub owner: Owner,
    /// What people call it.
    pub node: Arc<str>,
    /// How many of its claims were freed.
    pub freed: u64,
}

impl Buried {
    /// The death of this incarnation.
    #[must_use]
    pub fn new(incarnation: Incarnation, owner: Owner, node: impl Into<Arc<str>>, freed: u64) -> Self {
        Self {
            incarnation,
            owner,
            node: node.into(),
            freed,
        }
    }
}

/// The nodes of a store, and the claims of those that die. A claim of the store is valid until the earlier of its lease
/// and its owner's death.
#[async_trait]
pub trait MembershipStore: Debug + Send + Sync + 'static {
    /// Makes a node visible and alive, and answers its incarnation, which is greater than every one before. An owner has
    /// one live incarnation at most: an earlier one of it that still lives has left by this, and keeps its claims, since
    /// this call may be one that was given up and comes late. Where none lives, buried or not, everything that the owner
    /// holds is freed as by [`bury`](Self::bury), what it claimed after its burial too.
    ///
    /// One atomic step. Blocks for a round trip. Dropping the future may leave the node registered; it falls silent then.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn register(&self, registration: &Registration) -> Result<Incarnation>;

    /// Says that the node is alive, and what it is doing. A suspected one is alive again. From the moment at which it has
    /// been silent for its `dead_after`, by the store's clock, the answer is [`Beat::Ended`], whether or not anybody has
    /// noticed; nothing is changed then.
    ///
    /// One atomic step. Blocks for a round trip. Repeating it is harmless.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn heartbeat(&self, owner: Owner, incarnation: Incarnation, facts: &NodeFacts) -> Result<Beat>;

    /// Says good-bye, and frees at once what the owner still holds, as [`bury`](Self::bury) does: whoever leaves acts on
    /// nothing any more. `false` when this incarnation had ended already, or was never there; nothing is changed then.
    ///
    /// One atomic step. Blocks for a round trip.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn leave(&self, owner: Owner, incarnation: Incarnation) -> Result<bool>;

    /// Buries at most `limit` nodes that have been silent for their `dead_after`: frees every claim of their owners in
    /// this store at once, whatever its lease, so that an earlier holder's settling finds it lost. A round that had begun
    /// counts, so that a message which kills its process is counted. Claims of suspected nodes are not touched. Answers
    /// each death once, to one caller.
    ///
    /// Atomic for each node: who was buried before a call fails, or is given up, stays buried, and is told to nobody. Any
    /// number of callers at once are safe. Blocks for a round trip for each death, and for nobody's lock: a row that a
    /// transaction of the dead node still locks is passed over, and left to [`sweep`](Self::sweep).
    ///
    /// # Errors
    /// `Invalid` for a limit of 0, or above 1 000; `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn bury(&self, limit: usize) -> Result<Vec<Buried>>;

    /// Looks again at nodes that have been buried, or have left, at most `limit` of them, those first that were looked at
    /// longest ago: frees, as [`bury`](Self::bury) does, what was passed over since a transaction had it locked, and what
    /// came to them afterwards, by a claim that was under way. Returns how many claims were freed. What a transaction
    /// still locks is passed over again. A node is looked at as long as it holds anything under a lease, and at least for
    /// its `dead_after` from its end, until it is forgotten. A store may look at a node no more often than each second.
    ///
    /// An owner with another incarnation that has not ended keeps what it holds: that may be of its present life.
    ///
    /// Atomic for each node. Any number of callers at once are safe. Blocks for a round trip for each node, and for
    /// nobody's lock.
    ///
    /// # Errors
    /// `Invalid` for a limit of 0, or above 1 000; `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn sweep(&self, limit: usize) -> Result<u64>;

    /// Removes at most `limit` incarnations that have been buried, or have left, at least this long ago, and returns how
    /// many there were.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn forget(&self, older_than: Duration, limit: usize) -> Result<u64>;

    /// The nodes in the order of their incarnations, those that have ended among them until they are forgotten.
    ///
    /// # Errors
    /// `Invalid` for a limit of 0, or above 1 000, and for a cursor of another list; `Unavailable`, `Timeout`, `Denied`,
    /// `Closed`.
    async fn list(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<NodeEntry>>;

    /// The nodes that have neither been buried nor have left, in the order of their incarnations. Its cost does not grow
    /// with how many have ended, nor with what nodes say of themselves.
    ///
    /// Blocks for a round trip.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    async fn living(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<LivingNode>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner::from_bits(1);

    #[test]
    fn should_refuse_labels_and_times_when_they_are_out_of_bounds() {
        for (service, node) in [("", "n"), ("s", ""), ("s", "a\nb"), (&*"x".repeat(101), "n")] {
            assert!(
                Registration::new(OWNER, service, node).is_err(),
                "{service:?} {node:?}"
            );
        }
        let sound = Registration::new(OWNER, "s", "n").unwrap();
        let second = Duration::from_secs(1);
        for (suspect, dead) in [
            (Duration::ZERO, second),
            (second, second),
            (2 * second, second),
            (second, Registration::LONGEST + second),
        ] {
            let error = sound.clone().with_silence(suspect, dead).unwrap_err();
            assert!(error.to_string().contains("suspect_after"), "{error}");
        }
        sound.with_silence(second, 2 * second).unwrap();
    }

    #[test]
    fn should_refuse_facts_when_a_store_could_not_hold_them() {
        assert!(NodeFacts::new("a\0b").is_err());
        let error = NodeFacts::new("x".repeat(NodeFacts::MOST + 1)).unwrap_err();
        assert!(error.to_string().contains("65536"), "{error}");
        assert_eq!(NodeFacts::none().as_str(), "{}");
    }
}
