//! A member of a group.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    Delivery, DeliveryToken, Error, ErrorKind, Partition, Received, Result, Revoked, Settlement, Subscriber,
    Subscription, TopicName,
};
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Wake, postgres::Shared, transport::closed, wake::Waiter};

mod held;
mod join;
mod settle;
mod step;

use held::Held;

/// A member that waits renews its hold this many times within its visibility time.
const RENEWALS: u32 = 4;

/// How often a member that waits looks all the same, where it is woken.
const POLL_WOKEN: Duration = Duration::from_secs(2);

/// How often it looks where nobody wakes it.
const POLL: Duration = Duration::from_millis(100);

/// The shortest wait between two looks, so that what others are at is not asked for in a busy loop.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// A member of a group. Dropping it leaves the group, as soon as a task can.
pub(crate) struct PostgresSubscriber {
    member: Arc<Member>,
    /// One receive at a time.
    turn: tokio::sync::Mutex<Turn>,
}

/// What a receive goes on with.
struct Turn {
    /// A look that is under way, and for how many. A receive that is dropped leaves it to the next one.
    step: Option<(JoinHandle<Result<Duration>>, usize)>,
    waiter: Waiter,
}

/// What a subscriber shares with its tasks.
struct Member {
    shared: Arc<Shared>,
    session: Uuid,
    /// The group's id: one that is declared again under the same name is another.
    group: i32,
    to: Subscription,
    state: Mutex<State>,
    /// Told when something has changed here that a receive may wait for.
    changed: Notify,
    /// Leaving has begun.
    leaving: CancellationToken,
    /// The server knows that it has left.
    left: AtomicBool,
}

/// A part of a topic.
#[derive(Debug)]
struct Part {
    topic: TopicName,
    /// On an ordered topic.
    partition: Option<Partition>,
}

/// What a member knows of itself.
#[derive(Debug, Default)]
struct State {
    /// The parts that its topics have, and those that they had and of which it still has to tell.
    parts: BTreeMap<i32, Part>,
    paused: bool,
    held: Held,
    /// The prefetch keeps something back, perhaps: a settlement makes room for it.
    is_full: bool,
    /// Deliveries that no receive has returned yet.
    ready: VecDeque<(i32, Delivery)>,
    /// The partitions that it holds, with the number of the hold.
    holds: BTreeMap<i32, i64>,
    /// Partitions that were taken away, and of which no receive has told yet.
    lost: Vec<i32>,
    /// Partitions that are to go to others once a receive has told of it.
    wanted: Vec<i32>,
    /// Those of which a receive has told, with the number of the hold: the server is to hear of it.
    given_up: Vec<(i32, i64)>,
    /// The number of the last step.
    step: i64,
    /// The answer of a step may have been lost, with what it gave.
    is_unsure: bool,
}

impl State {
    /// What a receive of at most `max` deliveries returns, if there is anything.
    fn take(&mut self, max: usize) -> Option<Received> {
        let mut revoked = std::mem::take(&mut self.lost);
        for part in std::mem::take(&mut self.wanted) {
            if let Some(hold) = self.holds.get(&part) {
                self.given_up.push((part, *hold));
                self.forget(part);
                revoked.push(part);
            }
        }
        if !revoked.is_empty() {
            let revoked = revoked.iter().filter_map(|part| {
                let part = self.parts.get(part)?;
                Some(Revoked::new(part.topic.clone(), part.partition?))
            });
            return Some(Received::new(Vec::new(), revoked.collect()));
        }
        if self.paused {
            return None;
        }
        let mut deliveries = Vec::new();
        while deliveries.len() < max
            && let Some((_, delivery)) = self.ready.pop_front()
        {
            // One whose time has passed while nobody asked for it is with another by now.
            if self.held.is_good(delivery.token) {
                deliveries.push(delivery);
            }
        }
        (!deliveries.is_empty()).then(|| Received::new(deliveries, Vec::new()))
    }

    /// Forgets what was delivered of a partition that has gone.
    fn forget(&mut self, part: i32) {
        self.held.lose_part(part);
        self.ready.retain(|(of, _)| *of != part);
    }
}

