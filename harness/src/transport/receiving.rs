//! Receiving: how many, how soon, and what a dropped call leaves.

use std::{collections::BTreeSet, num::NonZeroUsize, time::Duration};

use futures::FutureExt;
use headless_abstractions::{Settlement, Subscription};

use super::{node::unordered, sending::arrived_once};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq},
    cx::{Cx, group, topic},
    fixture::TransportFixture,
    mutation::Mutation::{
        IgnoreMax, IgnoreWait, LeakMember, LoseOnCancel, PauseDrops, PauseIgnored, ReuseToken,
        SettleBehindReceive, SleepThroughWait,
    },
    wait::{Stopwatch, elapse, within},
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_give_at_most_what_was_asked_for_when_more_is_there,
            "`max` bounds what a receive returns; with 0 it returns no delivery"
        )
        .catching(&[IgnoreMax]),
        case!(
            should_return_at_once_when_something_comes,
            "a receive that waits returns as soon as there is a delivery"
        )
        .catching(&[SleepThroughWait]),
        case!(
            should_return_nothing_when_the_wait_has_passed,
            "an empty receive returns after its wait, and a wait of zero is none"
        )
        .catching(&[IgnoreWait]),
        case!(
            should_lose_nothing_when_receive_is_dropped,
            "a receive may be dropped at any moment; the next one has what it would have had"
        )
        .catching(&[LoseOnCancel]),
        case!(
            should_settle_while_a_receive_waits,
            "receive and settle run concurrently, and so do several settles"
        )
        .catching(&[SettleBehindReceive]),
        case!(
            should_never_use_a_token_twice_when_deliveries_go_on,
            "a token names one delivery of its subscriber for good"
        )
        .catching(&[ReuseToken]),
        case!(
            should_deliver_nothing_until_resumed_when_paused,
            "pause stops deliveries, resume goes on, and nothing in between is missed or doubled"
        )
        .catching(&[PauseIgnored, PauseDrops]),
        case!(
            should_leave_no_member_behind_when_subscribe_is_dropped,
            "dropping a subscribe leaves no member for longer than the visibility time"
        )
        .catching(&[LeakMember]),
        case!(
            should_leave_no_partition_behind_when_subscribe_is_dropped,
            "nor does such a member keep partitions"
        )
        .described(Flag::ordering)
        .catching(&[LeakMember]),
    ]
}

async fn should_give_at_most_what_was_asked_for_when_more_is_there<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let messages = cx.messages(&orders, 50);
    node.send(&messages).await?;
    // `Member::receive` holds each call to its bound.
    ensure!(
        member
            .receive(0, Duration::from_millis(100))
            .await?
            .deliveries
            .is_empty(),
        "a receive of none gave something"
    );
    let mut arrived = Vec::new();
    for max in [1, 2, 7, 20] {
        let received = member.receive(max, cx.patience()).await?;
        ensure!(
            !received.deliveries.is_empty(),
            "receive({max}) gave nothing although more was there"
        );
        member.ack(&received.deliveries).await?;
        arrived.extend(received.deliveries.into_iter().map(|delivery| delivery.message));
    }
    arrived.extend(member.work(50 - arrived.len()).await?);
    arrived_once(&messages, arrived)
}

async fn should_return_at_once_when_something_comes<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let waiting = {
        let member = member.clone();
        tokio::spawn(async move { member.subscriber.receive(10, Duration::from_secs(3_600)).await })
    };
    elapse(cx.quiet()).await;
    node.send(&[cx.message(&orders, "one")]).await?;
    let received = within(cx.patience(), "a receive that waits", waiting).await???;
    ensure_eq!(received.deliveries.len(), 1, "what it returned");
    member.ack(&received.deliveries).await
}

async fn should_return_nothing_when_the_wait_has_passed<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    for wait in [Duration::ZERO, Duration::from_millis(400)] {
        let watch = Stopwatch::start();
        let received = member.receive(10, wait).await?;
        let took = watch.elapsed();
        ensure!(
            received.deliveries.is_empty(),
            "something came from an empty topic"
        );
        // An assignment may be reported early; otherwise the wait is what was asked for.
        ensure!(
            !received.revoked.is_empty() || took + Duration::from_millis(5) >= wait,
            "a wait of {wait:?} took {took:?}"
        );
    }
    Ok(())
}

