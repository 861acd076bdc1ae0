//! The queues in which delayed messages wait. Each group has its own, for each delay of a topic: what waits for a group is
//! its own to count and to remove, and a group that is declared later gets nothing that was sent before.
//!
//! What is due is dead-lettered into the group's exchange, at least once: what that has no queue for stays where it is,
//! and is tried again.
//!
//! A queue gets its first message some time after it was made ([`WRITTEN`]), whoever made it. So it is bound last: until
//! then what others send is refused. Who is to bind it knows its age from the registry: before one is made its delay gets a
//! mark there, and who has seen the same mark for that long may bind.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use headless_abstractions::{ErrorKind, GroupName, Result, TopicName};
use lapin::{ExchangeKind, types::FieldTable};
use tokio::time::sleep;
use uuid::Uuid;

use super::Making;
use crate::{
    connection::{Live, passive},
    delay::Wait,
    error::{closed, fault},
    rabbitmq::Shared,
    registry::{Edit, TopicWait, UnderWay},
    transport::{runtime_ended, same, unknown_topic},
};

/// How long a queue exists before the first message goes into it. The server writes down that there is a queue some time
/// after it has said so (its tables' logs are flushed after two seconds), and a queue that a crash makes forgotten takes
/// its messages with it.
const WRITTEN: Duration = Duration::from_secs(3);

/// Some groups of topics.
type Groups = BTreeSet<(TopicName, GroupName)>;

/// Delays with their marks.
type Marks = BTreeMap<TopicWait, Uuid>;

/// Sees to it that the queues of these delays are there and may be used. Given up, it goes on by itself.
pub(in crate::transport) async fn see_to(shared: &Arc<Shared>, needed: BTreeSet<TopicWait>) -> Result<()> {
    for making in under_way(shared, shared.registry.unmade(needed)) {
        if let Err(error) = &*making.await {
            return Err(same(error));
        }
    }
    Ok(())
}

/// What makes these: what is under way already, and one task for the rest.
fn under_way(shared: &Arc<Shared>, needed: BTreeSet<TopicWait>) -> Vec<UnderWay> {
    let mut under_way = shared.registry.under_way();
    let (theirs, ours): (BTreeSet<_>, BTreeSet<_>) = needed.into_iter().partition(|wait| {
        let making = under_way.get(wait);
        making.is_some_and(|making| making.peek().is_none())
    });
    let mut awaited: Vec<_> = theirs
        .iter()
        .filter_map(|wait| under_way.get(wait).cloned())
        .collect();
    if !ours.is_empty() {
        let (task, waits) = (shared.clone(), ours.clone());
        let made = shared.tasks.spawn(async move {
            let ending = Ending { shared: &task, waits };
            settle(&task, "send", ending.waits.clone(), None).await?;
            task.registry.note_made(ending.waits.clone());
            Ok(())
        });
        let made = made.map(|made| Arc::new(made.unwrap_or_else(|_ended| Err(runtime_ended("send")))));
        let made = made.boxed().shared();
        under_way.extend(ours.into_iter().map(|wait| (wait, made.clone())));
        awaited.push(made);
    }
    awaited
}

/// Takes delays off what is under way when their task ends, however it does.
struct Ending<'a> {
    shared: &'a Shared,
    waits: BTreeSet<TopicWait>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut under_way = self.shared.registry.under_way();
        under_way.retain(|wait, _| !self.waits.contains(wait));
    }
}

/// Makes what is missing of the queues of these delays, and binds each once it is old enough. With `only`, those of these
/// groups. Nothing is locked while it waits.
pub(super) async fn settle(
    shared: &Shared,
    operation: &'static str,
    mut needed: BTreeSet<TopicWait>,
    only: Option<&Groups>,
) -> Result<()> {
    let mut seen = Marks::new();
    while !needed.is_empty() {
        seen = shared
            .guarded(operation, round(shared, &needed, only, &seen))
            .await?;
        needed = seen.keys().cloned().collect();
        if !needed.is_empty() {
            tokio::select! {
                () = sleep(WRITTEN) => {}
                () = shared.closing.cancelled() => return Err(closed(operation)),
            }
        }
    }
    Ok(())
}

/// Answers the delays that are to be looked at again, with their marks.
async fn round(
    shared: &Shared,
    needed: &BTreeSet<TopicWait>,
    only: Option<&Groups>,
    seen: &Marks,
) -> Result<Marks> {
    let live = shared.publish.live(&shared.config).await?;
    let mut edit = shared.registry.edit(&live, &shared.config.namespace).await?;
    let young = under_lock(shared, &live, &mut edit, needed, only, seen).await;
    let ended = edit.end().await;
    let young = young?;
    ended.map(|()| young)
}