impl PostgresSubscriber {
    fn state(&self) -> MutexGuard<'_, State> {
        self.member.state()
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        self.member.shared.transport.check_open(operation)?;
        if self.member.leaving.is_cancelled() {
            return Err(closed(operation));
        }
        Ok(())
    }

    /// Receives until there is something.
    async fn next(&self, max: usize, wait: Duration) -> Result<Received> {
        let member = &self.member;
        let mut turn = self.turn.lock().await;
        let mut deadline = std::pin::pin!(tokio::time::sleep(wait));
        loop {
            if let Some(received) = self.take(max, &mut turn) {
                return Ok(received);
            }
            let (step, looked_for) = turn.step.get_or_insert_with(|| (member.begin_step(max), max));
            let (stepped, looked_for) = (step.await, *looked_for);
            turn.step = None;
            let at_most = stepped.unwrap_or_else(|_aborted| {
                Err(Error::new(
                    ErrorKind::Unavailable,
                    "the runtime that a look for deliveries ran on has ended; call again",
                )
                .with_operation("receive"))
            })?;
            if let Some(received) = self.take(max, &mut turn) {
                return Ok(received);
            }
            if looked_for == 0 && max > 0 {
                continue;
            }
            let at_most = at_most.max(SHORTEST_WAIT);
            tokio::select! {
                biased;
                () = &mut deadline => return Ok(Received::nothing()),
                () = member.changed.notified() => {}
                () = turn.waiter.wait(&member.shared.wake, at_most) => {}
            }
        }
    }

    /// Takes what is there. Partitions that were given up are let go at once, also if no other receive comes.
    fn take(&self, max: usize, turn: &mut Turn) -> Option<Received> {
        let (received, is_told) = {
            let mut state = self.state();
            let received = state.take(max);
            (received, !state.given_up.is_empty())
        };
        if received.is_some() && is_told && turn.step.is_none() {
            turn.step = Some((self.member.begin_step(0), 0));
        }
        received
    }
}

#[async_trait]
impl Subscriber for PostgresSubscriber {
    async fn receive(&self, max: usize, wait: Duration) -> Result<Received> {
        self.check_open("receive")?;
        tokio::select! {
            biased;
            () = self.member.shared.transport.closing.cancelled() => Err(closed("receive")),
            () = self.member.leaving.cancelled() => Err(closed("receive")),
            received = self.next(max, wait) => received,
        }
    }

    async fn settle(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        match self.check_open("settle") {
            Ok(()) => self.member.settle(batch).await,
            Err(_closed) => batch.iter().map(|_| Err(closed("settle"))).collect(),
        }
    }

    async fn extend(&self, tokens: &[DeliveryToken], by: Duration) -> Vec<Result<()>> {
        match self.check_open("extend") {
            Ok(()) => self.member.extend(tokens, by).await,
            Err(_closed) => tokens.iter().map(|_| Err(closed("extend"))).collect(),
        }
    }

    async fn pause(&self) -> Result<()> {
        self.check_open("pause")?;
        self.state().paused = true;
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        self.check_open("resume")?;
        self.state().paused = false;
        self.member.changed.notify_one();
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        if self.member.leaving.is_cancelled() || self.member.shared.transport.closing.is_cancelled() {
            return Ok(());
        }
        self.member.leaving.cancel();
        let _under_way = self.member.shared.transport.tasks.token();
        self.member.leave().await
    }
}

impl Member {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a receive may wait without a look.
    fn longest_wait(&self) -> Duration {
        let poll = match self.shared.config.wake {
            Wake::On => POLL_WOKEN,
            Wake::Off => POLL,
        };
        poll.min(self.to.visibility / RENEWALS)
    }

    async fn leave(&self) -> Result<()> {
        self.shared.leave(self.session).await?;
        self.left.store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for PostgresSubscriber {
    fn drop(&mut self) {
        let member = self.member.clone();
        member.leaving.cancel();
        let transport = &self.member.shared.transport;
        if member.left.load(Ordering::Acquire) || transport.closing.is_cancelled() {
            return;
        }
        // Without a runtime its hold lapses.
        if let Ok(runtime) = Handle::try_current() {
            let leave = async move {
                if let Err(error) = member.leave().await {
                    tracing::debug!(%error, "a member could not leave its group: its hold lapses");
                }
            };
            drop(transport.tasks.spawn_on(leave, &runtime));
        }
    }
}

impl fmt::Debug for PostgresSubscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSubscriber")
            .field("group", &self.member.to.group)
            .field("session", &self.member.session)
            .finish_non_exhaustive()
    }
}
