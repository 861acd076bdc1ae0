//! The memory store as a node of the simulation reaches it.

mod inbox;
mod membership;
mod outbox;
mod parked;
mod reading;
mod transaction;

use std::sync::{Arc, atomic::AtomicBool};

use async_trait::async_trait;
use headless_abstractions::{
    Claim, Marked, Result, Settled, Store, StoreId, StoreInfo, StoreParts, UnitOfWorkStore,
};
use headless_memory::Memory;

use super::{
    gate::{Gate, Op},
    label::{Label, list},
};

pub(super) use transaction::{LEDGER, SimTx};

/// The memory store as one node reaches it.
#[derive(Clone, Debug)]
pub(super) struct SimStore {
    memory: Memory,
    gate: Arc<Gate>,
    /// Whether it watches over its nodes.
    registers: bool,
    /// A planted bug: see `membership`.
    suspected_are_buried: bool,
    /// Whether its node was registered before.
    was_registered: Arc<AtomicBool>,
}

impl SimStore {
    pub(super) fn new(memory: Memory, gate: Arc<Gate>) -> Self {
        Self {
            memory,
            gate,
            registers: false,
            suspected_are_buried: false,
            was_registered: Arc::default(),
        }
    }

    /// Watching over its nodes, with this bug or without.
    pub(super) const fn with_membership(mut self, suspected_are_buried: bool) -> Self {
        self.registers = true;
        self.suspected_are_buried = suspected_are_buried;
        self
    }
}

#[async_trait]
impl UnitOfWorkStore for SimStore {
    type Tx = SimTx;

    /// The same in every run, unlike the server's own.
    fn store_id(&self) -> StoreId {
        StoreId::from_bits(1)
    }

    async fn begin(&self) -> Result<SimTx> {
        let tx = self
            .gate
            .call(Op::any("begin"), self.memory.begin(), |_| String::new())
            .await?;
        Ok(SimTx::new(tx, self.gate.clone()))
    }
}

impl Store for SimStore {
    fn parts(&self) -> StoreParts {
        let store = Arc::new(self.clone());
        let parts = StoreParts::new(StoreInfo::new(
            "simulation",
            self.store_id(),
            false,
            "simulation:",
        ))
        .with_outbox(store.clone())
        .with_inbox(store.clone())
        .with_pulse(store.clone());
        if self.registers {
            parts.with_membership(store)
        } else {
            parts
        }
    }
}

/// `m1@2 m3@1`: messages and the epochs of their claims.
fn claims(claims: &[Claim]) -> String {
    list(
        claims
            .iter()
            .map(|claim| format!("{}@{}", Label(claim.id), claim.epoch)),
    )
}

/// Claims that were settled, and those that were lost.
fn settled(named: &[Claim], settled: &Settled) -> String {
    format!("{} lost [{}]", claims(named), claims(&settled.lost))
}

/// The claims that were found.
fn found<'a>(named: &'a [Claim], settled: &'a Settled) -> impl Iterator<Item = Claim> + 'a {
    named
        .iter()
        .copied()
        .filter(|claim| !settled.lost.contains(claim))
}

fn marked(marked: &Marked) -> String {
    match marked {
        Marked::Now => "now".to_owned(),
        Marked::Already(state) => format!("already {state:?}"),
        Marked::Busy { lease_left } => format!("busy for {lease_left:?}"),
        Marked::Behind => "behind".to_owned(),
        Marked::LeaseLost => "lease lost".to_owned(),
    }
}
