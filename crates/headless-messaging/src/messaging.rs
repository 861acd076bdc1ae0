//! Messaging as it runs in one process: publisher, relay, consumers, from start to drain.

use std::{sync::Arc, time::Duration};

use headless_abstractions::{Error, ErrorKind, Result, StoreParts, Transport, TransportInfo};
use headless_core::{CrashPoint, Environment, Membership, State, TaskSpec};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    ConsumerHandle, ControlHandle, DeadLetters, Outgoing, Plan, Publisher, Relay,
    consumer::{Group, GroupParts, SubscriptionTask, pick_up},
    control::Steering,
    maintenance::{spawn_gauges, spawn_pulse, spawn_purge},
    plan::Checked,
};

mod lag;
mod node;

pub use lag::{Lag, Lags};

/// How often relay and retry pickup look by themselves where the pulse, one question for both, wakes them.
const SAFETY_NET: Duration = Duration::from_secs(30);

/// What is left after the deadline of a shutdown for rollbacks and last settlements.
const AFTER_DEADLINE: Duration = Duration::from_secs(5);

/// Messaging as it runs in one process. Dropping it ends its tasks as a crash would; [`shutdown`](Self::shutdown)
/// drains them.
#[derive(Debug)]
pub struct Messaging {
    environment: Environment,
    store: Option<StoreParts>,
    transport: Option<Arc<dyn Transport>>,
    outgoing: Outgoing,
    publisher: Publisher,
    relay: Option<Relay>,
    consumers: Vec<ConsumerHandle>,
    membership: Option<Membership>,
    control: Option<ControlHandle>,
    lags: Lags,
    intake: Vec<AbortOnDropHandle<()>>,
    watches: Vec<AbortOnDropHandle<()>>,
    relaying: Vec<AbortOnDropHandle<()>>,
    burying: Option<AbortOnDropHandle<()>>,
    beating: Option<AbortOnDropHandle<()>>,
    stop_intake: CancellationToken,
    stop_relay: CancellationToken,
    stop_watches: CancellationToken,
    stop_beats: CancellationToken,
}

impl Messaging {
    /// Checks the plan, declares its topics and groups, registers the node, and starts relay and consumers.
    ///
    /// # Errors
    /// `Invalid` with every problem of the plan; `Conflict` for a topic that exists in another form; as
    /// [`Transport::declare`] and the store's calls. Nothing runs then.
    pub async fn start(plan: Plan) -> Result<Self> {
        let checked = plan.check()?;
        warn_of_gaps(&plan, checked.transport.as_ref());
        if let Some(transport) = &plan.transport {
            transport.declare(&checked.topology).await?;
        }
        let control = Steering::begin(&plan).await;
        // The last that can fail: nobody sees a node that cannot start.
        let membership = node::join(&plan).await?;
        let outgoing = Outgoing::new(
            &plan.environment,
            checked.topics.clone(),
            plan.codecs.clone(),
            plan.limits,
            checked.transport.clone(),
        );
        let outbox = plan.store.as_ref().and_then(|store| store.outbox.clone());
        let publisher = Publisher::new(
            outgoing.clone(),
            outbox.as_ref().map(|outbox| outbox.store.clone()),
            plan.transport.clone(),
            plan.environment.wakeups.clone(),
        );
        let has_pulse = plan.store.as_ref().is_some_and(|store| store.pulse.is_some());
        let poll = effective_poll(plan.relay.poll, has_pulse);
        let relay = match (&outbox, &plan.transport) {
            (Some(outbox), Some(transport)) if plan.relays => Some(Relay::new(
                &plan.environment,
                outbox.store.clone(),
                transport.clone(),
                plan.relay.with_poll(poll),
                plan.planted,
            )),
            _ => None,
        };
        let mut messaging = Self {
            environment: plan.environment.clone(),
            store: plan.store.clone(),
            transport: plan.transport.clone(),
            outgoing,
            publisher,
            relay,
            consumers: Vec::new(),
            membership,
            control,
            lags: Lags::default(),
            intake: Vec::new(),
            watches: Vec::new(),
            relaying: Vec::new(),
            burying: None,
            beating: None,
            stop_intake: CancellationToken::new(),
            stop_relay: CancellationToken::new(),
            stop_watches: CancellationToken::new(),
            stop_beats: CancellationToken::new(),
        };
        messaging.start_relay(&plan);
        messaging.start_consumers(&plan, checked);
        messaging.follow_life();
        messaging.follow_control();
        messaging.ask_for_lag();
        Ok(messaging)
    }

