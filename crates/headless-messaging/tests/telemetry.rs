//! What is emitted is what the tables name, and the other way round: one workload that goes every way a message can.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

#[path = "telemetry/broken_inbox.rs"]
mod broken_inbox;
#[path = "telemetry/broken_subscriber.rs"]
mod broken_subscriber;
#[expect(dead_code, reason = "what was sent is of no interest here")]
#[path = "relay/faulty.rs"]
mod faulty;
#[path = "telemetry/recorded.rs"]
mod recorded;
#[path = "telemetry/unwatched.rs"]
mod unwatched;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use headless_abstractions::{
    Error, ErrorKind, MembershipStore, Message, MessageId, ParkLimits, Store, Transport,
};
use headless_core::{
    Environment, Event, HandlerError, HandlerResult, Retry, Spawner, State, UnitOfWork, metric,
    trace::{SPANS, TARGET},
};
use headless_memory::Memory;
use headless_messaging::{
    BatchContext, Consumer, ConsumerHandle, Context, GaugesConfig, Inbox, Messaging, Ordered, Plan,
    PublishExt,
};
use serde::{Deserialize, Serialize};

use crate::{
    broken_inbox::BrokenInbox, broken_subscriber::BrokenSubscriber, faulty::Faulty, recorded::Recorded,
};

const SECOND: Duration = Duration::from_secs(1);

const PAGE: &str = include_str!("../../../docs/telemetry.md");

/// What is to become of a message.
#[derive(Clone, Serialize, Deserialize)]
struct Task {
    what: String,
}

impl Event for Task {
    const TOPIC: &'static str = "tasks";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed("one"))
    }
}

#[derive(Serialize, Deserialize)]
struct Click {
    n: u32,
}

impl Event for Click {
    const TOPIC: &'static str = "clicks";
}

fn task(what: &str) -> Task {
    Task {
        what: what.to_owned(),
    }
}

async fn work(task: Task, cx: Context) -> HandlerResult {
    let round = cx.attempt().round;
    match &*task.what {
        "permanent" => Err(HandlerError::permanent("never")),
        "discard" => Err(HandlerError::discard("not needed")),
        "again" if cx.attempt().inline == 1 => Err(HandlerError::retry("not yet")),
        "later" if round == 1 => Err(HandlerError::retry("not now")),
        _ => Ok(()),
    }
}

struct World {
    memory: Memory,
    transport: Arc<Faulty>,
    inbox: Arc<BrokenInbox>,
    refused_settlements: Arc<AtomicU32>,
    messaging: Messaging,
    environment: Environment,
}

impl World {
    async fn start() -> Self {
        let memory = Memory::new();
        let mut parts = memory.parts();
        let stored = parts.inbox.as_mut().unwrap();
        let inbox = Arc::new(BrokenInbox {
            inner: stored.inbox.clone(),
            failures: AtomicU32::new(0),
            panics: AtomicU32::new(0),
        });
        stored.inbox = inbox.clone();
        let capabilities = memory.info().capabilities;
        let transport = Faulty::new(Arc::new(memory.clone()), capabilities);
        let refused_settlements = Arc::new(AtomicU32::new(0));
        let refused = refused_settlements.clone();
        *transport.wrap.lock().unwrap() = Box::new(move |inner| {
            Box::new(BrokenSubscriber {
                inner,
                refused: refused.clone(),
            })
        });
        let environment = Environment::system(Spawner::current(), "ann");

        let mut plan = Plan::new(environment.clone());
        plan.store = Some(parts);
        plan.transport = Some(transport.clone());
        plan.state = State::new().with(memory.clone());
        plan.relay = plan.relay.with_attempts(1);
        plan.service = Some("shop".to_owned());
        plan.gauges = Some(GaugesConfig::default().with_interval(SECOND));
        plan.topic::<Task>(Ordered::partitions(2));
        plan.topic_named("nobody", Ordered::no(), false);
        let one = NonZeroUsize::new(1).unwrap();
        let many = NonZeroUsize::new(1_000).unwrap();
        plan.consumer(
            Consumer::group("workers")
                .on(work)
                .inbox(Inbox::Around)
                .ordered_by_key()
                .park_limits(ParkLimits::new(one, many))
                .retry(Retry::exponential(SECOND, SECOND).inline(1)),
        );
        let count = |_: Vec<Click>, _: BatchContext| async { Ok(()) };
        plan.consumer(Consumer::group("counters").batch(10, SECOND, count));
        let messaging = Messaging::start(plan).await.unwrap();
        Self {
            memory,
            transport,
            inbox,
            refused_settlements,
            messaging,
            environment,
        }
    }

