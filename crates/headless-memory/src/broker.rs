//! The transport's side of the server: topics, groups and what waits in them, behind one lock.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use headless_abstractions::{Clock, Result};

use crate::{MemoryConfig, link::Link};

mod assignment;
mod entry;
mod group;
mod member;
mod queue;
mod state;
#[cfg(test)]
mod tests;
mod topic;

pub(crate) use group::Step;
pub(crate) use state::{Joined, State};

/// A moment of the server's monotonic clock.
pub(crate) type Moment = Duration;

/// Everything that the transport keeps.
///
/// A link is ended under the same lock that its calls work under, so that a call of an ended link changes nothing.
pub(crate) struct Broker {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

/// What a call may look at and change, and the time at which it does.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) now: Moment,
    pub(crate) wall: DateTime<Utc>,
}

impl Broker {
    pub(crate) fn new(config: &MemoryConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            state: Mutex::new(State::new(config)),
            clock,
        }
    }

    /// Runs `act` if the link is open: as one step, beside which nothing else happens.
    ///
    /// `Closed` if the link is closed; never answers if it is severed.
    pub(crate) async fn run<T>(
        &self,
        link: &Link,
        operation: &'static str,
        act: impl FnOnce(Turn<'_>) -> T + Send,
    ) -> Result<T> {
        link.check(operation).await?;
        if let Some(answer) = self.run_now(link, act) {
            return Ok(answer);
        }
        link.check(operation).await?;
        Err(Link::closed(operation))
    }

    /// As [`run`](Self::run) for those that cannot wait: nothing happens unless the link is open.
    pub(crate) fn run_now<T>(&self, link: &Link, act: impl FnOnce(Turn<'_>) -> T) -> Option<T> {
        let mut state = self.lock();
        link.is_open().then(|| {
            act(Turn {
                state: &mut state,
                now: self.clock.monotonic(),
                wall: self.clock.now(),
            })
        })
    }

    /// Closes the link, with the members that came through it and the groups that end with it. Says whether it was
    /// open.
    pub(crate) fn close(&self, link: &Arc<Link>) -> bool {
        let mut state = self.lock();
        let was_open = link.close();
        if was_open {
            state.end(link);
        }
        was_open
    }

    /// Severs the link; its members lapse by the clock. Says whether it was open.
    pub(crate) fn sever(&self, link: &Link) -> bool {
        let _state = self.lock();
        link.sever()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").finish_non_exhaustive()
    }
}
