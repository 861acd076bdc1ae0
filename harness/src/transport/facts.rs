//! What a handle says of itself and of the broker, and how it ends.

use std::{slice::from_ref, time::Duration};

use futures::future::join_all;
use headless_abstractions::{
    DeliveryToken, ErrorKind, Result, Settlement, Subscription, TopicOrder, Topology,
};

use super::{groups::set_of, node::unordered, sending::arrived_once};
use crate::{
    case::{Case, CaseError, CaseResult, Flag, case, ensure, ensure_eq, fail},
    cx::{Cx, group, topic},
    fixture::TransportFixture,
    mutation::Mutation::{
        CloseKeepsDeliveries, CloseLingers, CloseOnce, HangAfterClose, LeakSecret, LieAboutCapability,
        PingAlwaysAnswers, UnsteadyInfo,
    },
    wait::within,
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_report_the_same_facts_when_asked_again,
            "name, capabilities, endpoint and retention do not change while the handle lives"
        )
        .catching(&[UnsteadyInfo]),
        case!(
            should_show_the_endpoint_without_secrets_when_asked,
            "the endpoint can be logged"
        )
        .catching(&[LeakSecret]),
        case!(
            should_tell_up_from_down_when_pinged,
            "ping succeeds while the broker answers, and not on a closed handle"
        )
        .catching(&[PingAlwaysAnswers]),
        case!(
            should_answer_closed_when_used_after_closing,
            "every call on a closed handle and on its subscribers answers `Closed` and never hangs"
        )
        .catching(&[HangAfterClose]),
        case!(
            should_close_once_when_closed_by_many,
            "closing again, also at once from several tasks, is harmless"
        )
        .catching(&[CloseOnce, CloseLingers]),
        case!(
            should_give_deliveries_back_when_the_handle_closes,
            "closing a handle closes its subscribers: what they held goes to others at once"
        )
        .catching(&[CloseKeepsDeliveries]),
        case!(
            should_keep_a_confirmed_message_when_the_server_restarts,
            "what was accepted is there after a restart, for groups that were declared before"
        )
        .described(Flag::durable)
        .restarting()
        .catching(&[LieAboutCapability]),
    ]
}

async fn should_report_the_same_facts_when_asked_again<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node().await?;
    let info = node.driver.info();
    ensure!(!info.name.is_empty(), "the provider has no name");
    ensure!(!info.endpoint.is_empty(), "the provider has no endpoint");
    ensure_eq!(node.driver.info(), info, "the facts at the second question");
    node.declare(unordered(&orders), &["billing"]).await?;
    node.send(&[cx.message(&orders, 1)]).await?;
    ensure_eq!(node.driver.info(), info, "the facts after some work");
    let other = cx.node().await?.driver.info();
    ensure_eq!(
        other.capabilities,
        info.capabilities,
        "the capabilities in another process"
    );
    node.driver.close().await?;
    ensure_eq!(node.driver.info(), info, "the facts of a closed handle");
    Ok(())
}

async fn should_show_the_endpoint_without_secrets_when_asked<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let node = cx.node().await?;
    let endpoint = node.driver.info().endpoint;
    let authority = endpoint.split_once("://").map_or(&*endpoint, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some((user, _)) = authority.rsplit_once('@') {
        ensure!(
            !user.contains(':'),
            "the endpoint shows what follows a user's name"
        );
    }
    for word in ["password=", "secret", "token="] {
        ensure!(
            !endpoint.to_lowercase().contains(word),
            "the endpoint shows {word:?}"
        );
    }
    Ok(())
}

async fn should_tell_up_from_down_when_pinged<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let node = cx.node().await?;
    node.driver.ping().await?;
    node.driver.close().await?;
    closed("ping", &within(cx.patience(), "ping", node.driver.ping()).await?)
}

async fn should_answer_closed_when_used_after_closing<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let (handle_closes, member_closes) = (
        node.join(cx, "billing", &orders).await?,
        node.join(cx, "billing", &orders).await?,
    );

    member_closes.subscriber.close().await?;
    subscriber_is_closed(cx, &member_closes).await?;
    member_closes.subscriber.close().await?;

    node.driver.close().await?;
    let (driver, bound) = (&node.driver, cx.patience());
    let answers = within(
        bound,
        "send",
        driver.send(&[cx.message(&orders, 1), cx.message(&orders, 2)]),
    )
    .await?;
    ensure_eq!(answers.len(), 2, "the answers to a send after closing");
    for answer in &answers {
        closed("send", answer)?;
    }
    let billing = group("billing");
    let subscription = Subscription::new(billing.clone(), orders.clone(), cx.owner());
    closed(
        "declare",
        &within(
            bound,
            "declare",
            driver.declare(&Topology::new().with_topic(unordered(&orders))),
        )
        .await?,
    )?;
    closed(
        "subscribe",
        &within(bound, "subscribe", driver.subscribe(&subscription)).await?,
    )?;
    if driver.info().capabilities.repartition {
        let repartition = driver.repartition(&orders, TopicOrder::Unordered);
        closed("repartition", &within(bound, "repartition", repartition).await?)?;
    }
    closed(
        "remove_group",
        &within(bound, "remove_group", driver.remove_group(&billing)).await?,
    )?;
    closed("lag", &within(bound, "lag", driver.lag(&billing)).await?)?;
    subscriber_is_closed(cx, &handle_closes).await?;

    // Nothing of it happened.
    let other = cx.node().await?;
    ensure_eq!(other.lag("billing").await?, 0, "what was sent after closing");
    Ok(())
}

