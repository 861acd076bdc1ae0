//! The facade over memory: what an application sees from start to drain.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "runtime/lag.rs"]
mod lag;
#[path = "runtime/settled.rs"]
mod settled;

use std::{borrow::Cow, sync::Arc, time::Duration};

use headless::{
    Backoff, CircuitBreaker, Consumer, Context, Environment, ErrorKind, Event, HandlerError, HandlerResult,
    Headless, Inbox, Memory, MessagePack, Ordered, Preset, PublishExt, PublishOutcome, Retry, Runtime,
    SeededRandom, Spawner, SystemClock,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const MINUTE: Duration = Duration::from_mins(1);

#[derive(Serialize, Deserialize)]
struct Placed {
    order: String,
}

impl Placed {
    fn new(order: &str) -> Self {
        Self {
            order: order.to_owned(),
        }
    }
}

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.order))
    }
}

async fn bill(placed: Placed, cx: Context) -> HandlerResult {
    let mut work = cx.begin::<Memory>().await?;
    work.put("invoices", &placed.order, "due").await?;
    work.commit().await?;
    Ok(())
}

/// On the test's paused time.
fn environment() -> Environment {
    Environment::new(
        Arc::new(SystemClock::new()),
        Arc::new(SeededRandom::new(1)),
        Spawner::current(),
        "node-1",
    )
}

