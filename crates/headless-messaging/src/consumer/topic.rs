//! A topic as a group reads it: its handlers, its circuit, its pauses, and what is wrong with it.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{Arrival, Message, PartitionKey, TopicName, TopicOrder};
use headless_core::Verdict;

use crate::{
    consumer::{
        PauseReason,
        attempt::CallEnd,
        breaker::{Circuit, Pass},
        group::Group,
        pauses::Pauses,
        permits::Permit,
    },
    handler::Handler,
};

/// For how long nothing can be received before it shows.
const BROKEN_AFTER: Duration = Duration::from_secs(5);

/// A topic as a group reads it.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: TopicName,
    pub(crate) order: TopicOrder,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) circuit: Circuit,
    pub(crate) pauses: Pauses,
    problem: Mutex<Option<String>>,
    /// The panic of our own since which nothing has gone well.
    defect: Mutex<Option<String>>,
    /// Since when nothing can be received, and why.
    broken: Mutex<Option<(Duration, String)>>,
    /// Kept for the planted bug that takes it for the truth; the truth is in the store.
    parked_here: Mutex<BTreeSet<PartitionKey>>,
}

impl Topic {
    pub(crate) fn new(
        name: TopicName,
        order: TopicOrder,
        handlers: Vec<Handler>,
        circuit: Circuit,
        pauses: Pauses,
    ) -> Self {
        Self {
            name,
            order,
            handlers,
            circuit,
            pauses,
            problem: Mutex::default(),
            defect: Mutex::default(),
            broken: Mutex::default(),
            parked_here: Mutex::default(),
        }
    }

    /// The handler of this message's type. A message without a type, from a foreign producer, is for the one handler
    /// there is.
    pub(crate) fn handler_of(&self, message: &Message) -> Option<Handler> {
        match (&message.message_type, &*self.handlers) {
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
            (Some(name), handlers) => handlers
                .iter()
                .find(|handler| handler.message_type == name.as_str())
                .cloned(),
        }
    }

    /// Waits for the circuit, and for the end of a pause, without holding a permit: whoever is the probe needs one.
    /// `None` when the group stops or its topic is misconfigured, when `revoked` says that the message has gone to another
    /// member, or when it is paused and what is in hand is not to wait for that: others may have it.
    pub(super) async fn pass_circuit(
        &self,
        group: &Group,
        permit: &mut Option<Permit>,
        revoked: impl Future<Output = ()>,
        waits_for_pauses: bool,
    ) -> Option<Pass> {
        let mut revoked = pin!(revoked);
        loop {
            if self.pauses.end_calls() || (self.pauses.stop_calls() && !waits_for_pauses) {
                return None;
            }
            if !self.pauses.stop_calls()
                && let Some(pass) = self.circuit.try_pass()
            {
                return Some(pass);
            }
            *permit = None;
            tokio::select! {
                biased;
                () = &mut revoked => return None,
                () = group.stopping.cancelled() => return None,
                () = self.pauses.may_call() => {}
            }
            let pass = tokio::select! {
                biased;
                () = &mut revoked => None,
                pass = self.circuit.pass(&group.stopping) => pass,
            }?;
            *permit = group.permits.acquire().await;
            // It may have been paused while this waited; another takes the place of its pass then.
            if !self.pauses.stop_calls() {
                return Some(pass);
            }
        }
    }

    /// Tells the circuit how a call ended.
    pub(crate) fn record(&self, pass: Pass, end: &CallEnd) {
        match end {
            CallEnd::Failed(failed) if failed.verdict != Verdict::Permanent => {
                if self.circuit.failed(pass) {
                    tracing::warn!(topic = %self.name, "a circuit has opened");
                }
            }
            CallEnd::Committed | CallEnd::Succeeded | CallEnd::Discarded(_) | CallEnd::Failed(_) => {
                self.circuit.succeeded(pass);
            }
            // These say nothing about what the handler depends on; a probe among them leaves its place to another.
            CallEnd::Refused(_)
            | CallEnd::Misconfigured(_)
            | CallEnd::Expired
            | CallEnd::LeaseLost
            | CallEnd::ShutDown => {
                drop(pass);
            }
        }
    }

    /// Pauses the topic for a mistake that no retry mends.
    pub(crate) fn misconfigured(&self, why: &str) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
        self.pauses.insert(PauseReason::Configuration);
    }

    pub(crate) fn problem(&self) -> Option<String> {
        self.problem
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn show_defect(&self, defect: Option<String>) {
        *self.defect.lock().unwrap_or_else(PoisonError::into_inner) = defect;
    }

    pub(crate) fn defect(&self) -> Option<String> {
        self.defect.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows that nothing could be received at this moment, or with `None` that something could.
    pub(crate) fn show_broken(&self, at: Duration, why: Option<String>) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        *broken = why.map(|why| {
            let since = broken.as_ref().map_or(at, |(since, _)| *since);
            (since, why)
        });
    }

    /// Whether nothing could be received since the last time that something was tried.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Why nothing has been received for a while.
    pub(super) fn broken(&self, now: Duration) -> Option<String> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let lasting = broken
            .as_ref()
            .filter(|(since, _)| now.saturating_sub(*since) >= BROKEN_AFTER);
        lasting.map(|(_, why)| why.clone())
    }

    pub(crate) fn remember_parked(&self, arrival: &Arrival) {
        if cfg!(feature = "planted-bugs") {
            self.parked_here
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(arrival.key.clone());
        }
    }

    pub(super) fn parked_here(&self, key: Option<&PartitionKey>) -> bool {
        let parked = self.parked_here.lock().unwrap_or_else(PoisonError::into_inner);
        key.is_some_and(|key| parked.contains(key))
    }
}
