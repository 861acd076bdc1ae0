//! Making topics and groups exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use headless_abstractions::{
    Error, ErrorKind, GroupName, Partition, Result, StartFrom, TopicName, TopicOrder, Topology,
};
use lapin::{
    ExchangeKind,
    options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::timeout;

use super::{runtime_ended, unknown_topic};
use crate::{
    channel::Chan,
    connection::{Live, passive},
    error::{fault, overdue},
    rabbitmq::Shared,
    registry::{Known, KnownTopic, TopicWait},
};

mod waits;

pub(super) use self::waits::see_to;

pub(super) async fn declare(shared: &Arc<Shared>, topology: &Topology) -> Result<()> {
    refuse_unsupported(topology)?;
    // In a task of its own: a caller that gives up half-way leaves nothing locked.
    let (task, topology) = (shared.clone(), topology.clone());
    let declared = shared.tasks.spawn(async move {
        let made = make(&task, &topology);
        let waits = task.guarded("declare", made).await?;
        let groups = topology
            .groups
            .into_iter()
            .map(|spec| (spec.topic, spec.group))
            .collect();
        waits::settle(&task, "declare", waits, Some(&groups)).await
    });
    timeout(shared.config.call_timeout, declared)
        .await
        .map_err(|_elapsed| overdue("declare", "call_timeout"))?
        .map_err(|_ended| runtime_ended("declare"))?
}

/// Makes everything but the queues in which delayed messages wait; answers which these are.
async fn make(shared: &Shared, topology: &Topology) -> Result<BTreeSet<TopicWait>> {
    if topology.topics.is_empty() && topology.groups.is_empty() {
        return Ok(BTreeSet::new());
    }
    let namespace = &shared.config.namespace;
    let live = shared.publish.live(&shared.config).await?;
    let mut edit = shared.registry.edit(&live, namespace).await?;
    let made = async {
        let after = merged(edit.known().clone(), topology)?;
        // Written before it is made: what is written and missing is made by the next declaration, what is there and not
        // written would gather messages for ever.
        edit.write(after).await?;
        Making::begin(shared, &live)
            .await?
            .all(edit.known(), topology)
            .await?;
        let topics = topology.groups.iter().map(|spec| &spec.topic);
        let waits = topics.flat_map(|topic| {
            let waits = edit.known().waits_of(topic);
            waits.map(|wait| (topic.clone(), wait))
        });
        Ok(waits.collect())
    };
    let made = made.await;
    let ended = edit.end().await;
    let waits = made?;
    ended.map(|()| waits)
}

fn refuse_unsupported(topology: &Topology) -> Result<()> {
    for spec in &topology.groups {
        let (group, topic) = (&spec.group, &spec.topic);
        if spec.start == StartFrom::Oldest {
            return Err(Error::unsupported(
                "replay_from_start is off: a queue keeps nothing that its group is done with; let the group start from now",
            )
            .with_resource(format!("group {group} of topic {topic}")));
        }
        if spec.per_instance {
            return Err(Error::unsupported(
                "per_instance_groups is off: give each process a lasting group of its own, and remove it when it goes",
            )
            .with_resource(format!("group {group} of topic {topic}")));
        }
    }
    Ok(())
}

/// What is there once this is made as well; refuses a request as a whole.
fn merged(mut known: Known, topology: &Topology) -> Result<Known> {
    let mut named: BTreeMap<&TopicName, TopicOrder> = BTreeMap::new();
    for spec in &topology.topics {
        let first = *named.entry(&spec.name).or_insert(spec.order);
        let there = match known.topic(&spec.name) {
            Some(topic) => topic.order()?,
            None => first,
        };
        if there != spec.order {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "the topic is {there} and was declared as {}; this transport cannot change it: declare another topic with \
                     the order that is wanted, and move to it",
                    spec.order,
                ),
            )
            .with_resource(format!("topic {}", spec.name)));
        }
    }
    for spec in &topology.groups {
        if !named.contains_key(&spec.topic) && known.topic(&spec.topic).is_none() {
            return Err(unknown_topic(&spec.topic));
        }
    }
    for spec in &topology.topics {
        known.add_topic(&spec.name, KnownTopic::new(spec.order, spec.required));
    }
    for spec in &topology.groups {
        known.add_group(&spec.group, &spec.topic);
    }
    Ok(known)
}

/// Exchanges and queues in the making.
struct Making<'a> {
    shared: &'a Shared,
    live: &'a Live,
    channel: Chan,
}

impl<'a> Making<'a> {
    async fn begin(shared: &'a Shared, live: &'a Live) -> Result<Self> {
        let channel = live.channel().await?;
        Ok(Self {
            shared,
            live,
            channel,
        })
    }

    /// Makes everything that the request names. What is there stays as it is, also if it had been deleted in between.
    async fn all(mut self, known: &Known, topology: &Topology) -> Result<()> {
        for spec in &topology.topics {
            self.topic(&spec.name).await?;
        }
        if !topology.groups.is_empty() {
            self.refusal().await?;
        }
        for spec in &topology.groups {
            let topic = known
                .topic(&spec.topic)
                .ok_or_else(|| unknown_topic(&spec.topic))?;
            let order = topic.order()?;
            self.topic(&spec.topic).await?;
            self.group(&spec.group).await?;
            self.share(&spec.group, &spec.topic, order).await?;
        }
        Ok(())
    }

    async fn topic(&mut self, topic: &TopicName) -> Result<()> {
        let name = self.shared.config.namespace.exchange(topic);
        self.exchange(name, ExchangeKind::Fanout, None).await
    }

