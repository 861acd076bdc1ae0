//! A node whose store is away for longer than its life lasts: nothing runs twice, and no round is lost.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, Admission, Arrival, AttemptUse, Beat, Buried, Claim, ClaimParked, Cursor, Error, ErrorKind,
    GroupName, Hold, InboxQueries, InboxStore, Incarnation, LivingNode, Marked, MembershipStore, NodeEntry,
    NodeFacts, NodeState, Owner, Page, Park, ParkLimits, Parked, ParkedRow, ParkedStore, Registration,
    Result, Settled, Store,
};
use headless_core::{
    Environment, Event, HandlerError, HandlerResult, MembershipConfig, Retry, SeededRandom, Spawner,
    SystemClock,
};
use headless_memory::Memory;
use headless_messaging::{BatchContext, Consumer, Context, Inbox, Messaging, Ordered, Plan};
use serde::{Deserialize, Serialize};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

#[derive(Serialize, Deserialize)]
struct Placed;

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";
}

/// A store as one process reaches it: its heartbeats, its admissions and its burials may go wrong.
#[derive(Debug)]
struct Way {
    memory: Memory,
    is_muted: AtomicBool,
    admits_fail: AtomicBool,
    /// How many milliseconds the answers to admissions take.
    admits_take: AtomicU64,
    /// How many milliseconds the answers to claims from the park take.
    claims_take: AtomicU64,
    burials_hang: AtomicBool,
}

#[async_trait]
impl MembershipStore for Way {
    async fn register(&self, registration: &Registration) -> Result<Incarnation> {
        self.memory.register(registration).await
    }

    async fn heartbeat(&self, owner: Owner, incarnation: Incarnation, facts: &NodeFacts) -> Result<Beat> {
        if self.is_muted.load(SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "away"));
        }
        self.memory.heartbeat(owner, incarnation, facts).await
    }

    async fn leave(&self, owner: Owner, incarnation: Incarnation) -> Result<bool> {
        self.memory.leave(owner, incarnation).await
    }

    async fn bury(&self, limit: usize) -> Result<Vec<Buried>> {
        if self.burials_hang.load(SeqCst) {
            std::future::pending::<()>().await;
        }
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

#[async_trait]
impl InboxStore for Way {
    async fn admit(&self, owner: Owner, lease: Duration, arrivals: &[Arrival]) -> Result<Vec<Admission>> {
        if self.admits_fail.load(SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "away"));
        }
        let answers = self.memory.admit(owner, lease, arrivals).await;
        tokio::time::sleep(Duration::from_millis(self.admits_take.load(Relaxed))).await;
        answers
    }

    async fn mark(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        self.memory.mark(marks).await
    }

    async fn discard(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        self.memory.discard(marks).await
    }

    async fn renew(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        lease: Duration,
    ) -> Result<Settled> {
        InboxStore::renew(&self.memory, group, owner, claims, lease).await
    }

    async fn release(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        attempt: AttemptUse,
    ) -> Result<Settled> {
        InboxStore::release(&self.memory, group, owner, claims, attempt).await
    }

    async fn release_owner(&self, owner: Owner) -> Result<u64> {
        InboxStore::release_owner(&self.memory, owner).await
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        InboxStore::purge(&self.memory, older_than, limit).await
    }
}

#[async_trait]
impl ParkedStore for Way {
    async fn park(&self, parks: &[Park], limits: ParkLimits) -> Result<Vec<Parked>> {
        self.memory.park(parks, limits).await
    }

    async fn claim(&self, request: &ClaimParked) -> Result<Vec<ParkedRow>> {
        let rows = ParkedStore::claim(&self.memory, request).await?;
        if !rows.is_empty() {
            tokio::time::sleep(Duration::from_millis(self.claims_take.load(Relaxed))).await;
        }
        Ok(rows)
    }

    async fn abandon(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        how: &Abandon,
    ) -> Result<Settled> {
        ParkedStore::abandon(&self.memory, group, owner, claims, how).await
    }

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        ParkedStore::reap_expired(&self.memory, limit).await
    }
}

struct Node {
    messaging: Messaging,
    environment: Environment,
    way: Arc<Way>,
}

fn on() -> Consumer {
    Consumer::group("billing")
        .inbox(Inbox::Around)
        .retry(Retry::never())
        .timeout(HOUR)
        .lease(HOUR)
}

/// A node over this server with this consumer, whose messages have one round each.
async fn node(server: &Memory, consumer: Consumer) -> Node {
    node_with(server, consumer, MembershipConfig::default()).await
}

