//! A member of a group. What it reads comes in by a task of its own, the driver, which also sees to times and partitions;
//! receives and settlements work on what the driver and they share.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    DeliveryToken, Error, Received, Result, Settlement, Subscriber, Subscription, TopicName, TopicOrder,
};
use tokio::{sync::Notify, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    clock,
    error::{NAME, closed, overdue},
    rabbitmq::Shared,
    transport::{unknown_group, unknown_topic},
};

mod assign;
mod driver;
mod lanes;
mod members;
mod push;
mod settle;
mod state;

use driver::Driver;
use state::{Lane, State};

/// A member of a group. Dropping it leaves the group as soon as its driver can.
pub(crate) struct RabbitMqSubscriber {
    member: Arc<Member>,
    driver: Mutex<Option<JoinHandle<()>>>,
    /// One receive at a time.
    turn: tokio::sync::Mutex<()>,
}

/// What a subscriber shares with its driver.
struct Member {
    shared: Arc<Shared>,
    session: Uuid,
    to: Subscription,
    /// Its topics, with their orders.
    topics: Vec<(TopicName, TopicOrder)>,
    state: Mutex<State>,
    /// Told when something has changed that a receive may wait for.
    changed: Notify,
    /// Told when something has changed that the driver is to see to.
    stirred: Notify,
    /// Leaving has begun.
    leaving: CancellationToken,
}

impl RabbitMqSubscriber {
    pub(crate) async fn join(shared: &Arc<Shared>, to: &Subscription) -> Result<Self> {
        let topics = shared.guarded("subscribe", topics(shared, to)).await?;
        let mut lanes = Vec::new();
        for (topic, order) in &topics {
            match order.partitions() {
                None => lanes.push(Lane::new(topic.clone(), None)),
                Some(partitions) => {
                    lanes.extend(
                        partitions
                            .iter()
                            .map(|partition| Lane::new(topic.clone(), Some(partition))),
                    );
                }
            }
        }
        let member = Arc::new(Member {
            shared: shared.clone(),
            session: Uuid::new_v4(),
            to: to.clone(),
            topics,
            state: Mutex::new(State::new(lanes, to.prefetch.get(), to.visibility, clock::now())),
            changed: Notify::new(),
            stirred: Notify::new(),
            leaving: CancellationToken::new(),
        });
        let driver = shared.tasks.spawn(Driver::new(member.clone()).run());
        Ok(Self {
            member,
            driver: Mutex::new(Some(driver)),
            turn: tokio::sync::Mutex::default(),
        })
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.member.is_leaving() {
            return Err(closed(operation));
        }
        Ok(())
    }

    /// Receives until there is something.
    async fn next(&self, max: usize, wait: Duration) -> Result<Received> {
        let member = &self.member;
        let mut deadline = std::pin::pin!(tokio::time::sleep(wait));
        let _turn = self.turn.lock().await;
        let _receiving = Receiving::begin(member);
        loop {
            if let Some(received) = member.state().take(max, clock::now()) {
                // What was told of is to be let go.
                member.stirred.notify_one();
                return received.map_err(|error| error.with_operation("receive").with_provider(NAME));
            }
            tokio::select! {
                biased;
                () = &mut deadline => return Ok(Received::nothing()),
                () = member.changed.notified() => {}
            }
        }
    }
}

/// The topics of a subscription with their orders, once each.
async fn topics(shared: &Shared, to: &Subscription) -> Result<Vec<(TopicName, TopicOrder)>> {
    if to.topics.is_empty() {
        return Err(Error::invalid("a subscription needs one topic at least"));
    }
    if to.visibility.is_zero() {
        return Err(Error::invalid(
            "a subscription's visibility time is zero; give it 1 ms or more",
        ));
    }
    let live = shared.consume.live(&shared.config).await?;
    let known = shared.known(&live).await?;
    let group = known
        .topics_of(&to.group)
        .ok_or_else(|| unknown_group(&to.group))??;
    let mut topics: Vec<(TopicName, TopicOrder)> = Vec::new();
    for name in &to.topics {
        if known.topic(name).is_none() {
            return Err(unknown_topic(name));
        }
        let Some(topic) = group.iter().find(|(of, _)| of == name) else {
            return Err(Error::new(
                headless_abstractions::ErrorKind::NotFound,
                format!("the group was not declared on topic {name}; declare it there first"),
            )
            .with_resource(format!("group {}", to.group)));
        };
        if !topics.contains(topic) {
            topics.push(topic.clone());
        }
    }
    Ok(topics)
}