    async fn publish(&self, what: &str) -> MessageId {
        let message = self.messaging.publisher().message(Task::TOPIC, &task(what));
        message.key("one").correlation_id("talk").send().await.unwrap().id
    }

    fn workers(&self) -> &ConsumerHandle {
        &self.messaging.consumers()[0]
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let look = async {
            while !holds(self) {
                tokio::time::sleep(SECOND / 100).await;
            }
        };
        tokio::time::timeout(600 * SECOND, look)
            .await
            .unwrap_or_else(|_| {
                let stats = self.workers().stats();
                let relay = self.messaging.relay().unwrap().status();
                panic!("not in time: {what}: {stats:?}, {relay:?}")
            });
    }
}

/// Every way of a message that ends well, and every way that a handler can send it.
async fn handle(world: &World) {
    for what in ["well", "again", "permanent", "discard"] {
        world.publish(what).await;
    }
    world
        .until("all are over", |world| {
            let stats = world.workers().stats();
            stats.handled == 2 && stats.dead == 1 && stats.discarded == 1
        })
        .await;
    // What comes behind a parked message finds no room at first, since one of a key may be parked.
    world.publish("later").await;
    world.publish("behind").await;
    world
        .until("both are handled", |world| world.workers().stats().handled == 4)
        .await;
    assert!(world.workers().stats().parked >= 1);

    let publisher = world.messaging.publisher().direct();
    let twice = world.publish("well").await;
    world
        .until("it is handled", |world| world.workers().stats().handled == 5)
        .await;
    let repeated = publisher.message(Task::TOPIC, &task("well")).key("one").id(twice);
    repeated.send().await.unwrap();
    world.workers().pause();
    let stale = publisher.message(Task::TOPIC, &task("well")).key("one");
    stale.expires_after(SECOND).send().await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    world.workers().resume();
    world
        .until("a duplicate and one that has expired", |world| {
            let stats = world.workers().stats();
            stats.duplicates == 1 && stats.expired == 1
        })
        .await;
    let clicks: Vec<_> = (0..5).map(|n| Click { n }).collect();
    for published in world.messaging.publisher().publish_all(&clicks).await {
        published.unwrap();
    }
    world
        .until("a batch", |world| {
            world.messaging.consumers()[1].stats().handled == 5
        })
        .await;
}

/// What the relay meets.
async fn relay(world: &World) {
    let status = || world.messaging.relay().unwrap().status();
    let publisher = world.messaging.publisher();
    publisher.message("nobody", "listens").send().await.unwrap();
    world.until("it has left", |_| status().unrouted == 1).await;
    let refuse = |message: Option<&Message>| message.map(|_| Error::invalid("no"));
    world.transport.fail(refuse);
    world.publish("well").await;
    world.until("a dead letter", |_| status().dead == 1).await;
    let away = |_: Option<&Message>| Some(Error::new(ErrorKind::Unavailable, "away"));
    world.transport.fail(away);
    let stale = publisher.message(Task::TOPIC, &task("well")).key("one");
    stale.expires_after(SECOND).send().await.unwrap();
    world
        .until("an open circuit", |_| status().is_circuit_open())
        .await;
    publisher.direct().publish(&task("well")).await.unwrap_err();
    tokio::time::sleep(5 * SECOND).await;
    world.transport.fail(|_| None);
    world
        .until("one that has expired", |_| status().expired == 1)
        .await;
}

/// A unit of work of one's own, a store that fails, and a driver that panics.
async fn break_things(world: &World) {
    let tx = headless_abstractions::UnitOfWorkStore::begin(&world.memory)
        .await
        .unwrap();
    let state = world.messaging.state_of_work(&State::new());
    let mut work = UnitOfWork::begun(tx, state, &world.environment);
    work.publish(&task("well")).await.unwrap();
    work.commit().await.unwrap();
    world.inbox.failures.store(1, Ordering::SeqCst);
    world.refused_settlements.store(1, Ordering::SeqCst);
    world.publish("well").await;
    world.inbox.panics.store(1, Ordering::SeqCst);
    world.publish("well").await;
    world
        .until("a panic and what comes again", |world| {
            let stats = world.workers().stats();
            stats.panicked == 1 && stats.redelivered > 0
        })
        .await;
}

