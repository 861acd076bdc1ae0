//! What a relay promises, over the memory provider and in virtual time.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod relay {
    pub(crate) mod counters;
    pub(crate) mod faulty;
    pub(crate) mod maintenance;
    pub(crate) mod slow_outbox;
    pub(crate) mod world;
}

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use headless_abstractions::{
    Error, ErrorKind, FailureCause, Message, Origin, OutboxState, OutboxStore, Random, Transport,
    TransportCapabilities,
};
use headless_core::{Environment, Membership, MembershipConfig, Next, SeededRandom, metric};
use headless_memory::Memory;
use headless_messaging::{Relay, RelayConfig};
use tokio_util::sync::CancellationToken;

use crate::relay::{
    counters::Counters,
    world::{World, text},
};

const SECOND: Duration = Duration::from_secs(1);

fn down(_: Option<&Message>) -> Option<Error> {
    Some(Error::new(ErrorKind::Unavailable, "the broker is away"))
}

/// Refuses the messages with this text, with an error of this kind.
fn refusing(refused: &'static str, kind: ErrorKind) -> impl FnMut(Option<&Message>) -> Option<Error> + Send {
    move |message| (text(message?) == refused).then(|| Error::new(kind, format!("{refused} is not wanted")))
}

/// Without anything of a prefix: the relay has one message of a key in flight.
fn unprefixed() -> TransportCapabilities {
    Memory::new().info().capabilities.with_accepts_by_prefix(false)
}

async fn drain(relay: &Relay) {
    while relay.run_once().await.unwrap() == Next::Again {}
}

