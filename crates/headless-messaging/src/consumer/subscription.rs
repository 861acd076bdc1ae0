//! A group's subscription to one topic: receive, sort into lanes, start, settle.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt, OptionFuture};
use headless_abstractions::{
    Delivery, Error, ErrorKind, GroupSpec, Partition, Received, Redelivery, Result, Revoked, Settlement,
    Subscription, Topology,
};
use headless_core::{Backoff, CrashPoint, panic_message};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    Inbox,
    consumer::{
        PauseReason,
        batch::Batch,
        group::Group,
        item::{End, Item},
        lanes::{LaneKey, Lanes},
        permits::Permit,
        process::Process,
        queued::{DeliveryRef, Gathering, Queued},
        settle::Session,
        topic::Topic,
    },
    handler::{Handler, HandlerKind},
    plant::planted,
};

/// How long the first look waits after nothing could be received.
const PROBE: Duration = Duration::from_secs(1);

const RECONNECT: Backoff = Backoff::exponential(Duration::from_millis(50), Duration::from_secs(10));

/// What was started has ended.
struct Ran {
    lanes: Vec<LaneKey>,
    /// What is to be settled, or the panic of our own that ended it.
    ends: Result<Vec<(DeliveryRef, End)>, String>,
}

/// A group's subscription to one topic. One task owns it; everything it starts is joined by it.
pub(crate) struct SubscriptionTask {
    group: Arc<Group>,
    topic: Arc<Topic>,
    lanes: Lanes<Queued>,
    gatherings: BTreeMap<&'static str, Gathering>,
    running: JoinSet<Ran>,
    /// Cancelled for a partition when it is revoked, for all of them when the session ends.
    partitions: BTreeMap<Partition, CancellationToken>,
    session_over: CancellationToken,
    /// What the subscriber was last told; `None` while that is not known, since the call failed.
    paused: Option<bool>,
    /// Something that was started has panicked: the session ends, so that nothing of its keys overtakes it.
    panicked: bool,
}

impl SubscriptionTask {
    pub(crate) fn new(group: Arc<Group>, topic: Arc<Topic>) -> Self {
        Self {
            group,
            topic,
            lanes: Lanes::new(),
            gatherings: BTreeMap::new(),
            running: JoinSet::new(),
            partitions: BTreeMap::new(),
            session_over: CancellationToken::new(),
            paused: Some(false),
            panicked: false,
        }
    }

    /// Reads the topic until the group stops; a session that breaks is followed by another.
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        while !self.group.stopping.is_cancelled() {
            let outcome = match self.subscribe().await {
                Ok(session) => {
                    // A message whose task panics each time would have us subscribe without a pause.
                    if !std::mem::take(&mut self.panicked) {
                        failures = 0;
                    }
                    self.session(session).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::warn!(group = %self.group.name, topic = %self.topic.name, %error, "the subscription broke; subscribing again");
                self.show_broken(Some(&error));
                if error.kind() == ErrorKind::NotFound && self.group.settings.per_instance {
                    self.declare_again().await;
                }
                let delay = RECONNECT.steady_delay(failures, &*self.group.environment.random);
                failures += 1;
                tokio::select! {
                    biased;
                    () = self.group.stopping.cancelled() => {}
                    () = tokio::time::sleep(delay) => {}
                }
            }
        }
        // What a broken session left running.
        while let Some(ran) = self.running.join_next().await {
            self.ended(ran);
        }
    }

    /// A group of this process alone ends when the process was not heard of for too long: it lives, so it begins anew.
    async fn declare_again(&self) {
        let (group, topic) = (&self.group.name, &self.topic.name);
        let spec = GroupSpec::new(group.clone(), topic.clone())
            .with_start(self.group.settings.start)
            .with_per_instance();
        match self
            .group
            .transport
            .declare(&Topology::new().with_group(spec))
            .await
        {
            Ok(()) => {
                tracing::warn!(%group, %topic, "the group of this process had ended and begins anew, where it is to start; what was sent since is missed, or what was handled comes again");
            }
            Err(error) => {
                tracing::warn!(%group, %topic, %error, "declaring the group of this process again failed");
            }
        }
    }

    fn show_broken(&self, error: Option<&Error>) {
        let now = self.group.environment.clock.monotonic();
        self.topic.show_broken(now, error.map(ToString::to_string));
    }