async fn should_lose_nothing_when_receive_is_dropped<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    // Nothing comes back by itself within this case: what a dropped call had in hand must be there at once.
    let member = node
        .join_as(
            cx,
            Subscription::new(group("billing"), orders.clone(), cx.owner())
                .with_visibility(Duration::from_secs(3_600))
                .with_prefetch(const { NonZeroUsize::new(20).unwrap() }),
        )
        .await?;
    let messages = cx.messages(&orders, 200);
    let sending = {
        let (node, messages) = (node.clone(), messages.clone());
        tokio::spawn(async move {
            for batch in messages.chunks(5) {
                node.driver
                    .send(batch)
                    .await
                    .into_iter()
                    .collect::<Result<Vec<_>, _>>()?;
                elapse(Duration::from_millis(3)).await;
            }
            Ok::<_, headless_abstractions::Error>(())
        })
    };
    let mut arrived = Vec::new();
    let watch = Stopwatch::start();
    let mut round = 0_u64;
    while arrived.len() < messages.len() && watch.elapsed() < cx.patience() {
        round += 1;
        let receive = member.subscriber.receive(7, Duration::from_secs(60));
        // Dropped after no poll, one poll, or a little time; now and then it may finish.
        let received = match round % 5 {
            0 => None,
            1 => receive.now_or_never(),
            turn => {
                let time = Duration::from_millis(if turn == 4 { 50 } else { turn - 1 });
                tokio::time::timeout(time, receive).await.ok()
            }
        };
        if let Some(received) = received {
            let deliveries = received?.deliveries;
            member.ack(&deliveries).await?;
            arrived.extend(deliveries.into_iter().map(|delivery| delivery.message));
        } else {
            tokio::task::yield_now().await;
        }
    }
    sending.await??;
    arrived_once(&messages, arrived)?;
    member.nothing().await
}

async fn should_settle_while_a_receive_waits<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    node.send(&cx.messages(&orders, 10)).await?;
    let held = member.take(10).await?;
    let waiting = {
        let member = member.clone();
        tokio::spawn(async move { member.subscriber.receive(10, Duration::from_secs(3_600)).await })
    };
    elapse(cx.quiet()).await;
    let (first, second) = held.split_at(5);
    let both = futures::future::join(member.ack(first), member.ack(second));
    let (first, second) = within(cx.patience(), "settling while a receive waits", both).await?;
    first.and(second)?;
    ensure_eq!(node.lag("billing").await?, 0, "the lag after settling");
    node.send(&[cx.message(&orders, "next")]).await?;
    let received = within(cx.patience(), "the receive that waited", waiting).await???;
    ensure_eq!(received.deliveries.len(), 1, "what it returned");
    Ok(())
}

async fn should_never_use_a_token_twice_when_deliveries_go_on<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let mut used = BTreeSet::new();
    for _ in 0..10 {
        node.send(&cx.messages(&orders, 10)).await?;
        let held = member.take(10).await?;
        for delivery in &held {
            ensure!(
                used.insert(delivery.token),
                "{:?} names a second delivery",
                delivery.token
            );
        }
        let settlements: Vec<Settlement> = held
            .iter()
            .enumerate()
            .map(|(n, delivery)| match n % 2 {
                0 => Settlement::Ack(delivery.token),
                _ => Settlement::Reject(delivery.token),
            })
            .collect();
        member
            .subscriber
            .settle(&settlements)
            .await
            .into_iter()
            .collect::<Result<Vec<()>, _>>()?;
    }
    Ok(())
}

async fn should_deliver_nothing_until_resumed_when_paused<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let mut messages = cx.messages(&orders, 10);
    node.send(&messages).await?;
    let held = member.take(4).await?;
    member.subscriber.pause().await?;
    member.subscriber.pause().await?;
    member.nothing().await?;
    let more = cx.messages(&orders, 10);
    node.send(&more).await?;
    member.nothing().await?;
    // What is held can be settled meanwhile.
    member.ack(&held).await?;
    member.subscriber.resume().await?;
    let mut arrived: Vec<_> = held.into_iter().map(|delivery| delivery.message).collect();
    arrived.extend(member.work(16).await?);
    messages.extend(more);
    arrived_once(&messages, arrived)?;
    member.nothing().await?;
    member.subscriber.resume().await?;
    Ok(())
}

async fn should_leave_no_member_behind_when_subscribe_is_dropped<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    drop_subscribes(cx, &node, &orders).await?;
    elapse(cx.lease()).await;
    let member = node.join(cx, "billing", &orders).await?;
    let messages = cx.messages(&orders, 100);
    node.send(&messages).await?;
    // A member that was left behind would have some of them now, and nothing has come back from it yet.
    elapse(cx.lease() / 4).await;
    let arrived = within(
        cx.lease() / 4,
        "all of the messages for the one member",
        member.work(100),
    );
    arrived_once(&messages, arrived.await??)
}

async fn should_leave_no_partition_behind_when_subscribe_is_dropped<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 8, &["billing"]).await?;
    node.declare(unordered(&topic("other")), &[]).await?;
    drop_subscribes(cx, &node, &orders).await?;
    let messages = super::ordering::keyed(cx, &orders, 40, 1)?;
    node.send(&messages).await?;
    let member = node.join(cx, "billing", &orders).await?;
    arrived_once(&messages, member.work(40).await?)
}

/// Begins to join and does not go through with it, at several moments.
async fn drop_subscribes<F: TransportFixture>(
    cx: &Cx<F>,
    node: &crate::TransportNode,
    orders: &headless_abstractions::TopicName,
) -> CaseResult {
    for polls in 1..6 {
        let subscription = Subscription::new(group("billing"), orders.clone(), cx.owner());
        let subscription = subscription.with_visibility(cx.lease());
        let mut subscribe = node.driver.subscribe(&subscription);
        for _ in 0..polls {
            if (&mut subscribe).now_or_never().transpose()?.is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
