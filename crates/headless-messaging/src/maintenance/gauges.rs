//! What waits in the store, as gauges.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{DeadLetterQueries, Origin, OutboxQueries, Result, StoreParts};
use headless_core::{Environment, Next, TaskSpec, metric, store_call};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// So many groups and topics with dead letters are shown at most; beyond that the first by name.
const MOST: usize = 1_000;

/// The settings of the gauges.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GaugesConfig {
    /// The name of the task; a runtime with several stores needs several. Default `gauges`.
    pub name: String,
    /// The longest time between two looks. Default 30 s.
    pub interval: Duration,
}

impl Default for GaugesConfig {
    fn default() -> Self {
        Self {
            name: "gauges".to_owned(),
            interval: Duration::from_secs(30),
        }
    }
}

impl GaugesConfig {
    /// With this interval.
    #[must_use]
    pub const fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }
}

/// Shows what waits in this store: the outbox and the dead letters, by how many and how old.
///
/// Counting may cost the store a look at every row that waits; hence an interval of its own. Each process that does this
/// shows the same figures.
pub fn spawn_gauges(
    environment: &Environment,
    store: &StoreParts,
    config: GaugesConfig,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let task = Arc::new(Task {
        environment: environment.clone(),
        outbox: store.outbox.as_ref().map(|outbox| outbox.queries.clone()),
        dead_letters: store
            .inbox
            .as_ref()
            .map(|inbox| inbox.dead_letter_queries.clone()),
        shown: Mutex::default(),
    });
    let spec = TaskSpec::new(config.name, config.interval);
    environment.background.spawn(spec, stop, move || {
        let task = task.clone();
        async move { task.look().await }
    })
}

/// How many dead letters there are of a group and a topic, and for how long the oldest of them.
type Dead = BTreeMap<(String, String), (u64, Duration)>;

#[derive(Debug)]
struct Task {
    environment: Environment,
    outbox: Option<Arc<dyn OutboxQueries>>,
    dead_letters: Option<Arc<dyn DeadLetterQueries>>,
    /// The dead letters that were shown last: what has gone since is shown as none.
    shown: Mutex<Dead>,
}

impl Task {
    async fn look(&self) -> Result<Next> {
        let clock = &*self.environment.clock;
        if let Some(outbox) = &self.outbox {
            let stats = store_call(clock, "outbox.stats", outbox.stats()).await?;
            for (state, count) in [
                ("delayed", stats.delayed),
                ("ready", stats.ready),
                ("leased", stats.leased),
                ("retrying", stats.retrying),
            ] {
                metrics::gauge!(metric::OUTBOX_MESSAGES, "state" => state).set(whole(count));
            }
            let oldest = stats.oldest.unwrap_or_default();
            metrics::gauge!(metric::OUTBOX_OLDEST).set(oldest.as_secs_f64());
        }
        if let Some(dead_letters) = &self.dead_letters {
            let stats = store_call(clock, "dead_letters.stats", dead_letters.stats()).await?;
            let mut dead = Dead::new();
            for of in stats {
                let group = match of.origin {
                    Origin::Group(group) => group.to_string(),
                    Origin::Relay => String::new(),
                };
                let (count, oldest) = dead.entry((group, of.topic.to_string())).or_default();
                *count += of.count;
                *oldest = of.oldest.max(*oldest);
            }
            self.show(dead.into_iter().take(MOST).collect());
        }
        Ok(Next::Wait)
    }

    fn show(&self, dead: Dead) {
        // Replaced as a whole: valid after any panic.
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *shown, dead);
        let gone = before.into_keys().filter(|of| !shown.contains_key(of));
        let gone = gone.map(|of| (of, (0, Duration::ZERO)));
        let there = shown.iter().map(|(of, figures)| (of.clone(), *figures));
        for ((group, topic), (count, oldest)) in there.chain(gone) {
            let labels = [("group", group), ("topic", topic)];
            metrics::gauge!(metric::DEAD_LETTERS, &labels).set(whole(count));
            metrics::gauge!(metric::DEAD_LETTERS_OLDEST, &labels).set(oldest.as_secs_f64());
        }
    }
}

/// Gauges are floating: beyond 2^53 they round.
#[expect(clippy::cast_precision_loss, reason = "a gauge rounds")]
fn whole(count: u64) -> f64 {
    count as f64
}
