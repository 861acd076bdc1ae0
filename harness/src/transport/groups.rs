//! Groups: each gets all, its members share, and how one ends.

use std::collections::BTreeSet;

use headless_abstractions::{ErrorKind, GroupSpec, Sent, Subscription, TopicOrder, TopicSpec, Topology};

use super::{
    declaring::{unsupported, was_not_made},
    member::body,
    node::unordered,
    refusing::answer,
    sending::arrived_once,
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq, fail, instead},
    cx::{Cx, group, topic},
    fixture::{TransportFixture, TransportNode},
    mutation::Mutation::{
        BlockWhileUnsettled, DropDelivery, DuplicateDelivery, IgnoreExtraTopics, IgnorePerInstance,
        IgnorePrefetch, IgnoreRemoveGroup, LagWithoutUnsettled, LoseAck, MixGroups, SubscribeToAnything,
    },
    wait::eventually,
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_give_each_group_everything_when_several_read_a_topic,
            "groups do not take messages from each other"
        )
        .catching(&[MixGroups]),
        case!(
            should_share_the_messages_when_members_compete,
            "the members of a group share its messages, each one once"
        )
        .catching(&[DuplicateDelivery, DropDelivery]),
        case!(
            should_leave_enough_for_others_when_one_member_is_slow,
            "a member holds no more than its prefetch, so others get their share"
        )
        .catching(&[IgnorePrefetch]),
        case!(
            should_read_its_topics_and_no_other_when_several_are_named,
            "a subscription reads each of its topics, and topics do not mix"
        )
        .catching(&[IgnoreExtraTopics]),
        case!(
            should_mix_ordered_and_unordered_topics_when_subscribed_to_both,
            "one subscription may read ordered and unordered topics"
        )
        .described(Flag::ordering)
        .catching(&[IgnoreExtraTopics, BlockWhileUnsettled]),
        case!(
            should_refuse_a_subscription_when_it_names_what_was_not_declared,
            "an unknown topic or group is `NotFound`; no topics or no visibility time is `Invalid`"
        )
        .catching(&[SubscribeToAnything]),
        case!(
            should_count_what_waits_and_what_is_unsettled_when_asked_for_the_lag,
            "the lag is exact when nothing moves, over all topics, and `NotFound` for an unknown group"
        )
        .catching(&[LagWithoutUnsettled, LoseAck]),
        case!(
            should_end_a_group_when_it_is_removed,
            "what waits goes with the group, its members answer `NotFound`, others keep theirs"
        )
        .catching(&[IgnoreRemoveGroup]),
        case!(
            should_end_a_group_with_its_instance_when_it_closes,
            "a group of one process ends with its handle, closed or killed"
        )
        .requested(Flag::per_instance_groups, instead!(refuse_an_instance_group))
        .catching(&[IgnorePerInstance]),
    ]
}

async fn should_give_each_group_everything_when_several_read_a_topic<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let names = ["billing", "audit", "search"];
    let node = cx.node_with(&orders, &names).await?;
    let messages = cx.messages(&orders, 50);
    node.send(&messages).await?;
    for name in names {
        let member = cx.node().await?.join(cx, name, &orders).await?;
        arrived_once(&messages, member.work(50).await?)?;
        member.nothing().await?;
    }
    Ok(())
}

async fn should_share_the_messages_when_members_compete<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(cx.node().await?.join(cx, "billing", &orders).await?);
    }
    let messages = cx.messages(&orders, 300);
    node.send(&messages).await?;
    let watch = crate::wait::Stopwatch::start();
    let mut arrived = Vec::new();
    while arrived.len() < messages.len() {
        ensure!(watch.elapsed() < cx.patience(), "{} of 300 came", arrived.len());
        for member in &members {
            let received = member.receive(10, std::time::Duration::from_millis(50)).await?;
            member.ack(&received.deliveries).await?;
            arrived.extend(received.deliveries.into_iter().map(|delivery| delivery.message));
        }
    }
    arrived_once(&messages, arrived)?;
    for member in members {
        member.nothing().await?;
    }
    Ok(())
}

