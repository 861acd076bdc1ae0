//! The circuit breaker of a group and topic: when a dependency is down, stop burning attempts.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use headless_abstractions::{Clock, GroupName, Random, TopicName};
use headless_core::{Backoff, metric};
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;

/// When a circuit opens, and for how long. It counts retryable failures and time-outs of one group and topic in this
/// process; permanent failures say nothing about a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    failures: u32,
    open: Backoff,
}

impl CircuitBreaker {
    /// Opens after this many failures in a row, without a success between them; 0 counts as 1. It stays open from 1 s
    /// up to 1 min, longer with each failed probe.
    #[must_use]
    pub const fn after(failures: u32) -> Self {
        let failures = if failures == 0 { 1 } else { failures };
        Self {
            failures,
            open: Backoff::exponential(Duration::from_secs(2), Duration::from_mins(1)),
        }
    }

    /// After how many failures in a row it opens; `None` when it never does.
    #[must_use]
    pub const fn failures(&self) -> Option<u32> {
        if self.failures == u32::MAX {
            None
        } else {
            Some(self.failures)
        }
    }

    /// How long it stays open.
    #[must_use]
    pub const fn open_times(&self) -> Backoff {
        self.open
    }

    /// Never opens.
    #[must_use]
    pub const fn off() -> Self {
        Self::after(u32::MAX)
    }

    /// Stays open for a time drawn from the upper half of this backoff.
    #[must_use]
    pub const fn open_for(mut self, open: Backoff) -> Self {
        self.open = open;
        self
    }
}

impl Default for CircuitBreaker {
    /// After 50 failures in a row.
    fn default() -> Self {
        Self::after(50)
    }
}

