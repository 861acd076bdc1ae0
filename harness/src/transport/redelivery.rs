//! What comes back when nobody settles it, how often it says so, and how a handler keeps it.

use std::time::Duration;

use futures::future::{join, join_all};
use headless_abstractions::{Delivery, DeliveryToken, ErrorKind, Redelivery, Settlement, Subscription};

use super::{member::Member, refusing::refused, sending::arrived_once};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq, instead},
    cx::{Cx, group, topic},
    fixture::{TransportFixture, TransportNode},
    mutation::Mutation::{
        AckOnReceive, CloseKeepsDeliveries, ExtensionHidesOthers, ForgetDeliveryCount, IgnoreExtend,
        LeakMember, MisalignAnswers, RequeueDrops,
    },
    wait::{elapse, within},
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_come_back_when_left_unsettled_past_the_visibility_time,
            "a delivery that nobody settles or extends goes to another member, not before its time"
        )
        .catching(&[AckOnReceive]),
        case!(
            should_come_back_at_once_when_the_subscriber_closes,
            "leaving gives unsettled deliveries back, without waiting for the visibility time"
        )
        .catching(&[CloseKeepsDeliveries, AckOnReceive]),
        case!(
            should_come_back_when_the_subscriber_is_dropped,
            "dropping a subscriber leaves, at the latest once the visibility time has passed"
        )
        .catching(&[LeakMember, AckOnReceive]),
        case!(
            should_come_back_when_the_process_dies,
            "what a killed member held goes to others, each message once"
        )
        .catching(&[AckOnReceive]),
        case!(
            should_count_deliveries_when_redelivered,
            "a redelivery says how many deliveries came before it"
        )
        .described_or(Flag::delivery_count, instead!(claims_no_count))
        .catching(&[ForgetDeliveryCount]),
        case!(
            should_keep_a_delivery_when_extended,
            "an extended delivery stays past its visibility time, and an extension never shortens it"
        )
        .requested(Flag::extend, instead!(refuse_to_extend))
        .catching(&[IgnoreExtend]),
        case!(
            should_answer_for_each_when_extensions_fail_in_part,
            "answers come in the order of the tokens"
        )
        .described(Flag::extend)
        .catching(&[MisalignAnswers]),
        case!(
            should_lose_nothing_when_extended_and_settled_at_once,
            "a member finds all that it holds, whatever it does with other deliveries at that moment"
        )
        .described(Flag::extend)
        .catching(&[ExtensionHidesOthers, RequeueDrops]),
    ]
}

async fn should_come_back_when_left_unsettled_past_the_visibility_time<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let messages = cx.messages(&orders, 10);
    node.send(&messages).await?;
    let stuck = node.join_briefly(cx, "billing", &orders).await?;
    stuck.take(10).await?;
    let other = cx.node().await?.join(cx, "billing", &orders).await?;
    // Some of the visibility time has passed already.
    other.nothing_for(cx.lease() / 4).await?;
    arrived_once(&messages, other.work(10).await?)?;
    other.nothing().await
}

async fn should_come_back_at_once_when_the_subscriber_closes<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let messages = cx.messages(&orders, 10);
    node.send(&messages).await?;
    let leaving = join_for_long(cx, &node).await?;
    let held = leaving.take(10).await?;
    leaving.ack(&held[..3]).await?;
    leaving.subscriber.close().await?;
    let next = join_for_long(cx, &node).await?;
    let left: Vec<_> = held[3..]
        .iter()
        .map(|delivery| delivery.message.clone())
        .collect();
    arrived_once(&left, next.work(7).await?)?;
    next.nothing().await
}

async fn should_come_back_when_the_subscriber_is_dropped<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let mut messages = cx.messages(&orders, 10);
    node.send(&messages).await?;
    let dropped = node.join_briefly(cx, "billing", &orders).await?;
    dropped.take(10).await?;
    drop(dropped);
    elapse(cx.lease()).await;
    let next = node.join(cx, "billing", &orders).await?;
    let more = cx.messages(&orders, 10);
    node.send(&more).await?;
    messages.extend(more);
    // Before anything could come back from a member that did not leave.
    let arrived = within(
        cx.lease() / 2,
        "all of the messages for the one member",
        next.work(20),
    );
    arrived_once(&messages, arrived.await??)?;
    next.nothing().await
}