    async fn subscribe(&self) -> Result<Arc<Session>> {
        let settings = &self.group.settings;
        let subscription = Subscription::new(
            self.group.name.clone(),
            self.topic.name.clone(),
            self.group.environment.owner,
        )
        .with_prefetch(settings.effective_prefetch())
        .with_visibility(settings.visibility);
        let subscribed = self.group.transport.subscribe(&subscription);
        tokio::select! {
            biased;
            () = self.group.stopping.cancelled() => {
                Err(Error::new(ErrorKind::Closed, "the group is stopping"))
            }
            subscriber = subscribed => {
                let system = self.group.publisher.outgoing().system();
                Ok(Session::new(subscriber?, &self.group.name, &self.topic.name, system))
            }
        }
    }

    /// One session with the transport, until the group stops (`Ok`) or it breaks.
    async fn session(&mut self, session: Arc<Session>) -> Result<()> {
        let group = self.group.clone();
        let environment = group.environment.clone();
        self.session_over = CancellationToken::new();
        let settle = session.clone().run(
            environment.clone(),
            self.session_over.clone(),
            group.cancelled.clone(),
        );
        let settling = AbortOnDropHandle::new(environment.spawner.work(settle));
        // Also on an ordered topic, where it has no effect: the topic may lose its order while this reads it.
        let extends = group.transport.info().capabilities.extend;
        let _extending = extends.then(|| {
            let extend = session.clone().extend(group.settings.visibility);
            AbortOnDropHandle::new(environment.spawner.control(extend))
        });
        self.paused = Some(false);

        let outcome = self.turn_until_over(&session).await;

        self.lanes.drop_waiting(|_| true);
        self.drop_gatherings(|_| true);
        if outcome.is_ok() {
            self.drain(&session).await;
        } else {
            self.session_over.cancel();
        }
        self.partitions.clear();
        session.finish();
        let mut settling = settling;
        let settled = tokio::select! {
            biased;
            ended = &mut settling => ended,
            () = group.cancelled.cancelled() => {
                // The broker does not answer: what is not settled comes back and is recognised.
                self.session_over.cancel();
                settling.await
            }
        };
        if settled.is_err() {
            tracing::error!(group = %group.name, "the settling task panicked; what was not settled comes back");
        }
        if let Err(error) = session.subscriber.close().await {
            tracing::debug!(group = %group.name, %error, "closing a subscription failed; its deliveries come back in time");
        }
        outcome
    }

    /// Lets what runs come to its end; its settlements go through this session. A receive that takes nothing renews the
    /// hold on the partitions meanwhile, so that no other member is given what runs here.
    async fn drain(&mut self, session: &Arc<Session>) {
        let wait = self.group.settings.visibility / 4;
        let mut receiving: Option<BoxFuture<'static, Result<Received>>> = None;
        let mut receives = true;
        while !self.running.is_empty() {
            if receives && receiving.is_none() {
                let session = session.clone();
                receiving = Some(async move { session.subscriber.receive(0, wait).await }.boxed());
            }
            tokio::select! {
                biased;
                Some(ran) = self.running.join_next() => self.ended(ran),
                Some(received) = OptionFuture::from(receiving.as_mut()) => {
                    receiving = None;
                    match received {
                        Ok(received) => {
                            for revoked in &received.revoked {
                                self.revoke(revoked);
                            }
                        }
                        Err(error) => {
                            tracing::debug!(group = %self.group.name, %error, "receiving failed while draining; partitions may move before the end");
                            receives = false;
                        }
                    }
                }
            }
        }
    }

