//! A panic of the consumer's own, as a defect of a driver makes it: nothing is blocked, lost or overtaken by it.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    Admission, Arrival, AttemptUse, Claim, GroupName, Hold, InboxStore, Marked, Owner, Result, Settled, Store,
};
use headless_core::{
    Backoff, Environment, Event, HandlerError, Retry, SeededRandom, Spawner, State, SystemClock,
};
use headless_memory::Memory;
use headless_messaging::{Consumer, Context, Inbox, Messaging, Ordered, Plan};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Step {
    key: String,
    n: u32,
}

impl Event for Step {
    const TOPIC: &'static str = "steps";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.key))
    }
}

/// An inbox that panics in so many of its next calls.
#[derive(Debug)]
struct Panicky {
    inner: Arc<dyn InboxStore>,
    admits: AtomicU32,
    marks: AtomicU32,
}

fn panics(left: &AtomicU32) {
    let one = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    assert!(one.is_err(), "a defect of the driver");
}

#[async_trait]
impl InboxStore for Panicky {
    async fn admit(&self, owner: Owner, lease: Duration, arrivals: &[Arrival]) -> Result<Vec<Admission>> {
        panics(&self.admits);
        self.inner.admit(owner, lease, arrivals).await
    }

    async fn mark(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        panics(&self.marks);
        self.inner.mark(marks).await
    }

    async fn discard(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        self.inner.discard(marks).await
    }

    async fn renew(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        lease: Duration,
    ) -> Result<Settled> {
        self.inner.renew(group, owner, claims, lease).await
    }

    async fn release(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        attempt: AttemptUse,
    ) -> Result<Settled> {
        self.inner.release(group, owner, claims, attempt).await
    }

    async fn release_owner(&self, owner: Owner) -> Result<u64> {
        self.inner.release_owner(owner).await
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        self.inner.purge(older_than, limit).await
    }
}

/// One consumer over an inbox that panics, and what its handler has done.
struct World {
    inbox: Arc<Panicky>,
    messaging: Messaging,
    done: Arc<Mutex<Vec<Step>>>,
}

impl World {
    async fn start(ordered: bool, fails_first: bool) -> Self {
        let memory = Memory::new();
        let mut parts = memory.parts();
        let stored = parts.inbox.as_mut().unwrap();
        let inbox = Arc::new(Panicky {
            inner: stored.inbox.clone(),
            admits: AtomicU32::new(0),
            marks: AtomicU32::new(0),
        });
        stored.inbox = inbox.clone();
        let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(1)));
        let mut plan = Plan::new(Environment::new(clock, random, Spawner::current(), "node"));
        plan.transport = Some(Arc::new(memory.clone()));
        plan.store = Some(parts);
        plan.state = State::new().with(memory.clone());
        plan.topic::<Step>(if ordered {
            Ordered::partitions(4)
        } else {
            Ordered::no()
        });

        let done = Arc::new(Mutex::new(Vec::new()));
        let steps = done.clone();
        let handler = move |step: Step, cx: Context| {
            let steps = steps.clone();
            async move {
                if fails_first && cx.attempt().round == 1 {
                    return Err(HandlerError::retry("the first round fails"));
                }
                steps.lock().unwrap().push(step);
                Ok(())
            }
        };
        let moment = Duration::from_millis(10);
        let consumer = Consumer::group("walkers").on(handler).inbox(Inbox::Around).retry(
            Retry::exponential(moment, moment)
                .inline(0)
                .inline_backoff(Backoff::exponential(moment, moment)),
        );
        plan.consumer(if ordered {
            consumer.ordered_by_key()
        } else {
            consumer
        });
        Self {
            inbox,
            messaging: Messaging::start(plan).await.unwrap(),
            done,
        }
    }

    async fn publish(&self, steps: impl IntoIterator<Item = (&str, u32)>) {
        for (key, n) in steps {
            let key = key.to_owned();
            self.messaging
                .publisher()
                .publish(&Step { key, n })
                .await
                .unwrap();
        }
    }

    fn defect(&self) -> Option<String> {
        self.messaging.consumers()[0].subscriptions()[0].defect.clone()
    }

    fn panicked(&self) -> u64 {
        self.messaging.consumers()[0].stats().panicked
    }

    fn by_key(&self) -> BTreeMap<String, Vec<u32>> {
        let mut keys = BTreeMap::<String, Vec<u32>>::new();
        for step in self.done.lock().unwrap().iter() {
            keys.entry(step.key.clone()).or_default().push(step.n);
        }
        keys
    }

    async fn handles(&self, count: u64) {
        eventually("all are handled", async || {
            self.messaging.consumers()[0].stats().handled == count
        })
        .await;
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..30_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time: {what}");
}

#[tokio::test(start_paused = true)]
async fn should_go_on_in_the_order_of_the_key_when_a_task_of_the_consumer_panics() {
    let world = World::start(true, false).await;
    world.inbox.admits.store(3, Ordering::SeqCst);
    world.publish((1..=5).flat_map(|n| [("a", n), ("b", n)])).await;
    eventually("the defect is shown", async || {
        world
            .defect()
            .is_some_and(|defect| defect.contains("a defect of the driver"))
    })
    .await;
    world.handles(10).await;
    let all = vec![1, 2, 3, 4, 5];
    let wanted = [("a".to_owned(), all.clone()), ("b".to_owned(), all)];
    assert_eq!(world.by_key(), BTreeMap::from(wanted), "each once, in order");
    assert_eq!(world.panicked(), 3);
    assert_eq!(world.defect(), None, "once it works again");
    world.messaging.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_take_the_message_up_again_when_a_task_panics_without_order() {
    let world = World::start(false, false).await;
    // Both places: before the handler, and after it, where the handler has run in vain.
    world.inbox.admits.store(1, Ordering::SeqCst);
    world.inbox.marks.store(1, Ordering::SeqCst);
    world.publish([("a", 1), ("b", 2), ("c", 3)]).await;
    world.handles(3).await;
    assert_eq!(world.panicked(), 2);
    assert_eq!(world.by_key().len(), 3);
    world.messaging.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_take_the_message_up_again_when_its_task_panics_from_the_park() {
    let world = World::start(true, true).await;
    world.inbox.marks.store(1, Ordering::SeqCst);
    world.publish([("a", 1), ("a", 2)]).await;
    world.handles(2).await;
    assert_eq!(world.panicked(), 1);
    assert_eq!(world.by_key()["a"], [1, 1, 2], "at least once, in order");
    world.messaging.shutdown(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_stop_when_a_task_has_panicked() {
    let world = World::start(true, false).await;
    world.inbox.admits.store(1, Ordering::SeqCst);
    world.publish([("a", 1)]).await;
    eventually("the panic", async || world.panicked() == 1).await;
    world.messaging.shutdown(Duration::from_secs(5)).await.unwrap();
}
