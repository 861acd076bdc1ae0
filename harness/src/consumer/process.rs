//! A process of a case: core over nodes of its own.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use headless_abstractions::{Clock, GroupName, Message, Result, Transport};
use headless_core::{Backoff, Environment, Event, Retry, SeededRandom, Spawner, State};
use headless_messaging::{
    CircuitBreaker, Consumer, ConsumerHandle, ConsumerStats, Inbox, Messaging, Ordered, PauseReason, Plan,
    Publisher,
};

use super::{
    Both,
    event::Work,
    odd::{Faults, OddTransport},
};
use crate::{
    case::{CaseResult, ensure},
    cx::{Cx, group},
    fixture::{StoreFixture, StoreNode, TransportFixture, TransportNode},
    wait::{Stopwatch, eventually},
};

type Change = Box<dyn FnOnce(&mut Plan)>;

/// A process that is to start.
pub(super) struct Setup<'a, F: Both> {
    cx: &'a Cx<F>,
    label: &'static str,
    form: Inbox,
    topics: Vec<(&'static str, Ordered)>,
    consumers: Vec<Consumer>,
    changes: Vec<Change>,
}

/// A process, as far as it concerns messages.
#[derive(Debug)]
pub(super) struct Process<F: Both> {
    messaging: Messaging,
    pub(super) transport: TransportNode,
    pub(super) store: StoreNode<F::Store>,
    pub(super) environment: Environment,
}