/// A node that the store gives up, and another that falls silent.
async fn lose_nodes(world: &World) {
    let membership = world.messaging.membership().unwrap();
    let first = membership.incarnation();
    let owner = world.environment.owner;
    assert!(world.memory.leave(owner, first).await.unwrap());
    let cut = world.memory.connect();
    let mut plan = Plan::new(Environment::system(Spawner::current(), "bob"));
    plan.store = Some(cut.parts());
    plan.service = Some("shop".to_owned());
    let bob = Messaging::start(plan).await.unwrap();
    cut.sever();
    tokio::time::sleep(120 * SECOND).await;
    assert!(membership.incarnation() > first);
    drop(bob);
}

/// A blocking handler that goes on long after its time.
async fn get_stuck(recorded: &Recorded) {
    let memory = Memory::new();
    let (open, opened) = mpsc::channel::<()>();
    let opened = Mutex::new(opened);
    let consumer = Consumer::group("blocked")
        .blocking(move |_: Click, _: Context| {
            opened.lock().unwrap().recv()?;
            Ok(())
        })
        .timeout(SECOND);
    let mut plan = Plan::new(Environment::system(Spawner::current(), "cid"));
    plan.store = Some(memory.parts());
    plan.transport = Some(Arc::new(memory.clone()));
    plan.consumer(consumer);
    let messaging = Messaging::start(plan).await.unwrap();
    messaging
        .publisher()
        .direct()
        .publish(&Click { n: 1 })
        .await
        .unwrap();
    // Time stands still while a thread is blocked: it is moved by hand.
    let is_stuck = || recorded.metrics().iter().any(|(name, ..)| name == metric::STUCK);
    let mut moved = 0;
    while !is_stuck() {
        moved += 1;
        assert!(moved < 10_000, "nobody says that it is stuck");
        tokio::time::advance(SECOND / 10).await;
        tokio::task::yield_now().await;
    }
    open.send(()).unwrap();
    messaging.shutdown(60 * SECOND).await.unwrap();
}

/// The operations that the page says are measured.
fn operations_of_the_page() -> BTreeSet<String> {
    let (_, listed) = PAGE
        .split_once("Operations of the store that are measured:")
        .unwrap();
    let (listed, _) = listed.split_once(".\n").unwrap();
    // Every other piece is between ticks.
    let named = listed.split('`').skip(1).step_by(2);
    named.map(ToOwned::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn should_emit_what_the_tables_name_and_nothing_else() {
    let recorded = Recorded::default();
    let _recorder = metrics::set_default_local_recorder(&recorded);
    let _subscriber = tracing::subscriber::set_default(recorded::Spans::of(&recorded));
    let world = World::start().await;
    handle(&world).await;
    relay(&world).await;
    break_things(&world).await;
    lose_nodes(&world).await;
    world.messaging.shutdown(60 * SECOND).await.unwrap();
    get_stuck(&recorded).await;
    unwatched::go_without_membership().await;

    let listed: BTreeSet<_> = metric::ALL
        .iter()
        .map(|metric| {
            let labels = metric.labels.iter().map(ToString::to_string).collect();
            (metric.name.to_owned(), metric.kind.as_str(), labels)
        })
        .collect();
    let emitted = recorded.metrics();
    let unlisted: Vec<_> = emitted.difference(&listed).collect();
    assert!(unlisted.is_empty(), "not in the table: {unlisted:#?}");
    let unseen: Vec<_> = listed.difference(&emitted).collect();
    assert!(unseen.is_empty(), "in the table and not emitted: {unseen:#?}");
    assert_eq!(recorded.values("operation"), operations_of_the_page());

    let spans = recorded.spans();
    let names: BTreeSet<_> = spans.keys().cloned().collect();
    let listed: BTreeSet<_> = SPANS
        .iter()
        .map(|span| (TARGET.to_owned(), span.name.to_owned()))
        .collect();
    assert_eq!(names, listed);
    for span in SPANS {
        let shape = &spans[&(TARGET.to_owned(), span.name.to_owned())];
        assert_eq!((shape.level, &*shape.fields), (span.level, span.fields));
        assert_eq!(
            shape.kinds,
            BTreeSet::from([span.kind.to_owned()]),
            "{}",
            span.name
        );
        let empty: Vec<_> = span
            .fields
            .iter()
            .filter(|field| !shape.filled.contains(*field))
            .collect();
        assert!(
            empty.is_empty(),
            "fields of {} never filled: {empty:?}",
            span.name
        );
    }
}
