//! Declaring topics and groups.

use futures::future::join_all;
use headless_abstractions::{ErrorKind, GroupSpec, Sent, StartFrom, TopicName, Topology};

use super::{
    member::body,
    node::{ordered, topology, unordered},
    refusing::{answer, refused},
    sending::arrived_once,
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq, fail, instead},
    cx::{Cx, group, topic},
    fixture::{TransportFixture, TransportNode},
    mutation::Mutation::{
        DeclareEmptiesGroups, DeclareInPart, DeclareNotIdempotent, ForgetRequired, GroupsBeginLate,
        IgnoreStartFrom, SwallowDeclareError,
    },
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_change_nothing_when_declared_again,
            "repeating a declaration, whole or in part, loses nothing and moves no group"
        )
        .catching(&[DeclareEmptiesGroups, DeclareNotIdempotent]),
        case!(
            should_agree_when_many_declare_at_once,
            "any number of processes may declare the same at once"
        )
        .catching(&[DeclareNotIdempotent]),
        case!(
            should_miss_nothing_when_a_group_is_declared_before_sending,
            "a group gets everything that is sent after its declaration, and nothing from before"
        )
        .catching(&[GroupsBeginLate]),
        case!(
            should_refuse_a_required_topic_when_it_has_no_group,
            "what is required is `NotFound` without a group, and accepted with one"
        )
        .catching(&[ForgetRequired]),
        case!(
            should_refuse_a_group_when_its_topic_is_unknown,
            "a group on a topic that is neither named nor known is `NotFound`, and nothing of the request is made"
        )
        .catching(&[SwallowDeclareError, DeclareInPart]),
        case!(
            should_refuse_another_partition_count_when_the_topic_exists,
            "another count or order is `Conflict`, names both and what to do, and nothing of the request is made"
        )
        .requested(Flag::ordering, instead!(refuse_an_ordered_topic))
        .catching(&[SwallowDeclareError, DeclareInPart]),
        case!(
            should_replay_old_messages_when_a_group_starts_from_the_oldest,
            "a new group that starts from the oldest gets what is still there, then what comes"
        )
        .requested(Flag::replay_from_start, instead!(refuse_to_replay))
        .catching(&[IgnoreStartFrom]),
    ]
}

async fn should_change_nothing_when_declared_again<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing", "audit"]).await?;
    let messages = cx.messages(&orders, 20);
    node.send(&messages).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let held = member.take(5).await?;

    node.declare(unordered(&orders), &["billing", "audit"]).await?;
    cx.node().await?.declare(unordered(&orders), &["billing"]).await?;
    node.driver
        .declare(&Topology::new().with_group(GroupSpec::new(group("billing"), orders.clone())))
        .await?;
    node.driver.declare(&Topology::new()).await?;

    ensure_eq!(
        node.lag("audit").await?,
        20,
        "what waits for a group that was declared again"
    );
    member.ack(&held).await?;
    let mut arrived: Vec<_> = held.into_iter().map(|delivery| delivery.message).collect();
    arrived.extend(member.work(15).await?);
    arrived_once(&messages, arrived)?;
    member.nothing().await
}

async fn should_agree_when_many_declare_at_once<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let (orders, payments) = (topic("orders"), topic("payments"));
    let mut nodes = Vec::new();
    for _ in 0..8 {
        nodes.push(cx.node().await?);
    }
    let whole = topology(unordered(&orders), &["billing", "audit"])
        .with_topic(unordered(&payments))
        .with_group(GroupSpec::new(group("billing"), payments.clone()));
    let declarations = nodes.iter().map(|node| {
        let (driver, whole) = (node.driver.clone(), whole.clone());
        tokio::spawn(async move { driver.declare(&whole).await })
    });
    for declared in join_all(declarations).await {
        declared??;
    }
    let messages: Vec<_> = (0..nodes.len()).map(|n| cx.message(&orders, n)).collect();
    for (node, message) in nodes.iter().zip(&messages) {
        node.send(std::slice::from_ref(message)).await?;
    }
    for name in ["billing", "audit"] {
        let member = nodes[0].join(cx, name, &orders).await?;
        arrived_once(&messages, member.work(messages.len()).await?)?;
        member.nothing().await?;
    }
    Ok(())
}

async fn should_miss_nothing_when_a_group_is_declared_before_sending<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["audit"]).await?;
    node.send(&[cx.message(&orders, "before")]).await?;
    node.declare(unordered(&orders), &["billing"]).await?;
    let messages = cx.messages(&orders, 10);
    cx.node().await?.send(&messages).await?;
    let member = node.join(cx, "billing", &orders).await?;
    arrived_once(&messages, member.work(10).await?)?;
    member.nothing().await
}

async fn should_refuse_a_required_topic_when_it_has_no_group<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node().await?;
    node.declare(unordered(&orders).with_required(), &[]).await?;
    refused(
        &node.driver.send(&[cx.message(&orders, "early")]).await,
        ErrorKind::NotFound,
    )?;

    node.declare(unordered(&orders).with_required(), &["billing"])
        .await?;
    node.send(&[cx.message(&orders, "routed")]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    ensure_eq!(body(&member.work(1).await?[0]), "routed", "what arrived");
    member.nothing().await
}

