//! What may be asked of a single message: a delay, an expiry, a priority.

use std::time::Duration;

use headless_abstractions::{ErrorKind, Message, Priority};

use super::{
    member::{Member, bodies, body},
    refusing::refused,
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq, instead},
    cx::{Cx, topic},
    fixture::TransportFixture,
    mutation::Mutation::{DropDelivery, IgnoreDelay, IgnoreExpiry, IgnorePriority},
    wait::{Stopwatch, elapse},
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_not_deliver_before_its_time_when_delayed,
            "a delayed message comes after its delay, holds up no other, and survives its sender"
        )
        .requested(Flag::delayed_send, instead!(refuse_a_delay))
        .catching(&[IgnoreDelay, DropDelivery]),
        case!(
            should_drop_a_message_when_expired,
            "a message whose time has passed is not delivered, and does not count as waiting for ever"
        )
        .described(Flag::expiry)
        .catching(&[IgnoreExpiry]),
        case!(
            should_deliver_by_priority_when_several_are_ready,
            "higher priorities come first, equal ones in the order of sending"
        )
        .requested(Flag::priority, instead!(refuse_a_priority))
        .catching(&[IgnorePriority]),
    ]
}

async fn should_not_deliver_before_its_time_when_delayed<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let delay = cx.lease() + cx.quiet() * 2;
    let mut late = cx.message(&orders, "late");
    late.deliver_after = Some(delay);
    let mut later = cx.message(&orders, "later");
    later.deliver_after = Some(delay * 2);
    let sender = cx.node().await?;
    let since = Stopwatch::start();
    sender.send(&[later, late, cx.message(&orders, "now")]).await?;
    sender.driver.close().await?;

    ensure_eq!(body(&member.work(1).await?[0]), "now", "what came at once");
    let lag = node.lag("billing").await?;
    // A machine that is too slow for it has seen something else.
    if since.elapsed() < delay {
        ensure_eq!(lag, 2, "the lag while they wait");
    }
    for (name, delay) in [("late", delay), ("later", delay * 2)] {
        let came = Member::work_one_not_before(&[&member], since, delay).await?;
        ensure_eq!(body(&came), name, "what came after {delay:?}");
    }
    member.nothing().await
}

async fn refuse_a_delay<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    refuse(cx, |message| {
        message.deliver_after = Some(Duration::from_millis(10));
    })
    .await
}

async fn should_drop_a_message_when_expired<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let mut short = cx.message(&orders, "short");
    short.expires_at = Some(cx.now() + cx.lease());
    let mut long = cx.message(&orders, "long");
    long.expires_at = Some(cx.now() + Duration::from_secs(86_400));
    node.send(&[short.clone(), long]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    // Before its time it is a message like any other.
    let mut in_time: Vec<String> = member.work(2).await?.iter().map(body).collect();
    in_time.sort_unstable();
    ensure_eq!(
        in_time,
        vec!["long".to_owned(), "short".to_owned()],
        "what came in time"
    );

    short.id = cx.id();
    short.expires_at = Some(cx.now() + cx.lease());
    member.subscriber.pause().await?;
    node.send(&[short, cx.message(&orders, "last")]).await?;
    elapse(cx.lease() + cx.quiet()).await;
    member.subscriber.resume().await?;
    ensure_eq!(
        body(&member.work(1).await?[0]),
        "last",
        "what came after the other had expired"
    );
    member.nothing().await?;
    ensure_eq!(
        node.lag("billing").await?,
        0,
        "the lag after everything came or expired"
    );
    Ok(())
}

async fn should_deliver_by_priority_when_several_are_ready<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let mut messages = Vec::new();
    for (n, priority) in [0, 5, 9, 0, 9, 1, 5].into_iter().enumerate() {
        let mut message = cx.message(&orders, format!("{priority}-{n}"));
        message.priority = Priority::new(priority)?;
        messages.push(message);
    }
    node.send(&messages).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let mut order = Vec::new();
    for _ in &messages {
        let delivery = member.take_one().await?;
        order.extend(bodies(std::slice::from_ref(&delivery)));
        let sent = messages.iter().find(|message| message.id == delivery.message.id);
        ensure!(
            sent.is_some_and(|sent| sent.priority == delivery.message.priority),
            "the priority changed on its way"
        );
        member.ack(&[delivery]).await?;
    }
    ensure_eq!(
        order,
        vec!["9-2", "9-4", "5-1", "5-6", "1-5", "0-0", "0-3"],
        "the order of delivery"
    );
    Ok(())
}

async fn refuse_a_priority<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    refuse(cx, |message| {
        message.priority = Priority::MAX;
    })
    .await
}

/// Sees that a message which asks for this is refused, and its neighbours are not.
async fn refuse<F: TransportFixture>(cx: &Cx<F>, ask: impl FnOnce(&mut Message)) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let mut asking = cx.message(&orders, "asking");
    ask(&mut asking);
    let mut answers = node.driver.send(&[asking, cx.message(&orders, "plain")]).await;
    ensure_eq!(answers.len(), 2, "the number of answers");
    let plain = answers.pop();
    refused(&answers, ErrorKind::Unsupported)?;
    ensure!(
        matches!(plain, Some(Ok(_))),
        "its neighbour was refused: {plain:?}"
    );
    let member = node.join(cx, "billing", &orders).await?;
    ensure_eq!(body(&member.work(1).await?[0]), "plain", "what arrived");
    member.nothing().await
}
