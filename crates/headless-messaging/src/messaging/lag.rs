//! How much waits for the groups of a process, as it says of itself with its heartbeats.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use headless_abstractions::{Error, ErrorKind, GroupName, Result, Transport};
use headless_core::{Environment, Next, TaskSpec};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The longest time between two looks.
const INTERVAL: Duration = Duration::from_secs(30);

/// A question that takes longer has no answer.
const LONGEST: Duration = Duration::from_secs(5);

/// So many times as long as a look took, nothing is asked after it: whatever the answers cost, a transport is asked for a
/// twentieth of the time at most. But for the longest rest: one outage must not leave everything unknown for hours.
const REST: u32 = 20;
const LONGEST_REST: Duration = Duration::from_mins(5);

/// The most groups of one look; the next goes on behind them.
const AT_ONCE: usize = 20;

/// How many messages wait in the transport for each group of a process, or are unsettled, as far as that is known. Clones
/// are handles on one.
#[derive(Clone, Debug, Default)]
pub struct Lags(Arc<Mutex<BTreeMap<GroupName, Lag>>>);

/// What the transport answered about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// How many messages waited for it, or were unsettled, over all its topics and members.
    pub messages: u64,
    /// When it was asked, by the environment's monotonic clock.
    pub asked: Duration,
}

impl Lags {
    /// What was last answered about this group. `None` where that is not known: nothing was asked yet, the transport does
    /// not tell, or the last question failed.
    #[must_use]
    pub fn of(&self, group: &GroupName) -> Option<Lag> {
        self.known().get(group).copied()
    }

    fn note(&self, group: &GroupName, lag: Option<Lag>) {
        match lag {
            Some(lag) => self.known().insert(group.clone(), lag),
            None => self.known().remove(group),
        };
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<GroupName, Lag>> {
        // Each entry is whole: valid after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the transport now and then how much waits for these groups, as the background task `lag`, until `stop`, which ends
/// a question that is under way.
///
/// At most every 30 s, and after a look nothing for twenty times as long as that took, up to 5 min: one group after the
/// other, 5 s for each. A transport that does not
/// tell, or not now, leaves a group unknown, and is no failure of the task.
pub(super) fn spawn_lag(
    environment: &Environment,
    transport: Arc<dyn Transport>,
    groups: Vec<GroupName>,
    lags: Lags,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let task = Arc::new(Task {
        environment: environment.clone(),
        transport,
        groups,
        lags,
        turn: Mutex::default(),
    });
    let spec = TaskSpec::new("lag", INTERVAL).with_patience();
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

#[derive(Debug)]
struct Task {
    environment: Environment,
    transport: Arc<dyn Transport>,
    groups: Vec<GroupName>,
    lags: Lags,
    turn: Mutex<Turn>,
}

/// Where the next look begins, and when at the earliest.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    group: usize,
    not_before: Duration,
}

impl Task {
    async fn look(&self) -> Result<Next> {
        let began = self.environment.clock.monotonic();
        let turn = *self.turn();
        if began < turn.not_before {
            return Ok(Next::Wait);
        }
        let behind = self.groups.iter().cycle().skip(turn.group);
        let mut failed = Ok(Next::Wait);
        for group in behind.take(self.groups.len().min(AT_ONCE)) {
            if let Err(error) = self.ask(group).await
                && failed.is_ok()
            {
                failed = Err(error);
            }
        }
        let now = self.environment.clock.monotonic();
        let rest = now.saturating_sub(began).saturating_mul(REST).min(LONGEST_REST);
        *self.turn() = Turn {
            group: (turn.group + AT_ONCE.min(self.groups.len())) % self.groups.len().max(1),
            not_before: now.saturating_add(rest),
        };
        failed
    }

    async fn ask(&self, group: &GroupName) -> Result<()> {
        let asked = self.environment.clock.monotonic();
        let answer = tokio::time::timeout(LONGEST, self.transport.lag(group)).await;
        let answer = answer.unwrap_or_else(|_elapsed| {
            let why =
                format!("the transport did not say within {LONGEST:?} how much waits for group {group}");
            Err(Error::new(ErrorKind::Timeout, why).with_operation("lag"))
        });
        self.lags.note(
            group,
            answer.as_ref().ok().map(|messages| Lag {
                messages: *messages,
                asked,
            }),
        );
        match answer {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Unsupported || error.is_retryable() => {
                tracing::info!(%group, %error, "how much waits for a group is not known");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        // Replaced whole: valid after any panic.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
