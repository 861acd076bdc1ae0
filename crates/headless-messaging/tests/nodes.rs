//! Several processes as nodes of one store: what becomes of those that are not heard of, though all their other calls go on.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    Beat, Buried, Cursor, Incarnation, LivingNode, MembershipStore, NodeEntry, NodeFacts, NodeState, Owner,
    Page, Registration, Result, Store,
};
use headless_core::{
    ControlRuntime, Environment, Event, HandlerResult, MembershipConfig, SeededRandom, Spawner, SystemClock,
};
use headless_memory::Memory;
use headless_messaging::{Consumer, Context, Inbox, Messaging, Ordered, PauseReason, Plan};
use serde::{Deserialize, Serialize};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

#[derive(Serialize, Deserialize)]
struct Placed;

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";
}

/// The membership of a process whose heartbeats are lost once it is muted. Everything else of it arrives.
#[derive(Debug)]
struct Voice {
    memory: Memory,
    is_muted: Arc<AtomicBool>,
    /// Is told the thread of each registration and heartbeat.
    heard: Option<mpsc::Sender<String>>,
}

impl Voice {
    async fn speak(&self) {
        if self.is_muted.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if let Some(heard) = &self.heard {
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            // Nobody listens any more at the end of the test.
            let _told = heard.send(thread);
        }
    }
}

#[async_trait]
impl MembershipStore for Voice {
    async fn register(&self, registration: &Registration) -> Result<Incarnation> {
        self.speak().await;
        self.memory.register(registration).await
    }

    async fn heartbeat(&self, owner: Owner, incarnation: Incarnation, facts: &NodeFacts) -> Result<Beat> {
        self.speak().await;
        self.memory.heartbeat(owner, incarnation, facts).await
    }

    async fn leave(&self, owner: Owner, incarnation: Incarnation) -> Result<bool> {
        self.memory.leave(owner, incarnation).await
    }

    async fn bury(&self, limit: usize) -> Result<Vec<Buried>> {
        MembershipStore::bury(&self.memory, limit).await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        self.memory.sweep(limit).await
    }

    async fn forget(&self, older_than: Duration, limit: usize) -> Result<u64> {
        self.memory.forget(older_than, limit).await
    }

