//! A member of a group of the memory server.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    DeliveryToken, Error, ErrorKind, GroupName, Received, Result, Settlement, Subscriber,
};
use tokio::{sync::Notify, time::timeout};

use crate::{
    Memory,
    broker::{Joined, Step, Turn},
    link::Link,
    transport::about,
};

/// The shortest sleep, so that a clock that runs slower than tokio's is not asked in a busy loop.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// A member of a group. Dropping it leaves the group at once, unless its connection is severed.
pub(crate) struct MemorySubscriber {
    memory: Memory,
    group: GroupName,
    session: u64,
    wake: Arc<Notify>,
    closed: AtomicBool,
}

impl MemorySubscriber {
    pub(crate) fn new(memory: Memory, group: GroupName, joined: Joined) -> Self {
        let Joined { session, wake } = joined;
        Self {
            memory,
            group,
            session,
            wake,
            closed: AtomicBool::new(false),
        }
    }

    /// Waits until there is something to return.
    async fn next(&self, max: usize) -> Result<Received> {
        loop {
            // Made before the look, so that it notices whatever changes after it.
            let changed = self.wake.notified();
            let look = |turn: Turn<'_>| {
                turn.state
                    .step(&self.group, self.session, max, (turn.now, turn.wall))
            };
            match self.memory.server.broker.run_now(&self.memory.link, look) {
                Some(Some(Step::Return(received))) => return Ok(received),
                Some(Some(Step::Wait(at_most))) => {
                    let _changed_or_due = timeout(at_most.max(SHORTEST_SLEEP), changed).await;
                }
                Some(None) => return Err(self.gone("receive")),
                None => self.memory.link.check("receive").await?,
            }
        }
    }

    /// One answer for each of `items`, from one step of the server.
    async fn for_each<I: Copy + Sync>(
        &self,
        operation: &'static str,
        items: &[I],
        act: impl Fn(&mut Turn<'_>, I) -> Option<Result<()>> + Send + Sync,
    ) -> Vec<Result<()>> {
        let each = |mut turn: Turn<'_>| {
            let answer = |item: &I| {
                let answer = act(&mut turn, *item).unwrap_or_else(|| Err(self.gone(operation)));
                answer.map_err(about(operation))
            };
            items.iter().map(answer).collect()
        };
        match self
            .memory
            .server
            .broker
            .run(&self.memory.link, operation, each)
            .await
        {
            Ok(answers) => answers,
            Err(_closed) => items.iter().map(|_| Err(Link::closed(operation))).collect(),
        }
    }

    async fn set_paused(&self, operation: &'static str, paused: bool) -> Result<()> {
        let set = |turn: Turn<'_>| turn.state.set_paused(&self.group, self.session, paused);
        let found = self
            .memory
            .server
            .broker
            .run(&self.memory.link, operation, set)
            .await?;
        // A removed group has nothing to pause, and the next `receive` says so.
        if found.is_none() && self.is_closed() {
            Err(Link::closed(operation))
        } else {
            Ok(())
        }
    }

    /// Leaves the group now, if the link is open; says whether it was.
    fn leave(&self) -> bool {
        let leave = |turn: Turn<'_>| {
            self.closed.store(true, Ordering::Release);
            turn.state.leave(&self.group, self.session);
        };
        self.memory
            .server
            .broker
            .run_now(&self.memory.link, leave)
            .is_some()
    }

    /// Why the server does not know this member.
    fn gone(&self, operation: &'static str) -> Error {
        if self.is_closed() {
            return Link::closed(operation);
        }
        about(operation)(Error::new(ErrorKind::NotFound, "the group was removed"))
            .with_resource(format!("group {}", self.group))
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

#[async_trait]
impl Subscriber for MemorySubscriber {
    async fn receive(&self, max: usize, wait: Duration) -> Result<Received> {
        self.memory.link.check("receive").await?;
        if let Ok(received) = timeout(wait, self.next(max)).await {
            return received;
        }
        self.memory.link.check("receive").await?;
        Ok(Received::nothing())
    }

    async fn settle(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        let settle = |turn: &mut Turn<'_>, each| turn.state.settle(&self.group, self.session, each, turn.now);
        self.for_each("settle", batch, settle).await
    }

    async fn extend(&self, tokens: &[DeliveryToken], by: Duration) -> Vec<Result<()>> {
        let extend = |turn: &mut Turn<'_>, token| {
            let until = turn.now.saturating_add(by);
            turn.state.extend(&self.group, self.session, token, until)
        };
        self.for_each("extend", tokens, extend).await
    }

    async fn pause(&self) -> Result<()> {
        self.set_paused("pause", true).await
    }

    async fn resume(&self) -> Result<()> {
        self.set_paused("resume", false).await
    }

    async fn close(&self) -> Result<()> {
        // With the link closed the member is gone already; a severed one does not answer.
        if !self.leave() && self.memory.link.is_severed() {
            self.memory.link.check("close").await?;
        }
        Ok(())
    }
}

impl Drop for MemorySubscriber {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for MemorySubscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySubscriber")
            .field("group", &self.group)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