async fn should_leave_enough_for_others_when_one_member_is_slow<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    const PREFETCH: std::num::NonZeroUsize = std::num::NonZeroUsize::new(10).unwrap();
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let narrow = || Subscription::new(group("billing"), orders.clone(), cx.owner()).with_prefetch(PREFETCH);
    let slow = node.join_as(cx, narrow()).await?;
    let messages = cx.messages(&orders, 100);
    node.send(&messages).await?;

    let held = slow.take(10).await?;
    slow.nothing().await?;
    let quick = cx.node().await?.join_as(cx, narrow()).await?;
    let mut arrived = quick.work(90).await?;
    quick.nothing().await?;

    // What it settles makes room for as much.
    slow.ack(&held[..4]).await?;
    let more = cx.messages(&orders, 4);
    node.send(&more).await?;
    arrived.extend(held.iter().map(|delivery| delivery.message.clone()));
    arrived_once(&messages, arrived)?;
    arrived_once(&more, slow.work(4).await?)?;
    slow.ack(&held[4..]).await
}

async fn should_read_its_topics_and_no_other_when_several_are_named<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let topics = [topic("orders"), topic("orders.paid"), topic("payments")];
    let node = cx.node().await?;
    for topic in &topics {
        node.declare(unordered(topic), &["billing", "orders"]).await?;
    }
    let both =
        Subscription::new(group("billing"), topics[0].clone(), cx.owner()).with_topic(topics[1].clone());
    let member = node.join_as(cx, both).await?;
    let mut wanted = Vec::new();
    for topic in &topics {
        let messages = cx.messages(topic, 20);
        node.send(&messages).await?;
        if *topic != topics[2] {
            wanted.extend(messages);
        }
    }
    arrived_once(&wanted, member.work(40).await?)?;
    member.nothing().await?;
    ensure_eq!(node.lag("billing").await?, 20, "what waits on the third topic");
    ensure_eq!(node.lag("orders").await?, 60, "what waits for the other group");
    Ok(())
}

async fn should_mix_ordered_and_unordered_topics_when_subscribed_to_both<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let (events, orders) = (topic("events"), topic("orders"));
    let node = cx.node_with(&events, &["billing"]).await?;
    node.declare(super::node::ordered(&orders, 2)?, &["billing"])
        .await?;
    let both = Subscription::new(group("billing"), events.clone(), cx.owner()).with_topic(orders.clone());
    let member = node.join_as(cx, both).await?;
    node.send(&[cx.message(&events, "e1")]).await?;
    let event = member.take_one().await?;
    ensure_eq!(
        event.partition,
        None,
        "the partition of an unordered topic's message"
    );
    // While that one is still held.
    let key = headless_abstractions::PartitionKey::parse("a")?;
    node.send(&[cx.message(&orders, "o1").with_key(key)]).await?;
    let order = member.take_one().await?;
    ensure!(
        order.partition.is_some(),
        "an ordered topic's message has no partition"
    );
    ensure_eq!(
        (body(&event.message), body(&order.message)),
        ("e1".to_owned(), "o1".to_owned()),
        "what came of each topic"
    );
    member.ack(&[event, order]).await
}

async fn should_refuse_a_subscription_when_it_names_what_was_not_declared<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let good = Subscription::new(group("billing"), orders.clone(), cx.owner());
    let mut without_topics = good.clone();
    without_topics.topics.clear();
    let wrong = [
        (
            "an unknown group",
            Subscription::new(group("unknown"), orders, cx.owner()),
            ErrorKind::NotFound,
        ),
        (
            "an unknown topic",
            good.clone().with_topic(topic("unknown")),
            ErrorKind::NotFound,
        ),
        ("no topics", without_topics, ErrorKind::Invalid),
        (
            "no visibility time",
            good.clone().with_visibility(std::time::Duration::ZERO),
            ErrorKind::Invalid,
        ),
    ];
    for (what, subscription, kind) in wrong {
        match node.driver.subscribe(&subscription).await {
            Ok(_) => fail!("{what}: it was accepted"),
            Err(error) => ensure_eq!(error.kind(), kind, "{what} ({error})"),
        }
    }
    node.join_as(cx, good).await?.nothing().await
}