async fn node_with(server: &Memory, consumer: Consumer, membership: MembershipConfig) -> Node {
    let memory = server.connect();
    let way = Arc::new(Way {
        memory: memory.clone(),
        is_muted: AtomicBool::new(false),
        admits_fail: AtomicBool::new(false),
        admits_take: AtomicU64::new(0),
        claims_take: AtomicU64::new(0),
        burials_hang: AtomicBool::new(false),
    });
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(1)));
    let environment = Environment::new(clock, random, Spawner::current(), "ann");
    let mut plan = Plan::new(environment.clone());
    plan.service = Some("orders".to_owned());
    let mut parts = memory.parts().with_membership(way.clone());
    let inbox = parts.inbox.as_mut().unwrap();
    inbox.inbox = way.clone();
    inbox.parked = way.clone();
    plan.store = Some(parts);
    plan.membership = membership;
    plan.transport = Some(Arc::new(memory));
    plan.topic_named(Placed::TOPIC, Ordered::no(), false);
    plan.consumer(consumer);
    let messaging = Messaging::start(plan).await.unwrap();
    Node {
        messaging,
        environment,
        way,
    }
}

/// A consumer that counts the calls of its handler.
fn counting(calls: &Arc<AtomicU64>) -> Consumer {
    let calls = calls.clone();
    on().on(move |_: Placed, _: Context| {
        calls.fetch_add(1, SeqCst);
        async { HandlerResult::Ok(()) }
    })
}

