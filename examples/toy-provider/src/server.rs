//! The server, and a connection to it.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use headless_abstractions::Result;
use tokio::sync::Notify;

use crate::{
    broker::Broker,
    clock::Clock,
    dead_letter::Letters,
    error::{Fault, fault},
    inbox::Inbox,
    outbox::Outbox,
    unit_of_work::Open,
};

/// A broker and a database in one process, behind one lock.
#[derive(Clone, Debug)]
pub struct ToyServer(Arc<Server>);

impl ToyServer {
    /// An empty server. Its time is tokio's: start it within a runtime.
    #[must_use]
    pub fn start() -> Self {
        Self(Arc::new(Server {
            state: Mutex::default(),
            changed: Notify::new(),
            clock: Clock::start(),
        }))
    }

    /// The committed rows of the user's table, in the order of their keys.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, String)> {
        self.0.lock().table.clone().into_iter().collect()
    }

    /// A value that no other server has while this one lives.
    pub(crate) fn address(&self) -> u128 {
        Arc::as_ptr(&self.0).addr() as u128
    }
}

#[derive(Debug)]
struct Server {
    state: Mutex<State>,
    /// Wakes who waits for deliveries or for work in the store.
    changed: Notify,
    clock: Clock,
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that the server knows.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) broker: Broker,
    pub(crate) outbox: Outbox,
    pub(crate) inbox: Inbox,
    pub(crate) letters: Letters,
    /// The user's own table.
    pub(crate) table: BTreeMap<String, String>,
    /// Open transactions.
    pub(crate) open: BTreeMap<u64, Open>,
    pub(crate) sequence: Sequence,
}

/// Numbers that rise and never repeat: places, tokens, ids.
#[derive(Debug, Default)]
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// One handle's connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) server: ToyServer,
    pub(crate) id: u64,
    fault: Mutex<Option<Fault>>,
}

impl Link {
    pub(crate) fn connect(server: &ToyServer) -> Arc<Self> {
        let id = server.0.lock().sequence.next();
        Arc::new(Self {
            server: server.clone(),
            id,
            fault: Mutex::new(None),
        })
    }

    /// The state, to read or to take from: nobody waits for that.
    pub(crate) fn look(&self, operation: &'static str) -> Result<Locked<'_>> {
        let server = &*self.server.0;
        let state = server.lock();
        match *self.fault() {
            Some(why) => Err(fault(why, operation)),
            None => Ok(Locked {
                now: server.clock.now(),
                state,
                clock: &server.clock,
                wake: None,
            }),
        }
    }

    /// The state, to change it: who waits is woken afterwards.
    pub(crate) fn change(&self, operation: &'static str) -> Result<Locked<'_>> {
        let mut locked = self.look(operation)?;
        locked.wake = Some(&self.server.0.changed);
        Ok(locked)
    }

    /// From now on every call fails so; what the connection had open ends as `end` says, once.
    pub(crate) fn fail(&self, why: Fault, end: impl FnOnce(&mut State)) {
        let mut state = self.server.0.lock();
        if self.fault().replace(why).is_none() {
            end(&mut state);
        }
        drop(state);
        self.server.0.changed.notify_waiters();
    }

    /// What wakes a waiter; made before looking, so that no change falls in between.
    pub(crate) fn changed(&self) -> &Notify {
        &self.server.0.changed
    }

    pub(crate) fn now(&self) -> Duration {
        self.server.0.clock.now()
    }

    fn fault(&self) -> MutexGuard<'_, Option<Fault>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state under its lock, at one moment of the server's clock.
#[derive(Debug)]
pub(crate) struct Locked<'a> {
    pub(crate) now: Duration,
    pub(crate) clock: &'a Clock,
    state: MutexGuard<'a, State>,
    wake: Option<&'a Notify>,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Some(changed) = self.wake {
            changed.notify_waiters();
        }
    }
}
