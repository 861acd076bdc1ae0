//! What happened in a run: facts for the checker, and the trace that two runs of a seed must share.

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use headless_abstractions::{Epoch, GroupName, InboxState, MessageId};

use super::clock::TrueClock;

/// Something that truly happened at a store, in the order in which it took effect there, whatever became of the
/// answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// A message entered the outbox, for good.
    Stored(MessageId),
    /// A producer was told that its message is safe.
    Confirmed(MessageId),
    /// A claim on a row of the outbox was given.
    RelayGranted(MessageId, Epoch),
    /// A claim on a row of the outbox was said to hold on.
    RelayRenewed(MessageId, Epoch),
    /// A row left the outbox.
    Left(MessageId),
    /// The relay made a dead letter.
    RelayDead(MessageId),
    /// A hold on a message was given.
    Granted(GroupName, MessageId, Epoch),
    /// The hold that was given last on a message is this node's.
    HeldBy(GroupName, MessageId, Arc<str>),
    /// A handler was called with these messages, under holds of its node where it must have them; the number names the
    /// call.
    Began(Arc<str>, GroupName, Vec<MessageId>, bool, u64),
    /// This call has ended, or was dropped.
    Ended(u64),
    /// A node crashed, or stands still with its clock: it knows nothing of the time that passes.
    Stopped(Arc<str>),
    /// It goes on.
    Resumed(Arc<str>),
    /// The store registered a node, or accepted its heartbeat.
    Heard(Arc<str>),
    /// A hold on a message was said to last.
    Renewed(GroupName, MessageId, Epoch),
    /// A handler's row was committed to the ledger.
    Effect(GroupName, MessageId),
    /// A message reached a state, in the name of the hold with this epoch; `None` for one that had no row.
    Reached(GroupName, MessageId, InboxState, Option<Epoch>),
}

/// How many of what there were in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Driver calls.
    pub calls: u64,
    /// Calls that failed by the seed's plan.
    pub faults: u64,
    /// Nodes that crashed.
    pub crashes: u64,
    /// Nodes that stood still for longer than their leases.
    pub freezes: u64,
    /// Nodes that joined after the start, replacements of crashed ones included.
    pub joins: u64,
    /// Nodes that were shut down.
    pub leaves: u64,
    /// Steps of the wall clocks of nodes.
    pub steps: u64,
    /// Registrations of nodes that were registered before.
    pub registrations_anew: u64,
    /// Nodes that were buried.
    pub burials: u64,
    /// Messages that entered the outbox.
    pub messages: u64,
    /// Ledger rows of handlers.
    pub effects: u64,
    /// Handler calls.
    pub handler_calls: u64,
    /// How long the run took, in virtual milliseconds.
    pub virtual_millis: u64,
}

/// The record of one run.
#[derive(Debug)]
pub(super) struct History {
    clock: TrueClock,
    record: Mutex<Record>,
}

#[derive(Debug)]
struct Record {
    facts: Vec<Fact>,
    hash: Hash,
    lines: Option<Vec<String>>,
    stats: Stats,
}

/// What is left of a record once the run is over.
pub(super) struct Finished {
    pub(super) facts: Vec<Fact>,
    pub(super) hash: u64,
    pub(super) lines: Vec<String>,
    pub(super) stats: Stats,
}

impl History {
    pub(super) fn new(clock: TrueClock, keep_lines: bool) -> Self {
        let record = Record {
            facts: Vec::new(),
            hash: Hash::EMPTY,
            lines: keep_lines.then(Vec::new),
            stats: Stats::default(),
        };
        Self {
            clock,
            record: Mutex::new(record),
        }
    }

    pub(super) fn fact(&self, fact: Fact) {
        let mut record = self.record();
        match fact {
            Fact::Stored(_) => record.stats.messages += 1,
            Fact::Effect(..) => record.stats.effects += 1,
            _ => {}
        }
        record.facts.push(fact);
    }

    /// Adds a line to the trace.
    pub(super) fn note(&self, who: &str, what: fmt::Arguments<'_>) {
        let at = self.clock.elapsed().as_millis();
        let mut record = self.record();
        let Record { hash, lines, .. } = &mut *record;
        match lines {
            Some(lines) => {
                let line = format!("{at:>7} {who:<5} {what}");
                hash.add(line.as_bytes());
                lines.push(line);
            }
            None => {
                let written = write!(hash, "{at:>7} {who:<5} {what}");
                debug_assert!(written.is_ok(), "a hash takes everything");
            }
        }
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Stats)) {
        count(&mut self.record().stats);
    }

    pub(super) fn finish(&self) -> Finished {
        let mut record = self.record();
        record.stats.virtual_millis = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        Finished {
            facts: std::mem::take(&mut record.facts),
            hash: record.hash.0,
            lines: record.lines.take().unwrap_or_default(),
            stats: record.stats,
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // Appends and counters: valid after any panic.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Source: Fowler, Noll, Vo, FNV-1a with 64 bits.
#[derive(Debug)]
struct Hash(u64);

impl Hash {
    const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}