async fn should_come_back_when_the_process_dies<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let messages = cx.messages(&orders, 20);
    node.send(&messages).await?;
    let dying = cx.node().await?;
    let member = dying.join_briefly(cx, "billing", &orders).await?;
    let held = member.take(15).await?;
    member.ack(&held[..5]).await?;
    dying.kill();
    let next = node.join(cx, "billing", &orders).await?;
    let left: Vec<_> = messages
        .into_iter()
        .filter(|message| held[..5].iter().all(|acked| acked.message.id != message.id))
        .collect();
    arrived_once(&left, next.work(15).await?)?;
    next.nothing().await
}

async fn should_count_deliveries_when_redelivered<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let node = cx.node_with(&topic("orders"), &["billing", "audit"]).await?;
    node.send(&[cx.message(&topic("orders"), "one")]).await?;
    for before in 0..4 {
        let (member, delivery) = next_delivery(cx, &node, before).await?;
        let expected = match before {
            0 => Redelivery::First,
            before => Redelivery::Again(before),
        };
        ensure_eq!(delivery.redelivery, expected, "the mark of delivery {before}");
        member.subscriber.close().await?;
    }
    if node.driver.info().capabilities.requeue {
        let member = join_for_long(cx, &node).await?;
        let delivery = member.take_one().await?;
        ensure_eq!(
            delivery.redelivery,
            Redelivery::Again(4),
            "the mark of the fifth delivery"
        );
        member
            .settle(super::settling::requeue(delivery.token, None))
            .await?;
        ensure_eq!(
            member.take_one().await?.redelivery,
            Redelivery::Again(5),
            "the mark after a requeue"
        );
    }
    // The other group has its own count.
    let auditor = node.join(cx, "audit", &topic("orders")).await?;
    ensure_eq!(
        auditor.take_one().await?.redelivery,
        Redelivery::First,
        "the mark in another group"
    );
    Ok(())
}

/// A delivery that the member then gives back by leaving.
async fn next_delivery<F: TransportFixture>(
    cx: &Cx<F>,
    node: &TransportNode,
    round: u32,
) -> CaseResult<(Member, Delivery)> {
    let node = if round.is_multiple_of(2) {
        node.clone()
    } else {
        cx.node().await?
    };
    let member = join_for_long(cx, &node).await?;
    let delivery = member.take_one().await?;
    Ok((member, delivery))
}

async fn claims_no_count<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let node = cx.node_with(&topic("orders"), &["billing"]).await?;
    node.send(&[cx.message(&topic("orders"), "one")]).await?;
    for round in 0..2 {
        let (member, delivery) = next_delivery(cx, &node, round).await?;
        ensure!(
            round == 0 || delivery.redelivery == Redelivery::Unknown,
            "without the flag a redelivery is `Unknown`, not {:?}",
            delivery.redelivery
        );
        member.subscriber.close().await?;
    }
    Ok(())
}

async fn should_keep_a_delivery_when_extended<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    node.send(&cx.messages(&orders, 3)).await?;
    let member = node.join_briefly(cx, "billing", &orders).await?;
    let held = member.take(3).await?;
    let tokens: Vec<_> = held.iter().map(|delivery| delivery.token).collect();
    // A small extension does not take away what they had: nothing moves before the visibility time.
    for answer in member.subscriber.extend(&tokens, Duration::from_millis(1)).await {
        answer?;
    }
    let other = cx.node().await?.join(cx, "billing", &orders).await?;
    let watched = cx.lease() / 2;
    other.nothing_for(watched).await?;
    // A handler that runs for five visibility times.
    for _ in 0..10 {
        for answer in member.subscriber.extend(&tokens, cx.lease()).await {
            answer?;
        }
        other.nothing_for(watched).await?;
    }
    member.ack(&held[..1]).await?;
    for answer in member.subscriber.extend(&tokens[1..], cx.lease() * 3).await {
        answer?;
    }
    other.nothing_for(cx.lease() * 2).await?;
    member.ack(&held[1..2]).await?;
    // And once it is no longer extended it goes to the other.
    let left = other.work(1).await?;
    ensure_eq!(left[0].id, held[2].message.id, "what came to the other at last");
    other.nothing().await
}

