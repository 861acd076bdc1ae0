//! Renewals and time-outs of a group, on the control runtime: a handler that never yields cannot starve them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt, OptionFuture};
use headless_abstractions::{Claim, Clock, GroupName, InboxStore, Owner, Result, Settled, TopicName};
use headless_core::{Asked, CrashPoint, Life, metric, store_call};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    consumer::Deadline,
    plant::{Planted, planted},
};

/// A call that has been told to end and has not ended after this is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// Renews a group's holds and ends its calls at their time-out.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    life: Life,
    lease: Duration,
    planted: Planted,
    next_id: AtomicU64,
    state: Mutex<State>,
    sooner: Notify,
}

#[derive(Debug, Default)]
struct State {
    holds: BTreeMap<u64, Held>,
    calls: BTreeMap<u64, Called>,
    /// When the watch looks again by itself.
    wakes_at: Duration,
}

#[derive(Debug)]
struct Held {
    claim: Claim,
    asked: Asked,
    /// Past this our hold may have ended by the store's clock. Measured from before the request was sent.
    valid_until: Duration,
    lost: CancellationToken,
}

impl Shared {
    /// Past this a hold may be another's: its lease has ended, or its owner's life.
    fn ends_at(&self, held: &Held) -> Duration {
        if planted!(self.planted, LifeIgnored) {
            return held.valid_until;
        }
        held.valid_until.min(self.life.until_of(held.asked))
    }
}

#[derive(Debug)]
struct Called {
    topic: TopicName,
    deadline: Arc<Deadline>,
    timed_out: CancellationToken,
    reported: bool,
}

/// A hold that is being renewed, until this is dropped.
#[derive(Debug)]
pub(crate) struct HoldGuard {
    watch: Watch,
    id: u64,
    lost: CancellationToken,
}

impl HoldGuard {
    /// Cancelled when the hold is lost, or may be.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Whether it is lost, or may be, by the clock: also where the process stood still, and nothing could be cancelled.
    pub(crate) fn is_lost(&self) -> bool {
        if !self.lost.is_cancelled() && self.watch.has_ended(self.id) {
            self.lost.cancel();
        }
        self.lost.is_cancelled()
    }
}

impl Drop for HoldGuard {
    fn drop(&mut self) {
        self.watch.with(|state| state.holds.remove(&self.id));
    }
}

/// A call whose time is being watched, until this is dropped.
#[derive(Debug)]
pub(crate) struct CallGuard {
    watch: Watch,
    id: u64,
    timed_out: CancellationToken,
}

impl CallGuard {
    /// Cancelled when the call's time is over.
    pub(crate) fn timed_out(&self) -> &CancellationToken {
        &self.timed_out
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.watch.with(|state| state.calls.remove(&self.id));
    }
}

impl Watch {
    pub(crate) fn new(clock: Arc<dyn Clock>, life: Life, lease: Duration, planted: Planted) -> Self {
        Self(Arc::new(Shared {
            clock,
            life,
            lease,
            planted,
            next_id: AtomicU64::new(0),
            state: Mutex::default(),
            sooner: Notify::new(),
        }))
    }

    /// Renews this claim from now on; `asked` is from just before it was asked for.
    pub(crate) fn hold(&self, claim: Claim, asked: Asked) -> HoldGuard {
        self.hold_together(claim, asked, CancellationToken::new())
    }

    /// As [`hold`](Self::hold), with a token that other holds share: the loss of one is the loss of all.
    pub(crate) fn hold_together(&self, claim: Claim, asked: Asked, lost: CancellationToken) -> HoldGuard {
        let id = self.next_id();
        let held = Held {
            claim,
            asked,
            valid_until: self.valid_until(asked.at()),
            lost: lost.clone(),
        };
        let ends_at = self.0.ends_at(&held);
        let too_late = self.with(|state| {
            state.holds.insert(id, held);
            ends_at < state.wakes_at
        });
        if too_late {
            self.0.sooner.notify_one();
        }
        HoldGuard {
            watch: self.clone(),
            id,
            lost,
        }
    }

    /// Ends a call at its deadline.
    pub(crate) fn call(&self, topic: TopicName, deadline: Arc<Deadline>) -> CallGuard {
        let (id, timed_out) = (self.next_id(), CancellationToken::new());
        let at = deadline.at();
        let called = Called {
            topic,
            deadline,
            timed_out: timed_out.clone(),
            reported: false,
        };
        let too_late = self.with(|state| {
            state.calls.insert(id, called);
            at < state.wakes_at
        });
        if too_late {
            self.0.sooner.notify_one();
        }
        CallGuard {
            watch: self.clone(),
            id,
            timed_out,
        }
    }

