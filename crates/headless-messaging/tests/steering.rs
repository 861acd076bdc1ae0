//! What operators want of a process, as its groups apply it. On paused time, over memory.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use headless_abstractions::{
    Clock, ControlChange, ControlEntry, ControlPut, ControlStore, ControlSubject, ControlVersion, Cursor,
    DesiredState, Error, ErrorKind, GroupName, Page, Result, Store, TopicName,
};
use headless_core::{Control, Environment, Event, HandlerResult, SeededRandom, Spawner, State, SystemClock};
use headless_memory::Memory;
use headless_messaging::{
    Consumer, ConsumerHandle, Context, ControlConfig, Inbox, Messaging, PauseReason, Plan,
};
use serde::{Deserialize, Serialize};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
/// Longer than the time between two looks.
const A_LOOK: Duration = Duration::from_secs(6);

#[derive(Debug, Serialize, Deserialize)]
struct Placed(u32);

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";
}

#[derive(Debug, Serialize, Deserialize)]
struct Paid(u32);

impl Event for Paid {
    const TOPIC: &'static str = "orders.paid";
}

/// A store of what is wanted that may be away, or say nothing.
#[derive(Debug)]
struct Fickle {
    inner: Arc<dyn ControlStore>,
    is_away: AtomicBool,
    is_silent: AtomicBool,
}

impl Fickle {
    async fn answer(&self) -> Result<()> {
        if self.is_silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        match self.is_away.load(Ordering::SeqCst) {
            true => Err(Error::new(ErrorKind::Unavailable, "away")),
            false => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl ControlStore for Fickle {
    async fn put(&self, change: &ControlChange) -> Result<ControlPut> {
        self.inner.put(change).await
    }

    async fn list(&self, service: &str, after: Option<&Cursor>, limit: usize) -> Result<Page<ControlEntry>> {
        self.answer().await?;
        self.inner.list(service, after, limit).await
    }

    async fn revision(&self) -> Result<ControlVersion> {
        self.answer().await?;
        self.inner.revision().await
    }
}

/// A service over memory, one process at a time.
struct World {
    memory: Memory,
    store: Arc<Fickle>,
    handled: Arc<Mutex<Vec<String>>>,
    running: Arc<AtomicUsize>,
    most_running: Arc<AtomicUsize>,
}

impl World {
    fn new() -> Self {
        let memory = Memory::new();
        let store = Arc::new(Fickle {
            inner: memory.parts().control.unwrap(),
            is_away: AtomicBool::new(false),
            is_silent: AtomicBool::new(false),
        });
        Self {
            memory,
            store,
            handled: Arc::default(),
            running: Arc::default(),
            most_running: Arc::default(),
        }
    }

    /// A group that takes a second for each message.
    fn billing(&self) -> Consumer {
        let counting = |name: &'static str| {
            let (handled, running) = (self.handled.clone(), self.running.clone());
            let most = self.most_running.clone();
            move |number: u32| {
                let (handled, running, most) = (handled.clone(), running.clone(), most.clone());
                async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(SECOND).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    handled.lock().unwrap().push(format!("{name} {number}"));
                    HandlerResult::Ok(())
                }
            }
        };
        let (placed, paid) = (counting("placed"), counting("paid"));
        Consumer::group("billing")
            .on(move |event: Placed, _: Context| placed(event.0))
            .on(move |event: Paid, _: Context| paid(event.0))
            .concurrency(2)
            .inbox(Inbox::Around)
    }

    async fn start(&self, consumer: Consumer) -> Messaging {
        let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(1)));
        let mut plan = Plan::new(Environment::new(clock, random, Spawner::current(), "node"));
        plan.transport = Some(Arc::new(self.memory.connect()));
        plan.store = Some(self.memory.parts().with_control(self.store.clone()));
        plan.state = State::new().with(self.memory.clone());
        plan.control = Some(ControlConfig::new("orders"));
        plan.consumer(consumer);
        Messaging::start(plan).await.unwrap()
    }

    fn control(&self) -> Control {
        Control::of(&self.memory.parts()).unwrap()
    }

    async fn want(
        &self,
        subject: &ControlSubject,
        to: impl Fn(DesiredState) -> DesiredState,
    ) -> ControlVersion {
        let changed = self
            .control()
            .change("orders", subject, "ada", |state| Ok(to(state)))
            .await;
        changed.unwrap().version
    }

    async fn pause(&self, subject: &ControlSubject, paused: bool) -> ControlVersion {
        self.want(subject, |state| state.with_paused(paused)).await
    }

    async fn limit(&self, most: u32) {
        let most = NonZeroU32::new(most);
        self.want(&group("billing"), |state| state.with_concurrency(most).unwrap())
            .await;
    }

    async fn publish(&self, messaging: &Messaging, numbers: std::ops::Range<u32>) {
        for number in numbers {
            messaging.publisher().publish(&Placed(number)).await.unwrap();
            messaging.publisher().publish(&Paid(number)).await.unwrap();
        }
    }

    /// What was handled, sorted.
    fn handled(&self) -> Vec<String> {
        let mut handled = self.handled.lock().unwrap().clone();
        handled.sort();
        handled
    }
}

