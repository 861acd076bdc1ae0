//! A runtime as a node among those of its store.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use headless::{
    Consumer, Context, Environment, Event, HandlerResult, Headless, Inbox, Memory, NodeState, Runtime,
    SeededRandom, Spawner, SystemClock,
};
use headless_abstractions::{InboxStore, MembershipStore, Registration};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const MINUTE: Duration = Duration::from_mins(1);

#[derive(Serialize, Deserialize)]
struct Placed;

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";
}

fn environment(node: &str, seed: u64) -> Environment {
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(seed)));
    Environment::new(clock, random, Spawner::current(), node)
}

async fn idle(memory: &Memory, environment: Environment) -> Runtime {
    let builder = Headless::builder("orders")
        .store(memory)
        .transport(memory.clone())
        .environment(environment);
    builder.start().await.unwrap()
}

async fn states(runtime: &Runtime) -> Vec<(String, NodeState)> {
    let page = runtime.nodes().unwrap().list(None, 100).await.unwrap();
    page.items
        .iter()
        .map(|node| (node.to_string(), node.state))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn should_be_seen_with_what_it_does_and_leave_when_it_shuts_down() {
    let memory = Memory::new();
    let ann = idle(&memory, environment("ann", 1)).await;
    let bob = idle(&memory.connect(), environment("bob", 2)).await;
    tokio::time::sleep(MINUTE).await;
    let nodes = ann.nodes().unwrap().list(None, 100).await.unwrap().items;
    let shown: Vec<_> = nodes.iter().map(|node| (node.to_string(), node.state)).collect();
    let alive = NodeState::Alive;
    assert_eq!(shown, [("ann@1".to_owned(), alive), ("bob@2".to_owned(), alive)]);
    let facts: serde_json::Value = serde_json::from_str(nodes[0].facts.as_str()).unwrap();
    assert!(facts["uptime_seconds"].as_u64().unwrap() >= 40, "{facts}");
    let resident = facts["resident_bytes"].as_u64();
    assert_eq!(
        resident.is_some_and(|bytes| bytes > 0),
        cfg!(target_os = "linux"),
        "{facts}"
    );
    let tasks: Vec<_> = facts["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| &task["name"])
        .collect();
    assert!(
        tasks.contains(&&"relay".into()) && tasks.contains(&&"heartbeat".into()),
        "{tasks:?}"
    );
    bob.shutdown(MINUTE).await.unwrap();
    assert_eq!(states(&ann).await[1], ("bob@2".to_owned(), NodeState::Left));
}

#[tokio::test(start_paused = true)]
async fn should_register_nothing_when_it_is_told_not_to() {
    let memory = Memory::new();
    let builder = Headless::builder("orders")
        .store(&memory)
        .transport(memory.clone())
        .environment(environment("ann", 1))
        .registers(false);
    let runtime = builder.start().await.unwrap();
    assert_eq!(runtime.incarnation(), None);
    tokio::time::sleep(3 * MINUTE).await;
    let bob = idle(&memory.connect(), environment("bob", 2)).await;
    assert_eq!(states(&bob).await.len(), 1, "bob alone");
    assert!(runtime.health().is_healthy(), "{:?}", runtime.health().problems());
}

#[tokio::test(start_paused = true)]
async fn should_be_buried_by_the_others_when_it_is_cut_off() {
    let memory = Memory::new();
    let ann = idle(&memory, environment("ann", 1)).await;
    let cut = memory.connect();
    let bob = idle(&cut, environment("bob", 2)).await;
    cut.sever();
    tokio::time::sleep(Duration::from_secs(45)).await;
    assert_eq!(states(&ann).await[1].1, NodeState::Suspected);
    tokio::time::sleep(Duration::from_secs(45)).await;
    assert_eq!(states(&ann).await[1].1, NodeState::Dead);
    assert_eq!(states(&ann).await[0].1, NodeState::Alive);
    drop(bob);
}

/// Counts the calls that were dropped before their end.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn should_end_what_it_runs_and_go_on_anew_when_the_store_has_given_it_up() {
    let memory = Memory::new();
    let (begun, dropped) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (tell, count) = (begun.clone(), dropped.clone());
    let endless = move |_: Placed, _: Context| {
        let (tell, dropped) = (tell.clone(), Dropped(count.clone()));
        async move {
            let _dropped = dropped;
            tell.notify_one();
            std::future::pending::<HandlerResult>().await
        }
    };
    let environment = environment("ann", 1);
    let owner = environment.owner;
    let consumer = Consumer::group("billing")
        .on(endless)
        .inbox(Inbox::Around)
        .timeout(60 * MINUTE)
        .lease(60 * MINUTE);
    let builder = Headless::builder("orders")
        .store(&memory)
        .transport(memory.clone())
        .consumer(consumer)
        .environment(environment);
    let runtime = builder.start().await.unwrap();
    runtime.publisher().publish(&Placed).await.unwrap();
    tokio::time::timeout(MINUTE, begun.notified()).await.unwrap();
    let first = runtime.incarnation().unwrap();
    // As its burial would: its life ends, and what it runs is free.
    let another = Registration::new(owner, "orders", "ann").unwrap();
    memory.register(&another).await.unwrap();
    assert_eq!(InboxStore::release_owner(&memory, owner).await.unwrap(), 1);
    // Noticed with the next heartbeat, long before the lease ends; then it runs again, in the new life.
    tokio::time::timeout(MINUTE, begun.notified()).await.unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert!(runtime.incarnation().unwrap() > first);
    assert!(runtime.health().is_healthy(), "{:?}", runtime.health().problems());
}
