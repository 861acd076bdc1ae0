//! Whether the messages of each key leave in the order of their commits, while everything goes wrong that may.

mod dice;
mod history;
mod publisher;
mod relay;

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::{try_join, try_join_all};
use headless_abstractions::{Error, ErrorKind, OutboxParts, Result, Store};

use self::{dice::Dice, history::History, publisher::publish, relay::relay};
use crate::{
    fixture::{StoreFixture, StoreNode},
    wait::Stopwatch,
};

/// How many messages may wait to be sent before publishers wait too.
const MOST_WAITING: usize = 1_000;

/// A trial of the order of keys: publishers that dawdle between append and commit, roll back and go away; relays of
/// both kinds that fail, give back, die and are slow; and a judge of what was sent.
///
/// That nothing was found in seconds says little of a store whose claims skip what they believe to be over: run it for
/// minutes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OrderCheck {
    /// How long messages are published.
    pub duration: Duration,
    /// How many publishers there are. Default 6.
    pub publishers: usize,
    /// How many relays there are. Default 4.
    pub relays: usize,
    /// How many keys there are; half of the messages go to one of them. Default 12.
    pub keys: u64,
    /// Where chance begins. Default 1.
    pub seed: u64,
}

impl OrderCheck {
    /// A trial of this length.
    #[must_use]
    pub const fn lasting(duration: Duration) -> Self {
        Self {
            duration,
            publishers: 6,
            relays: 4,
            keys: 12,
            seed: 1,
        }
    }

    /// With this many keys.
    #[must_use]
    pub const fn with_keys(mut self, keys: u64) -> Self {
        self.keys = keys;
        self
    }

    /// From this seed.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Runs the trial in the fixture's namespace, and sends everything that was published.
    ///
    /// # Errors
    /// When a call of the store fails, or the outbox does not become empty.
    pub async fn run<F: StoreFixture>(&self, fixture: &F) -> Result<OrderReport> {
        let scene = Scene {
            fixture,
            check: self,
            history: Mutex::new(History::default()),
            over: AtomicBool::new(false),
        };
        let publishers = (0..self.publishers).map(|n| publish(&scene, Dice::of(self.seed, n)));
        let published = async {
            try_join_all(publishers).await?;
            scene.over.store(true, Ordering::SeqCst);
            Ok(())
        };
        let relays = (0..self.relays).map(|n| relay(&scene, n, Dice::of(self.seed, 1_000 + n)));
        try_join(published, try_join_all(relays)).await?;
        Ok(scene.history().judge())
    }
}

/// What publishers and relays share.
struct Scene<'a, F> {
    fixture: &'a F,
    check: &'a OrderCheck,
    history: Mutex<History>,
    over: AtomicBool,
}

impl<F: StoreFixture> Scene<'_, F> {
    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether everything has been published that will be.
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Another process, and its outbox.
    async fn join(&self) -> Result<(StoreNode<F::Store>, OutboxParts)> {
        let node = self.fixture.node().await?;
        let outbox = node.store.parts().outbox;
        let outbox = outbox.ok_or_else(|| Error::unsupported("this store has no outbox to check"))?;
        Ok((node, outbox))
    }

    /// Whether relays are so far behind that a publisher should wait: a key whose relays die is slow, and the trial is to
    /// end.
    fn is_behind(&self) -> bool {
        self.history().waiting() > MOST_WAITING
    }

    /// Refuses to wait any longer where nothing goes on: `seen` is what one who waits has seen so far, and since when.
    async fn patient(&self, seen: &mut (u64, Stopwatch), outbox: &OutboxParts) -> Result<()> {
        let now = self.history().moment();
        if now != seen.0 {
            *seen = (now, Stopwatch::start());
        }
        if seen.1.elapsed() < F::PATIENCE * 2 {
            return Ok(());
        }
        let (stats, waiting) = (outbox.queries.stats().await?, self.history().waiting());
        Err(Error::new(
            ErrorKind::Timeout,
            format!("nothing is sent any more, and {waiting} messages wait: {stats:?}"),
        ))
    }
}

/// What a trial has shown.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OrderReport {
    /// Messages that were committed.
    pub committed: u64,
    /// Messages that were sent, each counted once.
    pub sent: u64,
    /// Messages that a relay dead-lettered.
    pub dead: u64,
    /// Messages that left after a later one of their key.
    pub violations: u64,
    /// The first of them, in words.
    pub example: Option<String>,
    /// Messages that were committed, and neither sent nor dead-lettered.
    pub lost: u64,
    /// Messages that were sent though their transaction was rolled back.
    pub ghosts: u64,
    /// Repeated sends that a dead relay explains.
    pub repeated: u64,
    /// Repeated sends that only a relay explains which said too late what it had sent.
    pub late: u64,
    /// Repeated sends that nothing explains.
    pub unexplained: u64,
    /// Relays that died with what they held.
    pub deaths: u64,
    /// Those of them whose connections were cut, many in the middle of a claim or an ack.
    pub kills: u64,
}

impl OrderReport {
    /// Whether every promise was kept.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.violations == 0 && self.lost == 0 && self.ghosts == 0 && self.unexplained == 0
    }
}

impl fmt::Display for OrderReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "committed {}, sent {}, dead {}, violations {}, lost {}, ghosts {}, repeated {}, late {}, unexplained {}; \
             relays: {} deaths, {} kills",
            self.committed,
            self.sent,
            self.dead,
            self.violations,
            self.lost,
            self.ghosts,
            self.repeated,
            self.late,
            self.unexplained,
            self.deaths,
            self.kills
        )?;
        match &self.example {
            Some(example) => write!(f, "; {example}"),
            None => Ok(()),
        }
    }
}
