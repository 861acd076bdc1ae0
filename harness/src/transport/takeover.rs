//! The order of a key when its partition goes from one member to another.

use std::time::Duration;

use headless_abstractions::{Delivery, ErrorKind, Revoked, Settlement};

use super::{
    member::{Member, bodies, body},
    ordering::{OrderCheck, keyed, narrow, of, refuse_order},
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq, instead},
    cx::{Cx, topic},
    fixture::{TransportFixture, TransportNode},
    mutation::Mutation::{
        AckOnReceive, CloseKeepsDeliveries, HideRevocations, ReorderDeliveries, SettleOthers,
    },
    wait::Stopwatch,
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_keep_key_order_when_a_member_dies_with_a_full_prefetch,
            "the next holder gets what was unsettled before what was not yet delivered"
        )
        .requested(Flag::ordering, instead!(refuse_order))
        .catching(&[ReorderDeliveries, AckOnReceive]),
        case!(
            should_keep_key_order_when_a_member_leaves_with_a_full_prefetch,
            "leaving gives partitions over in order, at once"
        )
        .requested(Flag::ordering, instead!(refuse_order))
        .catching(&[ReorderDeliveries, CloseKeepsDeliveries]),
        case!(
            should_keep_key_order_when_a_member_joins,
            "a partition moves to a new member only once it was reported as revoked, and goes on in order there"
        )
        .requested(Flag::ordering, instead!(refuse_order))
        .catching(&[HideRevocations, ReorderDeliveries]),
        case!(
            should_settle_nothing_of_others_when_a_partition_has_moved,
            "a late settlement from the former holder of a partition loses nothing"
        )
        .requested(Flag::ordering, instead!(refuse_order))
        .catching(&[SettleOthers]),
    ]
}

async fn should_keep_key_order_when_a_member_dies_with_a_full_prefetch<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    taken_over(cx, cx.lease(), async |dying, _| {
        dying.kill();
        Ok(())
    })
    .await
}

async fn should_keep_key_order_when_a_member_leaves_with_a_full_prefetch<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    // With a visibility time that nobody waits for.
    let long = Duration::from_secs(3_600);
    taken_over(cx, long, async |_, member| Ok(member.subscriber.close().await?)).await
}

/// A member with a full prefetch goes, in the middle of its keys; another one goes on.
async fn taken_over<F: TransportFixture>(
    cx: &Cx<F>,
    visibility: Duration,
    go: impl AsyncFnOnce(&TransportNode, &Member) -> CaseResult,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 4, &["billing"]).await?;
    let messages = keyed(cx, &orders, 200, 12)?;
    node.send(&messages).await?;

    let going = cx.node().await?;
    let member = narrow(cx, &going, 5, visibility).await?;
    let mut order = OrderCheck::default();
    let acked = member.take(12).await?;
    for delivery in &acked {
        order.see(&delivery.message)?;
    }
    member.ack(&acked).await?;
    // Every partition is full of unsettled deliveries now.
    let held = member.hold().await?;
    for delivery in &held {
        order.see(&delivery.message)?;
    }
    go(&going, &member).await?;

    let next = narrow(cx, &node, 5, cx.lease()).await?;
    let mut redelivered = OrderCheck::default();
    for delivery in &acked {
        redelivered.see(&delivery.message)?;
    }
    let mut arrived = Vec::new();
    let left = messages.len() - acked.len();
    while arrived.len() < left {
        let taken = next.take(1).await?;
        for delivery in &taken {
            // In order for those who saw it all, and for the new holder alone.
            order.see(&delivery.message)?;
            redelivered.see(&delivery.message)?;
        }
        next.ack(&taken).await?;
        arrived.extend(taken.into_iter().map(|delivery| delivery.message));
    }
    ensure_eq!(order.different(), messages.len(), "different messages in all");
    ensure_eq!(
        redelivered.different(),
        messages.len(),
        "different messages that were acked"
    );
    next.nothing().await
}

async fn should_keep_key_order_when_a_member_joins<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 8, &["billing"]).await?;
    let messages = keyed(cx, &orders, 240, 24)?;
    node.send(&messages).await?;
    let first = narrow(cx, &node, 4, cx.lease()).await?;
    let mut held = first.take(16).await?;
    let mut order = OrderCheck::default();
    for delivery in &held {
        order.see(&delivery.message)?;
    }

    let second = narrow(cx, &cx.node().await?, 4, cx.lease()).await?;
    let mut moved: Vec<Revoked> = Vec::new();
    let mut elsewhere: Vec<Delivery> = Vec::new();
    let watch = Stopwatch::start();
    while elsewhere.len() < 8 {
        ensure!(
            watch.elapsed() < cx.patience(),
            "nothing moved to the member that joined"
        );
        // The first one takes nothing more, and learns what it has lost.
        let received = first.receive(0, Duration::from_millis(20)).await?;
        held.retain(|delivery| !received.revoked.iter().any(|gone| of(gone, delivery)));
        moved.extend(received.revoked);
        for delivery in second
            .receive(8 - elsewhere.len(), Duration::from_millis(20))
            .await?
            .deliveries
        {
            ensure!(
                moved.iter().any(|gone| of(gone, &delivery)),
                "{} of partition {:?} came to the second member before the first was told",
                body(&delivery.message),
                delivery.partition
            );
            order.see(&delivery.message)?;
            elsewhere.push(delivery);
        }
    }
    // What each of them holds is its own to settle.
    first.ack(&held).await?;
    second.ack(&elsewhere).await?;
    finish(cx, &[first, second], &mut order, messages.len()).await
}

async fn should_settle_nothing_of_others_when_a_partition_has_moved<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 1, &["billing"]).await?;
    node.send(&keyed(cx, &orders, 6, 1)?).await?;
    let late = narrow(cx, &node, 3, cx.lease()).await?;
    let before = late.take(3).await?;
    // It freezes past its hold, and another member takes over.
    let holder = narrow(cx, &cx.node().await?, 3, cx.lease()).await?;
    let now = holder.take(3).await?;
    ensure_eq!(bodies(&now), bodies(&before), "what was taken over");
    let fenced = node.driver.info().capabilities.fenced_settlement;
    for delivery in &before {
        let late = late.settle(Settlement::Reject(delivery.token)).await;
        ensure!(
            !fenced || matches!(&late, Err(error) if error.kind() == ErrorKind::LeaseLost),
            "a late reject on a fenced transport: {late:?}"
        );
    }
    late.subscriber.close().await?;
    holder.subscriber.close().await?;
    let next = narrow(cx, &node, 6, cx.lease()).await?;
    let mut order = OrderCheck::default();
    finish(cx, &[next], &mut order, 6).await
}

/// Works the rest off with these members until this many different messages were seen.
async fn finish<F: TransportFixture>(
    cx: &Cx<F>,
    members: &[Member],
    order: &mut OrderCheck,
    different: usize,
) -> CaseResult {
    let watch = Stopwatch::start();
    while order.different() < different {
        ensure!(
            watch.elapsed() < cx.patience(),
            "{} of {different} messages came",
            order.different()
        );
        for member in members {
            let received = member.receive(50, Duration::from_millis(20)).await?;
            for delivery in &received.deliveries {
                order.see(&delivery.message)?;
            }
            let kept: Vec<Delivery> = received.deliveries;
            member.ack(&kept).await?;
        }
    }
    Ok(())
}
