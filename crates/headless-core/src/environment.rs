//! What a component is given instead of reaching for it: time, chance, threads, identity, traces.

use std::sync::Arc;

use headless_abstractions::{Clock, MessageId, Owner, Random};
use uuid::Builder;

use crate::{
    Background, Life, Spawner, SystemClock, SystemRandom, Wakeups,
    trace::{NoPropagator, Propagator},
};

/// What the components of one runtime share: clock, randomness, spawner, owner, node label, wake-ups, background tasks
/// and what traces go by.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Environment {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where chance comes from.
    pub random: Arc<dyn Random>,
    /// Where tasks run.
    pub spawner: Spawner,
    /// Who claims: new with each start.
    pub owner: Owner,
    /// What people call this node. Never an identity.
    pub node: Arc<str>,
    /// Wake-ups within this runtime.
    pub wakeups: Wakeups,
    /// The background tasks of this runtime.
    pub background: Background,
    /// Until when this runtime may act on what it has claimed.
    pub life: Life,
    /// How spans and messages are tied together. By default not at all, but that a handler's messages carry on the
    /// trace context of its own; see [`NoPropagator`].
    pub propagator: Arc<dyn Propagator>,
}

impl Environment {
    /// An environment with these sources and a fresh owner.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        spawner: Spawner,
        node: impl Into<Arc<str>>,
    ) -> Self {
        let mut bits = [0; 16];
        random.fill(&mut bits);
        Self {
            background: Background::new(clock.clone(), random.clone(), spawner.clone()),
            clock,
            random,
            spawner,
            owner: Owner::from_bits(u128::from_le_bytes(bits)),
            node: node.into(),
            wakeups: Wakeups::new(),
            life: Life::endless(),
            propagator: Arc::new(NoPropagator),
        }
    }

    /// The system's clock and randomness.
    #[must_use]
    pub fn system(spawner: Spawner, node: impl Into<Arc<str>>) -> Self {
        Self::new(
            Arc::new(SystemClock::new()),
            Arc::new(SystemRandom),
            spawner,
            node,
        )
    }

    /// A new message id: a UUIDv7 of the environment's clock and randomness.
    ///
    /// Source: RFC 9562, section 5.7.
    #[must_use]
    pub fn new_message_id(&self) -> MessageId {
        let millis = u64::try_from(self.clock.now().timestamp_millis()).unwrap_or_default();
        let mut random = [0; 10];
        self.random.fill(&mut random);
        MessageId::from_uuid(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}