    /// Asks how much waits for the groups, where there is somebody to tell it to: the other nodes, and operators.
    fn ask_for_lag(&mut self) {
        let groups: Vec<_> = self
            .consumers
            .iter()
            .map(|consumer| consumer.group().clone())
            .collect();
        let (Some(_), Some(transport), false) = (&self.membership, &self.transport, groups.is_empty()) else {
            return;
        };
        let (transport, lags) = (transport.clone(), self.lags.clone());
        let asking = lag::spawn_lag(
            &self.environment,
            transport,
            groups,
            lags,
            self.stop_intake.clone(),
        );
        self.intake.push(AbortOnDropHandle::new(asking));
    }

    /// Applies what operators want from now on.
    fn follow_control(&mut self) {
        if let Some(control) = &self.control {
            let following = control.steering.run(self.stop_watches.clone());
            self.watches.push(AbortOnDropHandle::new(following));
        }
    }

    /// Keeps this node among those of its store, and pauses every group that uses the store while that may have given the
    /// node up.
    fn follow_life(&mut self) {
        let Some(membership) = &self.membership else {
            return;
        };
        let environment = &self.environment;
        let groups: Vec<Arc<Group>> = self
            .consumers
            .iter()
            .map(|consumer| consumer.group.clone())
            .filter(|group| group.store.is_some())
            .collect();
        let following = node::follow_life(environment.clone(), groups, self.stop_watches.clone());
        self.watches
            .push(AbortOnDropHandle::new(environment.spawner.control(following)));
        let burying = membership.run_burials(self.stop_beats.clone());
        self.burying = Some(AbortOnDropHandle::new(burying));
        let beating = membership.run(self.stop_beats.clone());
        self.beating = Some(AbortOnDropHandle::new(beating));
    }

    fn start_relay(&mut self, plan: &Plan) {
        if let Some(relay) = &self.relay {
            self.relaying
                .push(AbortOnDropHandle::new(relay.spawn(self.stop_relay.clone())));
        }
        let Some(store) = &self.store else { return };
        if let (Some(_), Some(config)) = (&self.relay, &plan.gauges) {
            let stop = self.stop_intake.clone();
            let task = spawn_gauges(&self.environment, store, config.clone(), stop);
            self.intake.push(AbortOnDropHandle::new(task));
        }
        if let Some(pulse) = &store.pulse {
            let task = spawn_pulse(
                &self.environment,
                pulse.clone(),
                plan.pulse.clone(),
                self.stop_relay.clone(),
            );
            self.relaying.push(AbortOnDropHandle::new(task));
        }
        if !plan.purges {
            return;
        }
        let purge = spawn_purge(
            &self.environment,
            store.outbox.clone(),
            store.inbox.clone(),
            plan.purge.clone(),
            self.stop_intake.clone(),
        );
        self.intake.push(AbortOnDropHandle::new(purge));
    }

    fn start_consumers(&mut self, plan: &Plan, checked: Checked) {
        let Some(transport) = &plan.transport else { return };
        let inbox = plan.store.as_ref().and_then(|store| store.inbox.clone());
        let has_pulse = plan.store.as_ref().is_some_and(|store| store.pulse.is_some());
        let burials_each = self.membership.as_ref().map(|_| plan.membership.heartbeat);
        for group in checked.groups {
            let parts = GroupParts {
                name: group.name,
                configured: group.configured,
                settings: group.consumer.settings,
                form: group.form,
                store: inbox.clone(),
                has_pulse,
                burials_each,
                transport: transport.clone(),
                handlers: group.handlers,
                environment: plan.environment.clone(),
                state: plan.state.clone(),
                publisher: self.publisher.clone(),
                codecs: plan.codecs.clone(),
                planted: plan.planted,
            };
            let group = Arc::new(Group::new(parts, self.stop_intake.clone()));
            if let Some(control) = &self.control {
                // Before it receives: what is paused must not handle one message.
                control.steering.take(group.clone());
            }
            self.start_group(&group);
            self.consumers.push(ConsumerHandle { group });
        }
    }

