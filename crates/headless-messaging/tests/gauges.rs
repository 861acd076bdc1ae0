//! What the gauges show.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

#[path = "gauges/broken_outbox.rs"]
mod broken_outbox;
#[path = "relay/counters.rs"]
mod counters;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use headless_abstractions::{DeadLetterFilter, Store};
use headless_core::{Backoff, Environment, Event, HandlerError, Retry, Spawner, State, metric};
use headless_memory::Memory;
use headless_messaging::{CircuitBreaker, Consumer, Context, GaugesConfig, Inbox, Messaging, Plan};
use serde::{Deserialize, Serialize};

use crate::{broken_outbox::BrokenOutbox, counters::Counters};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
struct Placed {
    n: u32,
}

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";
}

#[tokio::test(start_paused = true)]
async fn should_show_the_circuit_open_until_a_probe_succeeds() {
    let counters = Counters::default();
    let _guard = counters.install();
    let (memory, recovered) = (Memory::new(), Arc::new(AtomicBool::new(false)));
    let dependency = recovered.clone();
    let consumer = Consumer::group("billing")
        .on(move |_: Placed, _: Context| {
            let up = dependency.load(Ordering::Acquire);
            async move {
                if up {
                    return Ok(());
                }
                Err(HandlerError::retry("the dependency is down"))
            }
        })
        .inbox(Inbox::Around)
        .retry(Retry::default().rounds(1_000))
        .circuit_breaker(CircuitBreaker::after(3).open_for(Backoff::exponential(SECOND, SECOND)));
    let mut plan = Plan::new(Environment::system(Spawner::current(), "node"));
    plan.transport = Some(Arc::new(memory.clone()));
    plan.store = Some(memory.parts());
    plan.state = State::new().with(memory.clone());
    plan.consumer(consumer);
    let labels = [("group", "billing"), ("topic", "orders.placed")];
    metrics::gauge!(metric::CIRCUIT_OPEN, &labels).set(1.0);
    let messaging = Messaging::start(plan).await.unwrap();
    let name = format!("{}{{group=billing,topic=orders.placed}}", metric::CIRCUIT_OPEN);
    let agrees = |open: bool| {
        let status = messaging.consumers()[0].subscriptions()[0].circuit_open;
        assert_eq!(counters.read(&name) == 1, status, "the gauge and the status");
        status == open
    };
    assert!(
        agrees(false),
        "a start shows the circuit closed, whatever was shown before"
    );

    for n in 0..5 {
        messaging.publisher().publish(&Placed { n }).await.unwrap();
    }
    eventually(|| agrees(true)).await;
    // Probes that fail leave it open.
    for _ in 0..50 {
        tokio::time::sleep(SECOND / 10).await;
        assert!(agrees(true));
    }
    recovered.store(true, Ordering::Release);
    eventually(|| agrees(false)).await;
    messaging.shutdown(10 * SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_show_the_circuit_closed_when_its_group_has_stopped() {
    let counters = Counters::default();
    let _guard = counters.install();
    let name = format!("{}{{group=billing,topic=orders.placed}}", metric::CIRCUIT_OPEN);
    for shuts_down in [true, false] {
        let memory = Memory::new();
        let consumer = Consumer::group("billing")
            .on(|_: Placed, _: Context| async { Err(HandlerError::retry("the dependency is down")) })
            .retry(Retry::default().rounds(1_000))
            .circuit_breaker(CircuitBreaker::after(1));
        let mut plan = Plan::new(Environment::system(Spawner::current(), "node"));
        plan.transport = Some(Arc::new(memory.clone()));
        plan.store = Some(memory.parts());
        plan.consumer(consumer);
        let messaging = Messaging::start(plan).await.unwrap();
        messaging.publisher().publish(&Placed { n: 1 }).await.unwrap();
        eventually(|| counters.read(&name) == 1).await;
        match shuts_down {
            true => messaging.shutdown(10 * SECOND).await.unwrap(),
            false => drop(messaging),
        }
        assert_eq!(counters.read(&name), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn should_show_what_waits_and_what_is_dead_and_when_it_is_gone() {
    let counters = Counters::default();
    let _guard = counters.install();
    let memory = Memory::new();
    let consumer = Consumer::group("billing")
        .on(|_: Placed, _: Context| async { Err(HandlerError::permanent("never")) });
    let mut plan = Plan::new(Environment::system(Spawner::current(), "node"));
    plan.transport = Some(Arc::new(memory.clone()));
    plan.store = Some(memory.parts());
    plan.consumer(consumer);
    plan.gauges = Some(GaugesConfig::default().with_interval(SECOND));
    let messaging = Messaging::start(plan).await.unwrap();
    let later = messaging.publisher().message(Placed::TOPIC, &Placed { n: 1 });
    later.delay(3_600 * SECOND).send().await.unwrap();
    for n in 2..=3 {
        messaging.publisher().publish(&Placed { n }).await.unwrap();
    }
    let read = |name: &str, labels: &str| counters.read(&format!("{name}{{{labels}}}"));
    let dead = || read(metric::DEAD_LETTERS, "group=billing,topic=orders.placed");
    let age = || read(metric::DEAD_LETTERS_OLDEST, "group=billing,topic=orders.placed");
    eventually(|| dead() == 2 && age() >= 10).await;
    assert_eq!(read(metric::OUTBOX_MESSAGES, "state=delayed"), 1);
    assert_eq!(read(metric::OUTBOX_MESSAGES, "state=ready"), 0);
    assert_eq!(read(metric::OUTBOX_OLDEST, ""), 0, "what is delayed is not due");

    let letters = messaging.dead_letters().unwrap();
    let page = letters.list(&DeadLetterFilter::open(), None, 10).await.unwrap();
    let ids: Vec<_> = page.items.iter().map(|letter| letter.id).collect();
    letters.discard(&ids, "an operator").await.unwrap();
    eventually(|| dead() == 0 && age() == 0).await;
    messaging.shutdown(10 * SECOND).await.unwrap();
}

/// A dead letter of billing, in a store whose outbox can be broken, looked at every 10 s.
async fn with_a_dead_letter() -> (Arc<BrokenOutbox>, Messaging) {
    let memory = Memory::new();
    let consumer = Consumer::group("billing")
        .on(|_: Placed, _: Context| async { Err(HandlerError::permanent("never")) });
    let mut plan = Plan::new(Environment::system(Spawner::current(), "node"));
    plan.transport = Some(Arc::new(memory.clone()));
    let mut parts = memory.parts();
    let stored = parts.outbox.as_mut().unwrap();
    let outbox = Arc::new(BrokenOutbox::of(stored.queries.clone()));
    stored.queries = outbox.clone();
    plan.store = Some(parts);
    plan.consumer(consumer);
    plan.gauges = Some(GaugesConfig::default().with_interval(10 * SECOND));
    let messaging = Messaging::start(plan).await.unwrap();
    messaging.publisher().publish(&Placed { n: 1 }).await.unwrap();
    eventually(|| messaging.consumers()[0].stats().dead == 1).await;
    (outbox, messaging)
}

const DEAD: &str = "headless_dead_letters{group=billing,topic=orders.placed}";
const AGE: &str = "headless_dead_letters_oldest_seconds{group=billing,topic=orders.placed}";
const FAILED: &str = "headless_task_failed_total{task=gauges}";

#[tokio::test(start_paused = true)]
async fn should_count_at_the_interval_and_the_dead_letters_when_the_outbox_is_away() {
    let counters = Counters::default();
    let _guard = counters.install();
    let (outbox, messaging) = with_a_dead_letter().await;
    outbox.fails.store(true, Ordering::SeqCst);
    let before = outbox.asked.load(Ordering::SeqCst);
    tokio::time::sleep(100 * SECOND).await;
    let asked = outbox.asked.load(Ordering::SeqCst) - before;
    assert!(
        (9..=21).contains(&asked),
        "each wait is 5 to 10 s: {asked} counts"
    );
    assert_eq!(counters.read(FAILED), u64::from(asked));
    assert_eq!(
        counters.read(DEAD),
        1,
        "the dead letters are counted all the same"
    );
    messaging.shutdown(10 * SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_end_a_count_after_5_s_and_when_it_is_stopped() {
    let counters = Counters::default();
    let _guard = counters.install();
    let (outbox, messaging) = with_a_dead_letter().await;
    outbox.hangs.store(true, Ordering::SeqCst);
    let before = outbox.asked.load(Ordering::SeqCst);
    eventually(|| outbox.asked.load(Ordering::SeqCst) == before + 1).await;
    let timed_out = "headless_store_failed_total{operation=outbox.stats,reason=timeout}";
    tokio::time::sleep(5 * SECOND - Duration::from_millis(10)).await;
    assert_eq!(counters.read(timed_out), 0);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!((counters.read(timed_out), counters.read(FAILED)), (1, 1));
    assert_eq!(
        counters.read(DEAD),
        1,
        "the dead letters are counted all the same"
    );

    eventually(|| outbox.asked.load(Ordering::SeqCst) == before + 2).await;
    // A shutdown waits for no count.
    let ended = tokio::time::timeout(SECOND, messaging.shutdown(10 * SECOND)).await;
    ended.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_show_nothing_any_more_when_it_has_stopped() {
    let counters = Counters::default();
    let _guard = counters.install();
    let delayed = || counters.read(&format!("{}{{state=delayed}}", metric::OUTBOX_MESSAGES));
    for shuts_down in [true, false] {
        let (_, messaging) = with_a_dead_letter().await;
        let later = messaging.publisher().message(Placed::TOPIC, &Placed { n: 2 });
        later.delay(3_600 * SECOND).send().await.unwrap();
        eventually(|| counters.read(DEAD) == 1 && counters.read(AGE) > 0 && delayed() == 1).await;
        match shuts_down {
            true => messaging.shutdown(10 * SECOND).await.unwrap(),
            false => drop(messaging),
        }
        eventually(|| counters.read(DEAD) == 0 && counters.read(AGE) == 0 && delayed() == 0).await;
    }
}

async fn eventually(holds: impl Fn() -> bool) {
    let look = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(60 * SECOND, look).await.unwrap();
}
