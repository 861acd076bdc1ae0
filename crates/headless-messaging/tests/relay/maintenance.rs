//! The background tasks that keep a store going.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use headless_abstractions::{
    Arrival, Bury, ClaimOutbox, ControlVersion, Failure, FailureCause, GroupName, Hold, InboxFilter,
    InboxQueries, OutboxStore, Owner, Pulse, PulseStore, Result, Store,
};
use headless_messaging::{PulseConfig, PurgeConfig, spawn_pulse, spawn_purge};
use tokio_util::sync::CancellationToken;

use crate::{
    SECOND,
    relay::world::{World, environment},
};

/// A store that has answered with these, the last one again and again, and hints at work all the time.
#[derive(Debug, Default)]
struct Scripted {
    pulses: Mutex<Vec<Pulse>>,
    asked: Mutex<u32>,
    hints: bool,
}

impl Scripted {
    fn asked(&self) -> u32 {
        *self.asked.lock().unwrap()
    }
}

impl PulseStore for Scripted {
    fn pulse<'s, 'a>(&'s self) -> Pin<Box<dyn Future<Output = Result<Pulse>> + Send + 'a>>
    where
        's: 'a,
    {
        Box::pin(async move {
            *self.asked.lock().unwrap() += 1;
            let mut pulses = self.pulses.lock().unwrap();
            Ok(if pulses.len() > 1 {
                pulses.remove(0)
            } else {
                pulses[0]
            })
        })
    }

    fn wait_ready<'s, 'a>(
        &'s self,
        at_most: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>
    where
        's: 'a,
    {
        Box::pin(async move {
            if !self.hints {
                tokio::time::sleep(at_most).await;
            }
            Ok(())
        })
    }
}

fn scripted(hints: bool, pulses: &[Pulse]) -> Arc<Scripted> {
    Arc::new(Scripted {
        pulses: Mutex::new(pulses.to_vec()),
        hints,
        ..Scripted::default()
    })
}

#[tokio::test(start_paused = true)]
async fn should_ask_once_an_interval_when_idle() {
    let environment = environment(1);
    let mut outbox = environment.wakeups.outbox().listen();
    let store = scripted(false, &[Pulse::idle()]);
    let stop = CancellationToken::new();
    let task = spawn_pulse(&environment, store.clone(), PulseConfig::default(), stop.clone());
    tokio::time::sleep(100 * SECOND).await;
    assert!((85..=120).contains(&store.asked()), "{}", store.asked());
    assert!(
        tokio::time::timeout(Duration::from_millis(1), outbox.woken())
            .await
            .is_err()
    );
    let before = environment.clock.monotonic();
    stop.cancel();
    task.await.unwrap();
    assert!(
        environment.clock.monotonic() - before < SECOND / 10,
        "a stop ends the wait"
    );
}

#[tokio::test(start_paused = true)]
async fn should_wake_who_has_work_when_something_is_due() {
    let environment = environment(1);
    let (mut outbox, mut parked) = (
        environment.wakeups.outbox().listen(),
        environment.wakeups.parked().listen(),
    );
    let now = Some(Duration::ZERO);
    let store = scripted(
        false,
        &[
            Pulse::idle().with_outbox(Some(SECOND / 5)),
            Pulse::idle().with_outbox(now),
            Pulse::idle().with_parked(now),
            Pulse::idle(),
        ],
    );
    let stop = CancellationToken::new();
    let task = spawn_pulse(&environment, store, PulseConfig::default(), stop.clone());
    let began = environment.clock.monotonic();
    outbox.woken().await;
    let took = environment.clock.monotonic() - began;
    assert!(
        took >= SECOND / 5 && took < SECOND / 4,
        "it waits for what is due, not for the interval: {took:?}"
    );
    tokio::time::timeout(2 * SECOND, parked.woken()).await.unwrap();
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_wake_who_follows_operators_once_when_they_want_something_else() {
    let environment = environment(1);
    let mut control = environment.wakeups.control().listen();
    let changed = Pulse::idle().with_control(ControlVersion::new(3));
    let store = scripted(false, &[Pulse::idle(), Pulse::idle(), changed, changed]);
    let stop = CancellationToken::new();
    let task = spawn_pulse(&environment, store, PulseConfig::default(), stop.clone());
    let began = environment.clock.monotonic();
    tokio::time::timeout(5 * SECOND, control.woken()).await.unwrap();
    let took = environment.clock.monotonic() - began;
    assert!(took > SECOND, "nothing has changed before: {took:?}");
    let again = tokio::time::timeout(10 * SECOND, control.woken()).await;
    assert!(again.is_err(), "one change is told of once");
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_not_spin_when_due_work_is_not_taken() {
    let environment = environment(1);
    let store = scripted(true, &[Pulse::idle().with_outbox(Some(Duration::ZERO))]);
    let stop = CancellationToken::new();
    let task = spawn_pulse(&environment, store.clone(), PulseConfig::default(), stop.clone());
    tokio::time::sleep(10 * SECOND).await;
    assert!((50..=150).contains(&store.asked()), "{}", store.asked());
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_reap_and_wake_when_a_lease_ends_at_the_store() {
    let world = World::new().await;
    world.store(&[("clicks", "-", "1")]).await;
    let claim = ClaimOutbox::new(Owner::from_bits(7), 1, 5 * SECOND);
    assert_eq!(world.outbox.claim(&claim).await.unwrap().rows.len(), 1);
    let environment = environment(1);
    let mut outbox = environment.wakeups.outbox().listen();
    let stop = CancellationToken::new();
    let pulse = world.memory.parts().pulse.unwrap();
    let task = spawn_pulse(&environment, pulse, PulseConfig::default(), stop.clone());
    let began = environment.clock.monotonic();
    outbox.woken().await;
    let took = environment.clock.monotonic() - began;
    assert!(
        took >= Duration::from_millis(4_900) && took < 6 * SECOND,
        "{took:?}"
    );
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_remove_in_batches_when_marks_and_dead_letters_are_old() {
    let world = World::new().await;
    let parts = world.memory.parts();
    let inbox = parts.inbox.clone().unwrap();
    let group = GroupName::parse("billing").unwrap();
    let marks = async |count: usize| {
        for _ in 0..count {
            let message = world.message("clicks", "-", "x");
            let arrival = Arrival::of(&group, &message, false);
            inbox.inbox.mark(&[(arrival, Hold::Absent)]).await.unwrap();
        }
    };
    marks(25).await;
    let message = world.message("clicks", "-", "dead");
    let arrival = Arrival::of(&group, &message, false);
    let failure = Failure::new(FailureCause::Permanent, "no", "node-1", message.occurred_at);
    let bury = Bury::new(message, arrival, Hold::Absent, vec![failure]);
    inbox.dead_letters.bury(&[bury]).await.unwrap();
    let count = async || {
        let rows = InboxQueries::list(&world.memory, &InboxFilter::all(), None, 1_000)
            .await
            .unwrap();
        (rows.items.len(), world.dead().await.len())
    };
    let environment = environment(1);
    let stop = CancellationToken::new();
    let config = PurgeConfig::default().with_batch(10);
    let task = spawn_purge(&environment, parts.outbox, parts.inbox, config, stop.clone());
    let day = Duration::from_hours(24);
    tokio::time::sleep(6 * day).await;
    assert_eq!(count().await, (26, 1));
    marks(1).await;
    tokio::time::sleep(day + Duration::from_mins(2)).await;
    assert_eq!(
        count().await,
        (2, 1),
        "the young mark and the dead one's row stay"
    );
    tokio::time::sleep(23 * day).await;
    assert_eq!(count().await, (0, 0));
    assert!(environment.background.statuses()["purge"].is_healthy());
    stop.cancel();
    task.await.unwrap();
}