/// A delay that is looked at.
struct Looked<'a> {
    topic: &'a TopicName,
    wait: Wait,
    groups: Vec<GroupName>,
    /// Others may send with it.
    is_used: bool,
    /// All of its queues may be bound.
    is_old: bool,
}

async fn under_lock(
    shared: &Shared,
    live: &Live,
    edit: &mut Edit<'_>,
    needed: &BTreeSet<TopicWait>,
    only: Option<&Groups>,
    seen: &Marks,
) -> Result<Marks> {
    let mut known = edit.known().clone();
    let mut making = Making::begin(shared, live).await?;
    let mut young = Marks::new();
    let mut looked = Vec::with_capacity(needed.len());
    for delay in needed {
        let (topic, wait) = (&delay.0, delay.1);
        known.topic(topic).ok_or_else(|| unknown_topic(topic))?;
        let mut groups = known.groups_of(topic)?;
        groups.retain(|group| only.is_none_or(|only| only.contains(&(topic.clone(), group.clone()))));
        if groups.is_empty() {
            // They were removed meanwhile.
            continue;
        }
        let mark = known.mark_of(topic, wait);
        let is_used = known.has_wait(topic, wait) && mark.is_none();
        let is_whole = known.has_wait(topic, wait) && making.has_waiting(&groups, topic, wait).await?;
        let mark = if is_whole { mark } else { Some(Uuid::new_v4()) };
        let is_old = mark.is_none_or(|mark| seen.get(delay) == Some(&mark));
        if let Some(mark) = mark.filter(|_| !is_old) {
            known.mark_young(topic, wait, mark);
            young.insert(delay.clone(), mark);
        }
        looked.push(Looked {
            topic,
            wait,
            groups,
            is_used,
            is_old,
        });
    }
    // Written before it is made: a group that is declared or removed next has, or loses, its queues of this delay too; and
    // whoever comes when this one has gone knows that they are new.
    edit.write(known).await?;
    for Looked {
        topic,
        wait,
        groups,
        is_used,
        is_old,
    } in &looked
    {
        making.delayed(topic, *wait).await?;
        for group in groups {
            making.waiting(group, topic, *wait).await?;
            if *is_old {
                making.open(group, topic, *wait).await?;
            }
            // Where others send already, a group that is being declared is no reason to refuse it.
            if *is_old || !*is_used {
                making.attach(group, topic, *wait).await?;
            }
        }
    }
    let mut known = edit.known().clone();
    for Looked { topic, wait, .. } in looked.iter().filter(|looked| looked.is_old) {
        known.mark_old(topic, *wait);
    }
    edit.write(known).await?;
    Ok(young)
}

impl Making<'_> {
    /// Whether all of these groups have their queue.
    async fn has_waiting(&mut self, groups: &[GroupName], topic: &TopicName, wait: Wait) -> Result<bool> {
        for group in groups {
            let name = self.shared.config.namespace.waiting(group, topic, wait);
            let found = self
                .channel
                .queue_declare(name, passive(), FieldTable::default())
                .await;
            match found.map_err(fault) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.channel = self.live.channel().await?;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The exchange of what is sent to a topic with such a delay.
    async fn delayed(&mut self, topic: &TopicName, wait: Wait) -> Result<()> {
        let name = self.shared.config.namespace.delayed(topic, wait);
        self.exchange(name, ExchangeKind::Fanout, None).await
    }

    /// What waits so long for a group, and the way to it, which refuses. What it was sent by decides its partition when it
    /// is due.
    async fn waiting(&mut self, group: &GroupName, topic: &TopicName, wait: Wait) -> Result<()> {
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
        self.queue(name, &texts, &[]).await
    }

    /// The way refuses no more.
    async fn open(&mut self, group: &GroupName, topic: &TopicName, wait: Wait) -> Result<()> {
        let name = self.shared.config.namespace.waiting(group, topic, wait);
        self.bind(name.clone(), name, "".into()).await
    }

    /// What is sent goes that way.
    async fn attach(&mut self, group: &GroupName, topic: &TopicName, wait: Wait) -> Result<()> {
        let namespace = &self.shared.config.namespace;
        let (delayed, waiting) = (
            namespace.delayed(topic, wait),
            namespace.waiting(group, topic, wait),
        );
        self.pass_on(delayed, waiting).await
    }
}