    async fn turn_until_over(&mut self, session: &Arc<Session>) -> Result<()> {
        let group = self.group.clone();
        let topic = self.topic.clone();
        let mut receiving: Option<BoxFuture<'static, Result<Received>>> = None;
        let mut acquiring: Option<BoxFuture<'static, Option<Permit>>> = None;
        let mut permit = None;
        let mut receive_failures = 0;
        let mut receive_after = None;
        loop {
            if self.panicked {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "a task of the consumer panicked, and what it held has to be delivered again",
                ));
            }
            self.keep_circuit();
            self.apply_pauses(session).await;
            if !self.start_what_can(&mut permit) {
                // A permit that is not needed now would keep another subscription waiting.
                permit = None;
                acquiring = None;
            } else if acquiring.is_none() {
                let group = group.clone();
                acquiring = Some(async move { group.permits.acquire().await }.boxed());
            }
            let now = group.environment.clock.monotonic();
            if receive_after.is_some_and(|at| at <= now) {
                receive_after = None;
            }
            if receiving.is_none() && receive_after.is_none() {
                let (session, mut wait) = (session.clone(), group.settings.visibility / 4);
                if topic.is_broken() {
                    // That it works again shows soon, also where nothing is sent.
                    wait = wait.min(PROBE);
                }
                let most = group.settings.effective_prefetch().get();
                receiving = Some(async move { session.subscriber.receive(most, wait).await }.boxed());
            }
            let wake_at = [receive_after, self.next_gathering_due()]
                .into_iter()
                .flatten()
                .min();
            let circuit_left = topic.circuit.open_left();
            let pause = [wake_at.map(|at| at.saturating_sub(now)), circuit_left]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                biased;
                () = group.stopping.cancelled() => {
                    if let Err(error) = session.subscriber.pause().await {
                        tracing::debug!(group = %group.name, %error, "pausing before the end failed; what still arrives is left unsettled");
                    }
                    return Ok(());
                }
                Some(ran) = self.running.join_next() => self.ended(ran),
                Some(received) = OptionFuture::from(receiving.as_mut()) => {
                    receiving = None;
                    match received {
                        Ok(received) => {
                            if !received.deliveries.is_empty() {
                                // What was received is given up with the session.
                                CrashPoint::ConsumerReceived.reach()?;
                            }
                            receive_failures = 0;
                            self.show_broken(None);
                            self.received(session, received);
                        }
                        Err(error) if error.is_retryable() => {
                            tracing::warn!(group = %group.name, topic = %topic.name, %error, "receiving failed; trying again");
                            self.show_broken(Some(&error));
                            let delay = RECONNECT.steady_delay(receive_failures, &*group.environment.random);
                            receive_failures += 1;
                            receive_after = Some(group.environment.clock.monotonic() + delay);
                        }
                        Err(error) => return Err(error),
                    }
                }
                Some(acquired) = OptionFuture::from(acquiring.as_mut()) => {
                    acquiring = None;
                    permit = acquired;
                }
                () = topic.pauses.changed() => {}
                () = topic.circuit.changed() => {}
                () = tokio::time::sleep(pause.unwrap_or(Duration::MAX).max(Duration::from_millis(1))), if pause.is_some() => {}
            }
        }
    }

    /// An open circuit pauses the subscription until it admits a probe.
    fn keep_circuit(&self) {
        if self.topic.circuit.open_left().is_some() {
            self.topic.pauses.insert(PauseReason::Circuit);
        } else {
            self.topic.pauses.remove(PauseReason::Circuit);
        }
    }

    /// Makes the subscriber pause or resume as the reasons say.
    async fn apply_pauses(&mut self, session: &Session) {
        let should_pause = !self.topic.pauses.is_empty();
        if self.paused == Some(should_pause) {
            return;
        }
        // A call that fails, or is cut off, may have been heard all the same.
        self.paused = None;
        let done = if should_pause {
            session.subscriber.pause().await
        } else {
            session.subscriber.resume().await
        };
        match done {
            Ok(()) => self.paused = Some(should_pause),
            Err(error) => {
                tracing::warn!(group = %self.group.name, topic = %self.topic.name, %error, should_pause, "pausing or resuming failed");
                if !should_pause {
                    // The failed resume counts as a failed probe; it is tried again when the circuit admits one.
                    self.topic.circuit.resume_failed();
                    self.topic.pauses.insert(PauseReason::Circuit);
                }
            }
        }
    }

    fn received(&mut self, session: &Arc<Session>, received: Received) {
        for revoked in &received.revoked {
            self.revoke(revoked);
        }
        let (name, topic) = (&self.group.name, &self.topic.name);
        let again = received
            .deliveries
            .iter()
            .filter(|delivery| delivery.redelivery != Redelivery::First)
            .count();
        self.group
            .counters
            .received(name, topic, received.deliveries.len() as u64);
        self.group.counters.redelivered(name, topic, again as u64);
        session.received(received.deliveries.iter().map(|delivery| delivery.token));
        for delivery in received.deliveries {
            self.enqueue(session, delivery);
        }
    }

    fn enqueue(&mut self, session: &Arc<Session>, delivery: Delivery) {
        let partition = delivery.partition;
        let delivery_ref = DeliveryRef {
            session: session.clone(),
            token: delivery.token,
            partition,
        };
        let revoked = match partition {
            Some(partition) => {
                let over = &self.session_over;
                self.partitions
                    .entry(partition)
                    .or_insert_with(|| over.child_token())
                    .clone()
            }
            None => self.session_over.clone(),
        };
        let arrival = self.group.arrival(&self.topic, &delivery.message);
        let key = if self.group.settings.ordered {
            delivery.message.key.clone()
        } else {
            None
        };
        let lane = self.lanes.lane_of(key);
        let item = Item::delivered(delivery, arrival, self.group.form == Inbox::Around, revoked);
        self.lanes.push(
            lane,
            Queued {
                item,
                delivery: delivery_ref,
            },
        );
    }

    /// What is queued of a revoked partition goes to another member; what runs is let finish, and what only waits ends.
    fn revoke(&mut self, revoked: &Revoked) {
        if let Some(token) = self.partitions.remove(&revoked.partition) {
            token.cancel();
        }
        let of_partition = |queued: &Queued| queued.delivery.partition == Some(revoked.partition);
        self.lanes.drop_waiting(of_partition);
        self.drop_gatherings(of_partition);
    }

    fn drop_gatherings(&mut self, matches: impl Fn(&Queued) -> bool) {
        for gathering in self.gatherings.values_mut() {
            gathering.items.retain(|queued| !matches(queued));
        }
        let empty: Vec<_> = self
            .gatherings
            .iter()
            .filter(|(_, g)| g.items.is_empty())
            .map(|(name, _)| *name)
            .collect();
        for name in empty {
            if let Some(gathering) = self.gatherings.remove(name) {
                for lane in gathering.lanes {
                    self.lanes.finish(lane);
                }
            }
        }
    }

    /// Starts what may start; says whether something waits for a permit.
    ///
    /// Whether the topic is paused is asked again with each permit in hand: a call that pauses its topic does so before it
    /// gives its permit back.
    fn start_what_can(&mut self, permit: &mut Option<Permit>) -> bool {
        if self.topic.pauses.stop_starting() {
            return false;
        }
        loop {
            self.gather_more();
            let now = self.group.environment.clock.monotonic();
            let due = self
                .gatherings
                .iter()
                .find(|(_, gathering)| gathering.is_due(now))
                .map(|(name, _)| *name);
            if let Some(name) = due {
                let Some(granted) = permit.take().or_else(|| self.group.permits.try_acquire()) else {
                    return true;
                };
                if self.topic.pauses.stop_starting() {
                    return false;
                }
                self.start_batch(name, granted);
                continue;
            }
            let Some(front) = self.lanes.peek() else {
                return false;
            };
            match self.topic.handler_of(&front.item.message) {
                Some(handler) if matches!(handler.kind, HandlerKind::Batch { .. }) => {
                    if !self.gather(handler) {
                        return false;
                    }
                }
                _ => {
                    let Some(granted) = permit.take().or_else(|| self.group.permits.try_acquire()) else {
                        return true;
                    };
                    if self.topic.pauses.stop_starting() {
                        return false;
                    }
                    self.start_single(granted);
                }
            }
        }
    }

    fn start_single(&mut self, permit: Permit) {
        let Some((lane, taken)) = self.lanes.start(|_, _, _| false) else {
            return;
        };
        let (group, topic) = (self.group.clone(), self.topic.clone());
        let ack_early = planted!(group.planted, AckBeforeHandler);
        let work = async move {
            let mut ends = Vec::with_capacity(1);
            let mut permit = Some(permit);
            for queued in taken {
                if ack_early {
                    queued
                        .delivery
                        .session
                        .settle(Settlement::Ack(queued.delivery.token));
                }
                let end = Process::new(&group, &topic, queued.item, permit.take())
                    .run()
                    .await;
                ends.push((queued.delivery, end));
            }
            ends
        };
        self.spawn(vec![lane], work);
    }

    fn start_batch(&mut self, name: &'static str, permit: Permit) {
        let Some(gathering) = self.gatherings.remove(name) else {
            return;
        };
        let (group, topic) = (self.group.clone(), self.topic.clone());
        let lanes = gathering.lanes;
        let work = async move {
            let (items, deliveries): (Vec<_>, Vec<_>) = gathering
                .items
                .into_iter()
                .map(|queued| (queued.item, queued.delivery))
                .unzip();
            let ends = Batch::new(&group, &topic, gathering.handler, items)
                .run(Some(permit))
                .await;
            deliveries.into_iter().zip(ends).collect()
        };
        self.spawn(lanes, work);
    }

    /// Starts what was taken from these lanes. Handlers' panics are caught where they are called: one that is caught here
    /// is ours, or a driver's.
    fn spawn(
        &mut self,
        lanes: Vec<LaneKey>,
        work: impl Future<Output = Vec<(DeliveryRef, End)>> + Send + 'static,
    ) {
        let task = async move {
            let ends = AssertUnwindSafe(work).catch_unwind().await;
            Ran {
                lanes,
                ends: ends.map_err(|panic| panic_message(&*panic).to_owned()),
            }
        };
        let handle = self.group.environment.spawner.work_handle();
        self.running.spawn_on(task, handle);
    }

    /// Takes the lane whose turn it is into the gathering of its handler; false when that is full.
    fn gather(&mut self, handler: Handler) -> bool {
        let HandlerKind::Batch { most, .. } = handler.kind else {
            return false;
        };
        let name = handler.message_type;
        let gathered = self
            .gatherings
            .get(name)
            .map_or(0, |gathering| gathering.items.len());
        if gathered >= most {
            return false;
        }
        let topic = self.topic.clone();
        let same = |queued: &Queued| {
            topic
                .handler_of(&queued.item.message)
                .is_some_and(|h| h.message_type == name)
        };
        let Some((lane, taken)) = self
            .lanes
            .start(|taken, _, next| gathered + taken < most && same(next))
        else {
            return false;
        };
        let since = self.group.environment.clock.monotonic();
        let gathering = self.gatherings.entry(name).or_insert_with(|| Gathering {
            handler,
            lanes: Vec::new(),
            items: Vec::new(),
            since,
        });
        gathering.lanes.push(lane);
        gathering.items.extend(taken);
        true
    }

    /// Adds what has arrived since on the lanes of the gatherings.
    fn gather_more(&mut self) {
        for (name, gathering) in &mut self.gatherings {
            let HandlerKind::Batch { most, .. } = gathering.handler.kind else {
                continue;
            };
            for lane in &gathering.lanes {
                while gathering.items.len() < most {
                    let topic = &self.topic;
                    let same = |queued: &Queued| {
                        topic
                            .handler_of(&queued.item.message)
                            .is_some_and(|h| h.message_type == *name)
                    };
                    let Some(more) = self.lanes.take_more(lane, same) else {
                        break;
                    };
                    gathering.items.push(more);
                }
            }
        }
    }

    fn next_gathering_due(&self) -> Option<Duration> {
        if self.topic.pauses.stop_starting() {
            return None;
        }
        let now = self.group.environment.clock.monotonic();
        // One that is due already waits for a permit, not for time.
        self.gatherings
            .values()
            .map(Gathering::due_at)
            .filter(|at| *at > now)
            .min()
    }

    fn ended(&mut self, ran: Result<Ran, tokio::task::JoinError>) {
        let ran = match ran {
            Ok(ran) => ran,
            Err(error) => {
                // Nothing but the end of its runtime ends a task from outside.
                tracing::debug!(group = %self.group.name, topic = %self.topic.name, %error, "a task was ended");
                return;
            }
        };
        match ran.ends {
            Ok(ends) => {
                for (delivery, end) in ends {
                    settle(&delivery, end);
                }
                if !self.panicked {
                    self.topic.show_defect(None);
                }
            }
            Err(panic) => {
                self.group.panicked(&self.topic, &panic);
                self.panicked = true;
                // What waits on these lanes stands behind what comes again.
                self.lanes.drop_waiting(|_| true);
            }
        }
        for lane in ran.lanes {
            self.lanes.finish(lane);
        }
    }
}

fn settle(delivery: &DeliveryRef, end: End) {
    let session = &delivery.session;
    match end {
        End::Finished | End::Parked => session.settle(Settlement::Ack(delivery.token)),
        End::Requeue(after) => session.settle(Settlement::Requeue {
            token: delivery.token,
            after: Some(after),
        }),
        End::Unsettled => session.forget(delivery.token),
    }
}