async fn should_count_what_waits_and_what_is_unsettled_when_asked_for_the_lag<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let (orders, payments) = (topic("orders"), topic("payments"));
    let node = cx.node_with(&orders, &["billing"]).await?;
    node.declare(unordered(&payments), &["billing"]).await?;
    let node = &node;
    // Some brokers publish their counts with a delay; what they settle on must be exact.
    let settles_on = async |expected: u64| {
        let what = format!("a lag of {expected}");
        eventually(cx.patience(), &what, async || {
            Ok((node.lag("billing").await? == expected).then_some(()))
        })
        .await
    };
    settles_on(0).await?;
    node.send(&cx.messages(&orders, 7)).await?;
    node.send(&cx.messages(&payments, 5)).await?;
    settles_on(12).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let held = member.take(4).await?;
    settles_on(12).await?;
    ensure_eq!(
        cx.node().await?.lag("billing").await?,
        12,
        "the lag from another process"
    );
    member.ack(&held[..3]).await?;
    settles_on(9).await?;
    match node.driver.lag(&group("unknown")).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => fail!("the lag of an unknown group: {other:?}"),
    }
}

async fn should_end_a_group_when_it_is_removed<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing", "audit"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    node.send(&cx.messages(&orders, 10)).await?;
    member.take(2).await?;

    cx.node().await?.driver.remove_group(&group("billing")).await?;
    gone(&node, "billing").await?;
    eventually(
        cx.patience(),
        "the live member answers `NotFound`",
        async || match member
            .subscriber
            .receive(1, std::time::Duration::from_millis(50))
            .await
        {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(())),
            Err(error) => Err(error.into()),
            Ok(received) if received.deliveries.is_empty() => Ok(None),
            Ok(received) => fail!("a removed group was given {} messages", received.deliveries.len()),
        },
    )
    .await?;
    node.driver.remove_group(&group("billing")).await?;
    node.driver.remove_group(&group("never-there")).await?;
    ensure_eq!(node.lag("audit").await?, 10, "what waits for the other group");

    // Declared anew it begins anew.
    node.declare(unordered(&orders), &["billing"]).await?;
    let anew = node.join(cx, "billing", &orders).await?;
    node.send(&[cx.message(&orders, "new")]).await?;
    ensure_eq!(
        body(&anew.work(1).await?[0]),
        "new",
        "the first message of the new group"
    );
    anew.nothing().await
}

async fn should_end_a_group_with_its_instance_when_it_closes<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let lasting = cx.node_with(&orders, &[]).await?;
    let instance = |name: &str| {
        let spec = GroupSpec::new(group(name), orders.clone()).with_per_instance();
        Topology::new()
            .with_topic(TopicSpec::new(orders.clone(), TopicOrder::Unordered))
            .with_group(spec)
    };
    let (closing, dying) = (cx.node().await?, cx.node().await?);
    closing.driver.declare(&instance("closing")).await?;
    dying.driver.declare(&instance("dying")).await?;
    let members = [
        closing.join_briefly(cx, "closing", &orders).await?,
        dying.join_briefly(cx, "dying", &orders).await?,
    ];
    let messages = cx.messages(&orders, 5);
    lasting.send(&messages).await?;
    for member in &members {
        arrived_once(&messages, member.work(5).await?)?;
    }

    closing.driver.close().await?;
    dying.kill();
    for name in ["closing", "dying"] {
        let what = format!("the group {name} ends");
        eventually(cx.lease() + cx.patience(), &what, async || {
            match lasting.driver.lag(&group(name)).await {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(())),
                Err(error) => Err(error.into()),
                Ok(_) => Ok(None),
            }
        })
        .await?;
        let left = cx.fixture().group_exists(&group(name)).await?;
        ensure!(
            left != Some(true),
            "something of the group {name} is left on the broker"
        );
    }
    let sent = answer(lasting.driver.send(&[cx.message(&orders, "after")]).await)??;
    ensure_eq!(sent, Sent::Unrouted, "a message after the last group has ended");
    Ok(())
}

async fn refuse_an_instance_group<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node().await?;
    let spec = GroupSpec::new(group("mine"), orders.clone()).with_per_instance();
    unsupported(
        &node,
        &Topology::new().with_topic(unordered(&orders)).with_group(spec),
    )
    .await?;
    was_not_made(cx, &node, &orders, "mine").await
}

/// Sees that a group does not exist.
async fn gone(node: &TransportNode, name: &str) -> CaseResult {
    match node.driver.lag(&group(name)).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => fail!("the group {name} is still there: {other:?}"),
    }
}

/// The bodies of these messages.
pub(super) fn set_of(messages: &[headless_abstractions::Message]) -> BTreeSet<String> {
    messages.iter().map(body).collect()
}
