//! What a runtime says of its settings is what is in effect.

use std::{sync::Arc, time::Duration};

use headless::{
    CircuitBreaker, Consumer, Context, Environment, Event, HandlerResult, Headless, Inbox, Memory, Retry,
    Runtime, SeededRandom, Spawner, SystemClock,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Placed;

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";
}

async fn take(_: Placed, _: Context) -> HandlerResult {
    Ok(())
}

fn environment() -> Environment {
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(1)));
    Environment::new(clock, random, Spawner::current(), "node-1")
}

fn lines(runtime: &Runtime, prefix: &str) -> Vec<String> {
    let settings = runtime.explain().iter();
    settings
        .filter(|setting| setting.name.starts_with(prefix))
        .map(ToString::to_string)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn should_show_the_settings_of_each_group_when_asked() {
    let memory = Memory::new();
    let runtime = Headless::builder("orders")
        .store(&memory)
        .transport(memory.clone())
        .consumer(
            Consumer::group("billing")
                .on(take)
                .inbox(Inbox::Around)
                .concurrency(4)
                .timeout(Duration::from_secs(90))
                .retry(Retry::default().inline(1).rounds(3))
                .circuit_breaker(CircuitBreaker::off()),
        )
        .consumer(Consumer::group("shipping").on(take))
        .environment(environment())
        .start()
        .await
        .unwrap();
    let billing = [
        "group.billing.inbox = around (builder)",
        "group.billing.ordered = false (default)",
        "group.billing.concurrency = 4 (builder)",
        "group.billing.prefetch = 100 (default)",
        "group.billing.timeout = 90 s (builder)",
        "group.billing.lease = 30 s (default)",
        "group.billing.visibility = 30 s (default)",
        "group.billing.retry.inline = 1 (builder)",
        "group.billing.retry.rounds = 3 (builder)",
        "group.billing.circuit_breaker = off (builder)",
        "group.billing.park.poll = 30 s (safety net beside the pulse)",
        "group.billing.park.most_per_key = 1000 (default)",
        "group.billing.park.most = 100000 (default)",
        "group.billing.unknown_type_delay = 1 min (default)",
        "group.billing.start_from = now (default)",
        "group.billing.per_instance = false (default)",
    ];
    assert_eq!(lines(&runtime, "group.billing."), billing);
    let shipping = lines(&runtime, "group.shipping.");
    for line in [
        "group.shipping.inbox = transactional (default)",
        "group.shipping.circuit_breaker = after 50 failures, open 2 s to 1 min (default)",
    ] {
        assert!(shipping.contains(&line.to_owned()), "{shipping:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn should_show_the_polls_as_they_are_when_the_store_has_a_pulse() {
    for (given, shown) in [
        (None, "relay.poll = 30 s (safety net beside the pulse)"),
        (
            Some(Duration::from_secs(5)),
            "relay.poll = 30 s (safety net beside the pulse)",
        ),
        (Some(Duration::from_secs(45)), "relay.poll = 45 s (builder)"),
    ] {
        let memory = Memory::new();
        let mut builder = Headless::builder("orders")
            .store(&memory)
            .transport(memory.clone())
            .environment(environment());
        if let Some(given) = given {
            builder = builder.relay_poll(given);
        }
        let runtime = builder.start().await.unwrap();
        assert_eq!(lines(&runtime, "relay.poll"), [shown]);
    }
}

#[tokio::test(start_paused = true)]
async fn should_show_no_park_when_the_group_uses_no_store() {
    let memory = Memory::new();
    let runtime = Headless::builder("orders")
        .transport(memory.clone())
        .consumer(Consumer::group("billing").on(take))
        .environment(environment())
        .start()
        .await
        .unwrap();
    assert_eq!(lines(&runtime, "group.billing.park"), Vec::<String>::new());
    assert_eq!(
        lines(&runtime, "group.billing.inbox"),
        ["group.billing.inbox = off (default)"]
    );
}
