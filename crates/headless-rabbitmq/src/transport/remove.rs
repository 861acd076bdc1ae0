//! Ending groups, and everything at once.

use std::{sync::Arc, time::Duration};

use headless_abstractions::{GroupName, Result, TopicName};
use lapin::{
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
    types::{FieldTable, ShortString},
};

use tokio::time::{sleep, timeout};

use super::runtime_ended;
use crate::{RabbitMq, channel::Chan, connection::passive, error::fault, rabbitmq::Shared, registry::Known};

/// How long the members of a group have to hear of its end.
const TOLD: Duration = Duration::from_secs(1);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(10);

pub(super) async fn remove_group(shared: &Arc<Shared>, group: &GroupName) -> Result<()> {
    let (task, group) = (shared.clone(), group.clone());
    // In a task of its own: a caller that gives up half-way leaves nothing locked.
    let removed = shared.tasks.spawn(async move {
        let removed = remove(&task, &group);
        task.guarded("remove_group", removed).await
    });
    removed.await.map_err(|_ended| runtime_ended("remove_group"))?
}

async fn remove(shared: &Shared, group: &GroupName) -> Result<()> {
    let namespace = &shared.config.namespace;
    let live = shared.publish.live(&shared.config).await?;
    let mut edit = shared.registry.edit(&live, namespace).await?;
    let removed = async {
        let mut known = edit.known().clone();
        // Deleted before it is written off: half a removal is ended by the next one.
        let channel = live.channel().await?;
        delete_group(shared, &channel, &known, group).await?;
        let topics = known.topics_of(group).transpose()?.unwrap_or_default();
        known.remove_group(group);
        for (topic, _) in topics {
            // With its last group a topic's delays go: each next group would have a queue for each.
            if !known.is_attended(&topic) {
                delete_delays(shared, &channel, &known, &topic).await?;
                let waits = known.waits_of(&topic).map(|wait| (topic.clone(), wait));
                shared.registry.forget_made(&waits.collect());
                known.remove_waits(&topic);
            }
        }
        edit.write(known).await
    };
    let removed = removed.await;
    let ended = edit.end().await;
    removed.and(ended)
}

async fn delete_group(shared: &Shared, channel: &Chan, known: &Known, group: &GroupName) -> Result<()> {
    let namespace = &shared.config.namespace;
    let Some(topics) = known.topics_of(group) else {
        return Ok(());
    };
    let topics = topics?;
    // The members' queue first: it tells them.
    delete(channel, namespace.members(group)).await?;
    let queues = topics.iter().flat_map(|(topic, order)| match order.partitions() {
        None => vec![namespace.queue(group, topic, None)],
        Some(partitions) => partitions
            .iter()
            .map(|partition| namespace.queue(group, topic, Some(partition)))
            .collect(),
    });
    let left = timeout(TOLD, all_left(shared, queues.collect()));
    // One that does not go on hears of it when it does: its queues end with the group.
    let _silent = left.await;
    for (topic, order) in topics {
        for wait in known.waits_of(&topic) {
            let name = namespace.waiting(group, &topic, wait);
            delete_exchange(channel, name.clone()).await?;
            delete(channel, name).await?;
        }
        // Before its queue, so that nothing which is sent meanwhile is refused.
        delete_exchange(channel, namespace.share(group, &topic)).await?;
        match order.partitions() {
            None => delete(channel, namespace.queue(group, &topic, None)).await?,
            Some(partitions) => {
                for partition in partitions.iter() {
                    delete(channel, namespace.queue(group, &topic, Some(partition))).await?;
                }
            }
        }
    }
    delete(channel, namespace.dead(group)).await
}

/// Waits until nobody consumes any of these queues. A member that has heard of the end gives out nothing more, and lets go;
/// without this wait one would still hand out what it had read ahead after the removal was answered.
async fn all_left(shared: &Shared, queues: Vec<ShortString>) -> Result<()> {
    let live = shared.publish.live(&shared.config).await?;
    for queue in queues {
        // A channel of its own: looking at a queue that is not there ends it.
        let channel = live.channel().await?;
        loop {
            let declared = channel.queue_declare(queue.clone(), passive(), FieldTable::default());
            match declared.await {
                Ok(queue) if queue.consumer_count() > 0 => sleep(LOOK).await,
                _left_or_missing => break,
            }
        }
        channel.end().await;
    }
    Ok(())
}

async fn delete_delays(shared: &Shared, channel: &Chan, known: &Known, topic: &TopicName) -> Result<()> {
    for wait in known.waits_of(topic) {
        delete_exchange(channel, shared.config.namespace.delayed(topic, wait)).await?;
    }
    Ok(())
}

/// Deletes a queue. One that is not there is none to delete.
async fn delete(channel: &Chan, queue: ShortString) -> Result<()> {
    channel
        .queue_delete(queue, QueueDeleteOptions::default())
        .await
        .map(drop)
        .map_err(fault)
}

impl RabbitMq {
    /// Deletes everything of this handle's namespace from the server: each group with its messages, each topic, and the
    /// registry of both. For tests, and for whoever stops using headless. Nobody else may use the namespace meanwhile.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`. Some of it may be deleted then; repeat it.
    pub async fn delete_namespace(&self) -> Result<()> {
        let shared = &self.shared;
        shared
            .guarded("delete_namespace", async {
                let namespace = &shared.config.namespace;
                let live = shared.publish.live(&shared.config).await?;
                let edit = shared.registry.edit(&live, namespace).await?;
                let known = edit.known().clone();
                let deleted = async {
                    let channel = live.channel().await?;
                    for group in known.group_names() {
                        delete_group(shared, &channel, &known, &GroupName::parse(group)?).await?;
                    }
                    for topic in known.topic_names().map(TopicName::parse_stored) {
                        let topic = topic?;
                        delete_delays(shared, &channel, &known, &topic).await?;
                        delete_exchange(&channel, namespace.exchange(&topic)).await?;
                    }
                    delete_exchange(&channel, namespace.refusal()).await?;
                    delete(&channel, namespace.refusal()).await?;
                    delete(&channel, namespace.registry()).await
                };
                let deleted = deleted.await;
                shared.registry.forget();
                let ended = edit.end().await;
                deleted.and(ended)?;
                // Over this one it is said that the lock is free.
                delete_exchange(&live.channel().await?, namespace.talk()).await
            })
            .await
    }
}

async fn delete_exchange(channel: &Chan, exchange: ShortString) -> Result<()> {
    channel
        .exchange_delete(exchange, ExchangeDeleteOptions::default())
        .await
        .map_err(fault)
}
