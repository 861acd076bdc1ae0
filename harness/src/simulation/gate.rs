//! What stands between a node and its drivers: latency, faults, freezes and the node's death.

use std::{
    fmt,
    future::{Future, pending},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use headless_abstractions::{Error, ErrorKind, Result};

use super::{
    chance::Chance,
    clock::{NodeClock, TrueClock},
    history::{Fact, History, Stats},
};
pub(super) use crate::faults::{Fate, Op};

/// How often calls fail, in ten thousand; nothing fails once it is calm.
#[derive(Debug)]
pub(super) struct Weather {
    faults: AtomicU64,
    calm: AtomicBool,
}

impl Weather {
    pub(super) fn new(faults: u64) -> Self {
        Self {
            faults: AtomicU64::new(faults),
            calm: AtomicBool::new(false),
        }
    }

    /// No fault happens from now on.
    pub(super) fn calm_down(&self) {
        self.faults.store(0, Ordering::Relaxed);
        self.calm.store(true, Ordering::Relaxed);
    }
}

/// One node's way to its drivers.
pub(super) struct Gate {
    name: Arc<str>,
    history: Arc<History>,
    chance: Arc<Chance>,
    weather: Arc<Weather>,
    truth: TrueClock,
    clock: Arc<NodeClock>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    dead: bool,
    frozen_until: Duration,
}

impl Gate {
    pub(super) fn new(
        name: Arc<str>,
        history: Arc<History>,
        chance: Arc<Chance>,
        weather: Arc<Weather>,
        truth: TrueClock,
        clock: Arc<NodeClock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            history,
            chance,
            weather,
            truth,
            clock,
            state: Mutex::default(),
        })
    }

    /// From now on no call of the node answers.
    pub(super) fn kill(&self) {
        self.with(|state| state.dead = true);
        self.fact(Fact::Stopped(self.name()));
    }

    /// No call of the node goes on before this time has passed; a suspended node's clock stands still as well.
    pub(super) async fn freeze(&self, time: Duration, suspended: bool) {
        let until = self.truth.elapsed() + time;
        self.with(|state| state.frozen_until = until);
        if suspended {
            self.fact(Fact::Stopped(self.name()));
            self.clock.suspend();
        }
        tokio::time::sleep(time).await;
        self.clock.resume();
        if suspended {
            self.fact(Fact::Resumed(self.name()));
        }
    }

    /// Makes a call as the plan has it. `tell` sees the true answer in the step in which it took effect, records its
    /// facts and says what it was.
    pub(super) async fn call<T>(
        &self,
        op: Op,
        call: impl Future<Output = Result<T>> + Send,
        tell: impl FnOnce(&T) -> String + Send,
    ) -> Result<T> {
        let fate = self.arrive(op).await;
        if let Some(error) = self.failure(op, fate) {
            return Err(error);
        }
        let answer = call.await;
        match &answer {
            Ok(answer) => self.note(format_args!("{} {}", op.name, tell(answer))),
            Err(error) => self.note(format_args!("{} failed: {error}", op.name)),
        }
        self.leave().await;
        match fate {
            Fate::AnswerLost if answer.is_ok() => Err(self.unanswered(op)),
            _ => answer,
        }
    }

    /// The way to the server.
    pub(super) async fn arrive(&self, op: Op) -> Fate {
        self.history.count(|stats| stats.calls += 1);
        self.travel().await;
        let fate = Fate::of(op, &self.chance, self.fault_rate(), false);
        if fate != Fate::Answered {
            self.history.count(|stats| stats.faults += 1);
            self.note(format_args!("{} will be {fate:?}", op.name));
        }
        fate
    }

    /// What a caller is told whose call did not reach the server.
    pub(super) fn failure(&self, op: Op, fate: Fate) -> Option<Error> {
        match fate {
            Fate::Answered | Fate::AnswerLost | Fate::Duplicated => None,
            Fate::Refused => Some(
                Error::new(ErrorKind::Unavailable, "the server refuses work for now")
                    .with_operation(op.name)
                    .with_provider("simulation"),
            ),
            Fate::RequestLost => Some(self.unanswered(op)),
        }
    }

    /// The way back from the server.
    pub(super) async fn leave(&self) {
        self.travel().await;
    }

    pub(super) fn unanswered(&self, op: Op) -> Error {
        Error::new(ErrorKind::Timeout, "the server did not answer in time")
            .with_outcome_unknown()
            .with_operation(op.name)
            .with_provider("simulation")
    }

    pub(super) fn chance(&self) -> &Chance {
        &self.chance
    }

    pub(super) fn fault_rate(&self) -> u64 {
        self.weather.faults.load(Ordering::Relaxed)
    }

    pub(super) fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Stats)) {
        self.history.count(count);
    }

    pub(super) fn fact(&self, fact: Fact) {
        self.history.fact(fact);
    }

    pub(super) fn note(&self, what: fmt::Arguments<'_>) {
        self.history.note(&self.name, what);
    }

    async fn travel(&self) {
        let latency = self.latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        loop {
            let state = self.with(|state| *state);
            if state.dead {
                return pending().await;
            }
            let left = state.frozen_until.saturating_sub(self.truth.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    /// Mostly short, so that calls overtake each other; sometimes long, and rarely longer than a lease.
    fn latency(&self) -> Duration {
        let chance = &self.chance;
        let calm = self.weather.calm.load(Ordering::Relaxed);
        match chance.below(1_000) {
            0..500 => Duration::ZERO,
            500..920 => chance.millis(1, 5),
            920..985 => chance.millis(5, 40),
            985..997 if !calm => chance.millis(40, 400),
            997.. if !calm => chance.millis(400, 1_600),
            _ => chance.millis(1, 5),
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