    async fn list(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<NodeEntry>> {
        MembershipStore::list(&self.memory, after, limit).await
    }

    async fn living(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<LivingNode>> {
        self.memory.living(after, limit).await
    }
}

/// What the handlers of all processes do, and what is seen of it.
#[derive(Debug, Default)]
struct Seen {
    /// The processes whose handlers began, in order.
    began: Mutex<Vec<&'static str>>,
    running: AtomicUsize,
    most_at_once: AtomicUsize,
}

/// A handler's call while it runs.
struct Run(Arc<Seen>);

impl Run {
    fn begin(seen: &Arc<Seen>, process: &'static str) -> Self {
        seen.began.lock().unwrap().push(process);
        let running = seen.running.fetch_add(1, SeqCst) + 1;
        seen.most_at_once.fetch_max(running, SeqCst);
        Self(seen.clone())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

struct Process {
    messaging: Messaging,
    environment: Environment,
    is_muted: Arc<AtomicBool>,
    /// Its way to the broker, apart from that to the store.
    transport: Memory,
}

fn environment(name: &'static str) -> Environment {
    let seed = name.bytes().map(u64::from).sum();
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(seed)));
    Environment::new(clock, random, Spawner::current(), name)
}

/// A process over this server, with a consumer whose calls take so long on it. Holds last for an hour.
async fn process(
    server: &Memory,
    name: &'static str,
    seen: &Arc<Seen>,
    takes: Duration,
    inbox: Inbox,
) -> Process {
    let (memory, transport) = (server.connect(), server.connect());
    let is_muted = Arc::new(AtomicBool::new(false));
    let environment = environment(name);
    let voice = Voice {
        memory: memory.clone(),
        is_muted: is_muted.clone(),
        heard: None,
    };
    let mut plan = Plan::new(environment.clone());
    plan.service = Some("orders".to_owned());
    plan.store = Some(memory.parts().with_membership(Arc::new(voice)));
    plan.transport = Some(Arc::new(transport.clone()));
    plan.topic_named(Placed::TOPIC, Ordered::no(), false);
    let seen = seen.clone();
    let handle = move |_: Placed, _: Context| {
        let run = Run::begin(&seen, name);
        async move {
            tokio::time::sleep(takes).await;
            drop(run);
            HandlerResult::Ok(())
        }
    };
    let consumer = Consumer::group("billing").on(handle).inbox(inbox);
    plan.consumer(
        consumer
            .timeout(60 * MINUTE)
            .lease(60 * MINUTE)
            .visibility(5 * SECOND),
    );
    let messaging = Messaging::start(plan).await.unwrap();
    Process {
        messaging,
        environment,
        is_muted,
        transport,
    }
}

impl Process {
    fn mute(&self) {
        self.is_muted.store(true, SeqCst);
    }

    fn paused(&self) -> bool {
        let subscriptions = self.messaging.consumers()[0].subscriptions();
        subscriptions[0].paused.contains(&PauseReason::Membership)
    }
}

/// Waits until this many calls have begun.
async fn begun(seen: &Seen, count: usize, within: Duration) {
    let all = async {
        while seen.began.lock().unwrap().len() < count {
            tokio::time::sleep(SECOND / 10).await;
        }
    };
    tokio::time::timeout(within, all)
        .await
        .unwrap_or_else(|_| panic!("not {count} calls within {within:?}: {seen:?}"));
}

#[tokio::test(start_paused = true)]
async fn should_run_what_a_silent_node_held_soon_and_never_beside_it() {
    let (server, seen) = (Memory::new(), Arc::new(Seen::default()));
    let ann = process(&server, "ann", &seen, 60 * MINUTE, Inbox::Around).await;
    tokio::time::sleep(15 * SECOND).await;
    ann.mute();
    // The call begins long after the last accepted heartbeat, while the watch of the holds sleeps for a third of an hour.
    tokio::time::sleep(30 * SECOND).await;
    ann.messaging.publisher().publish(&Placed).await.unwrap();
    begun(&seen, 1, 5 * SECOND).await;
    // The delivery comes to Bob, too: he waits for the hold of a node that is about to die.
    let bob = process(&server, "bob", &seen, SECOND, Inbox::Around).await;
    ann.transport.sever();
    tokio::time::sleep(15 * SECOND).await;
    let bobs = bob.messaging.consumers()[0].stats();
    assert_eq!((bobs.received, bobs.handled), (1, 0));
    begun(&seen, 2, 2 * MINUTE).await;
    assert_eq!(*seen.began.lock().unwrap(), ["ann", "bob"]);
    assert_eq!(seen.most_at_once.load(SeqCst), 1, "two ran it at once: {seen:?}");
    assert!(ann.paused() && !bob.paused());
    // She is heard again, is told that she is dead, and goes on anew.
    ann.is_muted.store(false, SeqCst);
    tokio::time::sleep(30 * SECOND).await;
    assert!(!ann.paused());
}

#[tokio::test(start_paused = true)]
async fn should_ask_for_nothing_while_the_store_may_have_given_the_node_up() {
    let (server, seen) = (Memory::new(), Arc::new(Seen::default()));
    let ann = process(&server, "ann", &seen, SECOND, Inbox::Around).await;
    ann.mute();
    tokio::time::sleep(2 * MINUTE).await;
    assert!(!ann.environment.is_alive());
    ann.messaging.publisher().publish(&Placed).await.unwrap();
    assert_eq!(
        ann.messaging.relay().unwrap().run_once().await.unwrap(),
        headless_core::Next::Wait
    );
    let outbox = headless_abstractions::OutboxQueries::stats(&server)
        .await
        .unwrap();
    assert_eq!(outbox.total(), 1, "{outbox:?}");
    tokio::time::sleep(2 * MINUTE).await;
    assert!(seen.began.lock().unwrap().is_empty(), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn should_go_on_with_groups_that_use_no_store_when_the_node_is_silent() {
    let (server, seen) = (Memory::new(), Arc::new(Seen::default()));
    let ann = process(&server, "ann", &seen, SECOND, Inbox::Off).await;
    let bob = process(&server, "bob", &Arc::new(Seen::default()), SECOND, Inbox::Around).await;
    ann.mute();
    bob.mute();
    tokio::time::sleep(2 * MINUTE).await;
    assert!(!ann.paused() && bob.paused());
}

#[tokio::test(start_paused = true)]
async fn should_be_heard_of_until_everything_is_given_back_when_it_shuts_down() {
    let (server, seen) = (Memory::new(), Arc::new(Seen::default()));
    let ann = process(&server, "ann", &seen, 10 * MINUTE, Inbox::Around).await;
    let bob = process(&server, "bob", &Arc::new(Seen::default()), SECOND, Inbox::Around).await;
    bob.messaging.consumers()[0].pause();
    ann.messaging.publisher().publish(&Placed).await.unwrap();
    begun(&seen, 1, MINUTE).await;
    let shutting_down = tokio::spawn(ann.messaging.shutdown(30 * MINUTE));
    tokio::time::sleep(5 * MINUTE).await;
    let state = || async {
        let nodes = MembershipStore::list(&server, None, 10).await.unwrap().items;
        nodes[0].state
    };
    assert_eq!(state().await, NodeState::Alive, "while its handler runs");
    shutting_down.await.unwrap().unwrap();
    assert_eq!(state().await, NodeState::Left);
    assert_eq!(seen.began.lock().unwrap().len(), 1, "it was let finish");
}

#[tokio::test(start_paused = true)]
async fn should_leave_in_time_when_its_last_heartbeat_is_not_answered() {
    let (server, seen) = (Memory::new(), Arc::new(Seen::default()));
    let ann = process(&server, "ann", &seen, SECOND, Inbox::Around).await;
    ann.mute();
    tokio::time::sleep(30 * SECOND).await;
    // Nothing is overdue: what hangs holds nothing.
    ann.messaging.shutdown(MINUTE).await.unwrap();
    let nodes = MembershipStore::list(&server, None, 10).await.unwrap().items;
    assert_eq!(nodes[0].state, NodeState::Left);
}

/// In real time: the application's only thread is blocked.
#[tokio::test]
async fn should_register_and_be_heard_from_the_control_thread_when_the_application_never_yields() {
    let (control, memory) = (ControlRuntime::start().unwrap(), Memory::new());
    let spawner = Spawner::new(tokio::runtime::Handle::current(), control.handle().clone());
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(1)));
    let environment = Environment::new(clock, random, spawner, "ann");
    let (heard, hears) = mpsc::channel();
    let voice = Voice {
        memory: memory.clone(),
        is_muted: Arc::default(),
        heard: Some(heard),
    };
    let mut plan = Plan::new(environment.clone());
    plan.service = Some("orders".to_owned());
    plan.store = Some(memory.parts().with_membership(Arc::new(voice)));
    plan.transport = Some(Arc::new(memory.clone()));
    plan.membership = MembershipConfig::default().with_heartbeat(SECOND / 20);
    let messaging = Messaging::start(plan).await.unwrap();
    for _ in 0..4 {
        // Its registration, and heartbeats. The application's thread does nothing else meanwhile.
        let thread = hears.recv_timeout(MINUTE).unwrap();
        assert_eq!(thread, "headless-control");
    }
    assert!(environment.is_alive());
    messaging.shutdown(MINUTE).await.unwrap();
}
