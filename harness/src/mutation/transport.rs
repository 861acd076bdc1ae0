//! The mutations of a transport and its subscribers.

mod messages;
mod subscriber;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use headless_abstractions::{
    DeliveryToken, Error, ErrorKind, GroupName, GroupSpec, Message, MessageId, Result, Sent, StartFrom,
    Subscriber, Subscription, TopicName, TopicOrder, TopicSpec, Topology, Transport, TransportInfo,
};

use self::subscriber::MutantSubscriber;
use super::Mutation;
use crate::wait::elapse;

/// How long a close takes that takes too long.
const LINGERING: Duration = Duration::from_mins(1);

/// What the mutants of one namespace share, as a buggy broker would keep it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<State>);

#[derive(Debug, Default)]
struct State {
    topics: Mutex<BTreeSet<TopicName>>,
    groups: Mutex<BTreeSet<GroupName>>,
    first_group: Mutex<BTreeMap<TopicName, GroupName>>,
    late: Mutex<Vec<GroupSpec>>,
    declared: Mutex<Vec<GroupSpec>>,
    holders: Mutex<BTreeMap<(GroupName, MessageId), Holder>>,
    unsettled: AtomicI64,
    kept: Mutex<Vec<Arc<dyn Subscriber>>>,
}

/// Who was last given a message.
#[derive(Clone, Debug)]
struct Holder {
    subscriber: Arc<dyn Subscriber>,
    token: DeliveryToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The driver with a bug.
pub(crate) fn mutant(inner: Arc<dyn Transport>, mutation: Mutation, shared: &Shared) -> Arc<dyn Transport> {
    Arc::new(MutantTransport {
        inner,
        mutation,
        shared: shared.clone(),
        closed: Arc::default(),
        asked: AtomicU64::new(0),
    })
}

#[derive(Debug)]
struct MutantTransport {
    inner: Arc<dyn Transport>,
    mutation: Mutation,
    shared: Shared,
    closed: Arc<AtomicBool>,
    asked: AtomicU64,
}

impl MutantTransport {
    /// What a closed handle does, where the mutation does it by itself.
    async fn closed(&self) -> Result<()> {
        match self.mutation {
            _ if !self.closed.load(Ordering::Acquire) => Ok(()),
            Mutation::HangAfterClose => pending().await,
            Mutation::CloseKeepsDeliveries => Err(Error::new(ErrorKind::Closed, "this handle was closed")),
            _ => Ok(()),
        }
    }

    /// The one group that stands for this one.
    fn group(&self, group: &GroupName) -> GroupName {
        let first = lock(&self.shared.0.first_group);
        match self.mutation {
            Mutation::MixGroups => first.values().next().unwrap_or(group).clone(),
            _ => group.clone(),
        }
    }

    fn changed(&self, topology: &Topology) -> Topology {
        let mut topology = topology.clone();
        match self.mutation {
            Mutation::ForgetRequired => {
                for topic in &mut topology.topics {
                    topic.required = false;
                }
            }
            Mutation::IgnoreStartFrom => {
                for group in &mut topology.groups {
                    group.start = StartFrom::Now;
                }
            }
            Mutation::IgnorePerInstance => {
                for group in &mut topology.groups {
                    group.per_instance = false;
                }
            }
            Mutation::MixGroups => {
                for spec in &mut topology.groups {
                    lock(&self.shared.0.first_group)
                        .entry(spec.topic.clone())
                        .or_insert_with(|| spec.group.clone());
                    spec.group = self.group(&spec.group);
                }
            }
            Mutation::GroupsBeginLate => lock(&self.shared.0.late).append(&mut topology.groups),
            _ => {}
        }
        topology
    }

    async fn declare_in_part(&self, topology: &Topology) -> Result<()> {
        let mut answer = Ok(());
        for topic in &topology.topics {
            let made = self
                .inner
                .declare(&Topology::new().with_topic(topic.clone()))
                .await;
            answer = answer.and(made);
        }
        for group in &topology.groups {
            let made = self
                .inner
                .declare(&Topology::new().with_group(group.clone()))
                .await;
            answer = answer.and(made);
        }
        answer
    }

    /// Makes the groups that were declared on this topic anew.
    async fn empty(&self, topic: &TopicName) -> Result<()> {
        let specs: Vec<GroupSpec> = lock(&self.shared.0.declared)
            .iter()
            .filter(|spec| spec.topic == *topic)
            .cloned()
            .collect();
        for spec in specs {
            self.inner.remove_group(&spec.group).await?;
            self.inner.declare(&Topology::new().with_group(spec)).await?;
        }
        Ok(())
    }

    /// Declares what the subscription wants, whatever it is.
    async fn make_up(&self, to: &Subscription) -> Result<()> {
        for topic in &to.topics {
            let group = GroupSpec::new(to.group.clone(), topic.clone());
            let known = self
                .inner
                .declare(&Topology::new().with_group(group.clone()))
                .await;
            if known.is_err() {
                let spec = TopicSpec::new(topic.clone(), TopicOrder::Unordered);
                self.inner
                    .declare(&Topology::new().with_topic(spec).with_group(group))
                    .await?;
            }
        }
        Ok(())
    }

