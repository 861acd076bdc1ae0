//! Defects of the consumer that a review found, each with the case that shows it.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use headless_abstractions::{
    DeadLetterFilter, DeadLetterQueries, FailureCause, GroupName, Store, Subscription, TopicName, Transport,
};
use headless_core::{
    Environment, Event, HandlerError, HandlerResult, Retry, SeededRandom, Spawner, State, SystemClock,
};
use headless_memory::Memory;
use headless_messaging::{Consumer, Context, Messaging, Ordered, PauseReason, Plan};
use serde::{Deserialize, Deserializer, Serialize};

#[path = "reviewed/calls.rs"]
mod calls;

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    lines: Vec<u32>,
}

impl Event for Order {
    const TOPIC: &'static str = "orders";
}

/// An event whose decoding panics.
#[derive(Debug, Serialize)]
struct Trap;

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("a trap in the decoder")
    }
}

impl Event for Trap {
    const TOPIC: &'static str = "traps";
}

fn plan(memory: &Memory, with_store: bool) -> Plan {
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(1)));
    let mut plan = Plan::new(Environment::new(clock, random, Spawner::current(), "node"));
    plan.transport = Some(Arc::new(memory.clone()));
    if with_store {
        plan.store = Some(memory.parts());
        plan.state = State::new().with(memory.clone());
    }
    plan
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in time: {what}");
}

async fn last_causes(memory: &Memory) -> Vec<FailureCause> {
    let page = DeadLetterQueries::list(memory, &DeadLetterFilter::open(), None, 10)
        .await
        .unwrap();
    page.items
        .iter()
        .filter_map(|letter| letter.failures.last())
        .map(|failure| failure.cause)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn should_fail_the_attempt_when_a_handler_panics_before_its_first_await() {
    let memory = Memory::new();
    let mut plan = plan(&memory, true);
    let handler = |order: Order, _: Context| {
        let first = order.lines[0];
        async move {
            if first > 0 {
                Ok(())
            } else {
                Err(HandlerError::retry("zero"))
            }
        }
    };
    plan.consumer(
        Consumer::group("billing")
            .on(handler)
            .retry(Retry::never())
            .concurrency(1),
    );
    let messaging = Messaging::start(plan).await.unwrap();
    messaging
        .publisher()
        .publish(&Order { lines: vec![] })
        .await
        .unwrap();
    messaging
        .publisher()
        .publish(&Order { lines: vec![1] })
        .await
        .unwrap();
    eventually("the other message is handled", async || {
        messaging.consumers()[0].stats().handled == 1
    })
    .await;
    eventually("the message is dead", async || {
        last_causes(&memory).await == [FailureCause::Panic]
    })
    .await;
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_dead_letter_the_message_when_its_decoder_panics() {
    async fn never(_: Trap, _: Context) -> HandlerResult {
        Ok(())
    }
    let memory = Memory::new();
    let mut plan = plan(&memory, true);
    plan.consumer(Consumer::group("billing").on(never));
    let messaging = Messaging::start(plan).await.unwrap();
    messaging.publisher().publish(&Trap).await.unwrap();
    eventually("it is dead", async || {
        last_causes(&memory).await == [FailureCause::Undecodable]
    })
    .await;
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_keep_a_dead_letter_when_there_is_no_store_and_nobody_reads_it() {
    async fn refuse(_: Order, _: Context) -> HandlerResult {
        Err(HandlerError::permanent("no"))
    }
    let memory = Memory::new();
    let mut plan = plan(&memory, false);
    plan.topic::<Order>(Ordered::no());
    plan.consumer(Consumer::group("billing").on(refuse));
    let messaging = Messaging::start(plan).await.unwrap();
    messaging
        .publisher()
        .publish(&Order { lines: vec![] })
        .await
        .unwrap();
    let keeper = GroupName::parse("dead-letters").unwrap();
    eventually("it is kept", async || memory.lag(&keeper).await.unwrap() == 1).await;

    let dead = TopicName::parse("orders").unwrap().dead();
    let reader = Subscription::new(keeper, dead, headless_abstractions::Owner::from_bits(9))
        .with_prefetch(NonZeroUsize::MIN);
    let reader = memory.subscribe(&reader).await.unwrap();
    let received = reader.receive(1, Duration::from_secs(1)).await.unwrap();
    assert_eq!(
        received.deliveries[0].message.headers.get("dead-error"),
        Some("no")
    );
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_pause_instead_of_burying_when_a_handler_needs_a_store_that_is_missing() {
    async fn begin(_: Order, cx: Context) -> HandlerResult {
        cx.begin::<Memory>().await?.commit().await?;
        Ok(())
    }
    let memory = Memory::new();
    let mut plan = plan(&memory, false);
    plan.consumer(Consumer::group("billing").on(begin));
    let messaging = Messaging::start(plan).await.unwrap();
    messaging
        .publisher()
        .publish(&Order { lines: vec![] })
        .await
        .unwrap();
    let billing = messaging.consumers()[0].clone();
    eventually("it is paused", async || {
        billing.subscriptions()[0]
            .paused
            .contains(&PauseReason::Configuration)
    })
    .await;
    assert_eq!(billing.stats().dead, 0);
    assert!(
        billing.subscriptions()[0]
            .problem
            .as_ref()
            .unwrap()
            .contains(".store(..)")
    );
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_gather_until_the_batch_is_full_when_it_may_wait_for_ever() {
    async fn take(orders: Vec<Order>, _: headless_messaging::BatchContext) -> HandlerResult {
        assert_eq!(orders.len(), 3);
        Ok(())
    }
    let memory = Memory::new();
    let mut plan = plan(&memory, true);
    plan.consumer(Consumer::group("billing").batch(3, Duration::MAX, take));
    let messaging = Messaging::start(plan).await.unwrap();
    for _ in 0..3 {
        messaging
            .publisher()
            .publish(&Order { lines: vec![] })
            .await
            .unwrap();
    }
    eventually("all are handled", async || {
        messaging.consumers()[0].stats().handled == 3
    })
    .await;
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}