async fn start(memory: &Memory, consumer: Consumer) -> Runtime {
    Headless::builder("orders")
        .store(memory)
        .transport(memory.clone())
        .topic::<Placed>(Ordered::partitions(4))
        .consumer(consumer)
        .environment(environment())
        .start()
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn should_send_row_and_message_or_neither_when_a_unit_of_work_ends() {
    let memory = Memory::new();
    let runtime = start(&memory, Consumer::group("billing").on(bill)).await;
    let mut kept = runtime.begin::<Memory>().await.unwrap();
    kept.put("orders", "kept", "x").await.unwrap();
    kept.publish(&Placed::new("kept")).await.unwrap();
    let mut dropped = runtime.begin::<Memory>().await.unwrap();
    dropped.put("orders", "dropped", "x").await.unwrap();
    dropped.publish(&Placed::new("dropped")).await.unwrap();
    dropped.rollback().await.unwrap();
    assert_eq!(runtime.backlog().await.unwrap().outbox, 0);
    kept.commit().await.unwrap();
    runtime.settled(MINUTE).await.unwrap();
    let keys = |table| {
        memory
            .rows(table)
            .into_iter()
            .map(|(key, _)| key)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (keys("orders"), keys("invoices")),
        (vec!["kept".to_owned()], vec!["kept".to_owned()])
    );
    assert!(runtime.health().is_healthy());
    runtime.shutdown(MINUTE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_publish_in_an_enlisted_transaction_when_it_commits_by_itself() {
    use headless_abstractions::{OwnedTx, StoreTx, UnitOfWorkStore};

    /// A transaction of the user's, lent.
    #[derive(Debug)]
    struct Lent<'a>(&'a mut headless::MemoryTx);

    #[async_trait::async_trait]
    impl StoreTx for Lent<'_> {
        async fn append(
            &mut self,
            messages: &[headless::Message],
        ) -> headless::Result<Vec<headless_abstractions::Appended>> {
            self.0.append(messages).await
        }

        async fn mark_processed(
            &mut self,
            marks: &[(headless_abstractions::Arrival, headless_abstractions::Hold)],
        ) -> headless::Result<Vec<headless_abstractions::Marked>> {
            self.0.mark_processed(marks).await
        }
    }

    let memory = Memory::new();
    let runtime = start(&memory, Consumer::group("billing").on(bill)).await;
    let mut tx = memory.begin().await.unwrap();
    let mut work = runtime.enlist(Lent(&mut tx));
    work.publish(&Placed::new("o-1")).await.unwrap();
    let wake = work.detach().unwrap();
    assert_eq!(runtime.backlog().await.unwrap().outbox, 0);
    Box::new(tx).commit().await.unwrap();
    wake.wake();
    runtime.settled(MINUTE).await.unwrap();
    assert_eq!(memory.rows("invoices").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn should_show_what_waits_when_it_is_not_settled() {
    let memory = Memory::new();
    let consumer = Consumer::group("billing").on(bill).start_paused();
    let runtime = start(&memory, consumer).await;
    runtime.publisher().publish(&Placed::new("o-1")).await.unwrap();
    let error = runtime.settled(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error
            .to_string()
            .contains("outbox 0, lag 1, running 0, parked 0, dead 0"),
        "{error}"
    );
    assert!(runtime.health().is_healthy(), "paused by an operator is healthy");
    runtime.consumers()[0].resume();
    runtime.settled(MINUTE).await.unwrap();
    assert_eq!(runtime.health().groups[0].stats.handled, 1);
}

#[tokio::test(start_paused = true)]
async fn should_settle_with_a_dead_letter_when_a_handler_fails_for_good() {
    let memory = Memory::new();
    let fail = |_: Placed, _: Context| async { Err(HandlerError::permanent("no")) };
    let runtime = start(&memory, Consumer::group("billing").on(fail)).await;
    runtime.publisher().publish(&Placed::new("o-1")).await.unwrap();
    runtime.settled(MINUTE).await.unwrap();
    assert_eq!(runtime.backlog().await.unwrap().dead, 1);
}

#[tokio::test(start_paused = true)]
async fn should_be_unhealthy_when_a_circuit_is_open() {
    let memory = Memory::new();
    let fail = |_: Placed, _: Context| async { Err(HandlerError::retry("down")) };
    let breaker = CircuitBreaker::after(1).open_for(Backoff::exponential(MINUTE, MINUTE));
    let runtime = start(
        &memory,
        Consumer::group("billing").on(fail).circuit_breaker(breaker),
    )
    .await;
    runtime.publisher().publish(&Placed::new("o-1")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let problems = runtime.health().problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].contains("\"billing\"") && problems[0].contains("orders.placed"),
        "{problems:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn should_refuse_begin_when_the_store_is_not_the_one_of_the_outbox() {
    let memory = Memory::new();
    let builder = || Headless::builder("orders").environment(environment());
    let without = builder().transport(memory.clone()).start().await.unwrap();
    let error = without.begin::<Memory>().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("add .store(..)"), "{error}");
    let other = builder()
        .store(&memory)
        .state(Memory::new())
        .start()
        .await
        .unwrap();
    let error = other.begin::<Memory>().await.unwrap_err();
    assert!(error.to_string().contains("another store"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn should_publish_directly_when_there_is_no_store() {
    let memory = Memory::new();
    let runtime = Headless::builder("orders")
        .transport(memory.clone())
        .topic::<Placed>(Ordered::partitions(4))
        .required_topic_named("must", Ordered::no())
        .codec(MessagePack)
        .environment(environment())
        .start()
        .await
        .unwrap();
    let published = runtime.publisher().publish(&Placed::new("o-1")).await.unwrap();
    assert_eq!(published.outcome, PublishOutcome::Unrouted);
    let error = runtime.publisher().message("must", &1).send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let codec = runtime
        .explain()
        .iter()
        .find(|setting| setting.name == "codec")
        .unwrap();
    assert_eq!(codec.to_string(), "codec = application/msgpack (builder)");
}

#[tokio::test(start_paused = true)]
async fn should_give_handlers_the_state_when_it_is_registered() {
    let memory = Memory::new();
    let called = Arc::new(Notify::new());
    let runtime = Headless::builder("orders")
        .transport(memory.clone())
        .state(called.clone())
        .consumer(
            Consumer::group("g")
                .inbox(Inbox::Off)
                .on(|_: Placed, cx: Context| async move {
                    cx.state::<Arc<Notify>>()?.notify_one();
                    Ok(())
                }),
        )
        .environment(environment())
        .start()
        .await
        .unwrap();
    runtime.publisher().publish(&Placed::new("o-1")).await.unwrap();
    tokio::time::timeout(MINUTE, called.notified()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_report_all_problems_at_once_when_the_builder_is_wrong() {
    let memory = Memory::new();
    let error = Headless::builder("")
        .node("a\nb")
        .store(&memory)
        .store(&memory)
        .transport(memory.clone())
        .transport(memory.clone())
        .pulse_interval(Duration::ZERO)
        .purge_batch(0)
        .max_payload(0)
        .start()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    for problem in [
        "7 problems",
        "the service name is empty",
        "\"a\\nb\" has a control character",
        "two stores",
        "two transports",
        "pulse.interval is 0 s, the least is 10 ms",
        "purge.batch is 0",
        "publish.max_payload is 0",
    ] {
        assert!(text.contains(problem), "{text:?} lacks {problem:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn should_report_all_problems_at_once_when_the_plan_is_wrong() {
    let error = Headless::builder("orders")
        .topic_named("no spaces", Ordered::no())
        .topic::<Placed>(Ordered::partitions(0))
        .consumer(Consumer::group("billing").on(bill).concurrency(0))
        .relay_batch(0)
        .environment(environment())
        .start()
        .await
        .unwrap_err();
    let text = error.to_string();
    for problem in [
        "no spaces",
        "orders.placed",
        "needs a transport",
        "concurrency is 0",
        "relay.batch is 0",
    ] {
        assert!(text.contains(problem), "{text:?} lacks {problem:?}");
    }
}

#[test]
fn should_say_what_is_missing_when_there_is_no_tokio_runtime() {
    let start = Headless::builder("orders").start();
    let error = poll_once(start).unwrap_err();
    assert!(error.to_string().contains("needs a tokio runtime"), "{error}");
}

/// Polls once: the future ends before its first wait.
fn poll_once<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

#[tokio::test]
async fn should_run_on_a_control_thread_and_drain_when_no_environment_is_given() {
    let memory = Memory::new();
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (begun.clone(), go_on.clone());
    let slow = move |placed: Placed, cx: Context| {
        let (tell, wait) = (tell.clone(), wait.clone());
        async move {
            tell.notify_one();
            wait.notified().await;
            bill(placed, cx).await
        }
    };
    let runtime = Headless::builder("orders")
        .store(&memory)
        .transport(memory.clone())
        .topic::<Placed>(Ordered::partitions(4))
        .consumer(Consumer::group("billing").on(slow).retry(Retry::never()))
        .preset(Preset::Development)
        .start()
        .await
        .unwrap();
    assert!(
        runtime.node().ends_with(&format!("-{}", std::process::id())),
        "{}",
        runtime.node()
    );
    runtime.publisher().publish(&Placed::new("o-1")).await.unwrap();
    begun.notified().await;
    let drain = tokio::spawn(runtime.shutdown(MINUTE));
    go_on.notify_one();
    drain.await.unwrap().unwrap();
    assert_eq!(memory.rows("invoices").len(), 1);
}
