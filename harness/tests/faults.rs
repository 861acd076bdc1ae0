//! Core over drivers that fail, are slow, happen twice and lose their answers: nothing is lost, effects happen once and in
//! the order of each key, and a seed replays.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use headless::{
    Consumer, Context, Environment, Event, HandlerResult, Headless, Memory, MemoryConfig, Ordered, Preset,
    PublishExt, Retry, Runtime, SeededRandom, Spawner,
};
use headless_abstractions::Clock;
use headless_harness::{FaultCount, Faults, FaultyStore, FaultyTransport};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

#[path = "faults/avalanche.rs"]
mod avalanche;
#[path = "faults/recovery.rs"]
mod recovery;
#[path = "faults/starting.rs"]
mod starting;

const ORDERS: u32 = 30;
const KEYS: u32 = 4;
const LEASE: Duration = Duration::from_secs(1);
const EFFECTS: &str = "effects";
const SEEDS: u64 = 25;

/// The virtual time of a run, and by how many seconds a machine's wall clock is off.
#[derive(Debug)]
struct Virtual {
    origin: Instant,
    off: AtomicI64,
}

impl Virtual {
    #[expect(clippy::disallowed_methods, reason = "where the virtual time begins")]
    fn begin() -> Arc<Self> {
        Arc::new(Self {
            origin: Instant::now(),
            off: AtomicI64::new(0),
        })
    }

    /// The wall clock of another machine.
    fn off_by(&self, seconds: i64) -> Arc<Self> {
        Arc::new(Self {
            origin: self.origin,
            off: AtomicI64::new(seconds),
        })
    }

    /// Sets the wall clock by so many seconds, while all runs.
    fn step(&self, seconds: i64) {
        self.off.fetch_add(seconds, SeqCst);
    }
}

impl Clock for Virtual {
    fn now(&self) -> DateTime<Utc> {
        let off = TimeDelta::seconds(1_700_000_000 + self.off.load(SeqCst));
        DateTime::UNIX_EPOCH + off + self.origin.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Order {
    line: u32,
}

impl Event for Order {
    const TOPIC: &'static str = "orders";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some((self.line % KEYS).to_string().into())
    }

    fn idempotency_key(&self) -> Option<Cow<'_, str>> {
        Some(self.line.to_string().into())
    }
}

async fn handle(order: Order, cx: Context) -> HandlerResult {
    let mut work = cx.begin::<FaultyStore<Memory>>().await?;
    // As long as work takes, so that some is under way at any time.
    tokio::time::sleep(Duration::from_millis(20)).await;
    work.push(EFFECTS, order.line.to_string()).await?;
    work.commit().await?;
    Ok(())
}

/// What came of a run: the lines that were handled, in their order.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    handled: Vec<u32>,
    dead: u64,
    count: FaultCount,
}

/// A process, and its connection.
struct Node {
    runtime: Runtime,
    memory: Memory,
}

/// A node over the server, through its own connection and the network of all: that of the store, and of the transport.
async fn node(server: &Memory, [store, transport]: [&Faults; 2], clock: &Arc<Virtual>, number: u64) -> Node {
    let memory = server.connect();
    let random = Arc::new(SeededRandom::new(number));
    let environment = Environment::new(clock.clone(), random, Spawner::current(), format!("n{number}"));
    // Attempts enough that nothing dies of the network.
    let retry = Retry::exponential(Duration::from_millis(50), Duration::from_millis(500)).rounds(1_000);
    let consumer = Consumer::group("billing")
        .on(handle)
        .ordered_by_key()
        .retry(retry);
    let runtime = Headless::builder("trial")
        .environment(environment)
        .store(&FaultyStore::new(memory.clone(), store))
        .transport(FaultyTransport::new(memory.clone(), transport))
        .topic::<Order>(Ordered::partitions(2))
        .consumer(consumer.lease(LEASE).visibility(LEASE))
        .preset(Preset::Development)
        .relay_lease(LEASE)
        .start()
        .await
        .unwrap();
    Node { runtime, memory }
}

