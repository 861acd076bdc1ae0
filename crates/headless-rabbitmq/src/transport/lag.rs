//! How many messages wait for a group or are unsettled.
//!
//! AMQP tells how many are ready in a queue, and nobody how many are unsettled; so the members are asked. How many of
//! them there are is the number of consumers of the group's members' queue, so that no answer is missed.

use std::collections::BTreeMap;

use futures::StreamExt;
use headless_abstractions::{Error, ErrorKind, GroupName, Result, TopicName, TopicOrder};
use lapin::{
    BasicProperties,
    options::{BasicConsumeOptions, BasicPublishOptions},
    types::{FieldTable, ShortString},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::unknown_group;
use crate::{
    channel::Chan,
    connection::{Live, passive},
    error::{NAME, fault},
    rabbitmq::Shared,
    registry::Known,
    talk::{Answer, Say},
};

/// How often it is counted again when something moved meanwhile.
const LOOKS: usize = 5;

pub(super) async fn lag(shared: &Shared, group: &GroupName) -> Result<u64> {
    shared
        .guarded("lag", async {
            let consume = shared.consume.live(&shared.config).await?;
            let known = shared.known(&consume).await?;
            let topics = known.topics_of(group).ok_or_else(|| unknown_group(group))??;
            let mut looking = Looking {
                shared,
                consume: &consume,
                channel: consume.channel().await?,
            };
            let publish = shared.publish.live(&shared.config).await?;
            let mut ready = looking.ready(&known, group, &topics).await?;
            let mut total = 0;
            for _ in 0..LOOKS {
                let unsettled = unsettled(shared, &publish, &looking.channel, group).await?;
                total = ready + unsettled;
                // What is ready before and after the members were asked is counted once.
                let after = looking.ready(&known, group, &topics).await?;
                if after == ready {
                    break;
                }
                ready = after;
            }
            looking.channel.end().await;
            Ok(total)
        })
        .await
}

/// Looks into queues.
struct Looking<'a> {
    shared: &'a Shared,
    consume: &'a Live,
    channel: Chan,
}

impl Looking<'_> {
    /// How many messages are ready in the queues of the group, or wait to be. The latter first: what is due meanwhile is
    /// counted twice rather than not at all, and then again.
    async fn ready(
        &mut self,
        known: &Known,
        group: &GroupName,
        topics: &[(TopicName, TopicOrder)],
    ) -> Result<u64> {
        let namespace = &self.shared.config.namespace;
        let mut total = 0;
        for (topic, order) in topics {
            for wait in known.waits_of(topic) {
                match self.count(namespace.waiting(group, topic, wait)).await {
                    Ok(count) => total += count,
                    // Nothing waits in it. It is made again when something is to.
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        self.channel = self.consume.channel().await?;
                    }
                    Err(error) => return Err(error),
                }
            }
            match order.partitions() {
                None => total += self.count(namespace.queue(group, topic, None)).await?,
                Some(partitions) => {
                    for partition in partitions.iter() {
                        total += self.count(namespace.queue(group, topic, Some(partition))).await?;
                    }
                }
            }
        }
        Ok(total)
    }

    async fn count(&self, queue: ShortString) -> Result<u64> {
        let declared = self
            .channel
            .queue_declare(queue, passive(), FieldTable::default());
        Ok(u64::from(declared.await.map_err(fault)?.message_count()))
    }
}

/// How many messages the members hold.
async fn unsettled(shared: &Shared, publish: &Live, channel: &Chan, group: &GroupName) -> Result<u64> {
    let namespace = &shared.config.namespace;
    let members = channel
        .queue_declare(namespace.members(group), passive(), FieldTable::default())
        .await
        .map_err(fault)?
        .consumer_count();
    if members == 0 {
        return Ok(0);
    }
    // The server's own place for answers, which needs no queue: on the channel that asks.
    let asking = publish.channel().await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let mut answers = asking
        .consume("amq.rabbitmq.reply-to".into(), options, FieldTable::default())
        .await?;
    let properties = BasicProperties::default().with_reply_to("amq.rabbitmq.reply-to".into());
    let question = Say::Count.to_bytes()?;
    asking
        .basic_publish(
            namespace.talk(),
            group.as_str().into(),
            BasicPublishOptions::default(),
            &question,
            properties,
        )
        .await
        .map_err(fault)?;
    let mut held: BTreeMap<Uuid, u64> = BTreeMap::new();
    let all = async {
        while held.len() < members as usize {
            let answer = answers.next().await.ok_or_else(unanswered)?.map_err(fault)?;
            if let Some(Answer { session, held: count }) = Answer::parse(&answer.data) {
                held.insert(session, count);
            }
        }
        Ok(())
    };
    // Half of the time, so that the answer is this one and not that the whole call was overdue.
    timeout(shared.config.call_timeout / 2, all)
        .await
        .unwrap_or_else(|_elapsed| Err(unanswered()))?;
    asking.end().await;
    Ok(held.values().sum())
}

fn unanswered() -> Error {
    Error::new(
        ErrorKind::Timeout,
        "a member of the group does not say how much it holds: it is frozen or gone, or a foreign consumer; call again",
    )
    .with_provider(NAME)
}
