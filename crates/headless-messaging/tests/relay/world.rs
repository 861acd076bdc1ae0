//! One memory server, and relays of several processes over it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use headless_abstractions::{
    DeadLetter, DeadLetterFilter, DeadLetterQueries, GroupName, GroupSpec, Message, OutboxEntry,
    OutboxFilter, OutboxQueries, OutboxStore, PartitionKey, Store, TopicName, TopicSpec, Topology, Transport,
    TransportCapabilities,
};
use headless_core::{Environment, SeededRandom, Spawner, SystemClock};
use headless_memory::Memory;
use headless_messaging::{Ordered, Planted, Relay, RelayConfig};

use crate::relay::{faulty::Faulty, slow_outbox::SlowOutbox};

/// A memory server as store and broker, with the broker behind a transport that fails on command.
///
/// `ledger` is ordered and `clicks` is not; `billing` reads both. `nobody` has no group.
pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) outbox: Arc<SlowOutbox>,
    pub(crate) transport: Arc<Faulty>,
    pub(crate) clock: Environment,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Memory::new().info().capabilities).await
    }

    pub(crate) async fn with(capabilities: TransportCapabilities) -> Self {
        let memory = Memory::new();
        let mut topology = Topology::new();
        for (name, order) in [
            ("ledger", Ordered::partitions(4)),
            ("clicks", Ordered::no()),
            ("nobody", Ordered::no()),
        ] {
            topology = topology.with_topic(TopicSpec::new(topic(name), order.to_order().unwrap()));
        }
        for name in ["ledger", "clicks"] {
            topology = topology.with_group(GroupSpec::new(GroupName::parse("billing").unwrap(), topic(name)));
        }
        memory.declare(&topology).await.unwrap();
        Self {
            outbox: SlowOutbox::new(memory.parts().outbox.unwrap().store),
            transport: Faulty::new(Arc::new(memory.clone()), capabilities),
            clock: environment(0),
            memory,
        }
    }

    /// A relay of a process of its own.
    pub(crate) fn relay(&self, process: u64, config: RelayConfig) -> (Relay, Environment) {
        let environment = environment(process);
        let relay = Relay::new(
            &environment,
            self.outbox.clone(),
            self.transport.clone(),
            config,
            Planted::default(),
        );
        (relay, environment)
    }

    /// Puts messages into the outbox, each with a topic, a key (`-` for none) and a text. Wakes nobody.
    pub(crate) async fn store(&self, messages: &[(&str, &str, &str)]) {
        let messages: Vec<_> = messages
            .iter()
            .map(|(topic, key, text)| self.message(topic, key, text))
            .collect();
        self.outbox.append(&messages).await.unwrap();
    }

    pub(crate) fn message(&self, name: &str, key: &str, text: &str) -> Message {
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let now = self.clock.clock.now();
        let message = Message::new(self.clock.new_message_id(), topic(name), now, payload);
        match key {
            "-" => message,
            key => message.with_key(PartitionKey::parse(key).unwrap()),
        }
    }

    pub(crate) async fn stored(&self) -> Vec<OutboxEntry> {
        OutboxQueries::list(&self.memory, &OutboxFilter::all(), None, 1_000)
            .await
            .unwrap()
            .items
    }

    pub(crate) async fn dead(&self) -> Vec<DeadLetter> {
        DeadLetterQueries::list(&self.memory, &DeadLetterFilter::open(), None, 1_000)
            .await
            .unwrap()
            .items
    }

    /// The texts that the broker took, in that order.
    pub(crate) fn sent(&self) -> Vec<String> {
        self.transport.sent().iter().map(text).collect()
    }

    /// The first occurrences of each key's texts, in the order in which the broker took them.
    pub(crate) fn first_by_key(&self) -> BTreeMap<String, Vec<String>> {
        let mut seen = BTreeSet::new();
        let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for message in self.transport.sent() {
            if seen.insert(message.id) {
                keys.entry(message.key.as_ref().unwrap().to_string())
                    .or_default()
                    .push(text(&message));
            }
        }
        keys
    }

    /// The texts of one key that the broker took, repeats included.
    pub(crate) fn first_by_key_of(&self, key: &str) -> Vec<String> {
        let sent = self.transport.sent();
        let of_key = sent
            .iter()
            .filter(|message| message.key.as_ref().is_some_and(|other| other.as_str() == key));
        of_key.map(text).collect()
    }
}

pub(crate) fn environment(seed: u64) -> Environment {
    Environment::new(
        Arc::new(SystemClock::new()),
        Arc::new(SeededRandom::new(seed)),
        Spawner::current(),
        format!("node-{seed}"),
    )
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

pub(crate) fn text(message: &Message) -> String {
    String::from_utf8(message.payload.to_vec()).unwrap()
}
