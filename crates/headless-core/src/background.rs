//! Named background tasks: an interval with jitter, no overlap, never dead, always visible.

use std::{
    collections::BTreeMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use headless_abstractions::{Clock, Error, ErrorKind, Random, Result};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Backoff, Listener, Signal, Spawner, metric};

/// What a run of a background task asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a task either goes on or waits")]
pub enum Next {
    /// To be run again at once: there is more to do.
    Again,
    /// To wait for the interval, or a wake-up.
    Wait,
}

/// A background task: its name, interval and wake-up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskSpec {
    /// Its name, unique in the runtime; shown by `headless status` and in metrics.
    pub name: String,
    /// The longest time between two runs; each wait is jittered down to half of it.
    pub interval: Duration,
    /// The wake-up that ends a wait early.
    pub wake: Option<Listener>,
    /// Whether it runs among the control tasks.
    pub control: bool,
    /// Whether a failed run waits for the interval too, instead of the shorter backoff.
    pub patient: bool,
}

impl TaskSpec {
    /// A task that runs at this interval, among the work.
    #[must_use]
    pub fn new(name: impl Into<String>, interval: Duration) -> Self {
        Self {
            name: name.into(),
            interval,
            wake: None,
            control: false,
            patient: false,
        }
    }

    /// Woken by this signal too.
    #[must_use]
    pub fn with_wake(mut self, signal: &Signal) -> Self {
        self.wake = Some(signal.listen());
        self
    }

    /// Among the control tasks.
    #[must_use]
    pub const fn with_control(mut self) -> Self {
        self.control = true;
        self
    }

    /// In no hurry after a failure: the next run is at the interval, whether or not this one failed. For what is dear and
    /// can wait.
    #[must_use]
    pub const fn with_patience(mut self) -> Self {
        self.patient = true;
        self
    }
}

/// How a background task is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskStatus {
    /// How many runs have ended.
    pub runs: u64,
    /// How many runs in a row have failed; 0 is healthy.
    pub failing: u32,
    /// What the last failed run said; kept until one succeeds.
    pub last_error: Option<String>,
    /// When the last run ended, by the environment's monotonic clock.
    pub last_run: Option<Duration>,
}

impl TaskStatus {
    /// Whether the last run succeeded, or none has ended yet.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        self.failing == 0
    }
}

/// The background tasks of one runtime.
#[derive(Clone, Debug)]
pub struct Background {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    spawner: Spawner,
    statuses: Arc<Mutex<BTreeMap<String, TaskStatus>>>,
}

const AFTER_FAILURE: Backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(4));

