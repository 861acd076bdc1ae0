//! Removing what is over.

use std::{future::Future, sync::Arc, time::Duration};

use headless_abstractions::{InboxParts, OutboxParts, Result};
use headless_core::{CrashPoint, Environment, Next, TaskSpec};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_hours(24);

/// The settings of the purge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeConfig {
    /// The name of the task; a runtime with several stores needs several. Default `purge`.
    pub name: String,
    /// The longest time between two rounds. Default 1 min.
    pub interval: Duration,
    /// How long the inbox knows what it has processed. A replay of anything older is processed again. Default 7 days.
    pub marks: Duration,
    /// How long sent messages are kept where the outbox keeps a history. Default 7 days.
    pub outbox_history: Duration,
    /// How long dead letters are kept. Default 30 days.
    pub dead_letters: Duration,
    /// The most rows of one statement. Default 1 000.
    pub batch: usize,
}

impl Default for PurgeConfig {
    fn default() -> Self {
        Self {
            name: "purge".to_owned(),
            interval: Duration::from_mins(1),
            marks: 7 * DAY,
            outbox_history: 7 * DAY,
            dead_letters: 30 * DAY,
            batch: 1_000,
        }
    }
}

impl PurgeConfig {
    /// With this name.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// With this interval.
    #[must_use]
    pub const fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// With marks kept for this long.
    #[must_use]
    pub const fn with_marks(mut self, age: Duration) -> Self {
        self.marks = age;
        self
    }

    /// With the outbox's history kept for this long.
    #[must_use]
    pub const fn with_outbox_history(mut self, age: Duration) -> Self {
        self.outbox_history = age;
        self
    }

    /// With dead letters kept for this long.
    #[must_use]
    pub const fn with_dead_letters(mut self, age: Duration) -> Self {
        self.dead_letters = age;
        self
    }

    /// With this many rows at a time.
    #[must_use]
    pub const fn with_batch(mut self, most: usize) -> Self {
        self.batch = most;
        self
    }
}

/// Removes marks, dead letters and the outbox's history once they are old, in batches until none is left.
pub fn spawn_purge(
    environment: &Environment,
    outbox: Option<OutboxParts>,
    inbox: Option<InboxParts>,
    config: PurgeConfig,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let spec = TaskSpec::new(config.name.clone(), config.interval);
    let task = Arc::new(Task {
        outbox,
        inbox,
        config,
    });
    environment.background.spawn(spec, stop, move || {
        let task = task.clone();
        async move { task.purge().await }
    })
}

#[derive(Debug)]
struct Task {
    outbox: Option<OutboxParts>,
    inbox: Option<InboxParts>,
    config: PurgeConfig,
}

impl Task {
    /// One batch of each kind. One that fails does not keep the others from being purged.
    async fn purge(&self) -> Result<Next> {
        let PurgeConfig {
            marks,
            outbox_history,
            dead_letters,
            batch,
            ..
        } = self.config;
        let mut round = Round::default();
        if let Some(outbox) = &self.outbox {
            let points = (CrashPoint::OutboxPurging, CrashPoint::OutboxPurged);
            let purge = outbox.store.purge(outbox_history, batch);
            round.note(between(points, purge), batch).await;
        }
        if let Some(inbox) = &self.inbox {
            let points = (CrashPoint::InboxPurging, CrashPoint::InboxPurged);
            let purge = inbox.inbox.purge(marks, batch);
            round.note(between(points, purge), batch).await;
            let points = (CrashPoint::LetterPurging, CrashPoint::LetterPurged);
            let purge = inbox.dead_letters.purge(dead_letters, batch);
            round.note(between(points, purge), batch).await;
        }
        match round {
            Round {
                error: Some(error), ..
            } => Err(error),
            Round { more: true, .. } => Ok(Next::Again),
            Round { .. } => Ok(Next::Wait),
        }
    }
}

/// One purge, between its two points.
async fn between(
    (before, after): (CrashPoint, CrashPoint),
    purge: impl Future<Output = Result<u64>>,
) -> Result<u64> {
    before.reach()?;
    let purged = purge.await?;
    after.reach()?;
    Ok(purged)
}

#[derive(Debug, Default)]
struct Round {
    more: bool,
    error: Option<headless_abstractions::Error>,
}

impl Round {
    async fn note(&mut self, purge: impl Future<Output = Result<u64>>, batch: usize) {
        match purge.await {
            Ok(purged) => self.more |= purged > 0 && purged >= batch as u64,
            Err(error) => {
                self.error.get_or_insert(error.with_operation("purge"));
            }
        }
    }
}