/// The state of one circuit.
#[derive(Debug)]
pub(crate) struct Circuit {
    settings: CircuitBreaker,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    state: Mutex<State>,
    /// Held by the probe. Tokio's mutex is fair, so that the call that has waited longest is the probe.
    probe: Arc<AsyncMutex<()>>,
    changed: Notify,
    /// Set, under the lock of the state, once nobody is to see it any more.
    retired: AtomicBool,
    /// Whose circuit it is, as the metric says it.
    labels: [(&'static str, String); 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Duration, probes_failed: u32 },
}

impl State {
    const fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

/// The leave to make a call. While a circuit is open, one call has it: the probe.
#[derive(Debug)]
pub(crate) struct Pass {
    probe: Option<OwnedMutexGuard<()>>,
}

impl Circuit {
    /// The closed circuit of a group and topic.
    pub(crate) fn new(
        settings: CircuitBreaker,
        (group, topic): (&GroupName, &TopicName),
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let circuit = Self {
            settings,
            clock,
            random,
            state: Mutex::new(State::Closed { failures: 0 }),
            probe: Arc::default(),
            changed: Notify::new(),
            retired: AtomicBool::new(false),
            labels: [("group", group.to_string()), ("topic", topic.to_string())],
        };
        // So that a closed circuit is seen to be closed, and not taken for one that nobody watches.
        circuit.show(circuit.state());
        circuit
    }

    /// Returns the leave to make a call at once while the circuit is closed.
    pub(crate) fn try_pass(&self) -> Option<Pass> {
        self.is_closed().then_some(Pass { probe: None })
    }

    /// Waits until a call may be made: until the circuit is closed, or this call is the probe. `None` when `stop`
    /// ended the wait.
    pub(crate) async fn pass(&self, stop: &CancellationToken) -> Option<Pass> {
        if let Some(pass) = self.try_pass() {
            return Some(pass);
        }
        let wait = async {
            let guard = self.probe.clone().lock_owned().await;
            loop {
                match self.state() {
                    State::Closed { .. } => return Pass { probe: None },
                    State::Open { until, .. } => {
                        let left = until.saturating_sub(self.clock.monotonic());
                        if left.is_zero() {
                            return Pass { probe: Some(guard) };
                        }
                        tokio::time::sleep(left.max(Duration::from_millis(1))).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            pass = wait => Some(pass),
        }
    }

    /// Records a call that succeeded, or failed for a reason that says nothing about a dependency.
    pub(crate) fn succeeded(&self, pass: Pass) {
        let closed = self.change(|state| {
            let was_open = state.is_open();
            // Late successes of calls that began before the circuit opened do not close it: only its probe does.
            if !was_open || pass.probe.is_some() {
                *state = State::Closed { failures: 0 };
            }
            was_open && pass.probe.is_some()
        });
        drop(pass);
        if closed {
            self.changed.notify_one();
        }
    }

    /// Records a retryable failure or time-out. Returns whether it opened the circuit.
    pub(crate) fn failed(&self, pass: Pass) -> bool {
        let now = self.clock.monotonic();
        let opened = self.change(|state| {
            let probes_failed = match *state {
                State::Closed { failures } if failures + 1 < self.settings.failures => {
                    *state = State::Closed {
                        failures: failures + 1,
                    };
                    return false;
                }
                State::Closed { .. } => 0,
                State::Open { probes_failed, .. } if pass.probe.is_some() => probes_failed.saturating_add(1),
                State::Open { .. } => return false,
            };
            let open_for = self.settings.open.steady_delay(probes_failed, &*self.random);
            *state = State::Open {
                until: now + open_for,
                probes_failed,
            };
            true
        });
        drop(pass);
        if opened {
            self.changed.notify_one();
        }
        opened
    }

    /// Opens the circuit again after the subscription could not be resumed: a failed resume is a failed probe.
    pub(crate) fn resume_failed(&self) {
        let now = self.clock.monotonic();
        self.change(|state| {
            let probes_failed = match *state {
                State::Closed { .. } => 0,
                State::Open { probes_failed, .. } => probes_failed.saturating_add(1),
            };
            let open_for = self.settings.open.steady_delay(probes_failed, &*self.random);
            *state = State::Open {
                until: now + open_for,
                probes_failed,
            };
        });
        self.changed.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        !self.state().is_open()
    }

    /// Whether the circuit waits for a call to be its probe.
    pub(crate) fn wants_probe(&self) -> bool {
        !self.is_closed() && self.open_left().is_none() && self.probe.try_lock().is_ok()
    }

    /// How long the circuit stays open before it admits a probe; `None` when it admits calls.
    pub(crate) fn open_left(&self) -> Option<Duration> {
        match self.state() {
            State::Closed { .. } => None,
            State::Open { until, .. } => {
                Some(until.saturating_sub(self.clock.monotonic())).filter(|left| !left.is_zero())
            }
        }
    }

    /// Returns when the circuit opens or closes, or at once after a change that nobody waited for.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = state.is_open();
        let answer = f(&mut state);
        if state.is_open() != was_open {
            // Under the lock, so that of two changes the later is the one that stays to be seen.
            self.show(*state);
        }
        answer
    }

    /// Shows it closed from now on, whatever becomes of it: its group has stopped, and nothing waits for it here.
    pub(crate) fn retire(&self) {
        let _state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.show(State::Closed { failures: 0 });
        self.retired.store(true, Ordering::Relaxed);
    }

    fn show(&self, state: State) {
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        let open = if state.is_open() { 1.0 } else { 0.0 };
        metrics::gauge!(metric::CIRCUIT_OPEN, &self.labels).set(open);
    }
}

#[cfg(test)]
mod tests {
    use headless_core::{SeededRandom, SystemClock};

    use super::*;

    fn circuit() -> Arc<Circuit> {
        let open = Backoff::exponential(Duration::from_secs(10), Duration::from_secs(100));
        let settings = CircuitBreaker::after(2).open_for(open);
        Arc::new(Circuit::new(
            settings,
            (
                &GroupName::parse("billing").unwrap(),
                &TopicName::parse("orders").unwrap(),
            ),
            Arc::new(SystemClock::new()),
            Arc::new(SeededRandom::new(1)),
        ))
    }

    async fn pass(circuit: &Circuit) -> Pass {
        circuit.pass(&CancellationToken::new()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn should_open_when_failures_come_in_a_row() {
        let circuit = circuit();
        assert!(!circuit.failed(pass(&circuit).await));
        circuit.succeeded(pass(&circuit).await);
        assert!(!circuit.failed(pass(&circuit).await));
        assert!(circuit.failed(pass(&circuit).await));
        assert!(circuit.try_pass().is_none());
        assert!(circuit.open_left().unwrap() >= Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn should_admit_one_probe_and_close_on_its_success() {
        let circuit = circuit();
        let late = pass(&circuit).await;
        circuit.failed(pass(&circuit).await);
        circuit.failed(pass(&circuit).await);
        circuit.succeeded(late);
        assert!(!circuit.is_closed(), "a call from before says nothing");
        let first = pass(&circuit).await;
        let second = tokio::spawn({
            let circuit = circuit.clone();
            async move { pass(&circuit).await }
        });
        tokio::time::sleep(Duration::from_secs(1_000)).await;
        assert!(!second.is_finished(), "one probe at a time");
        circuit.succeeded(first);
        assert!(second.await.unwrap().probe.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn should_stay_open_longer_when_the_probe_fails() {
        let circuit = circuit();
        circuit.failed(pass(&circuit).await);
        circuit.failed(pass(&circuit).await);
        let probe = pass(&circuit).await;
        assert!(circuit.failed(probe));
        assert!(circuit.open_left().unwrap() >= Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn should_admit_another_probe_when_one_is_dropped() {
        let circuit = circuit();
        circuit.failed(pass(&circuit).await);
        circuit.failed(pass(&circuit).await);
        drop(pass(&circuit).await);
        circuit.succeeded(pass(&circuit).await);
        assert!(circuit.is_closed());
    }
}