async fn subscriber_is_closed<F: TransportFixture>(cx: &Cx<F>, member: &super::member::Member) -> CaseResult {
    let (subscriber, bound) = (&member.subscriber, cx.patience());
    let token = DeliveryToken::new(1);
    closed(
        "receive",
        &within(bound, "receive", subscriber.receive(1, Duration::from_secs(60))).await?,
    )?;
    for answer in within(bound, "settle", subscriber.settle(&[Settlement::Ack(token)])).await? {
        closed("settle", &answer)?;
    }
    for answer in within(bound, "extend", subscriber.extend(&[token], cx.lease())).await? {
        // Where extending is not offered at all, saying so is as good.
        if !matches!(&answer, Err(error) if error.kind() == ErrorKind::Unsupported) {
            closed("extend", &answer)?;
        }
    }
    closed("pause", &within(bound, "pause", subscriber.pause()).await?)?;
    closed("resume", &within(bound, "resume", subscriber.resume()).await?)
}

async fn should_close_once_when_closed_by_many<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let pending = {
        let subscriber = member.subscriber.clone();
        tokio::spawn(async move { subscriber.receive(1, Duration::from_secs(3_600)).await })
    };
    tokio::task::yield_now().await;

    let closing = (0..8).map(|_| {
        let driver = node.driver.clone();
        tokio::spawn(async move { driver.close().await })
    });
    for answer in within(cx.patience(), "close", join_all(closing)).await? {
        answer??;
    }
    node.driver.close().await?;
    closed(
        "a receive that was waiting",
        &within(cx.patience(), "receive", pending).await??,
    )?;
    member.subscriber.close().await?;
    let leaving = (0..4).map(|_| member.subscriber.close());
    for answer in within(cx.patience(), "close", join_all(leaving)).await? {
        answer?;
    }
    Ok(())
}

async fn should_give_deliveries_back_when_the_handle_closes<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let other = cx.node().await?;
    let messages = cx.messages(&orders, 20);
    node.send(&messages).await?;
    // With a visibility time that nobody waits for.
    let long = |member| {
        Subscription::new(group("billing"), orders.clone(), member)
            .with_visibility(Duration::from_secs(3_600))
    };
    let leaving = node.join_as(cx, long(cx.owner())).await?;
    let dropped = node.join_as(cx, long(cx.owner())).await?;
    leaving.take(8).await?;
    dropped.take(8).await?;
    let staying = other.join_as(cx, long(cx.owner())).await?;
    let mut arrived = staying.work(4).await?;
    staying.nothing().await?;
    node.driver.close().await?;
    arrived.extend(staying.work(16).await?);
    ensure_eq!(
        set_of(&arrived).len(),
        20,
        "different messages after the take-over"
    );
    arrived_once(&messages, arrived)
}

async fn should_keep_a_confirmed_message_when_the_server_restarts<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let messages = cx.messages(&orders, 100);
    for message in &messages {
        node.send(from_ref(message)).await?;
    }
    let member = node.join(cx, "billing", &orders).await?;
    let held = member.take(10).await?;
    member.ack(&held[..5]).await?;
    if !cx.fixture().restart_server().await? {
        return Err(CaseError::unproved(
            "the fixture has no server of its own to restart",
        ));
    }
    let after = cx.node().await?;
    let next = after.join(cx, "billing", &orders).await?;
    let arrived = next.work(95).await?;
    arrived_once(
        &messages
            .into_iter()
            .filter(|message| held[..5].iter().all(|acked| acked.message.id != message.id))
            .collect::<Vec<_>>(),
        arrived,
    )?;
    next.nothing().await
}

fn closed<T: std::fmt::Debug>(call: &str, answer: &Result<T>) -> CaseResult {
    match answer {
        Err(error) if error.kind() == ErrorKind::Closed => Ok(()),
        other => fail!("{call} on what was closed: {other:?}"),
    }
}