    /// Where a group's part of a message goes when its queue is missing. AMQP sends back only what no queue at all takes,
    /// so that another group's queue would hide it; a queue that is always full refuses it, and with it the message.
    async fn refusal(&mut self) -> Result<()> {
        let name = self.shared.config.namespace.refusal();
        self.exchange(name.clone(), ExchangeKind::Fanout, None).await?;
        let texts = [("x-queue-type", "classic"), ("x-overflow", "reject-publish")];
        self.queue(name.clone(), &texts, &[("x-max-length", AMQPValue::LongInt(0))])
            .await?;
        self.bind(name.clone(), name, "".into()).await
    }

    async fn group(&mut self, group: &GroupName) -> Result<()> {
        let namespace = self.shared.config.namespace.clone();
        self.exchange(namespace.talk(), ExchangeKind::Direct, None)
            .await?;
        // Both are replicated: without its members' queue a group would stand still.
        for queue in [namespace.members(group), namespace.dead(group)] {
            self.queue(queue, &[("x-queue-type", "quorum")], &[]).await?;
        }
        Ok(())
    }

    /// The exchange and the queues of a group on a topic.
    async fn share(&mut self, group: &GroupName, topic: &TopicName, order: TopicOrder) -> Result<()> {
        let namespace = self.shared.config.namespace.clone();
        let share = namespace.share(group, topic);
        let kind = if order.is_ordered() {
            ExchangeKind::Direct
        } else {
            ExchangeKind::Fanout
        };
        self.exchange(share.clone(), kind, Some(namespace.refusal()))
            .await?;
        match order.partitions() {
            None => self.shared_queue(group, topic).await?,
            Some(partitions) => {
                for partition in partitions.iter() {
                    self.partition(group, topic, partition).await?;
                }
            }
        }
        // Last: what is sent meanwhile is not refused for a queue that is still to be made.
        self.pass_on(namespace.exchange(topic), share).await
    }

    async fn shared_queue(&mut self, group: &GroupName, topic: &TopicName) -> Result<()> {
        let namespace = &self.shared.config.namespace;
        let (queue, share, dead) = (
            namespace.queue(group, topic, None),
            namespace.share(group, topic),
            namespace.dead(group),
        );
        let limit = i32::try_from(self.shared.config.delivery_limit.get()).unwrap_or(i32::MAX);
        let texts = [
            ("x-queue-type", "quorum"),
            ("x-dead-letter-exchange", ""),
            ("x-dead-letter-routing-key", dead.as_str()),
            // What is over the limit is not dropped before the dead queue has it, which asks for the second of these.
            ("x-dead-letter-strategy", "at-least-once"),
            ("x-overflow", "reject-publish"),
        ];
        self.queue(
            queue.clone(),
            &texts,
            &[("x-delivery-limit", AMQPValue::LongInt(limit))],
        )
        .await?;
        self.bind(queue, share, "".into()).await
    }

    async fn partition(&mut self, group: &GroupName, topic: &TopicName, partition: Partition) -> Result<()> {
        let namespace = &self.shared.config.namespace;
        let (queue, share) = (
            namespace.queue(group, topic, Some(partition)),
            namespace.share(group, topic),
        );
        // A classic queue gives back in place what a member leaves unsettled; a quorum queue does not.
        let single = [("x-single-active-consumer", AMQPValue::Boolean(true))];
        self.queue(queue.clone(), &[("x-queue-type", "classic")], &single)
            .await?;
        self.bind(queue, share, partition.to_string().into()).await
    }

    /// Makes an exchange. What it has no queue for goes to `otherwise`.
    async fn exchange(
        &mut self,
        name: ShortString,
        kind: ExchangeKind,
        otherwise: Option<ShortString>,
    ) -> Result<()> {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        if let Some(otherwise) = otherwise {
            arguments.insert(
                "alternate-exchange".into(),
                AMQPValue::LongString(otherwise.as_str().into()),
            );
        }
        self.channel
            .exchange_declare(name, kind, options, arguments)
            .await
            .map_err(fault)
    }

    async fn queue(
        &mut self,
        name: ShortString,
        texts: &[(&str, &str)],
        others: &[(&str, AMQPValue)],
    ) -> Result<()> {
        let mut arguments = FieldTable::default();
        for (key, text) in texts {
            arguments.insert((*key).into(), AMQPValue::LongString((*text).into()));
        }
        for (key, value) in others {
            arguments.insert((*key).into(), value.clone());
        }
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let made = self.channel.queue_declare(name.clone(), options, arguments).await;
        match made.map_err(fault) {
            Ok(_) => Ok(()),
            // The limit is fixed when the queue is made: another one in the settings is no reason to stop working.
            Err(error)
                if error.kind() == ErrorKind::Conflict && error.message().contains("x-delivery-limit") =>
            {
                self.channel = self.live.channel().await?;
                self.channel
                    .queue_declare(name, passive(), FieldTable::default())
                    .await
                    .map(drop)
                    .map_err(fault)
            }
            Err(error) => Err(error),
        }
    }

    /// What the first exchange gets, the second one gets too.
    async fn pass_on(&mut self, from: ShortString, to: ShortString) -> Result<()> {
        self.channel
            .exchange_bind(
                to,
                from,
                "".into(),
                ExchangeBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(fault)
    }

    async fn bind(&mut self, queue: ShortString, exchange: ShortString, key: ShortString) -> Result<()> {
        self.channel
            .queue_bind(
                queue,
                exchange,
                key,
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(fault)
    }
}