impl<F: Both> Cx<F> {
    /// A process of this name whose consumers have this form.
    pub(super) fn process(&self, label: &'static str, form: Inbox) -> Setup<'_, F> {
        Setup {
            cx: self,
            label,
            form,
            topics: Vec::new(),
            consumers: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// A consumer of the group of this form: one round of one attempt is repeated twice, soon; no circuit opens.
    pub(super) fn consumer(&self, form: Inbox) -> Consumer {
        self.consumer_of(&group_name(form), form)
    }

    /// As [`consumer`](Self::consumer), of this group.
    pub(super) fn consumer_of(&self, name: &str, form: Inbox) -> Consumer {
        Consumer::group(name)
            .inbox(form)
            .lease(self.lease())
            .visibility(self.lease())
            .retry(quick())
            .circuit_breaker(CircuitBreaker::off())
    }
}

/// The group of a case in this form.
pub(super) fn group_of(form: Inbox) -> GroupName {
    group(&group_name(form))
}

fn group_name(form: Inbox) -> String {
    format!("billing-{}", format!("{form:?}").to_lowercase())
}

/// A visibility time that no case outlasts: for those that keep deliveries queued, which not every transport extends.
pub(super) const LONG: Duration = Duration::from_mins(10);

/// Three rounds of one attempt, a moment apart.
pub(super) const fn quick() -> Retry {
    let moment = Duration::from_millis(50);
    Retry::exponential(moment, moment)
        .inline(0)
        .inline_backoff(Backoff::exponential(moment, moment))
        .rounds(3)
}

impl<F: Both> Setup<'_, F> {
    /// With [`Work`] in order, over this many partitions.
    pub(super) fn ordered(mut self, partitions: u16) -> Self {
        self.topics.push((Work::TOPIC, Ordered::partitions(partitions)));
        self
    }

    /// With this consumer.
    pub(super) fn with(mut self, consumer: Consumer) -> Self {
        self.consumers.push(consumer);
        self
    }

    /// Over a transport that is odd in this way.
    pub(super) fn with_faults(self, faults: Faults) -> Self {
        self.changed(|plan| {
            plan.transport = plan
                .transport
                .take()
                .map(|inner| Arc::new(OddTransport::new(inner, faults)) as Arc<dyn Transport>);
        })
    }

    /// With a plan that is changed so at the end.
    pub(super) fn changed(mut self, change: impl FnOnce(&mut Plan) + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Starts it, each time with connections and an identity of its own.
    pub(super) async fn start(self) -> CaseResult<Process<F>> {
        let transport = TransportFixture::node(self.cx.fixture()).await?;
        let store = StoreFixture::node(self.cx.fixture()).await?;
        #[expect(clippy::cast_possible_truncation, reason = "the low half tells ids apart")]
        let seed = self.cx.id().as_uuid().as_u128() as u64;
        let environment = Environment::new(
            Arc::new(CaseClock::new(self.cx)),
            Arc::new(SeededRandom::new(seed)),
            Spawner::current(),
            self.label,
        );
        let mut plan = Plan::new(environment.clone());
        plan.transport = Some(transport.driver.clone());
        if self.form != Inbox::Off {
            plan.store = Some(headless_abstractions::Store::parts(&store.store));
            plan.state = State::new().with(store.store.clone());
        }
        for (name, order) in self.topics {
            plan.topic_named(name, order, false);
        }
        for consumer in self.consumers {
            plan.consumer(consumer);
        }
        for change in self.changes {
            change(&mut plan);
        }
        Ok(Process {
            messaging: Messaging::start(plan).await?,
            transport,
            store,
            environment,
        })
    }
}

/// The clock of a case: all its processes tell the same time, in paused time too.
#[derive(Debug)]
struct CaseClock {
    began: DateTime<Utc>,
    watch: Stopwatch,
}

impl CaseClock {
    fn new<F>(cx: &Cx<F>) -> Self {
        Self {
            began: cx.now(),
            watch: Stopwatch::start(),
        }
    }
}

impl Clock for CaseClock {
    fn now(&self) -> DateTime<Utc> {
        Message::microseconds(self.began + self.watch.elapsed())
    }

    fn monotonic(&self) -> Duration {
        self.watch.elapsed()
    }
}

impl<F: Both> Process<F> {
    /// Its first consumer.
    pub(super) fn consumer(&self) -> &ConsumerHandle {
        &self.messaging.consumers()[0]
    }

    /// What its first consumer has done.
    pub(super) fn stats(&self) -> ConsumerStats {
        self.consumer().stats()
    }

    /// Its handle on the transport.
    pub(super) fn driver(&self) -> &dyn Transport {
        &*self.transport.driver
    }

    /// What it publishes with: through the outbox of its store, if it has one.
    pub(super) fn publisher(&self) -> &Publisher {
        self.messaging.publisher()
    }

    /// Sends messages, all of which must be accepted.
    pub(super) async fn send(&self, messages: &[Message]) -> CaseResult {
        self.driver()
            .send(messages)
            .await
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        Ok(())
    }

    /// Waits until the group's messages are all settled.
    pub(super) async fn settled(&self, cx: &Cx<F>, group: &GroupName) -> CaseResult {
        eventually(cx.patience(), "a lag of zero", async || {
            Ok((self.driver().lag(group).await? == 0).then_some(()))
        })
        .await
    }

    /// Waits until its first consumer is paused for this reason, or is not.
    pub(super) async fn pausing(&self, cx: &Cx<F>, reason: PauseReason, paused: bool) -> CaseResult {
        let what = format!("paused by {reason}: {paused}");
        eventually(cx.patience(), &what, async || {
            let status = self.consumer().subscriptions();
            let is_paused = status.iter().any(|status| status.paused.contains(&reason));
            Ok((is_paused == paused).then_some(()))
        })
        .await
    }

    /// Ends it as a crash would: its connections are cut, and nothing of it runs on.
    pub(super) fn kill(self) {
        self.transport.kill();
        self.store.kill();
    }

    /// Drains it, within the patience of the case.
    pub(super) async fn stop(self, cx: &Cx<F>) -> CaseResult {
        self.stop_within(cx.patience()).await
    }

    /// Drains it; what has not ended after `timeout` is ended.
    pub(super) async fn stop_within(self, timeout: Duration) -> CaseResult {
        Ok(self.messaging.shutdown(timeout).await?)
    }
}

/// Both have come to their end; for cases that let processes work side by side.
pub(super) async fn stop_all<F: Both>(
    cx: &Cx<F>,
    processes: impl IntoIterator<Item = Process<F>>,
) -> CaseResult {
    for process in processes {
        process.stop(cx).await?;
    }
    Ok(())
}

/// A process starts only if its plan can be carried out.
pub(super) async fn refused<F: Both>(setup: Setup<'_, F>, capability: &str) -> CaseResult {
    match setup.start().await {
        Ok(_) => crate::case::fail!("a plan without `{capability}` was accepted"),
        Err(error) => {
            let error = error.to_string();
            ensure!(
                error.contains(capability),
                "the refusal does not name `{capability}`: {error}"
            );
            Ok(())
        }
    }
}
