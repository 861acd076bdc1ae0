//! From the outbox to the broker.

mod batch;
mod config;
mod lease;
mod status;
mod strays;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{
    Claim, ClaimOutbox, Error, InFlight, Message, OutboxRow, OutboxStore, Result, Sent, Settled, Transport,
};
use headless_core::{Backoff, CrashPoint, Environment, Next, TaskSpec, metric, store_call, trace};
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::Instrument;

pub use config::RelayConfig;
pub use status::RelayStatus;

use crate::{
    Planted,
    outgoing::show_failure,
    plant::planted,
    publisher::count_by_topic,
    relay::{batch::Batch, lease::Lease, strays::Strays},
};

/// Between probes of a transport that does not take anything; short enough to resume soon after it is back.
const PROBE: Backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(5));

/// Sends what waits in the outbox, and takes it out once the broker has confirmed it.
///
/// Any number of relays may run, in any number of processes. A crash between the broker's confirmation and the
/// acknowledgement sends a message again, never not at all.
///
/// A message that the transport refuses keeps back its own key alone, consumes an attempt, and at the last one becomes
/// a dead letter. A transport that is away consumes nothing: the messages stay, and the relay's *circuit* opens, which
/// means that it sends nothing before the transport has answered a ping.
///
/// Clones are handles on one relay, which does one thing at a time.
///
/// ```
/// # use std::sync::Arc;
/// # use headless_core::{Environment, Spawner};
/// # use headless_memory::Memory;
/// # use headless_messaging::{Planted, Relay, RelayConfig};
/// # use tokio_util::sync::CancellationToken;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let environment = Environment::system(Spawner::current(), "node-1");
/// let memory = Arc::new(Memory::new());
/// let config = RelayConfig::default().with_batch(500);
/// let relay = Relay::new(&environment, memory.clone(), memory, config, Planted::default());
/// let stop = CancellationToken::new();
/// let running = relay.spawn(stop.clone());
/// assert!(!relay.status().is_circuit_open());
/// stop.cancel();
/// running.await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Relay {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    environment: Environment,
    outbox: Arc<dyn OutboxStore>,
    transport: Arc<dyn Transport>,
    /// The transport's name.
    system: &'static str,
    config: RelayConfig,
    planted: Planted,
    in_flight: InFlight,
    /// What was sent and is not acknowledged yet. The lock is held through a run, so that runs do not overlap.
    pending: tokio::sync::Mutex<Vec<Claim>>,
    status: Mutex<RelayStatus>,
    strays: Strays,
}

impl Shared {
    async fn store_call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        store_call(&*self.environment.clock, operation, call).await
    }
}

impl Relay {
    /// A relay from this outbox to this transport, in the name of the environment's owner.
    ///
    /// Where the transport `accepts_by_prefix`, it sends runs of one key at a time, otherwise one message of each.
    #[must_use]
    pub fn new(
        environment: &Environment,
        outbox: Arc<dyn OutboxStore>,
        transport: Arc<dyn Transport>,
        config: RelayConfig,
        planted: Planted,
    ) -> Self {
        let info = transport.info();
        let in_flight = if info.capabilities.accepts_by_prefix {
            InFlight::RunPerKey
        } else {
            InFlight::OnePerKey
        };
        Self {
            shared: Arc::new(Shared {
                environment: environment.clone(),
                outbox,
                transport,
                system: info.name,
                config,
                planted,
                in_flight,
                pending: tokio::sync::Mutex::default(),
                status: Mutex::default(),
                strays: Strays::default(),
            }),
        }
    }

