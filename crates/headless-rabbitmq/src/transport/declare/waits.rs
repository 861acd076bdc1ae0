//! The queues in which delayed messages wait. Each group has its own, for each delay of a topic: what waits for a group is
//! its own to count and to remove, and a group that is declared later gets nothing that was sent before.
//!
//! What is due is dead-lettered into the group's exchange, at least once: what that has no queue for stays where it is,
//! and is tried again.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use headless_abstractions::{GroupName, Result, TopicName};
use lapin::ExchangeKind;
use tokio::time::sleep;

use super::Making;
use crate::{
    delay::Wait,
    rabbitmq::Shared,
    registry::TopicWait,
    transport::{runtime_ended, unknown_topic},
};

/// How long a queue exists before the first message goes into it. The server writes down that there is a queue some time
/// after it has said so (its tables' logs are flushed after two seconds), and a queue that a crash makes forgotten takes
/// its messages with it.
const WRITTEN: Duration = Duration::from_secs(3);

/// Sees to it that the queues of these delays are there.
pub(in crate::transport) async fn see_to(shared: &Arc<Shared>, needed: BTreeSet<TopicWait>) -> Result<()> {
    let needed = shared.registry.unmade(needed);
    if needed.is_empty() {
        return Ok(());
    }
    // In a task of its own: a caller that gives up half-way leaves nothing locked.
    let task = shared.clone();
    let made = shared.tasks.spawn(async move {
        let made = make(&task, needed);
        task.guarded("send", made).await
    });
    made.await.map_err(|_ended| runtime_ended("send"))?
}

async fn make(shared: &Shared, needed: BTreeSet<TopicWait>) -> Result<()> {
    let live = shared.publish.live(&shared.config).await?;
    let mut edit = shared.registry.edit(&live, &shared.config.namespace).await?;
    let made = async {
        let mut known = edit.known().clone();
        let mut is_new = false;
        for (topic, wait) in &needed {
            known.topic(topic).ok_or_else(|| unknown_topic(topic))?;
            is_new |= known.add_wait(topic, *wait);
        }
        // Written before it is made: a group that is declared or removed next has, or loses, its queues of this delay too.
        edit.write(known).await?;
        let mut making = Making::begin(shared, &live).await?;
        for (topic, wait) in &needed {
            making.delayed(topic, *wait).await?;
            for group in edit.known().groups_of(topic)? {
                making.waiting(&group, topic, *wait).await?;
            }
        }
        if is_new {
            // Under the lock, so that nobody else uses it before.
            sleep(WRITTEN).await;
        }
        Ok(())
    };
    let made = made.await;
    let ended = edit.end().await;
    made.and(ended)?;
    shared.registry.note_made(needed);
    Ok(())
}

impl Making<'_> {
    /// The exchange of what is sent to a topic with such a delay.
    pub(super) async fn delayed(&mut self, topic: &TopicName, wait: Wait) -> Result<()> {
        let name = self.shared.config.namespace.delayed(topic, wait);
        self.exchange(name, ExchangeKind::Fanout, None).await
    }

    /// What waits so long for a group, between that exchange and the group's own. What it was sent by decides its partition
    /// when it is due.
    pub(super) async fn waiting(&mut self, group: &GroupName, topic: &TopicName, wait: Wait) -> Result<()> {
        let namespace = self.shared.config.namespace.clone();
        let (name, share) = (
            namespace.waiting(group, topic, wait),
            namespace.share(group, topic),
        );
        self.exchange(name.clone(), ExchangeKind::Fanout, Some(namespace.refusal()))
            .await?;
        let texts = [
            ("x-queue-type", "quorum"),
            ("x-dead-letter-exchange", share.as_str()),
            ("x-dead-letter-strategy", "at-least-once"),
            // Without it what is due could be lost on its way.
            ("x-overflow", "reject-publish"),
        ];
        self.queue(name.clone(), &texts, &[]).await?;
        self.bind(name.clone(), name.clone(), "".into()).await?;
        self.pass_on(namespace.delayed(topic, wait), name).await
    }
}
