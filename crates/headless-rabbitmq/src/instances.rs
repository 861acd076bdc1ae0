//! Groups of one process, which end with it. Each has a queue that its process consumes, whatever becomes of its
//! connections, and that the server deletes some time after nobody does. Who finds it gone ends the group.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::StreamExt;
use headless_abstractions::{ErrorKind, GroupName, Result};
use lapin::{
    Consumer,
    options::{BasicConsumeOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    channel::Chan,
    clock::{self, Moment},
    connection::Live,
    error::{fault, overdue},
    rabbitmq::Shared,
    registry::Known,
    transport::remove,
};

/// How long a group outlives its process, and how often others look for one that has done so.
const OUTLIVES: Duration = Duration::from_secs(10);
/// When to try again to consume after a connection was lost.
const AGAIN: Duration = Duration::from_millis(500);

/// What this handle knows of groups of single processes.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    /// Those that it keeps.
    kept: Mutex<BTreeSet<GroupName>>,
    looked_at: Mutex<Option<Moment>>,
}

impl Instances {
    fn kept(&self) -> MutexGuard<'_, BTreeSet<GroupName>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to look, and nobody else does.
    fn is_due(&self) -> bool {
        let mut looked_at = self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        let is_due = looked_at.is_none_or(|at| now.duration_since(at) >= OUTLIVES);
        if is_due {
            *looked_at = Some(now);
        }
        is_due
    }
}

/// A channel that consumes a group's queue: as long as it does, the group lives.
struct Held {
    channel: Chan,
    nothing: Consumer,
}

/// Keeps a group alive from now on, until the handle is closed or gone. Call it under the registry's lock.
pub(crate) async fn keep(shared: &Arc<Shared>, group: &GroupName) -> Result<()> {
    if shared.instances.kept().contains(group) {
        return Ok(());
    }
    let held = hold(shared, group).await?;
    shared.instances.kept().insert(group.clone());
    let (handle, closing) = (Arc::downgrade(shared), shared.closing.clone());
    let keeping = keeping(handle, closing, group.clone(), held);
    shared.tasks.spawn(keeping);
    Ok(())
}

/// Makes the queue that is consumed, if it is not there, and consumes it.
async fn hold(shared: &Shared, group: &GroupName) -> Result<Held> {
    let live = shared.consume.live(&shared.config).await?;
    let channel = live.channel().await?;
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    // A quorum queue would be found overdue by a server that was away for longer.
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    let outlives = i32::try_from(OUTLIVES.as_millis()).unwrap_or(i32::MAX);
    arguments.insert("x-expires".into(), AMQPValue::LongInt(outlives));
    channel
        .queue_declare(shared.config.namespace.life(group), options, arguments)
        .await
        .map_err(fault)?;
    consume(shared, channel, group).await
}

async fn consume(shared: &Shared, channel: Chan, group: &GroupName) -> Result<Held> {
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let queue = shared.config.namespace.life(group);
    let nothing = channel.consume(queue, options, FieldTable::default()).await?;
    Ok(Held { channel, nothing })
}

/// Holds it for as long as the handle is there and the group.
async fn keeping(handle: Weak<Shared>, closing: CancellationToken, group: GroupName, held: Held) {
    let mut held = Some(held);
    loop {
        if let Some(Held { channel, mut nothing }) = held.take() {
            let is_closing = closing
                .run_until_cancelled(async { while let Some(Ok(_foreign)) = nothing.next().await {} })
                .await
                .is_none();
            if is_closing {
                // Before the queue is deleted, unless another handle consumes it too.
                if let Err(error) = channel.cancel(&nothing.tag()).await {
                    tracing::debug!(%group, %error, "the group's queue was lost before it was let go");
                }
                channel.end().await;
                return;
            }
        }
        let again = async {
            let Some(shared) = handle.upgrade() else {
                return Ok(None);
            };
            let holding = hold_again(&shared, &group);
            shared.guarded("keep", holding).await
        };
        match again.await {
            Ok(Some(again)) => held = Some(again),
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%group, %error, "a group of this process is not held; it ends unless that changes soon");
                if closing.run_until_cancelled(sleep(AGAIN)).await.is_none() {
                    return;
                }
            }
        }
    }
}

/// `None` when the group was ended meanwhile.
async fn hold_again(shared: &Shared, group: &GroupName) -> Result<Option<Held>> {
    let live = shared.consume.live(&shared.config).await?;
    match consume(shared, live.channel().await?, group).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        held => return held.map(Some),
    }
    // It was away for too long. Nobody may have noticed.
    let live = shared.publish.live(&shared.config).await?;
    let edit = shared.registry.edit(&live, &shared.config.namespace).await?;
    let held = if edit.known().is_instance(group) {
        hold(shared, group).await.map(Some)
    } else {
        // Under the lock: who declares it anew keeps it anew.
        shared.instances.kept().remove(group);
        Ok(None)
    };
    let ended = edit.end().await;
    let held = held?;
    ended.map(|()| held)
}

/// Ends the groups that this handle keeps, when it closes, unless others keep them too.
pub(crate) async fn end(shared: &Shared) -> Result<()> {
    let kept = std::mem::take(&mut *shared.instances.kept());
    let ending = async {
        for group in kept {
            let live = shared.consume.live(&shared.config).await?;
            let channel = live.channel().await?;
            let unused = QueueDeleteOptions {
                if_unused: true,
                ..QueueDeleteOptions::default()
            };
            let deleted = channel.queue_delete(shared.config.namespace.life(&group), unused);
            match deleted.await.map_err(fault) {
                Ok(_) => {
                    channel.end().await;
                    remove::remove(shared, &group, remove::If::Dead).await?;
                }
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    timeout(shared.config.call_timeout, ending)
        .await
        .unwrap_or_else(|_elapsed| Err(overdue("close", "call_timeout")))
}

/// Whether the group is one of a process that is gone. Then it is ended.
pub(crate) async fn is_over(shared: &Shared, live: &Live, known: &Known, group: &GroupName) -> Result<bool> {
    if !known.is_instance(group) || is_alive(shared, live, group).await? {
        return Ok(false);
    }
    remove::remove(shared, group, remove::If::Dead).await?;
    Ok(true)
}

/// Whether somebody keeps the group, or did a moment ago. The queue is purged, which it does not need: declaring it, were it
/// to ask only, would let it live for longer.
pub(crate) async fn is_alive(shared: &Shared, live: &Live, group: &GroupName) -> Result<bool> {
    let channel = live.channel().await?;
    let life = shared.config.namespace.life(group);
    let purged = channel.queue_purge(life, QueuePurgeOptions::default());
    match purged.await.map_err(fault) {
        Ok(_) => {
            channel.end().await;
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Looks now and then for groups whose process is gone, and ends them: what is sent would gather in their queues. What was
/// last seen of the registry is no help: who sends looks there only for topics that nobody takes.
pub(crate) fn look(shared: &Arc<Shared>) {
    if !shared.instances.is_due() {
        return;
    }
    let task = shared.clone();
    shared.tasks.spawn(async move {
        let looking = async {
            let live = task.publish.live(&task.config).await?;
            let known = task.known(&live).await?;
            for group in known.instances() {
                is_over(&task, &live, &known, &GroupName::parse(group)?).await?;
            }
            Ok(())
        };
        if let Err(error) = task.guarded("look for ended groups", looking).await {
            tracing::debug!(%error, "groups whose process is gone are looked for again later");
        }
    });
}