#[tokio::test(start_paused = true)]
async fn should_ask_for_nothing_with_its_retries_when_its_life_has_ended_meanwhile() {
    let (server, calls) = (Memory::new(), Arc::new(AtomicU64::new(0)));
    let ann = node(&server, counting(&calls)).await;
    // Everything fails, for longer than a life lasts. The delivery is asked about again and again.
    ann.way.is_muted.store(true, SeqCst);
    ann.way.admits_fail.store(true, SeqCst);
    ann.messaging.publisher().publish(&Placed).await.unwrap();
    tokio::time::sleep(70 * SECOND).await;
    assert!(!ann.environment.is_alive());
    // The next of these is answered before the next heartbeat.
    ann.way.admits_fail.store(false, SeqCst);
    tokio::time::sleep(10 * SECOND).await;
    ann.way.is_muted.store(false, SeqCst);
    tokio::time::sleep(30 * SECOND).await;
    let stats = ann.messaging.consumers()[0].stats();
    assert_eq!((stats.handled, stats.dead), (1, 0), "its one round was not lost");
    assert_eq!(calls.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn should_give_back_an_admission_with_its_round_when_it_is_answered_after_its_life() {
    let (server, calls) = (Memory::new(), Arc::new(AtomicU64::new(0)));
    let ann = node(&server, counting(&calls)).await;
    ann.way.is_muted.store(true, SeqCst);
    tokio::time::sleep(20 * SECOND).await;
    // Asked while it lives, answered when it does no more, and before the store has given it up.
    let left = ann.environment.life.until() - ann.environment.clock.monotonic();
    tokio::time::sleep(left - 2 * SECOND).await;
    ann.way.admits_take.store(3_000, Relaxed);
    let published = ann.messaging.publisher().publish(&Placed).await.unwrap();
    tokio::time::sleep(4 * SECOND).await;
    let group = GroupName::parse("billing").unwrap();
    let entry = InboxQueries::get(&server, &group, published.id).await.unwrap();
    let entry = entry.unwrap();
    assert_eq!((entry.owner, entry.rounds), (None, 0), "{entry:?}");
    ann.way.admits_take.store(0, Relaxed);
    ann.way.is_muted.store(false, SeqCst);
    tokio::time::sleep(30 * SECOND).await;
    let stats = ann.messaging.consumers()[0].stats();
    assert_eq!((stats.handled, stats.dead), (1, 0));
    assert_eq!(calls.load(SeqCst), 1);
}

/// What becomes of a message that is asked for in one life, and whose answer comes in the next: how often it was handled, and
/// dead-lettered. A moment before the end of the first life, answers begin to take nine seconds.
async fn cross(consumer: Consumer, membership: MembershipConfig) -> (u64, u64) {
    let server = Memory::new();
    let ann = node_with(&server, consumer, membership).await;
    let former = ann.messaging.membership().unwrap().incarnation();
    ann.way.is_muted.store(true, SeqCst);
    tokio::time::sleep(20 * SECOND).await;
    let left = ann.environment.life.until() - ann.environment.clock.monotonic();
    tokio::time::sleep(left - 3 * SECOND).await;
    ann.way.admits_take.store(9_000, Relaxed);
    ann.way.claims_take.store(9_000, Relaxed);
    ann.messaging.publisher().publish(&Placed).await.unwrap();
    tokio::time::sleep(4 * SECOND).await;
    assert!(!ann.environment.is_alive());
    ann.way.admits_take.store(0, Relaxed);
    ann.way.claims_take.store(0, Relaxed);
    // From here on she is heard, and registers anew, before that answer comes or after it.
    ann.way.is_muted.store(false, SeqCst);
    tokio::time::sleep(60 * SECOND).await;
    assert!(ann.messaging.membership().unwrap().incarnation() > former);
    let stats = ann.messaging.consumers()[0].stats();
    (stats.handled, stats.dead)
}

#[tokio::test(start_paused = true)]
async fn should_lose_no_round_when_the_answer_to_an_admission_crosses_a_registration() {
    let calls = Arc::new(AtomicU64::new(0));
    let became = cross(counting(&calls), MembershipConfig::default()).await;
    assert_eq!(became, (1, 0), "its one round was not lost");
    assert_eq!(calls.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn should_lose_no_round_when_the_answer_to_the_admission_of_a_batch_crosses_a_registration() {
    let handle = |_: Vec<Placed>, _: BatchContext| async { HandlerResult::Ok(()) };
    let consumer = on().batch(10, Duration::from_millis(10), handle);
    let became = cross(consumer, MembershipConfig::default()).await;
    assert_eq!(became, (1, 0), "its one round was not lost");
}

#[tokio::test(start_paused = true)]
async fn should_lose_no_round_when_the_answer_to_a_claim_from_the_park_crosses_a_registration() {
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    // Transactional: a first delivery is not admitted, and fails at once.
    let consumer = Consumer::group("billing")
        .retry(Retry::exponential(SECOND / 10, SECOND / 10).inline(0).rounds(2))
        .timeout(HOUR)
        .lease(HOUR)
        .on(move |_: Placed, _: Context| {
            let is_first = counted.fetch_add(1, SeqCst) == 0;
            async move {
                if is_first {
                    return Err(HandlerError::retry("not yet"));
                }
                HandlerResult::Ok(())
            }
        });
    let became = cross(consumer.inbox(Inbox::Transactional), MembershipConfig::default()).await;
    assert_eq!(became, (1, 0), "its second round was not lost");
    assert_eq!(calls.load(SeqCst), 2);
}

/// The others take a node for silent while it waits.
#[tokio::test(start_paused = true)]
async fn should_wait_no_longer_than_a_heartbeat_for_an_answer_when_it_registers_anew() {
    let calls = Arc::new(AtomicU64::new(0));
    let membership = MembershipConfig::default().with_heartbeat(SECOND);
    let became = cross(counting(&calls), membership).await;
    assert_eq!(became, (0, 1), "freed with its round, which is its last one");
    assert_eq!(calls.load(SeqCst), 0);
}

async fn state(server: &Memory) -> NodeState {
    let nodes = MembershipStore::list(server, None, 10).await.unwrap().items;
    nodes[0].state
}

/// In real time: virtual time stands still while a thread is blocked.
#[tokio::test]
async fn should_keep_what_it_holds_when_it_shuts_down_and_a_blocking_handler_still_runs() {
    let server = Memory::new();
    let (began, begins) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    let ends = Mutex::new(ends);
    let consumer = on().blocking(move |_: Placed, _: Context| {
        began.send(()).unwrap();
        ends.lock().unwrap().recv().unwrap();
        HandlerResult::Ok(())
    });
    let ann = node(&server, consumer).await;
    let me = ann.environment.owner;
    let published = ann.messaging.publisher().publish(&Placed).await.unwrap();
    tokio::task::spawn_blocking(move || begins.recv_timeout(Duration::from_mins(1)).unwrap())
        .await
        .unwrap();
    let error = ann.messaging.shutdown(SECOND / 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("the death of this node"), "{error}");
    let group = GroupName::parse("billing").unwrap();
    let entry = InboxQueries::get(&server, &group, published.id).await.unwrap();
    assert_eq!(
        entry.unwrap().owner,
        Some(me),
        "another would run it beside the handler"
    );
    assert_eq!(state(&server).await, NodeState::Alive, "its silence is its death");
    end.send(()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_shut_down_in_time_when_a_burial_takes_for_ever() {
    let server = Memory::new();
    let ann = node(&server, counting(&Arc::default())).await;
    ann.way.burials_hang.store(true, SeqCst);
    // A burial is always under way from then on, until it is given up after a heartbeat's time.
    tokio::time::sleep(11 * SECOND).await;
    let clock = ann.environment.clock.clone();
    let began = clock.monotonic();
    ann.messaging.shutdown(Duration::from_mins(1)).await.unwrap();
    let took = clock.monotonic() - began;
    assert!(took < SECOND, "{took:?}");
    assert_eq!(state(&server).await, NodeState::Left);
}