    fn start_group(&mut self, group: &Arc<Group>) {
        let environment = &self.environment;
        let inbox = group.store.as_ref().map(|store| store.inbox.clone());
        let watch = group.watch.clone().run(
            group.name.clone(),
            environment.owner,
            inbox,
            self.stop_watches.clone(),
        );
        self.watches
            .push(AbortOnDropHandle::new(environment.spawner.control(watch)));
        for topic in group.topics.values() {
            let task = SubscriptionTask::new(group.clone(), topic.clone()).run();
            self.intake
                .push(AbortOnDropHandle::new(environment.spawner.work(task)));
        }
        if let (Some(store), Some(poll)) = (group.store.clone(), group.pickup_poll) {
            let spec = TaskSpec::new(format!("retry pickup of {}", group.name), poll)
                .with_wake(environment.wakeups.parked());
            let group = group.clone();
            let pickup = environment
                .background
                .spawn(spec, self.stop_intake.clone(), move || {
                    pick_up(group.clone(), store.clone())
                });
            self.intake.push(AbortOnDropHandle::new(pickup));
        }
    }

    /// The publisher of this process.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// What a unit of work needs to publish: put it into its state.
    #[must_use]
    pub fn state_of_work(&self, state: &State) -> State {
        state.clone().with(self.outgoing.clone())
    }

    /// The relay, where this process has one.
    #[must_use]
    pub fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// The consumers, in the order in which they were planned.
    #[must_use]
    pub fn consumers(&self) -> &[ConsumerHandle] {
        &self.consumers
    }

    /// This process as a node of its store, where that watches over its nodes.
    #[must_use]
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// What operators want of this process; `None` where it is not followed, or no store keeps it.
    #[must_use]
    pub fn control(&self) -> Option<&ControlHandle> {
        self.control.as_ref()
    }

    /// How much waits in the transport for each group, as far as that is known. Asked where this process is a node.
    #[must_use]
    pub fn lags(&self) -> &Lags {
        &self.lags
    }

    /// The dead letters, where there is a store that keeps them.
    #[must_use]
    pub fn dead_letters(&self) -> Option<DeadLetters> {
        let inbox = self.store.as_ref()?.inbox.clone()?;
        Some(DeadLetters::new(inbox, self.environment.wakeups.clone()))
    }

    /// Stops intake, lets handlers run until `timeout` has passed, then ends them; awaits rollbacks, settles what has
    /// ended, relays once more, gives back what is left and closes the transport.
    ///
    /// # Errors
    /// `Timeout` when something did not end in time and was aborted: its messages come back when their leases end, or
    /// when the store finds this node dead. A blocking handler, or one that never yields, cannot be aborted: as long as
    /// one runs, nothing is given back, and the node does not say good-bye.
    /// The first error of giving back or closing, when nothing else failed.
    ///
    /// # Cancel safety
    /// Dropping the future ends what is left as a crash would: nothing is lost, messages come back in time.
    pub async fn shutdown(mut self, timeout: Duration) -> Result<()> {
        tracing::info!(node = %self.environment.node, ?timeout, "draining");
        self.stop_intake.cancel();
        let mut still_handles = false;
        if !self.intake_ended(timeout).await {
            tracing::warn!("handlers are ended: the time for draining is over");
            for consumer in &self.consumers {
                consumer.group.cancelled.cancel();
            }
            still_handles = !self.intake_ended(AFTER_DEADLINE).await;
        }
        self.intake.clear();
        self.stop_watches.cancel();
        self.watches.clear();
        // Each death is buried whole or not at all, and others do it too.
        self.burying = None;
        let overdue = !self.relay_ended().await || still_handles;
        let (released, left) = if still_handles {
            // A handler that cannot be ended acts on what it holds: to free that would be to run it twice at once.
            tracing::warn!(
                "handlers still run: what this node holds stays its own until its leases end, or it is dead"
            );
            (Ok(()), Ok(()))
        } else {
            (self.release().await, self.leave().await)
        };
        let closed = match &self.transport {
            Some(transport) => within(transport.close()).await,
            None => Ok(()),
        };
        if overdue {
            return Err(Error::new(
                ErrorKind::Timeout,
                "not everything ended in time and was aborted, but for handlers that cannot be: its messages come back \
                 when their leases end, or with the death of this node",
            )
            .with_operation("shutdown"));
        }
        released.and(left).and(closed)
    }

    /// Whether subscriptions, pickups and what they started have ended within this time.
    async fn intake_ended(&mut self, time: Duration) -> bool {
        let intake = &mut self.intake;
        let consumers = &self.consumers;
        let all = async {
            for task in intake.iter_mut().filter(|task| !task.is_finished()) {
                log_if_panicked(task.await);
            }
            for consumer in consumers {
                consumer.group.tasks.close();
                consumer.group.tasks.wait().await;
            }
        };
        tokio::time::timeout(time, all).await.is_ok()
    }

