//! Handlers that hold their thread, in real time: a runtime of work and the thread of control tasks, as a service has
//! them. Each wait has a bound, and ends as soon as what is waited for has happened.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

#[expect(
    dead_code,
    reason = "here the counters of all threads are read, elsewhere those of one"
)]
#[path = "relay/counters.rs"]
mod counters;

use std::{
    future::Future,
    sync::{
        Arc, Condvar, LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use headless_abstractions::{
    Admission, Arrival, DeadLetterFilter, DeadLetterQueries, FailureCause, GroupName, InboxState, InboxStore,
    Message, Owner, Store,
};
use headless_core::{ControlRuntime, Environment, Event, HandlerError, Retry, Spawner, State, metric};
use headless_memory::Memory;
use headless_messaging::{CircuitBreaker, Consumer, Context, Inbox, Messaging, Plan};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::counters::Counters;

/// The longest that anything is waited for.
const BOUND: Duration = Duration::from_secs(30);

/// How long to look for what must not happen.
const QUIET: Duration = Duration::from_millis(100);

/// The counters of every thread of this program; tests tell theirs by the group's name.
static COUNTERS: LazyLock<Arc<Counters>> = LazyLock::new(|| {
    let counters = Arc::new(Counters::default());
    metrics::set_global_recorder(counters.clone()).unwrap();
    counters
});

#[derive(Debug, Serialize, Deserialize)]
struct Sum {
    n: u32,
}

impl Event for Sum {
    const TOPIC: &'static str = "sums";
}

/// A runtime of work with this many threads, and the thread of control tasks.
struct Threads {
    work: Runtime,
    control: ControlRuntime,
}

impl Threads {
    fn start(workers: usize) -> Self {
        LazyLock::force(&COUNTERS);
        Self {
            work: Builder::new_multi_thread()
                .worker_threads(workers)
                .enable_all()
                .build()
                .unwrap(),
            control: ControlRuntime::start().unwrap(),
        }
    }

    fn run<T>(&self, test: impl Future<Output = T>) -> T {
        self.work
            .block_on(async { tokio::time::timeout(BOUND * 2, test).await })
            .unwrap()
    }

    async fn consume(&self, memory: &Memory, consumer: Consumer) -> Messaging {
        let spawner = Spawner::new(Handle::current(), self.control.handle().clone());
        let mut plan = Plan::new(Environment::system(spawner, "node"));
        plan.transport = Some(Arc::new(memory.clone()));
        plan.store = Some(memory.parts());
        plan.state = State::new().with(memory.clone());
        plan.consumer(
            consumer
                .inbox(Inbox::Around)
                .circuit_breaker(CircuitBreaker::off()),
        );
        Messaging::start(plan).await.unwrap()
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let look = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, look)
        .await
        .unwrap_or_else(|_| panic!("not within {BOUND:?}: {what}"));
}

/// A call that holds its thread until the test lets it go.
struct Gate {
    message: mpsc::Sender<Message>,
    opened: Mutex<mpsc::Receiver<()>>,
}

impl Gate {
    fn hold(&self, cx: &Context) {
        self.message.send(cx.message().clone()).unwrap();
        self.opened.lock().unwrap().recv_timeout(BOUND * 2).unwrap();
    }
}

#[test]
fn should_report_the_handler_and_renew_its_lease_when_it_never_yields() {
    let threads = Threads::start(2);
    threads.run(async {
        let memory = Memory::new();
        let (came, comes) = mpsc::channel();
        let (open, opened) = mpsc::channel();
        let gate = Arc::new(Gate {
            message: came,
            opened: Mutex::new(opened),
        });
        let consumer = Consumer::group("never-yields")
            .on(move |_: Sum, cx: Context| {
                let gate = gate.clone();
                async move {
                    // No await: the thread is held.
                    gate.hold(&cx);
                    Ok(())
                }
            })
            .timeout(Duration::from_millis(50))
            .lease(Duration::from_millis(500));
        let messaging = threads.consume(&memory, consumer).await;
        messaging.publisher().publish(&Sum { n: 1 }).await.unwrap();
        let message = tokio::task::spawn_blocking(move || comes.recv_timeout(BOUND).unwrap())
            .await
            .unwrap();

        // Another process asks for the message, again and again: the lease grows whenever it is renewed.
        let arrival = Arrival::of(&GroupName::parse("never-yields").unwrap(), &message, false);
        let thief = Owner::from_bits(7);
        let (mut last, mut renewals) = (Duration::MAX, 0);
        eventually("six renewals", async || {
            let answer = memory
                .admit(thief, Duration::from_secs(1), std::slice::from_ref(&arrival))
                .await
                .unwrap()[0];
            let Admission::Busy { lease_left } = answer else {
                panic!("the lease of a handler that holds its thread has ended: {answer:?}");
            };
            renewals += u32::from(lease_left > last);
            last = lease_left;
            renewals >= 6
        })
        .await;
        let stuck = format!("{}{{group=never-yields,topic=sums}}", metric::STUCK);
        eventually("it is reported", async || COUNTERS.read(&stuck) > 0).await;

        open.send(()).unwrap();
        let billing = messaging.consumers()[0].clone();
        eventually("it is handled", async || billing.stats().handled == 1).await;
        assert_eq!(COUNTERS.read(&stuck), 1, "one call is reported once");
        let again = memory
            .admit(thief, Duration::from_secs(1), &[arrival])
            .await
            .unwrap();
        assert_eq!(again, [Admission::Settled(InboxState::Processed)]);
        messaging.shutdown(BOUND).await.unwrap();
    });
}

#[test]
fn should_leave_the_workers_free_when_handlers_block() {
    // One worker: two calls that wait for each other can only meet on threads of their own.
    let threads = Threads::start(1);
    threads.run(async {
        let memory = Memory::new();
        let (one, at_one) = mpsc::channel();
        let (two, at_two) = mpsc::channel();
        let (one, two) = (Mutex::new((one, at_two)), Mutex::new((two, at_one)));
        let consumer = Consumer::group("blocks").blocking(move |sum: Sum, _: Context| {
            let side = if sum.n == 1 { &one } else { &two };
            let side = side.lock().unwrap();
            side.0.send(()).map_err(HandlerError::retry)?;
            side.1.recv_timeout(BOUND)?;
            Ok(())
        });
        let messaging = threads.consume(&memory, consumer).await;
        for n in 1..=2 {
            messaging.publisher().publish(&Sum { n }).await.unwrap();
        }
        let stats = messaging.consumers()[0].clone();
        eventually("both are handled", async || stats.stats().handled == 2).await;
        assert_eq!(stats.stats().failed, 0);
        messaging.shutdown(BOUND).await.unwrap();
    });
}

#[test]
fn should_ask_a_blocking_handler_to_end_and_await_it_when_its_time_is_over() {
    let threads = Threads::start(2);
    threads.run(async {
        let memory = Memory::new();
        let (asked, overlaps) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (calls_asked, calls_overlap) = (asked.clone(), overlaps.clone());
        let (running, changed) = (Mutex::new(0_u32), Condvar::new());
        let moment = Duration::from_millis(1);
        let consumer = Consumer::group("times-out")
            .blocking(move |_: Sum, cx: Context| {
                *running.lock().unwrap() += 1;
                changed.notify_all();
                let (told, ended) = mpsc::channel();
                let cancelled = cx.cancelled().clone();
                Handle::current().spawn(async move {
                    cancelled.cancelled().await;
                    told.send(())
                });
                let was_asked = ended.recv_timeout(BOUND).is_ok();
                calls_asked.fetch_add(u32::from(was_asked), Ordering::SeqCst);
                // It takes its time to end, and looks whether another call begins meanwhile.
                let alone = changed
                    .wait_timeout_while(running.lock().unwrap(), QUIET, |running| *running == 1)
                    .unwrap();
                calls_overlap.fetch_add(u32::from(!alone.1.timed_out()), Ordering::SeqCst);
                drop(alone);
                *running.lock().unwrap() -= 1;
                // What it answers now comes too late.
                Ok(())
            })
            .timeout(Duration::from_millis(50))
            .retry(Retry::exponential(moment, moment).inline(1).rounds(2));
        let messaging = threads.consume(&memory, consumer).await;
        messaging.publisher().publish(&Sum { n: 1 }).await.unwrap();
        let stats = messaging.consumers()[0].clone();
        eventually("it is dead", async || stats.stats().dead == 1).await;
        let page = DeadLetterQueries::list(&memory, &DeadLetterFilter::open(), None, 10)
            .await
            .unwrap();
        let causes: Vec<_> = page.items[0]
            .failures
            .iter()
            .map(|failure| failure.cause)
            .collect();
        assert_eq!(causes, [FailureCause::Timeout; 4], "two rounds of two calls");
        assert_eq!(asked.load(Ordering::SeqCst), 4, "calls that were asked to end");
        assert_eq!(
            overlaps.load(Ordering::SeqCst),
            0,
            "a call began before the one before had ended"
        );
        assert_eq!(stats.stats().handled, 0);
        messaging.shutdown(BOUND).await.unwrap();
    });
}