async fn should_refuse_a_group_when_its_topic_is_unknown<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let (orders, nowhere) = (topic("orders"), topic("nowhere"));
    let node = cx.node().await?;
    let request = topology(unordered(&orders), &["billing"])
        .with_group(GroupSpec::new(group("billing"), nowhere.clone()));
    match node.driver.declare(&request).await {
        Ok(()) => fail!("a group on an unknown topic was declared"),
        Err(error) => ensure_eq!(error.kind(), ErrorKind::NotFound, "why it was refused ({error})"),
    }
    was_not_made(cx, &node, &orders, "billing").await?;

    // Known from before is as good as named.
    node.declare(unordered(&orders), &[]).await?;
    let alone = Topology::new().with_group(GroupSpec::new(group("billing"), orders));
    Ok(cx.node().await?.driver.declare(&alone).await?)
}

async fn should_refuse_another_partition_count_when_the_topic_exists<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let (orders, payments) = (topic("orders"), topic("payments"));
    let node = cx.ordered_node_with(&orders, 7, &["billing"]).await?;
    let others = [ordered(&orders, 13)?, unordered(&orders)];
    for other in others {
        let request = topology(other.clone(), &["audit"])
            .with_topic(unordered(&payments))
            .with_group(GroupSpec::new(group("audit"), payments.clone()));
        let Err(error) = cx.node().await?.driver.declare(&request).await else {
            fail!("a topic of 7 partitions was declared as {:?}", other.order);
        };
        ensure_eq!(error.kind(), ErrorKind::Conflict, "why it was refused ({error})");
        let line = error.to_string();
        let remedy = match node.driver.info().capabilities.repartition {
            true => "`headless topics repartition`",
            false => "another topic",
        };
        ensure!(line.contains(remedy), "it does not name {remedy}: {line}");
        ensure!(line.contains('7'), "it does not name what is there: {line}");
        ensure!(
            !other.order.is_ordered() || line.contains("13"),
            "it does not name what was asked for: {line}"
        );
        was_not_made(cx, &node, &payments, "audit").await?;
    }
    // The topic is what it was.
    node.declare(ordered(&orders, 7)?, &["billing"]).await
}

async fn refuse_an_ordered_topic<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node().await?;
    unsupported(&node, &topology(ordered(&orders, 4)?, &["billing"])).await?;
    was_not_made(cx, &node, &orders, "billing").await
}

async fn should_replay_old_messages_when_a_group_starts_from_the_oldest<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let mut messages = cx.messages(&orders, 30);
    node.send(&messages).await?;
    // That another group is done with them does not matter.
    let member = node.join(cx, "billing", &orders).await?;
    member.work(30).await?;

    let audit = GroupSpec::new(group("audit"), orders.clone()).with_start(StartFrom::Oldest);
    node.driver
        .declare(&Topology::new().with_group(audit.clone()))
        .await?;
    let late = cx.message(&orders, "late");
    node.send(std::slice::from_ref(&late)).await?;
    messages.push(late);
    let auditor = node.join(cx, "audit", &orders).await?;
    arrived_once(&messages, auditor.work(31).await?)?;

    // It begins once: declared again it stays where it is.
    node.driver.declare(&Topology::new().with_group(audit)).await?;
    auditor.nothing().await?;
    member.work(1).await?;
    member.nothing().await
}

async fn refuse_to_replay<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node().await?;
    let audit = GroupSpec::new(group("audit"), orders.clone()).with_start(StartFrom::Oldest);
    unsupported(
        &node,
        &Topology::new().with_topic(unordered(&orders)).with_group(audit),
    )
    .await?;
    was_not_made(cx, &node, &orders, "audit").await
}

/// Sees that the declaration is refused as `Unsupported`.
pub(super) async fn unsupported(node: &TransportNode, request: &Topology) -> CaseResult {
    match node.driver.declare(request).await {
        Ok(()) => fail!("it was declared"),
        Err(error) => ensure_eq!(
            error.kind(),
            ErrorKind::Unsupported,
            "why it was refused ({error})"
        ),
    }
    Ok(())
}

/// Sees that neither this topic nor this group exists.
pub(super) async fn was_not_made<F: TransportFixture>(
    cx: &Cx<F>,
    node: &TransportNode,
    topic: &TopicName,
    name: &str,
) -> CaseResult {
    let sent = answer(node.driver.send(&[cx.message(topic, "x")]).await)?;
    ensure!(
        matches!(&sent, Err(error) if error.kind() == ErrorKind::NotFound),
        "the topic was made all the same: {sent:?}"
    );
    ensure!(
        !matches!(sent, Ok(Sent::Accepted)),
        "a group was made all the same"
    );
    match node.driver.lag(&group(name)).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => fail!("the group was made all the same: {other:?}"),
    }
}
