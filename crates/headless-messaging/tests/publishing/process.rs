//! A process that publishes, over a memory server.

use std::{borrow::Cow, sync::Arc, time::Duration};

use headless_abstractions::{
    Error, ErrorKind, GroupName, GroupSpec, MessageId, OutboxEntry, OutboxFilter, OutboxQueries, Store,
    TopicName, TopicSpec, Topology, Transport, TransportCapabilities, UnitOfWorkStore,
};
use headless_core::{Codecs, Environment, Event, Listener, Spawner, State, UnitOfWork};
use headless_memory::{Memory, MemoryTx};
use headless_messaging::{Ordered, Outgoing, OutgoingLimits, Publisher, Topics};
use serde::{Deserialize, Serialize};

use crate::faulty::Faulty;

#[derive(Serialize, Deserialize)]
pub(crate) struct OrderPlaced {
    pub(crate) order: String,
    pub(crate) note: String,
}

impl Event for OrderPlaced {
    const TOPIC: &'static str = "orders.placed";
    const TYPE: &'static str = "order-placed";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.order))
    }

    fn idempotency_key(&self) -> Option<Cow<'_, str>> {
        Some(format!("place/{}", self.order).into())
    }
}

pub(crate) fn order(name: &str) -> OrderPlaced {
    OrderPlaced {
        order: name.to_owned(),
        note: "gift".to_owned(),
    }
}

/// A process over a memory server, with an outbox and a transport whose capabilities a test chooses.
pub(crate) struct Process {
    pub(crate) memory: Memory,
    pub(crate) environment: Environment,
    pub(crate) transport: Arc<Faulty>,
    pub(crate) outgoing: Outgoing,
    pub(crate) publisher: Publisher,
    pub(crate) relay: Listener,
}

impl Process {
    pub(crate) async fn start() -> Self {
        let capabilities = Memory::new().info().capabilities;
        Self::with(capabilities, OutgoingLimits::default()).await
    }

    /// `orders.placed` is unordered and has the group `billing`; `ledger` is ordered; `nobody` has no group.
    pub(crate) async fn with(capabilities: TransportCapabilities, limits: OutgoingLimits) -> Self {
        let memory = Memory::new();
        let environment = Environment::system(Spawner::current(), "node-1");
        let topics = || {
            [
                TopicSpec::new(topic("orders.placed"), Ordered::no().to_order().unwrap()),
                TopicSpec::new(topic("ledger"), Ordered::partitions(4).to_order().unwrap()),
                TopicSpec::new(topic("nobody"), Ordered::no().to_order().unwrap()),
            ]
        };
        let mut topology = Topology::new();
        for spec in topics() {
            topology = topology.with_topic(spec);
        }
        for name in ["orders.placed", "ledger"] {
            topology = topology.with_group(GroupSpec::new(GroupName::parse("billing").unwrap(), topic(name)));
        }
        memory.declare(&topology).await.unwrap();
        let transport = Faulty::new(Arc::new(memory.clone()), capabilities);
        let topics = Topics::new(topics()).unwrap();
        let outgoing = Outgoing::new(
            &environment,
            topics,
            Codecs::new(),
            limits,
            Some(transport.info()),
        );
        let outbox = memory.parts().outbox.unwrap().store;
        let publisher = Publisher::new(
            outgoing.clone(),
            Some(outbox),
            Some(transport.clone()),
            environment.wakeups.clone(),
        );
        let relay = environment.wakeups.outbox().listen();
        Self {
            memory,
            environment,
            transport,
            outgoing,
            publisher,
            relay,
        }
    }

    pub(crate) async fn stored(&self) -> Vec<OutboxEntry> {
        OutboxQueries::list(&self.memory, &OutboxFilter::all(), None, 1_000)
            .await
            .unwrap()
            .items
    }

    pub(crate) async fn begin(&self) -> UnitOfWork<MemoryTx> {
        let state = State::new().with(self.outgoing.clone());
        UnitOfWork::begun(self.memory.begin().await.unwrap(), state, &self.environment)
    }

    /// In a transaction that the test has begun, and would end.
    pub(crate) async fn enlist(&self) -> UnitOfWork<MemoryTx> {
        let state = State::new().with(self.outgoing.clone());
        UnitOfWork::enlisted(self.memory.begin().await.unwrap(), state, &self.environment)
    }

    /// Whether the relay of this process has been woken by now.
    pub(crate) async fn relay_was_woken(&self) -> bool {
        let mut relay = self.relay.clone();
        let woken = relay.woken();
        tokio::time::timeout(Duration::from_millis(1), woken)
            .await
            .is_ok()
    }
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

pub(crate) fn id(n: u128) -> MessageId {
    format!("{n:032x}").parse().unwrap()
}

pub(crate) fn assert_error(error: &Error, kind: ErrorKind, parts: &[&str], case: &str) {
    assert_eq!(error.kind(), kind, "{case}: {error}");
    for part in parts {
        assert!(
            error.to_string().contains(part),
            "{case}: {part:?} is not in {error}"
        );
    }
}