/// A receive that waits: for as long as it does, its member is there.
struct Receiving<'a>(&'a Member);

impl<'a> Receiving<'a> {
    fn begin(member: &'a Member) -> Self {
        {
            let mut state = member.state();
            state.receiving += 1;
            state.asked = true;
        }
        member.stirred.notify_one();
        Self(member)
    }
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.receiving -= 1;
        state.received_at = clock::now();
        drop(state);
        // Its times begin to run.
        self.0.stirred.notify_one();
    }
}

#[async_trait]
impl Subscriber for RabbitMqSubscriber {
    async fn receive(&self, max: usize, wait: Duration) -> Result<Received> {
        self.check_open("receive")?;
        tokio::select! {
            biased;
            () = self.member.shared.closing.cancelled() => Err(closed("receive")),
            () = self.member.leaving.cancelled() => Err(closed("receive")),
            received = self.next(max, wait) => received,
        }
    }

    async fn settle(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        match self.check_open("settle") {
            Ok(()) => settle::settle(&self.member, batch).await,
            Err(_closed) => batch.iter().map(|_| Err(closed("settle"))).collect(),
        }
    }

    async fn extend(&self, tokens: &[DeliveryToken], by: Duration) -> Vec<Result<()>> {
        match self.check_open("extend") {
            Ok(()) => settle::extend(&self.member, tokens, by),
            Err(_closed) => tokens.iter().map(|_| Err(closed("extend"))).collect(),
        }
    }

    async fn pause(&self) -> Result<()> {
        self.check_open("pause")?;
        self.member.set_paused(true)
    }

    async fn resume(&self) -> Result<()> {
        self.check_open("resume")?;
        self.member.set_paused(false)
    }

    async fn close(&self) -> Result<()> {
        self.member.leaving.cancel();
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(driver) = driver else {
            return Ok(());
        };
        // The driver gives up by itself within the same time: what it could not close goes with the connection.
        match timeout(self.member.shared.config.call_timeout * 2, driver).await {
            Ok(_ended) => Ok(()),
            Err(_elapsed) => Err(overdue("close", "call_timeout")),
        }
    }
}

impl Member {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled() || self.shared.closing.is_cancelled()
    }

    fn set_paused(&self, paused: bool) -> Result<()> {
        let mut state = self.state();
        if state.gone {
            return Err(state::removed().with_provider(NAME));
        }
        state.paused = paused;
        drop(state);
        self.stirred.notify_one();
        self.changed.notify_one();
        Ok(())
    }

    /// The prefetch of each lane, as AMQP takes it.
    fn prefetch(&self) -> u16 {
        u16::try_from(self.to.prefetch.get()).unwrap_or(u16::MAX)
    }

    /// How long a delivery may be unsettled: less than the server's `consumer_timeout`, since the server closes the
    /// channel then, with everything on it.
    fn longest_hold(&self) -> Duration {
        self.shared.config.consumer_timeout / 10 * 9
    }

    /// How long the first delivery of a partition may be unsettled before it is handed on: that takes a receive, which
    /// tells of it.
    fn longest_partition_hold(&self) -> Duration {
        self.shared.config.consumer_timeout / 2
    }
}

impl Drop for RabbitMqSubscriber {
    fn drop(&mut self) {
        self.member.leaving.cancel();
    }
}

impl fmt::Debug for RabbitMqSubscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqSubscriber")
            .field("group", &self.member.to.group)
            .field("session", &self.member.session)
            .finish_non_exhaustive()
    }
}