    /// Watches until `stop`. Run it on the control runtime.
    pub(crate) async fn run(
        self,
        group: GroupName,
        owner: Owner,
        inbox: Option<Arc<dyn InboxStore>>,
        stop: CancellationToken,
    ) {
        let interval = self.0.lease / 3;
        let mut next_renewal = self.now() + interval;
        let mut renewal: Option<BoxFuture<'static, Renewal>> = None;
        let mut life = self.0.life.listen();
        loop {
            let now = self.now();
            self.end_overdue(&group, now);
            if let Some(inbox) = &inbox
                && renewal.is_none()
                && now >= next_renewal
            {
                next_renewal = now + interval;
                renewal = self.renewal(inbox.clone(), group.clone(), owner);
            }
            let pause = self.plan(now, next_renewal);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(ended) = OptionFuture::from(renewal.as_mut()) => {
                    renewal = None;
                    self.renewed(&group, ended);
                }
                () = self.0.sooner.notified() => {}
                () = life.woken() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One request for everything that is held now; `None` when nothing is.
    fn renewal(
        &self,
        inbox: Arc<dyn InboxStore>,
        group: GroupName,
        owner: Owner,
    ) -> Option<BoxFuture<'static, Renewal>> {
        let claims: Vec<Claim> = self.with(|state| {
            let kept = state.holds.values().filter(|held| !held.lost.is_cancelled());
            kept.map(|held| held.claim).collect()
        });
        if claims.is_empty() {
            return None;
        }
        let (lease, asked_at, clock) = (self.0.lease, self.now(), self.0.clock.clone());
        let ask = async move {
            let renew = async {
                CrashPoint::InboxRenewing.reach()?;
                let settled = inbox.renew(&group, owner, &claims, lease).await?;
                CrashPoint::InboxRenewed.reach()?;
                Ok(settled)
            };
            let outcome = store_call(&*clock, "inbox.renew", renew).await;
            Renewal {
                claims,
                asked_at,
                outcome,
            }
        };
        Some(ask.boxed())
    }

    fn renewed(&self, group: &GroupName, renewal: Renewal) {
        let valid_until = self.valid_until(renewal.asked_at);
        match renewal.outcome {
            Ok(settled) => self.with(|state| {
                for held in state.holds.values_mut() {
                    if settled.lost.contains(&held.claim) {
                        // It may also have been settled while the request was on its way.
                        tracing::debug!(%group, id = %held.claim.id, "a hold was not found at its renewal");
                        held.lost.cancel();
                    } else if renewal.claims.contains(&held.claim) {
                        held.valid_until = held.valid_until.max(valid_until);
                    }
                }
            }),
            Err(error) => {
                tracing::warn!(%group, %error, "renewing holds failed; trying again before they end");
            }
        }
    }

    /// Ends calls past their deadline and holds past their validity; reports calls that do not end.
    fn end_overdue(&self, group: &GroupName, now: Duration) {
        self.with(|state| {
            let is_over = |held: &&Held| self.0.ends_at(held) <= now;
            for held in state.holds.values().filter(is_over) {
                held.lost.cancel();
            }
            for (id, called) in &mut state.calls {
                let deadline = called.deadline.at();
                if deadline <= now {
                    called.timed_out.cancel();
                }
                if deadline + STUCK_AFTER <= now && !called.reported {
                    called.reported = true;
                    tracing::error!(%group, topic = %called.topic, call = id, "a handler does not end after its time-out: it never yields");
                    let labels = [("group", group.to_string()), ("topic", called.topic.to_string())];
                    metrics::counter!(metric::STUCK, &labels).increment(1);
                }
            }
        });
    }

    /// How long the watch may sleep; what is added meanwhile and ends sooner wakes it.
    fn plan(&self, now: Duration, next_renewal: Duration) -> Duration {
        let interval = self.0.lease / 3;
        self.with(|state| {
            let calls = state
                .calls
                .values()
                .filter(|called| !called.reported)
                .map(|called| {
                    let deadline = called.deadline.at();
                    if deadline <= now {
                        deadline + STUCK_AFTER
                    } else {
                        deadline
                    }
                });
            let holds = state
                .holds
                .values()
                .filter(|held| !held.lost.is_cancelled())
                .map(|held| self.0.ends_at(held));
            // Deadlines may be extended and are then found too early, which costs a turn of the loop and nothing else.
            let wake_at = calls.chain(holds).fold(next_renewal, Duration::min);
            let pause = wake_at
                .saturating_sub(now)
                .clamp(Duration::from_millis(1), interval);
            state.wakes_at = now + pause;
            pause
        })
    }

    fn has_ended(&self, id: u64) -> bool {
        let now = self.now();
        self.with(|state| {
            let held = state.holds.get(&id);
            held.is_none_or(|held| self.0.ends_at(held) <= now)
        })
    }

    fn valid_until(&self, asked_at: Duration) -> Duration {
        // The margin covers the time between a check of the deadline and what is done because of it.
        asked_at.saturating_add(self.0.lease - self.0.lease / 10)
    }

    fn now(&self) -> Duration {
        self.0.clock.monotonic()
    }

    fn next_id(&self) -> u64 {
        self.0.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Renewal {
    claims: Vec<Claim>,
    asked_at: Duration,
    outcome: Result<Settled>,
}

#[cfg(test)]
mod tests;
