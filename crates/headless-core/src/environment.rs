//! What a component is given instead of reaching for it: time, chance, threads, identity, traces.

use std::sync::Arc;

use headless_abstractions::{Clock, MessageId, Owner, Random};
use uuid::Builder;

use crate::{
    Asked, Background, Life, Spawner, SystemClock, SystemRandom, Wakeups,
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

    /// Something is asked of the store now; call it before it is sent.
    #[must_use]
    pub fn ask(&self) -> Asked {
        self.life.ask(self.clock.monotonic())
    }

    /// Whether this process may claim something now.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.life.is_over(self.clock.monotonic())
    }

    /// Returns when this process may claim something: at once, as a rule.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn alive(&self) {
        let mut changes = self.life.listen();
        while !self.is_alive() {
            changes.woken().await;
        }
    }

    /// Returns when what was asked for then may not be acted upon any more. Never, where no store watches over its nodes.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn lost(&self, asked: Asked) {
        let mut changes = self.life.listen();
        loop {
            let left = self.life.until_of(asked).saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                biased;
                () = changes.woken() => {}
                () = tokio::time::sleep(left) => {}
            }
        }
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
