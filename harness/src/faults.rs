//! Decorators over any driver that fail, delay and repeat calls and lose their answers, as a seed decides: to test core
//! without a network to break.

mod fate;
mod store;
mod transaction;
mod transport;

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{Error, ErrorKind, Result};

pub(crate) use self::fate::{Fate, Op, refused_of};
pub use self::{store::FaultyStore, transaction::FaultyTx, transport::FaultyTransport};
use crate::simulation::Chance;

/// How many of ten thousand calls are slow.
const SLOW: u64 = 1_000;

/// What the faulty drivers of a test do to calls, by a seed: the same in each run in which the same calls are made in the
/// same order. Clones share it, so that one plan can stand for the network of several nodes.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use headless_harness::{Faults, FaultyTransport};
/// use headless_memory::Memory;
///
/// let faults = Faults::seeded(7).with_rate(2_000);
/// let transport = FaultyTransport::new(Memory::new(), &faults);
/// // … what core makes of it …
/// faults.calm();
/// # use headless_abstractions::Transport;
/// assert!(transport.ping().await.is_ok(), "nothing fails any more");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Faults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    chance: Chance,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    rate: u64,
    longest: Duration,
    away: bool,
    happened: FaultCount,
}

/// What has happened to calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultCount {
    /// All calls.
    pub calls: u64,
    /// Had no effect, and their callers know.
    pub refused: u64,
    /// Had no effect, and their callers do not know.
    pub requests_lost: u64,
    /// Had their effect, and their callers do not know.
    pub answers_lost: u64,
    /// Were made twice; their callers have the first answer.
    pub duplicated: u64,
    /// Were slow.
    pub delayed: u64,
    /// A hash of every decision, in order: two runs that agree in it were decided alike.
    pub trace: u64,
}

impl FaultCount {
    /// How many calls did not go as their callers had a right to expect.
    #[must_use]
    pub const fn faults(&self) -> u64 {
        self.refused + self.requests_lost + self.answers_lost + self.duplicated
    }
}

impl Faults {
    /// The plan of this seed: of ten thousand calls 500 fail, and some take up to 200 ms longer.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Inner {
            chance: Chance::new(seed, "faults"),
            state: Mutex::new(State {
                rate: 500,
                longest: Duration::from_millis(200),
                away: false,
                happened: FaultCount::default(),
            }),
        }))
    }

    /// With this many of ten thousand calls failing, from now on.
    #[must_use]
    pub fn with_rate(self, in_ten_thousand: u64) -> Self {
        self.with(|state| state.rate = in_ten_thousand);
        self
    }

    /// With calls that take at most this much longer, from now on: past a lease, if that is shorter.
    #[must_use]
    pub fn with_longest_delay(self, longest: Duration) -> Self {
        self.with(|state| state.longest = longest);
        self
    }

    /// From now on every call is refused, as where there is no server, until it is [`calm`](Self::calm).
    pub fn take_away(&self) {
        self.with(|state| state.away = true);
    }

    /// From now on nothing fails and nothing is slow.
    pub fn calm(&self) {
        self.with(|state| {
            state.away = false;
            state.rate = 0;
            state.longest = Duration::ZERO;
        });
    }

    /// What has happened so far.
    #[must_use]
    pub fn happened(&self) -> FaultCount {
        self.with(|state| state.happened)
    }

    /// Makes a call as the plan has it. One that is made twice is made a second time after its answer.
    pub(crate) async fn call<T, F>(&self, op: Op, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let fate = self.meet(op).await;
        if let Some(error) = failure(op, fate) {
            return Err(error);
        }
        let answer = call().await;
        match fate {
            Fate::AnswerLost if answer.is_ok() => Err(unanswered(op)),
            Fate::Duplicated => {
                // Nobody waits for what the second one says.
                let _second = call().await;
                answer
            }
            _ => answer,
        }
    }

    /// As [`call`](Self::call), for one that must not be made twice.
    pub(crate) async fn call_once<T>(&self, op: Op, call: impl Future<Output = Result<T>>) -> Result<T> {
        let fate = self.meet(op).await;
        if let Some(error) = failure(op, fate) {
            return Err(error);
        }
        let answer = call.await;
        match fate {
            Fate::AnswerLost if answer.is_ok() => Err(unanswered(op)),
            _ => answer,
        }
    }

    /// As [`call`](Self::call), for one that answers for each of several things: all of them are lost or refused together.
    pub(crate) async fn each<T, F>(&self, op: Op, count: usize, call: impl Fn() -> F) -> Vec<Result<T>>
    where
        F: Future<Output = Vec<Result<T>>>,
    {
        let fate = self.meet(op).await;
        if failure(op, fate).is_some() {
            return (0..count).filter_map(|_| failure(op, fate)).map(Err).collect();
        }
        let answers = call().await;
        match fate {
            Fate::AnswerLost => answers
                .into_iter()
                .map(|answer| answer.and_then(|_| Err(unanswered(op))))
                .collect(),
            Fate::Duplicated => {
                let _second = call().await;
                answers
            }
            _ => answers,
        }
    }

    pub(crate) fn chance(&self) -> &Chance {
        &self.0.chance
    }

    pub(crate) fn rate(&self) -> u64 {
        self.with(|state| state.rate)
    }

    /// What the plan has for this call, after what it takes longer.
    async fn meet(&self, op: Op) -> Fate {
        let chance = &self.0.chance;
        let State {
            rate, longest, away, ..
        } = self.with(|state| *state);
        let fate = match Fate::of(op, chance, rate, true) {
            _ if away && op.fails() => Fate::Refused,
            fate => fate,
        };
        let most = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let delay = if most > 0 && chance.happens(SLOW) {
            chance.millis(1, most)
        } else {
            Duration::ZERO
        };
        self.with(|state| state.happened.note(op, fate, delay));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        fate
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        // Plain counters: valid after any panic.
        f(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl FaultCount {
    fn note(&mut self, op: Op, fate: Fate, delay: Duration) {
        self.calls += 1;
        self.delayed += u64::from(!delay.is_zero());
        match fate {
            Fate::Answered => {}
            Fate::Refused => self.refused += 1,
            Fate::RequestLost => self.requests_lost += 1,
            Fate::AnswerLost => self.answers_lost += 1,
            Fate::Duplicated => self.duplicated += 1,
        }
        let facts = op
            .name
            .bytes()
            .chain([fate as u8])
            .chain(delay.as_millis().to_le_bytes());
        // FNV-1a, by Fowler, Noll and Vo.
        self.trace = facts.fold(self.trace, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    }
}

/// What a caller is told whose call did not reach the driver.
fn failure(op: Op, fate: Fate) -> Option<Error> {
    match fate {
        Fate::Answered | Fate::AnswerLost | Fate::Duplicated => None,
        Fate::Refused => Some(
            Error::new(ErrorKind::Unavailable, "the driver refuses work for now")
                .with_operation(op.name)
                .with_provider("faulty"),
        ),
        Fate::RequestLost => Some(unanswered(op)),
    }
}

fn unanswered(op: Op) -> Error {
    Error::new(ErrorKind::Timeout, "the driver did not answer in time")
        .with_outcome_unknown()
        .with_operation(op.name)
        .with_provider("faulty")
}
