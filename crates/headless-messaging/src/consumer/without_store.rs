//! The way of one message through a consumer that uses no store: inline attempts, then the transport, then the dead
//! topic.

use std::time::Duration;

use headless_abstractions::{Error, ErrorKind, Failure, FailureCause, Headers, Message, Redelivery, Sent};
use headless_core::{CrashPoint, Verdict};

use crate::consumer::{
    attempt::CallEnd,
    item::End,
    process::{Process, Stoppable, Stopped},
};

/// Takes a message through its attempts: inline, then by the transport's requeue delay where order does not matter
/// and the transport counts deliveries, at last to `<topic>.dead`.
pub(crate) async fn run(mut process: Process<'_>) -> End {
    match attempts(&mut process).await {
        Ok(end) => end,
        Err(Stopped) => End::Unsettled,
    }
}

async fn attempts(process: &mut Process<'_>) -> Stoppable<End> {
    if process.is_expired() {
        process
            .group
            .counters
            .expired(&process.group.name, &process.item.message.topic, 1);
        return Ok(End::Finished);
    }
    if let Some(error) = process.item.malformed.take() {
        return dead(process, FailureCause::Undecodable, error.to_string()).await;
    }
    let Some(handler) = process.topic.handler_of(&process.item.message) else {
        let group = &process.group.name;
        let message = format!(
            "no handler of group {group} takes the type, and without a store nothing can wait for one"
        );
        return dead(process, FailureCause::UnknownType, message).await;
    };
    let retry = process.group.settings.retry;
    for inline in 0..=retry.inline_attempts() {
        if inline > 0 {
            process
                .group
                .counters
                .retried(&process.group.name, &process.item.message.topic, 1);
            process
                .wait(retry.inline_delay(inline - 1, &*process.group.environment.random))
                .await?;
        }
        match process.attempt(&handler, inline + 1).await? {
            CallEnd::Committed | CallEnd::Succeeded => return Ok(process.handled()),
            CallEnd::Discarded(why) => {
                tracing::info!(group = %process.group.name, id = %process.item.message.id, why, "a handler discarded a message");
                process
                    .group
                    .counters
                    .discarded(&process.group.name, &process.item.message.topic, 1);
                return Ok(End::Finished);
            }
            CallEnd::Expired => {
                process
                    .group
                    .counters
                    .expired(&process.group.name, &process.item.message.topic, 1);
                return Ok(End::Finished);
            }
            CallEnd::Misconfigured(why) => {
                process.topic.misconfigured(&why);
                return Err(Stopped);
            }
            CallEnd::Refused(_) | CallEnd::LeaseLost | CallEnd::ShutDown => return Err(Stopped),
            CallEnd::Failed(failed) => {
                let cause = failed.failure.cause.as_str();
                process
                    .group
                    .counters
                    .failed(&process.group.name, &process.item.message.topic, cause);
                let verdict = failed.verdict;
                process.failures.push(failed.failure);
                match verdict {
                    Verdict::Permanent => return send_dead(process).await,
                    Verdict::RetryAfter(after) => return again_or_dead(process, Some(after)).await,
                    _ => {}
                }
            }
        }
    }
    again_or_dead(process, None).await
}

/// Requeues where the transport can wait and count; otherwise the message is dead.
async fn again_or_dead(process: &mut Process<'_>, after: Option<Duration>) -> Stoppable<End> {
    let retry = &process.group.settings.retry;
    let capabilities = process.group.transport.info().capabilities;
    let ordered = process.topic.order.is_ordered();
    let round = match process.item.redelivery {
        Redelivery::First => 1,
        Redelivery::Again(before) => before.saturating_add(1),
        Redelivery::Unknown => u32::MAX,
    };
    if ordered || !capabilities.requeue_delay || !capabilities.delivery_count || round >= retry.max_rounds() {
        return send_dead(process).await;
    }
    let after = after.unwrap_or_else(|| retry.round_delay(round, &*process.group.environment.random));
    Ok(End::Requeue(after))
}

async fn dead(process: &mut Process<'_>, cause: FailureCause, message: String) -> Stoppable<End> {
    let environment = &process.group.environment;
    process.failures.push(Failure::new(
        cause,
        message,
        &*environment.node,
        environment.clock.now(),
    ));
    send_dead(process).await
}

async fn send_dead(process: &mut Process<'_>) -> Stoppable<End> {
    let letter = [dead_letter(process)];
    let transport = &process.group.transport;
    process
        .insist_on("send to the dead topic", || async {
            CrashPoint::DeadTopicSending.reach()?;
            match transport.send(&letter).await.pop() {
                Some(Ok(Sent::Accepted)) => CrashPoint::DeadTopicSent.reach(),
                // To acknowledge the message now would be to lose it.
                Some(Ok(Sent::Unrouted)) => Err(Error::new(
                    ErrorKind::NotFound,
                    "the dead topic has no group that would keep the message: declare one",
                )),
                Some(Err(error)) => Err(error),
                None => Err(Error::new(
                    ErrorKind::Internal,
                    "the transport answered a send with nothing",
                )),
            }
        })
        .await?;
    let cause = process
        .failures
        .last()
        .map_or("", |failure| failure.cause.as_str());
    process
        .group
        .counters
        .dead(&process.group.name, &process.item.message.topic, cause);
    Ok(End::Finished)
}

/// The message as it goes to the dead topic: with its cause in headers, as far as they have room.
fn dead_letter(process: &Process<'_>) -> Message {
    let mut letter = process.item.message.clone();
    letter.topic = process.item.message.topic.dead();
    letter.deliver_after = None;
    letter.expires_at = None;
    if let Some(failure) = process.failures.last() {
        let facts = [
            ("dead-cause", failure.cause.as_str().to_owned()),
            ("dead-group", process.group.name.to_string()),
            ("dead-topic", process.item.message.topic.to_string()),
            ("dead-error", failure.message.replace(char::is_control, " ")),
        ];
        for (name, value) in facts {
            note(&mut letter.headers, name, &value, process);
        }
    }
    letter
}

fn note(headers: &mut Headers, name: &str, value: &str, process: &Process<'_>) {
    if let Err(error) = headers.insert(name, value) {
        tracing::warn!(id = %process.item.message.id, %error, "a dead letter goes without one of its facts");
    }
}
