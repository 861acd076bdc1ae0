//! A topic that is given another count of partitions while processes publish to it and handle it.

use std::time::Duration;

use headless_abstractions::{Partitions, TopicOrder};
use headless_messaging::Inbox;

use super::{
    Both,
    event::{Work, work_topic},
    log::Log,
    process::{Process, group_of, stop_all},
};
use crate::{
    case::{Case, CaseResult, Flag, case},
    cx::Cx,
    mutation::Mutation::{DropDelivery, ReorderDeliveries},
    wait::eventually,
};

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// How many works of a key are published at once.
const RUN: u32 = 8;
/// How long what is in the outbox while the count changes waits there.
const LATER: Duration = Duration::from_millis(500);

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_keep_key_order_when_its_topic_is_repartitioned,
            "what was published before and sent after goes by the new count; each key in order, each message once"
        )
        .described(Flag::repartition)
        .described(Flag::ordering)
        .catching(&[DropDelivery, ReorderDeliveries]),
    ]
}

async fn should_keep_key_order_when_its_topic_is_repartitioned<F: Both>(cx: &Cx<F>) -> CaseResult {
    let form = Inbox::Transactional;
    let log = Log::new(cx);
    let mut processes = Vec::new();
    for label in ["one", "two"] {
        let consumer = cx
            .consumer(form)
            .on(log.handler::<F>(form))
            .concurrency(3)
            .ordered_by_key();
        processes.push(cx.process(label, form).ordered(4).with(consumer).start().await?);
    }
    let mut published = 0;
    for count in [7, 1, 16] {
        for _ in 0..RUN {
            publish(&processes[0], &mut published, Duration::ZERO).await?;
        }
        log.wait_for(cx, published as usize).await?;
        // In the outbox when the count changes, and on no transport.
        publish(&processes[0], &mut published, LATER).await?;
        let order = TopicOrder::Partitioned(Partitions::new(count)?);
        eventually(
            cx.patience(),
            "another count of partitions",
            async || match processes[1].driver().repartition(&work_topic(), order).await {
                Ok(_) => Ok(Some(())),
                Err(error) if error.is_retryable() => Ok(None),
                Err(error) => Err(error.into()),
            },
        )
        .await?;
        log.wait_for(cx, published as usize).await?;
    }
    log.each_once(cx, published).await?;
    log.in_key_order(cx).await?;
    processes[0].settled(cx, &group_of(form)).await?;
    stop_all(cx, processes).await
}

/// One more work of each key.
async fn publish<F: Both>(process: &Process<F>, published: &mut u32, delay: Duration) -> CaseResult {
    for key in KEYS {
        *published += 1;
        let work = Work {
            n: *published,
            key: key.to_owned(),
        };
        let message = process.publisher().message(work_topic().as_str(), &work);
        message.key(key).message_type("work").delay(delay).send().await?;
    }
    Ok(())
}