impl Background {
    pub(crate) fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>, spawner: Spawner) -> Self {
        Self {
            clock,
            random,
            spawner,
            statuses: Arc::default(),
        }
    }

    /// Runs `run` again and again until `stop`; a run that is under way is let finish.
    ///
    /// A failed run (a panic too) is logged, counted and followed by a backoff, or by the interval where that is asked for;
    /// the task never dies.
    pub fn spawn<F, Fut>(&self, spec: TaskSpec, stop: CancellationToken, run: F) -> JoinHandle<()>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Next>> + Send + 'static,
    {
        self.with_status(&spec.name, |_| ());
        let tasks = self.clone();
        let control = spec.control;
        let body = async move { tasks.run(spec, stop, run).await };
        if control {
            self.spawner.control(body)
        } else {
            self.spawner.work(body)
        }
    }

    /// How each task is doing, by name.
    #[must_use]
    pub fn statuses(&self) -> BTreeMap<String, TaskStatus> {
        self.statuses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn run<F, Fut>(self, mut spec: TaskSpec, stop: CancellationToken, run: F)
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<Next>>,
    {
        while !stop.is_cancelled() {
            let outcome = AssertUnwindSafe(async { run().await })
                .catch_unwind()
                .await
                .unwrap_or_else(|panic| {
                    Err(Error::new(
                        ErrorKind::Internal,
                        format!("the task panicked: {}", panic_message(&*panic)),
                    ))
                });
            let wait = match self.note(&spec.name, outcome) {
                Ok(Next::Again) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(Next::Wait) => Wait::Interval,
                Err(failures) => Wait::Backoff(failures),
            };
            self.wait(&mut spec, &stop, wait).await;
        }
    }

    async fn wait(&self, spec: &mut TaskSpec, stop: &CancellationToken, wait: Wait) {
        let whole = Backoff::exponential(spec.interval, spec.interval);
        let (delay, wakes) = match wait {
            Wait::Interval => (whole.steady_delay(0, &*self.random), true),
            Wait::Backoff(_) if spec.patient => (whole.steady_delay(0, &*self.random), false),
            // A wake-up must not cut a backoff short: what fails would then be tried at the rate of the wake-ups.
            Wait::Backoff(failures) => (AFTER_FAILURE.steady_delay(failures - 1, &*self.random), false),
        };
        let woken = async {
            match &mut spec.wake {
                Some(wake) if wakes => wake.woken().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = woken => {}
            () = tokio::time::sleep(delay) => {}
        }
    }

    /// Records a run; an error is answered with the number of failures in a row.
    fn note(&self, name: &str, outcome: Result<Next>) -> Result<Next, u32> {
        let now = self.clock.monotonic();
        match outcome {
            Ok(next) => {
                self.with_status(name, |status| {
                    status.runs += 1;
                    status.last_run = Some(now);
                    status.failing = 0;
                    status.last_error = None;
                });
                Ok(next)
            }
            Err(error) => {
                tracing::warn!(task = name, error = %error, source = ?std::error::Error::source(&error), "background task failed");
                metrics::counter!(metric::TASK_FAILED, "task" => name.to_owned()).increment(1);
                Err(self.with_status(name, |status| {
                    status.runs += 1;
                    status.last_run = Some(now);
                    status.failing = status.failing.saturating_add(1);
                    status.last_error = Some(error.to_string());
                    status.failing
                }))
            }
        }
    }

    fn with_status<T>(&self, name: &str, f: impl FnOnce(&mut TaskStatus) -> T) -> T {
        let mut statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        f(statuses.entry(name.to_owned()).or_default())
    }
}

enum Wait {
    Interval,
    Backoff(u32),
}

/// The text of a panic, where it has one.
#[must_use]
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::Environment;

    fn environment() -> Environment {
        Environment::new(
            Arc::new(crate::SystemClock::new()),
            Arc::new(crate::SeededRandom::new(1)),
            Spawner::current(),
            "node",
        )
    }

    #[tokio::test(start_paused = true)]
    async fn should_go_on_and_show_it_when_runs_fail_and_panic() {
        let environment = environment();
        let (runs, stop) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
        let counter = runs.clone();
        let task = environment.background.spawn(
            TaskSpec::new("t", Duration::from_secs(1)),
            stop.clone(),
            move || {
                let n = counter.fetch_add(1, Ordering::SeqCst);
                async move {
                    match n {
                        0 => Err(Error::new(ErrorKind::Unavailable, "down")),
                        1 => panic!("boom"),
                        _ => Ok(Next::Wait),
                    }
                }
            },
        );
        tokio::time::sleep(Duration::from_millis(120)).await;
        let status = environment.background.statuses()["t"].clone();
        assert_eq!(
            (status.failing, status.last_error.as_deref()),
            (2, Some("the task panicked: boom"))
        );
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(environment.background.statuses()["t"].is_healthy());
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn should_fail_at_the_interval_when_patient() {
        let environment = environment();
        let (runs, stop) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
        let counter = runs.clone();
        let spec = TaskSpec::new("t", Duration::from_secs(100)).with_patience();
        let _task = environment.background.spawn(spec, stop.clone(), move || {
            counter.fetch_add(1, Ordering::SeqCst);
            async { Err(Error::new(ErrorKind::Unavailable, "down")) }
        });
        tokio::time::sleep(Duration::from_secs(1_000)).await;
        let runs = runs.load(Ordering::SeqCst);
        assert!((10..=21).contains(&runs), "each wait is 50 to 100 s: {runs} runs");
        assert_eq!(environment.background.statuses()["t"].failing, runs);
        stop.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn should_run_at_once_when_woken() {
        let environment = environment();
        let (runs, stop) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
        let counter = runs.clone();
        let spec = TaskSpec::new("t", Duration::from_secs(3_600)).with_wake(environment.wakeups.outbox());
        let _task = environment.background.spawn(spec, stop.clone(), move || {
            counter.fetch_add(1, Ordering::SeqCst);
            async { Ok(Next::Wait) }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        environment.wakeups.outbox().wake();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        stop.cancel();
    }
}
