//! How soon work goes on once what was away is back: measured in virtual time, after an outage for so long that nobody
//! asks often any more.

use tokio::time::timeout;

use super::*;

/// How long it is away.
const OUTAGE: Duration = Duration::from_mins(10);
/// The bounds of the design.
const STORE_BACK: Duration = Duration::from_secs(5);
const TRANSPORT_BACK: Duration = Duration::from_secs(10);
const MEMBER_GONE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    Store,
    Transport,
}

struct World {
    server: Memory,
    store: Faults,
    transport: Faults,
    clock: Arc<Virtual>,
}

impl World {
    fn new() -> Self {
        let clock = Virtual::begin();
        let world = Self {
            server: Memory::with_config(MemoryConfig::default().with_clock(clock.clone())),
            store: Faults::seeded(1),
            transport: Faults::seeded(2),
            clock,
        };
        world.store.calm();
        world.transport.calm();
        world
    }

    async fn node(&self, number: u64) -> Node {
        node(&self.server, [&self.store, &self.transport], &self.clock, number).await
    }

    fn handled(&self) -> usize {
        self.server.rows(EFFECTS).len()
    }

    /// Waits until so many are handled, and says how long that took.
    async fn until(&self, handled: usize, within: Duration) -> Duration {
        let began = self.clock.monotonic();
        let all = async {
            while self.handled() < handled {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let ended = timeout(within, all).await;
        let took = self.clock.monotonic() - began;
        assert!(
            ended.is_ok(),
            "{} of {handled} were handled within {within:?}",
            self.handled()
        );
        took
    }
}

/// Takes a part away while messages are on their way, and brings it back.
#[expect(clippy::print_stdout, reason = "what was measured is printed")]
fn comes_back(away: Away, what: &str, bound: Duration) {
    in_virtual_time(async {
        let world = World::new();
        let node = world.node(1).await;
        publish(&node.runtime, Order { line: 0 }).await;
        world.until(1, Duration::from_mins(1)).await;

        let mut published = 1;
        for line in 1..=KEYS {
            publish(&node.runtime, Order { line }).await;
            published += 1;
        }
        let part = if away == Away::Store {
            &world.store
        } else {
            &world.transport
        };
        part.take_away();
        let mut waiting = 0;
        if away == Away::Transport {
            // Publishing goes on.
            for line in KEYS + 1..=2 * KEYS {
                publish(&node.runtime, Order { line }).await;
                waiting += 1;
            }
        }
        let before = world.handled();
        tokio::time::sleep(OUTAGE).await;
        assert!(world.handled() < published + waiting, "all was done before");
        part.calm();
        let took = world.until(published + waiting, bound).await;
        println!(
            "{what} back after {OUTAGE:?}, {before} handled before: all handled {took:?} later, the bound is {bound:?}"
        );
        node.runtime.shutdown(Duration::from_mins(1)).await.unwrap();
    });
}

#[test]
fn should_go_on_within_5_s_when_the_store_is_back() {
    comes_back(Away::Store, "store", STORE_BACK);
}

#[test]
fn should_go_on_within_10_s_when_the_broker_is_back() {
    comes_back(Away::Transport, "broker", TRANSPORT_BACK);
}

#[test]
fn should_go_on_within_its_lease_and_2_s_when_a_member_is_gone() {
    in_virtual_time(async {
        let world = World::new();
        let first = world.node(1).await;
        for line in 0..ORDERS {
            publish(&first.runtime, Order { line }).await;
        }
        // Some are handled, some are in its hands.
        world.until(3, Duration::from_mins(1)).await;
        let second = world.node(2).await;
        first.memory.sever();
        drop(first.runtime);
        let bound = LEASE + MEMBER_GONE;
        let took = world.until(ORDERS as usize, bound).await;
        println!("a member is gone: all handled {took:?} later, the lease is {LEASE:?}, the bound {bound:?}");
        second.runtime.shutdown(Duration::from_mins(1)).await.unwrap();
    });
}