    async fn join(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        let mut to = to.clone();
        to.group = self.group(&to.group);
        match self.mutation {
            Mutation::IgnoreExtraTopics => to.topics.truncate(1),
            Mutation::IgnorePrefetch => {
                to = to.with_prefetch(const { std::num::NonZeroUsize::new(1_000_000).unwrap() });
            }
            Mutation::GroupsBeginLate => {
                let late: Vec<GroupSpec> = lock(&self.shared.0.late).clone();
                for spec in late.into_iter().filter(|spec| spec.group == to.group) {
                    self.inner.declare(&Topology::new().with_group(spec)).await?;
                }
            }
            Mutation::SubscribeToAnything => {
                self.make_up(&to).await?;
                to.visibility = to.visibility.max(Duration::from_millis(1));
            }
            _ => {}
        }
        let inner = self.inner.subscribe(&to).await?;
        Ok(Box::new(MutantSubscriber::new(
            inner.into(),
            self.inner.clone(),
            self.mutation,
            self.shared.clone(),
            self.closed.clone(),
            to.group,
        )))
    }
}

#[async_trait]
impl Transport for MutantTransport {
    fn info(&self) -> TransportInfo {
        let mut info = self.inner.info();
        match self.mutation {
            Mutation::LeakSecret => "amqp://guest:secret@localhost".clone_into(&mut info.endpoint),
            Mutation::UnsteadyInfo => {
                info.retention = Some(Duration::from_secs(self.asked.fetch_add(1, Ordering::Relaxed)));
            }
            Mutation::LieAboutCapability => {
                info.capabilities = info.capabilities.with_durable(true).with_stable_foreign_ids(true);
            }
            _ => {}
        }
        info
    }

    async fn declare(&self, topology: &Topology) -> Result<()> {
        self.closed().await?;
        if self.mutation == Mutation::DeclareNotIdempotent {
            let mut known = lock(&self.shared.0.topics);
            if let Some(topic) = topology.topics.iter().find(|topic| known.contains(&topic.name)) {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("topic {} exists", topic.name),
                ));
            }
            known.extend(topology.topics.iter().map(|topic| topic.name.clone()));
        }
        if self.mutation == Mutation::DeclareEmptiesGroups {
            for spec in &topology.groups {
                let known = !lock(&self.shared.0.groups).insert(spec.group.clone());
                if known {
                    self.inner.remove_group(&spec.group).await?;
                }
            }
        }
        lock(&self.shared.0.declared).extend(topology.groups.iter().cloned());
        let answer = match self.mutation {
            Mutation::DeclareInPart => self.declare_in_part(topology).await,
            _ => self.inner.declare(&self.changed(topology)).await,
        };
        match self.mutation {
            Mutation::SwallowDeclareError => Ok(()),
            _ => answer,
        }
    }

    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        if let Err(closed) = self.closed().await {
            let kind = closed.kind();
            return batch
                .iter()
                .map(|_| Err(Error::new(kind, "this handle was closed")))
                .collect();
        }
        messages::send(&*self.inner, self.mutation, batch).await
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        self.closed().await?;
        let member = self.join(to).await?;
        // Where a dropped future can leave a member behind.
        tokio::task::yield_now().await;
        Ok(member)
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        self.closed().await?;
        match self.mutation {
            Mutation::IgnoreRemoveGroup => Ok(()),
            _ => self.inner.remove_group(&self.group(group)).await,
        }
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        self.closed().await?;
        let lag = self.inner.lag(&self.group(group)).await?;
        Ok(match self.mutation {
            Mutation::LagWithoutUnsettled => {
                lag.saturating_sub_signed(self.shared.0.unsettled.load(Ordering::Acquire))
            }
            _ => lag,
        })
    }

    async fn repartition(&self, topic: &TopicName, order: TopicOrder) -> Result<TopicOrder> {
        self.closed().await?;
        if self.mutation == Mutation::ForgetRepartition {
            return Ok(order);
        }
        let answer = self.inner.repartition(topic, order).await;
        match self.mutation {
            Mutation::SwallowRepartitionError => Ok(answer.unwrap_or(order)),
            Mutation::RepartitionLosesWhatWaits => match answer {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    self.empty(topic).await?;
                    self.inner.repartition(topic, order).await
                }
                answer => answer,
            },
            _ => answer,
        }
    }

    async fn ping(&self) -> Result<()> {
        self.closed().await?;
        match self.mutation {
            Mutation::PingAlwaysAnswers => Ok(()),
            _ => self.inner.ping().await,
        }
    }

    async fn close(&self) -> Result<()> {
        let again = self.closed.swap(true, Ordering::AcqRel);
        match self.mutation {
            Mutation::CloseOnce if again => Err(Error::new(ErrorKind::Closed, "this handle was closed")),
            Mutation::CloseKeepsDeliveries => Ok(()),
            Mutation::CloseLingers => {
                elapse(LINGERING).await;
                self.inner.close().await
            }
            _ => self.inner.close().await,
        }
    }
}
