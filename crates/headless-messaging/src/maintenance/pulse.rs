//! The one question that an idle node asks its store.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{ControlVersion, Pulse, PulseStore, Result};
use headless_core::{Backoff, Environment, Next, TaskSpec, store_call};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The least time between two questions. It grows while the store has due work that nobody takes, as under an open
/// circuit: such a store says "now" to every question.
const SPACING: Backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(100));

/// The settings of the pulse.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PulseConfig {
    /// The name of the task; a runtime with several stores needs several. Default `pulse`.
    pub name: String,
    /// The time between two questions when nothing is due sooner, give or take a quarter. Default 1 s.
    pub interval: Duration,
}

impl Default for PulseConfig {
    fn default() -> Self {
        Self {
            name: "pulse".to_owned(),
            interval: Duration::from_secs(1),
        }
    }
}

impl PulseConfig {
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
}

/// Asks the store what is due, and wakes the relay and the retry pickup of this process when something is, and who follows
/// what operators want when that has changed: as soon as the store hints at it, when the next row falls due, and at each interval. The question also reaps leases that ended.
pub fn spawn_pulse(
    environment: &Environment,
    store: Arc<dyn PulseStore>,
    config: PulseConfig,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let task = Arc::new(Task {
        environment: environment.clone(),
        store,
        interval: config.interval,
        plan: Mutex::default(),
    });
    let spec = TaskSpec::new(config.name, config.interval);
    let stopped = stop.clone();
    environment.background.spawn(spec, stop, move || {
        let (task, stopped) = (task.clone(), stopped.clone());
        async move { task.beat(&stopped).await }
    })
}

#[derive(Debug)]
struct Task {
    environment: Environment,
    store: Arc<dyn PulseStore>,
    interval: Duration,
    plan: Mutex<Plan>,
}

/// When to ask next.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    /// How long to wait for a hint.
    wait: Duration,
    /// When the last question was answered, by the monotonic clock.
    last: Option<Duration>,
    /// How many questions in a row came at the least spacing and found something due.
    crowded: u32,
    /// The latest change of what operators want that the last answer told of.
    control: ControlVersion,
}

impl Task {
    /// Waits until it is time and asks once. The wait is part of the run, since a stop must be able to cut it short.
    async fn beat(&self, stop: &CancellationToken) -> Result<Next> {
        let plan = self.with_plan(|plan| *plan);
        if !plan.wait.is_zero() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Next::Wait),
                woken = self.store.wait_ready(plan.wait) => woken?,
            }
        }
        let spacing = SPACING.ceiling(plan.crowded);
        let since = plan.last.map_or(spacing, |last| self.now().saturating_sub(last));
        let crowded = since < spacing;
        if crowded {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Next::Wait),
                () = tokio::time::sleep(spacing - since) => {}
            }
        }
        let clock = &*self.environment.clock;
        let pulse = store_call(clock, "pulse", self.store.pulse()).await?;
        let due = self.wake(pulse);
        if pulse.control != plan.control {
            self.environment.wakeups.control().wake();
        }
        let next = Plan {
            wait: self.wait_after(pulse),
            last: Some(self.now()),
            crowded: if crowded && due {
                plan.crowded.saturating_add(1)
            } else {
                0
            },
            control: pulse.control,
        };
        self.with_plan(|plan| *plan = next);
        Ok(Next::Again)
    }

    /// Wakes who has work now; says whether anyone has.
    fn wake(&self, pulse: Pulse) -> bool {
        let now = |due: Option<Duration>| due.is_some_and(|due| due.is_zero());
        if now(pulse.outbox) {
            self.environment.wakeups.outbox().wake();
        }
        if now(pulse.parked) {
            self.environment.wakeups.parked().wake();
        }
        now(pulse.outbox) || now(pulse.parked)
    }

    fn wait_after(&self, pulse: Pulse) -> Duration {
        // Spread over three to five quarters of the interval, so that nodes do not ask in step.
        let spread =
            Backoff::exponential(self.interval / 2, self.interval / 2).delay(0, &*self.environment.random);
        let idle = self.interval * 3 / 4 + spread;
        // What is due now is being worked on; waiting for it again would be a busy loop.
        let later = [pulse.outbox, pulse.parked]
            .into_iter()
            .flatten()
            .filter(|due| !due.is_zero());
        later.chain(pulse.expired_lease).fold(idle, Duration::min)
    }

    fn now(&self) -> Duration {
        self.environment.clock.monotonic()
    }

    fn with_plan<T>(&self, f: impl FnOnce(&mut Plan) -> T) -> T {
        // Replaced as a whole: valid after any panic.
        f(&mut self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