async fn refuse_to_extend<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    node.send(&[cx.message(&orders, 1)]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let delivery = member.take_one().await?;
    let answers = member.subscriber.extend(&[delivery.token], cx.lease()).await;
    refused(&answers, ErrorKind::Unsupported)?;
    member.settle(Settlement::Ack(delivery.token)).await?;
    Ok(())
}

async fn should_answer_for_each_when_extensions_fail_in_part<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    node.send(&cx.messages(&orders, 2)).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let held = member.take(2).await?;
    member.ack(&held[..1]).await?;
    let never = DeliveryToken::new(u64::MAX);
    let tokens = [held[1].token, held[0].token, never];
    let kinds: Vec<_> = member
        .subscriber
        .extend(&tokens, cx.lease())
        .await
        .into_iter()
        .map(|answer| answer.err().map(|error| error.kind()))
        .collect();
    let missing = Some(ErrorKind::NotFound);
    ensure_eq!(kinds, vec![None, missing, missing], "the answers");
    Ok(())
}

async fn should_lose_nothing_when_extended_and_settled_at_once<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    const ROUNDS: usize = 12;
    const BATCH: usize = 48;
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = join_for_long(cx, &node).await?;
    let requeues = node.driver.info().capabilities.requeue;
    for _ in 0..ROUNDS {
        let messages = cx.messages(&orders, BATCH);
        node.send(&messages).await?;
        let held = member.take(BATCH).await?;
        let [kept, acked, given_back] = [0, 1, 2].map(|n| held.iter().skip(n).step_by(3).collect::<Vec<_>>());
        let tokens = |some: &[&Delivery]| some.iter().map(|delivery| delivery.token).collect::<Vec<_>>();

        // As core does: all is extended that was unsettled a moment ago, in several calls.
        let (mine, all) = (tokens(&kept), tokens(&held.iter().collect::<Vec<_>>()));
        let extensions = mine.chunks(4).chain(all.chunks(16));
        let extensions = join_all(extensions.map(|some| extend(&member, some)));
        let settlements = acked.chunks(4).zip(given_back.chunks(4));
        let settlements = join_all(settlements.flat_map(|(acked, given_back)| {
            let acks = acked.iter().map(|delivery| Settlement::Ack(delivery.token));
            let others = given_back.iter().map(|delivery| match requeues {
                true => super::settling::requeue(delivery.token, None),
                false => Settlement::Ack(delivery.token),
            });
            [
                settle_all(&member, acks.collect()),
                settle_all(&member, others.collect()),
            ]
        }));
        let (extended, settled) = join(extensions, settlements).await;
        for (token, answer) in extended.into_iter().flatten() {
            match answer {
                Some(ErrorKind::NotFound) if !mine.contains(&token) => {}
                answer => ensure_eq!(answer, None, "the extension of what is held"),
            }
        }
        for answer in settled.into_iter().flatten() {
            answer?;
        }

        // What was given back is all that comes again, and what was extended is held still.
        let back: Vec<_> = given_back
            .iter()
            .map(|delivery| delivery.message.clone())
            .collect();
        if requeues {
            arrived_once(&back, member.work(back.len()).await?)?;
        }
        let acks = mine.iter().map(|token| Settlement::Ack(*token)).collect();
        for answer in settle_all(&member, acks).await {
            answer?;
        }
    }
    member.nothing().await
}

/// Extends past the visibility time, by less than brokers let a consumer wait, and answers for each token with what went wrong.
async fn extend(member: &Member, tokens: &[DeliveryToken]) -> Vec<(DeliveryToken, Option<ErrorKind>)> {
    let answers = member.subscriber.extend(tokens, Duration::from_mins(20)).await;
    let kinds = answers
        .into_iter()
        .map(|answer| answer.err().map(|error| error.kind()));
    tokens.iter().copied().zip(kinds).collect()
}

async fn settle_all(member: &Member, batch: Vec<Settlement>) -> Vec<headless_abstractions::Result<()>> {
    member.subscriber.settle(&batch).await
}

/// A member whose visibility time nobody waits for.
async fn join_for_long<F: TransportFixture>(cx: &Cx<F>, node: &TransportNode) -> CaseResult<Member> {
    let subscription = Subscription::new(group("billing"), topic("orders"), cx.owner());
    node.join_as(cx, subscription.with_visibility(Duration::from_mins(10)))
        .await
}
