//! What waits in the store, as gauges.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use headless_abstractions::{
    DeadLetterQueries, DeadLetterStats, Error, ErrorKind, Origin, OutboxQueries, Result, StoreParts,
};
use headless_core::{Environment, Next, TaskSpec, metric, store_call};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// So many pairs of group and topic with dead letters are shown at most: those that are shown already, then the first by
/// name.
const MOST: usize = 1_000;

/// A count that takes longer has failed: it holds one of the few connections that leases of 30 s are renewed on.
const LONGEST_COUNT: Duration = Duration::from_secs(5);

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
/// Counting may cost the store a look at every row that waits; hence an interval of its own, which a failure does not
/// shorten, and an end after 5 s. The one is counted though the other fails. Each process that does this shows the same
/// figures. A stop ends a count that is under way; whoever stops shows nothing any more, which is 0.
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
    let spec = TaskSpec::new(config.name, config.interval).with_patience();
    let stopped = stop.clone();
    environment.background.spawn(spec, stop, move || {
        let (task, stopped) = (task.clone(), stopped.clone());
        async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => Ok(Next::Wait),
                looked = task.look() => looked,
            }
        }
    })
}

/// How many dead letters there are of a group and a topic, and for how long the oldest of them.
type Dead = BTreeMap<(String, String), (u64, Duration)>;

/// What was shown last: what has gone since is shown as none.
#[derive(Debug, Default)]
struct Shown {
    outbox: bool,
    dead: Dead,
}

#[derive(Debug)]
struct Task {
    environment: Environment,
    outbox: Option<Arc<dyn OutboxQueries>>,
    dead_letters: Option<Arc<dyn DeadLetterQueries>>,
    shown: Mutex<Shown>,
}

impl Task {
    /// One after the other, so that at most one connection is held.
    async fn look(&self) -> Result<Next> {
        let outbox = self.look_at_outbox().await;
        let dead_letters = self.look_at_dead_letters().await;
        if let (Err(_), Err(error)) = (&outbox, &dead_letters) {
            // The task tells of the first.
            tracing::warn!(%error, "counting the dead letters failed too");
        }
        outbox.and(dead_letters).map(|()| Next::Wait)
    }

    async fn look_at_outbox(&self) -> Result<()> {
        let Some(outbox) = &self.outbox else { return Ok(()) };
        let stats = self.count("outbox.stats", outbox.stats()).await?;
        self.shown().outbox = true;
        show_outbox(
            [stats.delayed, stats.ready, stats.leased, stats.retrying],
            stats.oldest.unwrap_or_default(),
        );
        Ok(())
    }

    async fn look_at_dead_letters(&self) -> Result<()> {
        let Some(dead_letters) = &self.dead_letters else {
            return Ok(());
        };
        let stats = self.count("dead_letters.stats", dead_letters.stats()).await?;
        let mut shown = self.shown();
        let before = std::mem::take(&mut shown.dead);
        let (now, gone) = choose(&before, by_group_and_topic(stats), MOST);
        shown.dead = now;
        show_dead(shown.dead.iter().map(|(of, figures)| (of, *figures)));
        show_dead(gone.iter().map(|of| (of, (0, Duration::ZERO))));
        Ok(())
    }

    async fn count<T>(&self, operation: &'static str, count: impl Future<Output = Result<T>>) -> Result<T> {
        let in_time = async {
            tokio::time::timeout(LONGEST_COUNT, count)
                .await
                .unwrap_or_else(|_elapsed| {
                    Err(Error::new(
                        ErrorKind::Timeout,
                        format!("counting for the gauges took longer than {LONGEST_COUNT:?} and was ended"),
                    )
                    .with_operation(operation))
                })
        };
        store_call(&*self.environment.clock, operation, in_time).await
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        // A map that a panic has emptied shows less, and nothing false.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Task {
    /// Nobody counts here any more: what was counted last would be shown for as long as the process lives.
    fn drop(&mut self) {
        let shown = std::mem::take(&mut *self.shown());
        if shown.outbox {
            show_outbox([0; 4], Duration::ZERO);
        }
        show_dead(shown.dead.keys().map(|of| (of, (0, Duration::ZERO))));
    }
}

fn by_group_and_topic(stats: Vec<DeadLetterStats>) -> Dead {
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
    dead
}

/// What to show of all that there is, and what was shown and has gone. What is shown already stays until it has gone, so
/// that nothing is shown as 0, or as it was once, while it is there.
fn choose(before: &Dead, all: Dead, most: usize) -> (Dead, Vec<(String, String)>) {
    let gone = before
        .keys()
        .filter(|of| !all.contains_key(of))
        .cloned()
        .collect();
    let (mut shown, new): (Dead, Dead) = all.into_iter().partition(|(of, _)| before.contains_key(of));
    let room = most.saturating_sub(shown.len());
    shown.extend(new.into_iter().take(room));
    (shown, gone)
}

fn show_outbox(counts: [u64; 4], oldest: Duration) {
    for (state, count) in ["delayed", "ready", "leased", "retrying"].into_iter().zip(counts) {
        metrics::gauge!(metric::OUTBOX_MESSAGES, "state" => state).set(whole(count));
    }
    metrics::gauge!(metric::OUTBOX_OLDEST).set(oldest.as_secs_f64());
}

fn show_dead<'a>(dead: impl Iterator<Item = (&'a (String, String), (u64, Duration))>) {
    for ((group, topic), (count, oldest)) in dead {
        let labels = [("group", group.clone()), ("topic", topic.clone())];
        metrics::gauge!(metric::DEAD_LETTERS, &labels).set(whole(count));
        metrics::gauge!(metric::DEAD_LETTERS_OLDEST, &labels).set(oldest.as_secs_f64());
    }
}

/// Gauges are floating: beyond 2^53 they round.
#[expect(clippy::cast_precision_loss, reason = "a gauge rounds")]
fn whole(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(topics: &[(&str, u64)]) -> Dead {
        topics
            .iter()
            .map(|(topic, count)| {
                (
                    ("billing".to_owned(), (*topic).to_owned()),
                    (*count, Duration::ZERO),
                )
            })
            .collect()
    }

    fn named(topic: &str) -> (String, String) {
        ("billing".to_owned(), topic.to_owned())
    }

    #[test]
    fn should_go_on_showing_what_is_shown_when_there_is_more_than_has_room() {
        let before = dead(&[("m", 1), ("n", 1)]);
        let (shown, gone) = choose(&before, dead(&[("a", 7), ("m", 2), ("n", 3)]), 2);
        assert_eq!((shown, gone), (dead(&[("m", 2), ("n", 3)]), Vec::new()));
    }

    #[test]
    fn should_give_the_room_of_what_has_gone_to_the_first_by_name() {
        let before = dead(&[("m", 1), ("n", 1)]);
        let (shown, gone) = choose(&before, dead(&[("a", 7), ("b", 8), ("n", 3)]), 2);
        assert_eq!((shown, gone), (dead(&[("a", 7), ("n", 3)]), vec![named("m")]));
    }
}