#[tokio::test(start_paused = true)]
async fn should_acknowledge_with_the_next_claim_when_a_batch_was_sent() {
    let world = World::new().await;
    let (relay, _) = world.relay(1, RelayConfig::default().with_batch(2));
    world
        .store(&[("ledger", "a", "1"), ("ledger", "a", "2"), ("clicks", "-", "3")])
        .await;
    assert_eq!(relay.run_once().await.unwrap(), Next::Again);
    assert_eq!(world.sent(), ["1", "2"]);
    assert_eq!(world.stored().await.len(), 3, "not acknowledged yet");
    assert_eq!(relay.run_once().await.unwrap(), Next::Again);
    assert_eq!(
        world.stored().await.len(),
        1,
        "the first batch's acknowledgement rode on the second claim"
    );
    assert_eq!(relay.run_once().await.unwrap(), Next::Wait);
    assert!(world.stored().await.is_empty());
    assert_eq!(world.sent(), ["1", "2", "3"]);
    let status = relay.status();
    assert_eq!((status.relayed, status.failing), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn should_acknowledge_what_is_pending_when_flushed() {
    let world = World::new().await;
    let (relay, _) = world.relay(1, RelayConfig::default());
    relay.flush().await.unwrap();
    world.store(&[("clicks", "-", "1")]).await;
    assert_eq!(relay.run_once().await.unwrap(), Next::Again);
    relay.flush().await.unwrap();
    assert!(world.stored().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn should_send_at_once_when_woken_and_by_the_poll_when_not() {
    let world = World::new().await;
    let (relay, environment) = world.relay(1, RelayConfig::default().with_poll(60 * SECOND));
    let stop = CancellationToken::new();
    let task = relay.spawn(stop.clone());
    tokio::time::sleep(SECOND).await;
    world.store(&[("clicks", "-", "woken")]).await;
    environment.wakeups.outbox().wake();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(world.sent(), ["woken"]);
    assert!(
        world.stored().await.is_empty(),
        "nothing more is ready: acknowledged at once"
    );
    world.store(&[("clicks", "-", "polled")]).await;
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(world.sent(), ["woken"], "nobody said anything");
    tokio::time::sleep(41 * SECOND).await;
    assert_eq!(world.sent(), ["woken", "polled"]);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_acknowledge_what_it_has_sent_when_stopped_in_the_middle() {
    let world = World::new().await;
    *world.transport.latency.lock().unwrap() = SECOND;
    let (relay, _) = world.relay(1, RelayConfig::default().with_batch(1));
    world.store(&[("clicks", "-", "1"), ("clicks", "-", "2")]).await;
    let stop = CancellationToken::new();
    let task = relay.spawn(stop.clone());
    tokio::time::sleep(SECOND / 2).await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!(world.sent(), ["1"]);
    assert_eq!(world.stored().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn should_lose_and_count_nothing_when_the_broker_is_away() {
    for capabilities in [Memory::new().info().capabilities, unprefixed()] {
        let world = World::with(capabilities).await;
        world.transport.fail(down);
        let (relay, environment) = world.relay(1, RelayConfig::default().with_batch(7));
        let stop = CancellationToken::new();
        let task = relay.spawn(stop.clone());
        let rows: Vec<_> = (0..50)
            .map(|n| (format!("k{}", n % 5), format!("{n:02}")))
            .collect();
        for (key, text) in &rows {
            world.store(&[("ledger", key, text)]).await;
            environment.wakeups.outbox().wake();
            tokio::time::sleep(2 * SECOND).await;
        }
        tokio::time::sleep(600 * SECOND).await;
        let status = relay.status();
        assert!(status.is_circuit_open() && status.last_error.unwrap().contains("the broker is away"));
        assert!(!environment.background.statuses()["relay"].is_healthy());
        let stored = world.stored().await;
        assert_eq!(stored.len(), 50);
        assert!(
            stored
                .iter()
                .all(|row| row.attempts == 0 && row.failures.is_empty())
        );

        world.transport.fail(|_| None);
        tokio::time::sleep(10 * SECOND).await;
        assert!(world.stored().await.is_empty());
        assert_eq!(world.sent().len(), 50, "none twice");
        for (key, texts) in world.first_by_key() {
            assert!(texts.is_sorted() && texts.len() == 10, "{key}: {texts:?}");
        }
        assert!(!relay.status().is_circuit_open());
        assert!(environment.background.statuses()["relay"].is_healthy());
        stop.cancel();
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn should_stop_at_once_when_the_circuit_is_open() {
    let world = World::new().await;
    world.transport.fail(down);
    world.store(&[("clicks", "-", "1")]).await;
    let (relay, _) = world.relay(1, RelayConfig::default());
    let stop = CancellationToken::new();
    let task = relay.spawn(stop.clone());
    tokio::time::sleep(60 * SECOND).await;
    let clock = world.clock.clock.monotonic();
    stop.cancel();
    task.await.unwrap();
    assert!(world.clock.clock.monotonic() - clock < SECOND / 10);
}

#[tokio::test(start_paused = true)]
async fn should_resume_when_the_store_was_away() {
    let world = World::new().await;
    *world.outbox.down.lock().unwrap() = true;
    let (relay, environment) = world.relay(1, RelayConfig::default());
    let stop = CancellationToken::new();
    let task = relay.spawn(stop.clone());
    world.store(&[("clicks", "-", "1")]).await;
    tokio::time::sleep(3 * SECOND).await;
    assert!(!environment.background.statuses()["relay"].is_healthy());
    assert!(!relay.status().is_circuit_open(), "the broker is well");
    *world.outbox.down.lock().unwrap() = false;
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(world.sent(), ["1"]);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_block_its_own_key_alone_when_a_message_fails() {
    for capabilities in [Memory::new().info().capabilities, unprefixed()] {
        for kind in [
            ErrorKind::Invalid,
            ErrorKind::TooLarge,
            ErrorKind::Denied,
            ErrorKind::NotFound,
            ErrorKind::Unsupported,
        ] {
            let world = World::with(capabilities).await;
            world.transport.fail(refusing("bad", kind));
            let (relay, _) = world.relay(1, RelayConfig::default());
            world
                .store(&[
                    ("ledger", "a", "a1"),
                    ("ledger", "a", "bad"),
                    ("ledger", "a", "a3"),
                    ("ledger", "b", "b1"),
                    ("ledger", "b", "b2"),
                    ("clicks", "-", "c"),
                ])
                .await;
            drain(&relay).await;
            let sent: BTreeSet<_> = world.sent().into_iter().collect();
            assert_eq!(sent, ["a1", "b1", "b2", "c"].map(String::from).into(), "{kind}");
            let stored = world.stored().await;
            let left: Vec<_> = stored
                .iter()
                .map(|row| (text(&row.message), row.state, row.attempts))
                .collect();
            assert_eq!(
                left,
                [
                    ("bad".to_owned(), OutboxState::Retrying, 1),
                    ("a3".to_owned(), OutboxState::Ready, 0)
                ]
            );
            assert_eq!(stored[0].failures[0].cause, FailureCause::Refused);
            assert!(!relay.status().is_circuit_open());

            world.transport.fail(|_| None);
            tokio::time::sleep(2 * SECOND).await;
            drain(&relay).await;
            assert_eq!(world.first_by_key_of("a"), ["a1", "bad", "a3"]);
            assert!(world.stored().await.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn should_dead_letter_and_go_on_with_the_key_when_the_last_attempt_fails() {
    let world = World::new().await;
    world.transport.fail(refusing("bad", ErrorKind::TooLarge));
    let (relay, _) = world.relay(1, RelayConfig::default().with_attempts(3));
    let stop = CancellationToken::new();
    let task = relay.spawn(stop.clone());
    world
        .store(&[("ledger", "a", "bad"), ("ledger", "a", "good")])
        .await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(world.sent(), ["good"]);
    assert!(world.stored().await.is_empty());
    let dead = world.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (text(&dead[0].message), &dead[0].origin),
        ("bad".to_owned(), &Origin::Relay)
    );
    assert_eq!(dead[0].failures.len(), 3);
    for failure in &dead[0].failures {
        assert_eq!((failure.cause, &*failure.node), (FailureCause::Refused, "node-1"));
        assert!(
            failure.message.contains("bad is not wanted"),
            "{}",
            failure.message
        );
    }
    let status = relay.status();
    assert_eq!((status.refused, status.dead, status.relayed), (3, 1, 1));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_go_on_with_the_others_when_some_meet_trouble() {
    let world = World::new().await;
    world.transport.fail(|message| {
        (message?.topic.as_str() == "ledger").then(|| Error::new(ErrorKind::Unavailable, "the queue is full"))
    });
    let (relay, environment) = world.relay(1, RelayConfig::default().with_batch(4));
    let stop = CancellationToken::new();
    let task = relay.spawn(stop.clone());
    let rows: Vec<_> = (0..40)
        .map(|n| (if n % 2 == 0 { "ledger" } else { "clicks" }, n.to_string()))
        .collect();
    for (topic, text) in &rows {
        world.store(&[(topic, text, text)]).await;
    }
    environment.wakeups.outbox().wake();
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(world.sent().len(), 20);
    let stored = world.stored().await;
    assert!(stored.len() == 20 && stored.iter().all(|row| row.attempts == 0));
    world.transport.fail(|_| None);
    tokio::time::sleep(40 * SECOND).await;
    assert_eq!(world.sent().len(), 40);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_not_spin_when_the_transport_refuses_for_no_reason() {
    let world = World::new().await;
    let asked = Arc::new(Mutex::new(0));
    let counter = asked.clone();
    world.transport.fail(move |message| {
        message?;
        *counter.lock().unwrap() += 1;
        Some(Error::new(ErrorKind::Conflict, "kept back by nothing"))
    });
    let (relay, _) = world.relay(1, RelayConfig::default());
    let stop = CancellationToken::new();
    let task = relay.spawn(stop.clone());
    world.store(&[("ledger", "a", "1")]).await;
    tokio::time::sleep(10 * SECOND).await;
    let asked = *asked.lock().unwrap();
    assert!((2..=30).contains(&asked), "{asked}");
    assert_eq!(world.stored().await[0].attempts, 0);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_keep_the_order_of_each_key_when_three_relays_meet_random_failures() {
    for (seed, capabilities) in
        (1..=8).flat_map(|seed| [(seed, Memory::new().info().capabilities), (seed, unprefixed())])
    {
        let world = World::with(capabilities).await;
        let random = SeededRandom::new(seed);
        world.transport.fail(move |_| {
            let mut byte = [0];
            random.fill(&mut byte);
            match byte[0] {
                0..20 => Some(Error::new(ErrorKind::Unavailable, "reset")),
                20..35 => Some(Error::new(ErrorKind::Timeout, "no confirm").with_outcome_unknown()),
                35..50 => Some(Error::new(ErrorKind::Denied, "not now")),
                _ => None,
            }
        });
        *world.transport.latency.lock().unwrap() = Duration::from_millis(30);
        let config = RelayConfig::default()
            .with_batch(9)
            .with_attempts(u32::MAX)
            .with_lease(2 * SECOND);
        let stop = CancellationToken::new();
        let relays: Vec<_> = (0..3).map(|n| world.relay(seed * 10 + n, config)).collect();
        let tasks: Vec<_> = relays
            .iter()
            .map(|(relay, _)| relay.spawn(stop.clone()))
            .collect();
        for n in 0..120 {
            world
                .store(&[("ledger", &format!("k{}", n % 7), &format!("{n:03}"))])
                .await;
            relays[n % 3].1.wakeups.outbox().wake();
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        for _ in 0..3_600 {
            if world.stored().await.is_empty() {
                break;
            }
            tokio::time::sleep(SECOND).await;
        }
        stop.cancel();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(
            world.stored().await.is_empty() && world.dead().await.is_empty(),
            "seed {seed}"
        );
        let keys = world.first_by_key();
        assert_eq!(keys.values().map(Vec::len).sum::<usize>(), 120, "seed {seed}");
        for (key, texts) in keys {
            assert!(texts.is_sorted(), "seed {seed}, {key}: {texts:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn should_drop_unsent_when_a_message_has_expired() {
    let counters = Counters::default();
    let _guard = counters.install();
    let world = World::new().await;
    let (relay, _) = world.relay(1, RelayConfig::default());
    let mut stale = world.message("ledger", "a", "stale");
    stale.expires_at = Some(stale.occurred_at + chrono::TimeDelta::seconds(5));
    let mut fresh = world.message("ledger", "a", "fresh");
    fresh.expires_at = Some(fresh.occurred_at + chrono::TimeDelta::seconds(50));
    world.outbox.append(&[stale, fresh]).await.unwrap();
    tokio::time::sleep(6 * SECOND).await;
    drain(&relay).await;
    assert_eq!(world.sent(), ["fresh"]);
    assert!(world.stored().await.is_empty() && world.dead().await.is_empty());
    assert_eq!(relay.status().expired, 1);
    assert_eq!(
        counters.read(&format!("{}{{topic=ledger}}", metric::RELAY_EXPIRED)),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn should_not_send_before_its_time_when_a_message_is_delayed() {
    let world = World::new().await;
    let (relay, _) = world.relay(1, RelayConfig::default());
    let stop = CancellationToken::new();
    let task = relay.spawn(stop.clone());
    let mut later = world.message("clicks", "-", "later");
    later.deliver_after = Some(10 * SECOND);
    world.outbox.append(&[later]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(9_900)).await;
    assert!(world.sent().is_empty());
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(world.sent(), ["later"]);
    assert_eq!(
        world.transport.sent()[0].deliver_after,
        None,
        "the outbox has waited for it"
    );
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_send_again_when_a_relay_dies_between_confirm_and_acknowledgement() {
    let world = World::new().await;
    let (relay, _) = world.relay(1, RelayConfig::default());
    world.store(&[("ledger", "a", "1"), ("ledger", "a", "2")]).await;
    assert_eq!(relay.run_once().await.unwrap(), Next::Again);
    drop(relay);
    let (relay, _) = world.relay(2, RelayConfig::default());
    assert_eq!(
        relay.run_once().await.unwrap(),
        Next::Wait,
        "the lease is the dead relay's"
    );
    assert_eq!(world.sent(), ["1", "2"]);
    tokio::time::sleep(31 * SECOND).await;
    drain(&relay).await;
    assert_eq!(world.sent(), ["1", "2", "1", "2"]);
    assert!(world.stored().await.is_empty());
    assert!(world.dead().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn should_hold_its_messages_when_a_send_takes_longer_than_the_lease() {
    let world = World::new().await;
    *world.transport.latency.lock().unwrap() = 100 * SECOND;
    let (slow, _) = world.relay(1, RelayConfig::default());
    let (other, _) = world.relay(2, RelayConfig::default());
    world.store(&[("ledger", "a", "1"), ("clicks", "-", "2")]).await;
    let sending = tokio::spawn(async move {
        drain(&slow).await;
    });
    for _ in 0..99 {
        tokio::time::sleep(SECOND).await;
        world.outbox.reap_expired(100).await.unwrap();
        assert_eq!(other.run_once().await.unwrap(), Next::Wait);
    }
    sending.await.unwrap();
    assert_eq!(world.sent(), ["1", "2"]);
    assert!(world.stored().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn should_send_nothing_when_the_claim_took_longer_than_its_lease() {
    let world = World::new().await;
    *world.outbox.latency.lock().unwrap() = 31 * SECOND;
    let (relay, _) = world.relay(1, RelayConfig::default());
    world.store(&[("clicks", "-", "1")]).await;
    let error = relay.run_once().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("relay.lease"), "{error}");
    assert!(world.sent().is_empty());
    *world.outbox.latency.lock().unwrap() = Duration::ZERO;
    drain(&relay).await;
    assert_eq!(world.sent(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn should_end_what_it_sends_when_its_life_ends() {
    let world = World::new().await;
    *world.transport.latency.lock().unwrap() = 600 * SECOND;
    let (relay, environment) = world.relay(1, RelayConfig::default().with_lease(900 * SECOND));
    let membership = joined(&world, &environment).await;
    world.store(&[("ledger", "a", "1")]).await;
    let began = environment.clock.monotonic();
    let error = relay.run_once().await.unwrap_err();
    let took = environment.clock.monotonic() - began;
    // By then the store may hand the row to another, whose send would be overtaken by this one.
    assert_eq!(took.as_secs(), 54);
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    assert!(error.to_string().contains("given this node up"), "{error}");
    assert_eq!(relay.run_once().await.unwrap(), Next::Wait, "nothing is claimed");
    assert!(!relay.status().is_circuit_open(), "the transport is not to blame");
    tokio::time::sleep(600 * SECOND).await;
    assert!(world.sent().is_empty(), "{:?}", world.sent());
    // Heard again, it learns that it is dead, and what it held is free.
    membership.beat().await.unwrap();
    *world.transport.latency.lock().unwrap() = Duration::ZERO;
    drain(&relay).await;
    assert_eq!(world.sent(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn should_blame_the_node_and_not_the_lease_when_its_life_ended_during_the_claim() {
    let world = World::new().await;
    *world.outbox.latency.lock().unwrap() = 59 * SECOND;
    let (relay, environment) = world.relay(1, RelayConfig::default().with_lease(900 * SECOND));
    let _membership = joined(&world, &environment).await;
    world.store(&[("clicks", "-", "1")]).await;
    let error = relay.run_once().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    assert!(!error.to_string().contains("relay.lease"), "{error}");
    assert!(world.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn should_give_back_what_it_was_sending_when_its_life_ends() {
    let world = World::new().await;
    *world.transport.latency.lock().unwrap() = 600 * SECOND;
    let (relay, environment) = world.relay(1, RelayConfig::default().with_lease(900 * SECOND));
    let _membership = joined(&world, &environment).await;
    world.store(&[("ledger", "a", "1")]).await;
    relay.run_once().await.unwrap_err();
    *world.transport.latency.lock().unwrap() = Duration::ZERO;
    // Nobody has buried it, and its lease would last for minutes.
    let (other, _) = world.relay(2, RelayConfig::default());
    drain(&other).await;
    assert_eq!(world.sent(), ["1"]);
    assert!(world.stored().await.is_empty() && world.dead().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn should_give_back_what_it_claimed_when_its_life_ended_during_the_claim() {
    let world = World::new().await;
    *world.outbox.latency.lock().unwrap() = 55 * SECOND;
    let (relay, environment) = world.relay(1, RelayConfig::default().with_lease(900 * SECOND));
    let _membership = joined(&world, &environment).await;
    world.store(&[("clicks", "-", "1")]).await;
    relay.run_once().await.unwrap_err();
    *world.outbox.latency.lock().unwrap() = Duration::ZERO;
    let (other, _) = world.relay(2, RelayConfig::default());
    drain(&other).await;
    assert_eq!(world.sent(), ["1"]);
}

/// Registers this relay's process as a node; it beats when the test says so.
async fn joined(world: &World, environment: &Environment) -> Membership {
    let store = Arc::new(world.memory.clone());
    let config = MembershipConfig::default();
    Membership::join(environment, store, "orders", config)
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn should_count_by_topic_when_messages_are_relayed() {
    let counters = Counters::default();
    let _guard = counters.install();
    let world = World::new().await;
    world.transport.fail(refusing("bad", ErrorKind::Invalid));
    let (relay, _) = world.relay(1, RelayConfig::default().with_attempts(1));
    world
        .store(&[
            ("clicks", "-", "1"),
            ("clicks", "-", "bad"),
            ("nobody", "-", "2"),
            ("ledger", "a", "3"),
        ])
        .await;
    drain(&relay).await;
    let read = |name, labels| counters.read(&format!("{name}{{{labels}}}"));
    assert_eq!(read(metric::RELAYED, "topic=clicks"), 1);
    assert_eq!(read(metric::RELAYED, "topic=ledger"), 1);
    assert_eq!(read(metric::RELAYED, "topic=nobody"), 0);
    assert_eq!(read(metric::UNROUTED, "topic=nobody"), 1);
    assert_eq!(read(metric::RELAY_FAILED, "topic=clicks,reason=invalid"), 1);
    assert_eq!(read(metric::RELAY_DEAD, "topic=clicks,reason=refused"), 1);
    assert_eq!((relay.status().unrouted, relay.status().dead), (1, 1));
}

#[test]
fn should_name_the_setting_when_a_relay_is_configured_wrongly() {
    let good = RelayConfig::default();
    assert!(good.check().is_ok());
    for (config, setting) in [
        (good.with_batch(0), "relay.batch"),
        (good.with_attempts(0), "relay.attempts"),
        (good.with_lease(Duration::ZERO), "relay.lease"),
        (good.with_poll(Duration::ZERO), "relay.poll"),
    ] {
        assert!(config.check().unwrap_err().to_string().contains(setting));
    }
}

#[cfg(feature = "planted-bugs")]
#[tokio::test(start_paused = true)]
async fn should_be_seen_to_break_the_order_when_the_relay_steps_past_a_key() {
    use headless_messaging::{Plant, Planted};

    let world = World::new().await;
    world.transport.fail(refusing("1", ErrorKind::Denied));
    let relay = Relay::new(
        &relay::world::environment(1),
        world.outbox.clone(),
        world.transport.clone(),
        RelayConfig::default(),
        Planted::bug(Plant::RelayStepsPastKey),
    );
    world.store(&[("ledger", "a", "1"), ("ledger", "a", "2")]).await;
    drain(&relay).await;
    assert_eq!(world.sent(), ["2"]);
}