fn group(name: &str) -> ControlSubject {
    ControlSubject::group(GroupName::parse(name).unwrap())
}

fn on(topic: &str) -> ControlSubject {
    ControlSubject::group_on(
        GroupName::parse("billing").unwrap(),
        TopicName::parse_stored(topic).unwrap(),
    )
}

/// Why each topic of the group is paused, in the order of their names.
fn reasons(consumer: &ConsumerHandle) -> Vec<Vec<PauseReason>> {
    let subscriptions = consumer.subscriptions().into_iter();
    subscriptions
        .map(|subscription| subscription.paused.into_iter().collect())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn should_handle_nothing_while_paused_and_everything_once_when_resumed_also_over_a_restart() {
    let world = World::new();
    let first = world.start(world.billing()).await;
    world.publish(&first, 0..1).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.handled(), ["paid 0", "placed 0"]);
    world.pause(&group("billing"), true).await;
    tokio::time::sleep(A_LOOK).await;
    world.publish(&first, 1..4).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.handled().len(), 2, "while it is paused");
    first.shutdown(MINUTE).await.unwrap();
    let second = world.start(world.billing()).await;
    assert_eq!(
        reasons(&second.consumers()[0]),
        [[PauseReason::Control]; 2],
        "before it receives"
    );
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.handled().len(), 2, "after a restart");
    world.pause(&group("billing"), false).await;
    tokio::time::sleep(MINUTE).await;
    let mut all: Vec<_> = (0..4)
        .flat_map(|n| [format!("paid {n}"), format!("placed {n}")])
        .collect();
    all.sort();
    assert_eq!(world.handled(), all);
    second.shutdown(MINUTE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_follow_the_concurrency_that_is_wanted_and_go_back_to_its_own() {
    let world = World::new();
    let messaging = world.start(world.billing()).await;
    let consumer = messaging.consumers()[0].clone();
    world.limit(1).await;
    tokio::time::sleep(A_LOOK).await;
    assert_eq!(consumer.concurrency(), 1);
    world.publish(&messaging, 0..4).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(
        (world.handled().len(), world.most_running.load(Ordering::SeqCst)),
        (8, 1)
    );
    consumer.set_concurrency(3);
    assert_eq!(consumer.concurrency(), 1, "the store goes first");
    world.limit(5).await;
    tokio::time::sleep(A_LOOK).await;
    assert_eq!(consumer.concurrency(), 5);
    world.want(&group("billing"), |_| DesiredState::nothing()).await;
    tokio::time::sleep(A_LOOK).await;
    assert_eq!(consumer.concurrency(), 3, "what this process was given meanwhile");
}

#[tokio::test(start_paused = true)]
async fn should_pause_one_topic_when_that_is_wanted_and_leave_other_reasons_alone() {
    let world = World::new();
    let messaging = world.start(world.billing()).await;
    let consumer = messaging.consumers()[0].clone();
    world.pause(&on("orders.paid"), true).await;
    tokio::time::sleep(A_LOOK).await;
    assert_eq!(reasons(&consumer), [vec![PauseReason::Control], vec![]]);
    world.publish(&messaging, 0..2).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.handled(), ["placed 0", "placed 1"]);
    consumer.pause();
    consumer.resume();
    assert_eq!(
        reasons(&consumer),
        [vec![PauseReason::Control], vec![]],
        "no resume of this process undoes it"
    );
    consumer.pause();
    world.pause(&on("orders.paid"), false).await;
    tokio::time::sleep(A_LOOK).await;
    assert_eq!(
        reasons(&consumer),
        [[PauseReason::Operator]; 2],
        "what this process asked for stays"
    );
    consumer.resume();
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.handled().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn should_report_what_it_does_not_have_and_apply_the_rest() {
    let world = World::new();
    let messaging = world.start(world.billing().per_instance()).await;
    let status = || messaging.control().unwrap().status();
    assert_eq!(status().applied, Some(ControlVersion::NONE));
    world.pause(&group("shipping"), true).await;
    world.pause(&on("orders.lost"), true).await;
    world.pause(&group("gone"), true).await;
    world.pause(&group("gone"), false).await;
    // By the name that it was configured with: its own is another one with each start.
    let last = world.pause(&group("billing"), true).await;
    tokio::time::sleep(A_LOOK).await;
    assert_eq!(status().applied, Some(last));
    assert_eq!(status().unknown, [on("orders.lost"), group("shipping")]);
    assert_eq!(reasons(&messaging.consumers()[0]), [[PauseReason::Control]; 2]);
    let tasks = messaging.control().unwrap().status();
    assert_eq!(tasks.applied, Some(last));
}

#[tokio::test(start_paused = true)]
async fn should_start_paused_and_go_on_by_itself_when_the_store_answers_later() {
    for silent in [false, true] {
        let world = World::new();
        world.store.is_away.store(!silent, Ordering::SeqCst);
        world.store.is_silent.store(silent, Ordering::SeqCst);
        let clock = SystemClock::new();
        let messaging = world.start(world.billing()).await;
        let took = clock.monotonic();
        assert!(took <= A_LOOK, "the start took {took:?}");
        assert_eq!(messaging.control().unwrap().status().applied, None);
        world.publish(&messaging, 0..2).await;
        tokio::time::sleep(MINUTE).await;
        assert_eq!(world.handled(), Vec::<String>::new(), "silent {silent}");
        world.store.is_away.store(false, Ordering::SeqCst);
        world.store.is_silent.store(false, Ordering::SeqCst);
        tokio::time::sleep(MINUTE).await;
        assert_eq!(world.handled().len(), 4, "silent {silent}");
        // From here on a store that is away changes nothing.
        world.store.is_away.store(true, Ordering::SeqCst);
        world.publish(&messaging, 2..3).await;
        tokio::time::sleep(MINUTE).await;
        assert_eq!(world.handled().len(), 6, "silent {silent}");
    }
}

#[tokio::test(start_paused = true)]
async fn should_meet_what_others_change_meanwhile_when_several_change_one_subject() {
    let world = World::new();
    let control = world.control();
    let (billing, by) = (group("billing"), "ada");
    let concurrency = NonZeroU32::new(7);
    // While one reads, the other stores: each changes what is its own.
    let (paused, limited) = tokio::join!(
        control.change("orders", &billing, by, |state| Ok(state.with_paused(true))),
        control.change("orders", &billing, "bob", |state| state
            .with_concurrency(concurrency)),
    );
    assert!(!paused.unwrap().is_unchanged() && !limited.unwrap().is_unchanged());
    let entries = control.list("orders").await.unwrap();
    assert_eq!(
        (entries[0].desired.paused, entries[0].desired.concurrency),
        (true, concurrency)
    );
    let again = control
        .change("orders", &billing, by, |state| Ok(state.with_paused(true)))
        .await;
    let again = again.unwrap();
    assert!(again.is_unchanged());
    assert_eq!(
        again.version, entries[0].version,
        "what is wanted already is not stored again"
    );
}