/// Publishes until it is known to have happened: a second time, it is known by its idempotency key.
async fn publish(runtime: &Runtime, order: Order) {
    loop {
        let once = async {
            let mut work = runtime.begin::<FaultyStore<Memory>>().await?;
            work.publish(&order).await?;
            work.commit().await
        };
        if once.await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn in_virtual_time(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test);
}

fn run(seed: u64) -> Outcome {
    run_with_clocks(seed, [0, 0], 0)
}

/// With wall clocks that are off by so many seconds, and are set by so many in the middle.
fn run_with_clocks(seed: u64, off: [i64; 2], step: i64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let clock = Virtual::begin();
        let server = Memory::with_config(MemoryConfig::default().with_clock(clock.clone()));
        let faults = Faults::seeded(seed)
            .with_rate(1_000)
            .with_longest_delay(LEASE * 3 / 2);
        let clocks = off.map(|off| clock.off_by(off));
        let nodes = [
            node(&server, [&faults; 2], &clocks[0], 2 * seed).await.runtime,
            node(&server, [&faults; 2], &clocks[1], 2 * seed + 1)
                .await
                .runtime,
        ];
        for line in 0..ORDERS {
            if line == ORDERS / 2 {
                clocks.iter().for_each(|clock| clock.step(step));
            }
            publish(&nodes[line as usize % 2], Order { line }).await;
        }
        nodes[0].settled(Duration::from_mins(10)).await.unwrap();
        let count = faults.happened();
        // The network is mended, and nothing more comes of what was under way.
        faults.calm();
        nodes[0].settled(Duration::from_mins(10)).await.unwrap();
        let dead = nodes[0].backlog().await.unwrap().dead;
        for node in nodes {
            node.shutdown(Duration::from_mins(1)).await.unwrap();
        }
        let rows = server.rows(EFFECTS).into_iter();
        let line = |(_, row): (_, _)| String::from_utf8(Vec::from(row)).unwrap().parse::<u32>().unwrap();
        Outcome {
            handled: rows.map(line).collect(),
            dead,
            count,
        }
    })
}

fn assert_kept(seed: u64, outcome: &Outcome) {
    let mut sorted = outcome.handled.clone();
    sorted.sort_unstable();
    let wanted: Vec<u32> = (0..ORDERS).collect();
    assert_eq!(sorted, wanted, "seed {seed}: each once, none lost; {outcome:?}");
    assert_eq!(outcome.dead, 0, "seed {seed}: {outcome:?}");
    let mut last = BTreeMap::new();
    for line in &outcome.handled {
        let before = last.insert(line % KEYS, *line);
        assert!(
            before.is_none_or(|before| before < *line),
            "seed {seed}: {line} after {before:?}"
        );
    }
}

#[test]
fn should_lose_nothing_and_do_nothing_twice_whatever_becomes_of_calls() {
    let mut all = FaultCount::default();
    for seed in 0..SEEDS {
        let outcome = run(seed);
        assert_kept(seed, &outcome);
        all.refused += outcome.count.refused;
        all.requests_lost += outcome.count.requests_lost;
        all.answers_lost += outcome.count.answers_lost;
        all.duplicated += outcome.count.duplicated;
        all.delayed += outcome.count.delayed;
    }
    // Drivers that are never faulty keep every promise.
    for happened in [
        all.refused,
        all.requests_lost,
        all.answers_lost,
        all.duplicated,
        all.delayed,
    ] {
        assert!(happened > SEEDS, "{all:?}");
    }
}

#[test]
fn should_lose_nothing_and_do_nothing_twice_when_wall_clocks_are_wrong_and_step() {
    const HOUR: i64 = 3_600;
    const DAY: i64 = 24 * HOUR;
    for (seed, off, step) in [
        (100, [HOUR, -HOUR], 0),
        (101, [DAY, -DAY], 0),
        (102, [0, 0], -HOUR),
        (103, [0, DAY], -2 * DAY),
        (104, [-DAY, HOUR], DAY),
    ] {
        assert_kept(seed, &run_with_clocks(seed, off, step));
    }
}

#[test]
fn should_decide_alike_when_the_seed_is_the_same() {
    let (first, second) = (run(1), run(1));
    assert_eq!(first, second);
    assert_ne!(first.count.trace, run(2).count.trace);
}

#[test]
fn should_be_transparent_when_nothing_fails() {
    let faults = Faults::seeded(1);
    faults.calm();
    let memory = Memory::new();
    let transport = FaultyTransport::new(memory, &faults);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for _ in 0..1_000 {
            headless_abstractions::Transport::ping(&transport).await.unwrap();
        }
    });
    let count = faults.happened();
    assert_eq!((count.calls, count.faults(), count.delayed), (1_000, 0, 0));
}