    /// Runs as the background task `relay` until `stop`: after each wake-up of the outbox, and at each poll. At the end
    /// it acknowledges what it has sent.
    ///
    /// Aborting the task ends the relay as a crash would.
    pub fn spawn(&self, stop: CancellationToken) -> JoinHandle<()> {
        let environment = &self.shared.environment;
        let spec = TaskSpec::new("relay", self.shared.config.poll).with_wake(environment.wakeups.outbox());
        let (relay, stopped) = (self.clone(), stop.clone());
        let task = environment.background.spawn(spec, stop, move || {
            let (relay, stopped) = (relay.clone(), stopped.clone());
            async move {
                if relay.wait_for_transport(&stopped).await {
                    relay.run_once().await
                } else {
                    Ok(Next::Wait)
                }
            }
        });
        let (relay, task) = (self.clone(), AbortOnDropHandle::new(task));
        environment.spawner.work(async move {
            if let Err(error) = task.await {
                tracing::error!(%error, "the relay's task ended early");
            }
            if let Err(error) = relay.flush().await {
                tracing::warn!(%error, "sent messages could not be acknowledged and will be sent again");
            }
        })
    }

    /// Its settings as they are in effect.
    #[must_use]
    pub fn config(&self) -> &RelayConfig {
        &self.shared.config
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> RelayStatus {
        self.with_status(|status| status.clone())
    }

    /// Acknowledges what the run before has sent, claims one batch and sends it. What is accepted is acknowledged with
    /// the next run, or by [`flush`](Self::flush).
    ///
    /// `Next::Wait` says that nothing was ready: then nothing is left to acknowledge either. While the store may have given
    /// this node up, nothing is asked of it, and the answer is the same.
    ///
    /// # Errors
    /// What the store answers; `Unavailable`, `Timeout` and the like when the transport took nothing at all; `LeaseLost`
    /// when the store may have given this node up since it claimed. What was claimed has been given back then, or comes
    /// back when its lease or this node ends.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; what was sent and is not acknowledged yet may be sent again.
    pub async fn run_once(&self) -> Result<Next> {
        let mut pending = self.shared.pending.lock().await;
        if !self.shared.environment.is_alive() {
            return Ok(Next::Wait);
        }
        let lease = Lease::begin(&self.shared);
        let rows = self.claim(&mut pending).await?;
        if rows.is_empty() {
            return Ok(Next::Wait);
        }
        if let Some(error) = lease.ended() {
            return self.give_back_late(&rows, error).await;
        }
        let outcome = self.relay(rows, &lease, &mut pending).await;
        // After a failure the next run may be a while away: its claim would come too late for what was sent.
        if outcome.is_err()
            && let Err(error) = self.acknowledge(&mut pending).await
        {
            tracing::warn!(%error, "sent messages could not be acknowledged yet");
        }
        outcome.map(|()| Next::Again)
    }

    /// Acknowledges what has been sent.
    ///
    /// # Errors
    /// What the store answers. What is not acknowledged is tried again with the next run, and sent again once its lease
    /// has ended.
    pub async fn flush(&self) -> Result<()> {
        let mut pending = self.shared.pending.lock().await;
        self.acknowledge(&mut pending).await
    }

    async fn claim(&self, pending: &mut Vec<Claim>) -> Result<Vec<OutboxRow>> {
        let config = &self.shared.config;
        let request = ClaimOutbox::new(self.shared.environment.owner, config.batch, config.lease)
            .with_in_flight(self.shared.in_flight)
            .with_ack(pending.clone());
        // A claim that fails may have acknowledged; doing it again is harmless.
        let claimed = self
            .shared
            .store_call("outbox.claim", self.shared.outbox.claim(&request))
            .await
            .map_err(|error| error.with_operation("claim from the outbox"))?;
        if !pending.is_empty() {
            CrashPoint::RelayMarked.reach()?;
        }
        pending.clear();
        note_lost("acknowledge", &claimed.acked);
        if !claimed.rows.is_empty() {
            CrashPoint::RelayClaimed.reach()?;
        }
        Ok(claimed.rows)
    }

    async fn acknowledge(&self, pending: &mut Vec<Claim>) -> Result<()> {
        if pending.is_empty() {
            return Ok(());
        }
        let owner = self.shared.environment.owner;
        let ack = self.shared.outbox.ack(owner, pending);
        let settled = self.shared.store_call("outbox.ack", ack).await?;
        CrashPoint::RelayMarked.reach()?;
        pending.clear();
        note_lost("acknowledge", &settled);
        Ok(())
    }

    /// Sends these rows and settles each by its answer; what was accepted is left in `pending`.
    async fn relay(&self, rows: Vec<OutboxRow>, lease: &Lease<'_>, pending: &mut Vec<Claim>) -> Result<()> {
        let now = self.shared.environment.clock.now();
        let (expired, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.message.is_expired(now));
        count_by_topic(
            metric::RELAY_EXPIRED,
            expired.iter().map(|row| &row.message.topic),
        );
        pending.extend(expired.iter().map(|row| row.claim));
        self.with_status(|status| status.expired += expired.len() as u64);
        if rows.is_empty() {
            return Ok(());
        }

        let (tickets, messages): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .map(|row| ((row.claim, row.attempts), row.message))
            .unzip();
        let renewal = lease.keep(tickets.iter().map(|(claim, _)| *claim).collect());
        CrashPoint::RelaySending.reach()?;
        let answers = tokio::select! {
            biased;
            answers = self.send(&messages) => answers,
            // What is under way may arrive: who has the rows next sends it again, which the inbox recognises.
            error = lease.lost_with_life() => {
                drop(renewal);
                let claims: Vec<_> = tickets.iter().map(|(claim, _)| *claim).collect();
                if let Err(error) = batch::give_back(&self.shared, &claims, Duration::ZERO).await {
                    tracing::info!(%error, "what was sent while this node was given up comes back with its lease");
                }
                return Err(error);
            }
        };
        drop(renewal);
        CrashPoint::RelaySent.reach()?;

        let batch = Batch::judge(&tickets, &messages, answers);
        batch.count(self.shared.environment.clock.now());
        let unrouted = batch.unrouted.iter();
        self.shared
            .strays
            .warn(unrouted.map(|(_, message)| &message.topic));
        pending.extend(batch.sent());
        let open = self.with_status(|status| status.note(&batch));
        batch.settle(&self.shared).await?;
        match batch.into_trouble() {
            Some(error) if open => Err(error),
            _ => Ok(()),
        }
    }

    async fn send(&self, messages: &[Message]) -> Vec<Result<Sent>> {
        let span = trace::send(&*self.shared.environment.propagator, self.shared.system, messages);
        let answers = self.send_in_order(messages).instrument(span.clone()).await;
        show_failure(&span, answers.iter().find_map(|answer| answer.as_ref().err()));
        answers
    }

    async fn send_in_order(&self, messages: &[Message]) -> Vec<Result<Sent>> {
        if planted!(self.shared.planted, RelayStepsPastKey) {
            let mut answers = Vec::with_capacity(messages.len());
            for message in messages {
                answers.extend(self.shared.transport.send(std::slice::from_ref(message)).await);
            }
            return answers;
        }
        self.shared.transport.send(messages).await
    }

    /// Others may have these rows by now, so none of them is sent.
    async fn give_back_late(&self, rows: &[OutboxRow], error: Error) -> Result<Next> {
        let claims: Vec<_> = rows.iter().map(|row| row.claim).collect();
        batch::give_back(&self.shared, &claims, Duration::ZERO).await?;
        Err(error)
    }

    /// Returns at once while the circuit is closed; otherwise when the transport answers, or at `stop` with false.
    async fn wait_for_transport(&self, stop: &CancellationToken) -> bool {
        while self.with_status(|status| status.is_circuit_open()) {
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                answer = self.shared.transport.ping() => answer,
            };
            let Err(error) = answer else {
                self.with_status(RelayStatus::recover);
                break;
            };
            let failing = self.with_status(|status| status.note_probe(&error));
            let delay = PROBE.steady_delay(failing, &*self.shared.environment.random);
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(delay) => {}
            }
        }
        !stop.is_cancelled()
    }

    fn with_status<T>(&self, f: impl FnOnce(&mut RelayStatus) -> T) -> T {
        // Plain counters: valid after any panic.
        f(&mut self.shared.status.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A lost claim means that another relay has the row: it sends it again, which the inbox recognises.
fn note_lost(doing: &'static str, settled: &Settled) {
    if !settled.is_complete() {
        tracing::warn!(
            doing,
            lost = settled.lost.len(),
            "leases of outbox rows ended before they were settled: messages may be sent twice"
        );
    }
}
