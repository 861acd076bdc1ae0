//! Dead letters as an operator handles them.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use headless_abstractions::{Clock, DeadLetterFilter, FailureCause, Redrive, Redriven, Store};
use headless_core::{Environment, Event, HandlerError, SeededRandom, Spawner, State, SystemClock};
use headless_memory::Memory;
use headless_messaging::{Consumer, Context, Messaging, Plan, RedriveMatching};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: u32,
}

impl Event for Order {
    const TOPIC: &'static str = "orders";
}

/// A consumer that refuses everything until it is mended, with this many orders dead.
async fn with_dead(count: u32) -> (Messaging, Arc<AtomicBool>) {
    let memory = Memory::new();
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = mended.clone();
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(1)));
    let mut plan = Plan::new(Environment::new(clock, random, Spawner::current(), "node"));
    plan.store = Some(memory.parts());
    plan.transport = Some(Arc::new(memory.clone()));
    plan.state = State::new().with(memory.clone());
    plan.consumer(Consumer::group("billing").on(move |order: Order, _: Context| {
        let mended = is_mended.load(Ordering::SeqCst);
        async move {
            if mended {
                Ok(())
            } else {
                Err(HandlerError::permanent(format!("order {}", order.number)))
            }
        }
    }));
    let messaging = Messaging::start(plan).await.unwrap();
    for number in 0..count {
        messaging.publisher().publish(&Order { number }).await.unwrap();
    }
    eventually("all are dead", || {
        messaging.consumers()[0].stats().dead == u64::from(count)
    })
    .await;
    (messaging, mended)
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in time: {what}");
}

#[tokio::test(start_paused = true)]
async fn should_be_handled_when_redriven_by_filter_at_a_limited_rate() {
    let (messaging, mended) = with_dead(25).await;
    let dead = messaging.dead_letters().unwrap();
    let stats = dead.stats().await.unwrap();
    assert_eq!(
        (stats.len(), stats[0].count, stats[0].cause),
        (1, 25, FailureCause::Permanent)
    );

    mended.store(true, Ordering::SeqCst);
    let request = RedriveMatching::new(DeadLetterFilter::open(), "ann")
        .with_most(20)
        .with_per_second(NonZeroU32::new(5).unwrap());
    let clock = SystemClock::new();
    let answers = dead.redrive_matching(&request).await.unwrap();
    assert!(
        clock.monotonic() >= Duration::from_secs(3),
        "twenty at five a second"
    );
    assert_eq!(answers.into_iter().collect::<Vec<_>>(), [("redriven", 20)]);
    eventually("twenty are handled", || {
        messaging.consumers()[0].stats().handled == 20
    })
    .await;
    assert_eq!(dead.stats().await.unwrap()[0].count, 5);
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_answer_closed_when_redriven_or_discarded_before() {
    let (messaging, _) = with_dead(2).await;
    let dead = messaging.dead_letters().unwrap();
    let page = dead
        .list(
            &DeadLetterFilter::open().with_error_containing("order 1"),
            None,
            10,
        )
        .await
        .unwrap();
    let id = page.items[0].id;
    assert_eq!(page.items.len(), 1);
    assert_eq!(dead.discard(&[id], "ann").await.unwrap(), 1);
    assert_eq!(
        dead.redrive(&Redrive::new(vec![id], "bob")).await.unwrap(),
        [Redriven::Closed]
    );
    let (by, _) = dead.get(id).await.unwrap().unwrap().discarded.unwrap();
    assert_eq!(by, "ann");
    assert!(dead.discard(&[id], "").await.is_err(), "a change says who");
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}
