//! What a case has at hand: its fixture, fresh nodes, names and messages.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};
use headless_abstractions::{GroupName, Message, MessageId, Owner, Result, TopicName};
use uuid::Uuid;

use crate::{
    fixture::{Fixture, StoreFixture, StoreNode, TransportFixture, TransportNode},
    wait::Stopwatch,
};

/// What a case has at hand.
#[derive(Debug)]
pub(crate) struct Cx<F> {
    fixture: F,
    began: DateTime<Utc>,
    watch: Stopwatch,
    next: AtomicU64,
}

impl<F> Cx<F> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a case's wall clock begins with the real one"
    )]
    pub(crate) fn new(fixture: F) -> Self {
        Self {
            fixture,
            began: Message::microseconds(Utc::now()),
            watch: Stopwatch::start(),
            next: AtomicU64::new(1),
        }
    }

    pub(crate) fn fixture(&self) -> &F {
        &self.fixture
    }

    pub(crate) fn into_fixture(self) -> F {
        self.fixture
    }

    /// The wall clock of the time that the case runs in.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        Message::microseconds(self.began + self.watch.elapsed())
    }

    fn count(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// A message id that the case has not used; they rise.
    pub(crate) fn id(&self) -> MessageId {
        const VERSION_7: u128 = 0x7000_8000_0000_0000_0000;
        MessageId::from_uuid(Uuid::from_u128(VERSION_7 | u128::from(self.count())))
    }

    /// An owner that the case has not used.
    pub(crate) fn owner(&self) -> Owner {
        Owner::from_bits(u128::from(self.count()) << 64 | 0x0A0A)
    }

    /// A message with a fresh id whose payload is `body`.
    pub(crate) fn message(&self, topic: &TopicName, body: impl std::fmt::Display) -> Message {
        let payload = body.to_string().into_bytes().into();
        Message::new(self.id(), topic.clone(), self.now(), payload)
    }
}

impl<F: Fixture> Cx<F> {
    /// The lease or visibility time to ask for where its end is waited for.
    pub(crate) fn lease(&self) -> Duration {
        F::LEASE
    }

    /// How long to wait for what must happen.
    pub(crate) fn patience(&self) -> Duration {
        F::PATIENCE
    }

    /// How long to look for what must not happen.
    pub(crate) fn quiet(&self) -> Duration {
        F::QUIET
    }
}

impl<F: TransportFixture> Cx<F> {
    /// Another process with the transport under test.
    pub(crate) async fn node(&self) -> Result<TransportNode> {
        self.fixture.node().await
    }
}

impl<F: StoreFixture> Cx<F> {
    /// Another process with the store under test.
    pub(crate) async fn store_node(&self) -> Result<StoreNode<F::Store>> {
        self.fixture.node().await
    }
}

/// The topic of this name.
#[expect(clippy::expect_used, reason = "cases name their topics in the alphabet")]
pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a name in the alphabet")
}

/// The group of this name.
#[expect(clippy::expect_used, reason = "cases name their groups in the alphabet")]
pub(crate) fn group(name: &str) -> GroupName {
    GroupName::parse(name).expect("a name in the alphabet")
}