    /// Relays once more what the last handlers have published, then stops.
    async fn relay_ended(&mut self) -> bool {
        if let Some(relay) = &self.relay {
            let once_more = async {
                if let Err(error) = relay.run_once().await {
                    tracing::info!(%error, "the last relay before the end failed; what is left stays in the outbox");
                }
            };
            if tokio::time::timeout(AFTER_DEADLINE, once_more).await.is_err() {
                tracing::info!(
                    "the last relay before the end took too long; what is left stays in the outbox"
                );
            }
        }
        self.stop_relay.cancel();
        let relaying = &mut self.relaying;
        let all = async {
            for task in relaying {
                log_if_panicked(task.await);
            }
        };
        let ended = tokio::time::timeout(AFTER_DEADLINE, all).await.is_ok();
        self.relaying.clear();
        ended
    }

    /// Says good-bye, where this is a node: what it held is given back. Until here it was heard of.
    async fn leave(&mut self) -> Result<()> {
        let Some(membership) = &self.membership else {
            return Ok(());
        };
        self.stop_beats.cancel();
        if let Some(beating) = self.beating.take() {
            // After the good-bye a late heartbeat would register anew. One that has no answer by then is given up.
            match tokio::time::timeout(AFTER_DEADLINE, beating).await {
                Ok(ended) => log_if_panicked(ended),
                Err(_elapsed) => tracing::info!("the last heartbeat has no answer, and is given up"),
            }
        }
        within(async {
            CrashPoint::StopLeaving.reach()?;
            membership.leave().await?;
            CrashPoint::StopLeft.reach()
        })
        .await
    }

    /// Gives back what this owner still holds, so that others need not wait for its leases.
    async fn release(&self) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let owner = self.environment.owner;
        let outbox = match &store.outbox {
            Some(outbox) => {
                let released = within(async {
                    CrashPoint::StopReleasingOutbox.reach()?;
                    outbox.store.release_owner(owner).await?;
                    CrashPoint::StopReleasedOutbox.reach()
                });
                released.await
            }
            None => Ok(()),
        };
        let inbox = match &store.inbox {
            Some(inbox) => {
                let released = within(async {
                    CrashPoint::StopReleasingInbox.reach()?;
                    inbox.inbox.release_owner(owner).await?;
                    CrashPoint::StopReleasedInbox.reach()
                });
                released.await
            }
            None => Ok(()),
        };
        outbox.and(inbox)
    }
}

impl Drop for Messaging {
    fn drop(&mut self) {
        // The tasks themselves are aborted with their handles; what they started looks at these.
        self.stop_intake.cancel();
        for consumer in &self.consumers {
            consumer.group.cancelled.cancel();
            for topic in consumer.group.topics.values() {
                topic.circuit.retire();
            }
        }
    }
}

/// How often what a pulse looks at is polled beside it.
pub(crate) fn effective_poll(poll: Duration, has_pulse: bool) -> Duration {
    if has_pulse { poll.max(SAFETY_NET) } else { poll }
}

async fn within<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(AFTER_DEADLINE, call).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(Error::new(ErrorKind::Timeout, "no answer in time").with_operation("shutdown")),
    }
}

/// A task that was cancelled was meant to be: only a panic is a defect.
fn log_if_panicked(ended: Result<(), tokio::task::JoinError>) {
    match ended {
        Err(error) if error.is_panic() => tracing::error!(%error, "a task ended badly"),
        Err(error) => tracing::debug!(%error, "a task was ended"),
        Ok(()) => {}
    }
}

/// Says what the combination of store and transport cannot promise.
fn warn_of_gaps(plan: &Plan, transport: Option<&TransportInfo>) {
    let (Some(store), Some(transport)) = (&plan.store, transport) else {
        return;
    };
    if store.info.durable && !transport.capabilities.durable && store.outbox.is_some() {
        tracing::warn!(
            store = store.info.name,
            transport = transport.name,
            "a durable store relays into a transport that forgets: what was relayed and not yet handled is lost with it"
        );
    }
    if let Some(retention) = transport
        .retention
        .filter(|retention| *retention > plan.purge.marks)
    {
        tracing::warn!(?retention, marks = ?plan.purge.marks, "the transport keeps messages longer than the inbox knows them: a replay is processed again");
    }
}
