//! When a handler is called, and what ends its call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, Claim, ClaimParked, ErrorKind, GroupName, Owner, Park, ParkLimits, Parked, ParkedRow,
    ParkedStore, Result, Settled, Store, Transport,
};
use headless_core::{Backoff, Event, HandlerError, HandlerResult, Retry, State};
use headless_memory::Memory;
use headless_messaging::{BatchContext, CircuitBreaker, Consumer, Context, Inbox, Messaging, PauseReason};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{Order, eventually, plan};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

#[derive(Serialize, Deserialize)]
struct Refund;

impl Event for Refund {
    const TOPIC: &'static str = "refunds";
}

async fn publish(messaging: &Messaging, many: u32) {
    for number in 0..many {
        let order = Order { lines: vec![number] };
        messaging.publisher().publish(&order).await.unwrap();
    }
}

/// Each round comes a second after the one before.
fn each_second() -> Retry {
    Retry::exponential(SECOND, SECOND).inline(0).rounds(1_000)
}

#[tokio::test(start_paused = true)]
async fn should_let_a_handler_go_on_after_its_commit_when_its_message_is_held_no_more() {
    let memory = Memory::new();
    let mut plan = plan(&memory, true);
    let (calls, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let handler = {
        let (calls, ended) = (calls.clone(), ended.clone());
        move |_: Order, cx: Context| {
            let (calls, ended) = (calls.clone(), ended.clone());
            async move {
                if calls.fetch_add(1, SeqCst) == 0 {
                    return Err(HandlerError::retry("not yet"));
                }
                cx.begin::<Memory>().await?.commit().await?;
                tokio::time::sleep(5 * SECOND).await;
                ended.store(true, SeqCst);
                Ok(())
            }
        }
    };
    plan.consumer(
        Consumer::group("billing")
            .on(handler)
            .retry(each_second())
            .lease(SECOND),
    );
    let messaging = Messaging::start(plan).await.unwrap();
    publish(&messaging, 1).await;
    eventually("it is handled", async || {
        messaging.consumers()[0].stats().handled == 1
    })
    .await;
    assert!(
        ended.load(SeqCst),
        "it was dropped in the middle, after its commit"
    );
    messaging.shutdown(SECOND).await.unwrap();
}

/// Handlers that fail until they are mended, and then wait for leave to end.
#[derive(Clone)]
struct Slow {
    mended: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    leave: Arc<Semaphore>,
}

impl Slow {
    fn new() -> Self {
        Self {
            mended: Arc::default(),
            calls: Arc::default(),
            leave: Arc::new(Semaphore::new(0)),
        }
    }

    fn consumer(&self) -> Consumer {
        let slow = self.clone();
        Consumer::group("billing").on(move |_: Order, _: Context| {
            let slow = slow.clone();
            async move {
                if !slow.mended.load(SeqCst) {
                    return Err(HandlerError::retry("broken"));
                }
                slow.calls.fetch_add(1, SeqCst);
                slow.leave.acquire().await.unwrap().forget();
                HandlerResult::Ok(())
            }
        })
    }

    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn should_call_no_handler_with_what_was_parked_when_it_is_paused_meanwhile() {
    let (memory, slow) = (Memory::new(), Slow::new());
    let mut plan = plan(&memory, true);
    plan.consumer(slow.consumer().retry(each_second()).concurrency(2));
    let messaging = Messaging::start(plan).await.unwrap();
    let billing = messaging.consumers()[0].clone();
    publish(&messaging, 6).await;
    eventually("all are parked", async || billing.stats().parked >= 6).await;
    slow.mended.store(true, SeqCst);
    eventually("two run", async || slow.calls() == 2).await;

    billing.pause();
    slow.leave.add_permits(100);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(
        (slow.calls(), billing.stats().handled),
        (2, 2),
        "while it is paused"
    );
    billing.resume();
    eventually("the others are handled", async || billing.stats().handled == 6).await;
    assert_eq!(slow.calls(), 6, "each once");
    messaging.shutdown(SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_send_no_probe_when_it_is_paused_while_its_circuit_is_open() {
    let (memory, slow) = (Memory::new(), Slow::new());
    let mut plan = plan(&memory, true);
    let breaker = CircuitBreaker::after(1).open_for(Backoff::exponential(5 * SECOND, 5 * SECOND));
    plan.consumer(
        slow.consumer()
            .retry(Retry::exponential(SECOND, SECOND).inline(2).rounds(1_000))
            .circuit_breaker(breaker)
            .concurrency(1),
    );
    let messaging = Messaging::start(plan).await.unwrap();
    let billing = messaging.consumers()[0].clone();
    publish(&messaging, 10).await;
    eventually("the circuit is open", async || {
        billing.subscriptions()[0].circuit_open
    })
    .await;
    billing.pause();
    slow.mended.store(true, SeqCst);
    slow.leave.add_permits(100);
    tokio::time::sleep(2 * MINUTE).await;
    assert_eq!(slow.calls(), 0, "calls while it is paused");
    billing.resume();
    eventually("all are handled", async || billing.stats().handled == 10).await;
    assert_eq!(slow.calls(), 10, "each once");
    messaging.shutdown(SECOND).await.unwrap();
}

/// A park that counts what is asked of it.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn ParkedStore>,
    asked: AtomicUsize,
}

#[async_trait]
impl ParkedStore for Counting {
    async fn park(&self, parks: &[Park], limits: ParkLimits) -> Result<Vec<Parked>> {
        self.inner.park(parks, limits).await
    }

    async fn claim(&self, request: &ClaimParked) -> Result<Vec<ParkedRow>> {
        self.asked.fetch_add(1, SeqCst);
        self.inner.claim(request).await
    }

    async fn abandon(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        how: &Abandon,
    ) -> Result<Settled> {
        self.asked.fetch_add(1, SeqCst);
        self.inner.abandon(group, owner, claims, how).await
    }

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        self.inner.reap_expired(limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn should_leave_parked_messages_alone_when_it_does_not_read_their_topic() {
    let (memory, slow) = (Memory::new(), Slow::new());
    let mut before = plan(&memory, true);
    before.transport = Some(Arc::new(memory.connect()));
    before.consumer(
        slow.consumer()
            .retry(each_second())
            .circuit_breaker(CircuitBreaker::off()),
    );
    let messaging = Messaging::start(before).await.unwrap();
    publish(&messaging, 200).await;
    let billing = messaging.consumers()[0].clone();
    eventually("all are parked", async || billing.stats().parked >= 200).await;
    messaging.shutdown(SECOND).await.unwrap();

    let mut parts = memory.parts();
    let inbox = parts.inbox.as_mut().unwrap();
    let counting = Arc::new(Counting {
        inner: inbox.parked.clone(),
        asked: AtomicUsize::new(0),
    });
    inbox.parked = counting.clone();
    let mut after = plan(&memory, true);
    after.store = Some(parts);
    after.consumer(Consumer::group("billing").on(async |_: Refund, _: Context| HandlerResult::Ok(())));
    let messaging = Messaging::start(after).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    let asked = counting.asked.load(SeqCst);
    assert!(asked > 0, "it looked");
    // A look each second or so, and giving back once what the first of them claimed: 16 rows.
    assert!(asked <= 2 * 60 + 16, "{asked} calls in a minute");
    messaging.shutdown(SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_begin_its_own_group_anew_when_that_has_ended_while_it_lives() {
    let (memory, slow) = (Memory::new(), Slow::new());
    slow.mended.store(true, SeqCst);
    slow.leave.add_permits(100);
    let mut plan = plan(&memory, true);
    plan.consumer(slow.consumer().per_instance());
    let messaging = Messaging::start(plan).await.unwrap();
    let watching = messaging.consumers()[0].clone();
    publish(&messaging, 1).await;
    eventually("the first is handled", async || watching.stats().handled == 1).await;
    memory.remove_group(watching.group()).await.unwrap();
    eventually("it reads again", async || {
        memory.lag(watching.group()).await.is_ok()
    })
    .await;
    publish(&messaging, 1).await;
    eventually("the next is handled", async || watching.stats().handled == 2).await;
    messaging.shutdown(SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_show_that_nothing_can_be_received_when_the_transport_is_away_for_long() {
    let (memory, slow) = (Memory::new(), Slow::new());
    let link = memory.connect();
    let mut plan = plan(&memory, false);
    plan.transport = Some(Arc::new(link.clone()));
    plan.consumer(slow.consumer().inbox(Inbox::Off));
    let messaging = Messaging::start(plan).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    let broken = || messaging.consumers()[0].subscriptions()[0].broken.clone();
    assert_eq!(broken(), None);
    Transport::close(&link).await.unwrap();
    eventually("it shows", async || broken().is_some()).await;
    messaging.shutdown(SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_name_the_limit_when_more_calls_at_once_are_asked_for_than_any_process_runs() {
    let (memory, slow) = (Memory::new(), Slow::new());
    let mut endless = plan(&memory, true);
    endless.consumer(slow.consumer().concurrency(usize::MAX));
    let error = Messaging::start(endless).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("the most is 100000"), "{error}");

    let mut plan = plan(&memory, true);
    plan.consumer(slow.consumer());
    let messaging = Messaging::start(plan).await.unwrap();
    let billing = &messaging.consumers()[0];
    billing.set_concurrency(usize::MAX);
    assert_eq!(billing.concurrency(), 100_000);
    messaging.shutdown(SECOND).await.unwrap();
}

/// Handlers that fail until they are mended, and count their calls.
fn failing(calls: &Arc<AtomicUsize>, mended: &Arc<AtomicBool>) -> Consumer {
    let (calls, mended) = (calls.clone(), mended.clone());
    // A second attempt of a round comes some seconds after the first.
    let retry = each_second()
        .inline(1)
        .inline_backoff(Backoff::exponential(10 * SECOND, 10 * SECOND));
    Consumer::group("billing")
        .on(move |_: Order, _: Context| {
            calls.fetch_add(1, SeqCst);
            let is_mended = mended.load(SeqCst);
            async move {
                match is_mended {
                    true => Ok(()),
                    false => Err(HandlerError::retry("broken")),
                }
            }
        })
        .retry(retry)
}

#[tokio::test(start_paused = true)]
async fn should_not_call_the_handler_when_the_message_has_expired_during_a_pause() {
    let memory = Memory::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let mut plan = plan(&memory, true);
    plan.consumer(failing(&calls, &Arc::default()));
    let messaging = Messaging::start(plan).await.unwrap();
    let billing = messaging.consumers()[0].clone();
    let order = Order { lines: vec![1] };
    let message = messaging.publisher().message(Order::TOPIC, &order);
    message.expires_after(MINUTE).send().await.unwrap();
    eventually("it was tried once", async || calls.load(SeqCst) == 1).await;
    billing.pause();
    tokio::time::sleep(2 * MINUTE).await;
    billing.resume();
    eventually("it has expired", async || billing.stats().expired == 1).await;
    assert_eq!(calls.load(SeqCst), 1, "it was not called again");
    messaging.shutdown(SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_leave_what_was_parked_to_another_process_when_this_one_is_paused() {
    let memory = Memory::new();
    let (calls, broken, mended) = (Arc::default(), Arc::default(), Arc::new(AtomicBool::new(true)));
    let start = async |is_mended: &Arc<AtomicBool>| {
        let mut plan = plan(&memory, true);
        plan.transport = Some(Arc::new(memory.connect()));
        plan.consumer(failing(&calls, is_mended).concurrency(1));
        Messaging::start(plan).await.unwrap()
    };
    let paused = start(&broken).await;
    let billing = paused.consumers()[0].clone();
    publish(&paused, 1).await;
    eventually("the first attempt of its second round", async || {
        calls.load(SeqCst) == 3
    })
    .await;
    billing.pause();
    let other = start(&mended).await;
    eventually("the other has handled it", async || {
        other.consumers()[0].stats().handled == 1
    })
    .await;
    assert_eq!(calls.load(SeqCst), 4, "nothing more was called on the first");
    paused.shutdown(SECOND).await.unwrap();
    other.shutdown(SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_give_back_all_of_a_batch_when_this_process_is_misconfigured() {
    let memory = Memory::new();
    let start = async |state: State| {
        let mut plan = plan(&memory, true);
        plan.transport = Some(Arc::new(memory.connect()));
        plan.state = state;
        let handler = |_: Vec<Order>, cx: BatchContext| async move {
            cx.begin::<Memory>().await?.commit().await?;
            HandlerResult::Ok(())
        };
        plan.consumer(Consumer::group("billing").batch(3, SECOND, handler));
        Messaging::start(plan).await.unwrap()
    };
    let without = start(State::new()).await;
    publish(&without, 3).await;
    eventually("it is paused", async || {
        let status = &without.consumers()[0].subscriptions()[0];
        status.paused.contains(&PauseReason::Configuration)
    })
    .await;
    let with = start(State::new().with(memory.clone())).await;
    eventually("the other has handled all", async || {
        with.consumers()[0].stats().handled == 3
    })
    .await;
    without.shutdown(SECOND).await.unwrap();
    with.shutdown(SECOND).await.unwrap();
}
