//! How a relay is doing.

use headless_abstractions::Error;

use super::batch::Batch;

/// How a relay is doing, since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStatus {
    /// Messages that the broker accepted for a group.
    pub relayed: u64,
    /// Messages that the broker accepted and no group takes.
    pub unrouted: u64,
    /// Messages dropped because they had expired.
    pub expired: u64,
    /// Attempts that the transport refused for the message's own sake.
    pub refused: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// How often in a row the transport took nothing, probes included; 0 while the circuit is closed.
    pub failing: u32,
    /// What the transport said last while it took nothing.
    pub last_error: Option<String>,
}

impl RelayStatus {
    /// Whether the relay waits for the transport to answer again.
    #[must_use]
    pub const fn is_circuit_open(&self) -> bool {
        self.failing > 0
    }

    pub(super) fn recover(&mut self) {
        self.failing = 0;
        self.last_error = None;
    }

    pub(super) fn note_probe(&mut self, error: &Error) -> u32 {
        self.last_error = Some(error.to_string());
        self.failing = self.failing.saturating_add(1);
        self.failing - 1
    }

    /// Adds up a batch and says whether the circuit is open after it.
    pub(super) fn note(&mut self, batch: &Batch<'_>) -> bool {
        self.relayed += batch.accepted.len() as u64;
        self.unrouted += batch.unrouted.len() as u64;
        self.refused += batch.refused.len() as u64;
        match &batch.trouble {
            // Where some were taken the transport is there: whatever troubles the others waits by itself.
            Some(error) if batch.took_nothing() => {
                self.note_probe(error);
            }
            _ => self.recover(),
        }
        self.is_circuit_open()
    }
}
