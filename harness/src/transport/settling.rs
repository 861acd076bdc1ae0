//! Settling: what becomes of a delivery, and what each settlement is told.

use std::time::Duration;

use headless_abstractions::{DeliveryToken, ErrorKind, Settlement};

use super::{
    member::{Member, body},
    refusing::refused,
    sending::arrived_once,
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq, instead},
    cx::{Cx, topic},
    fixture::{TransportFixture, TransportNode},
    mutation::Mutation::{
        AckByPrefix, AckOnReceive, IgnoreRequeueDelay, LoseAck, MisalignAnswers, RejectRequeues,
        RequeueDrops, SettleAnything, SettleOthers,
    },
    wait::Stopwatch,
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_not_come_back_when_acked,
            "an acked message is done, for its member, for others and after the visibility time"
        )
        .catching(&[LoseAck]),
        case!(
            should_settle_what_was_named_when_settled_out_of_order,
            "any order of tokens is safe: what was not named stays unsettled"
        )
        .catching(&[AckByPrefix]),
        case!(
            should_not_come_back_when_rejected,
            "a rejected message is dropped"
        )
        .catching(&[RejectRequeues]),
        case!(
            should_answer_not_found_when_a_token_means_nothing,
            "a token that was never given, is settled, or is another subscriber's is `NotFound`"
        )
        .catching(&[SettleAnything]),
        case!(
            should_answer_for_each_when_settlements_fail_in_part,
            "answers come in the order of the batch, each settlement by itself"
        )
        .catching(&[MisalignAnswers, SettleAnything]),
        case!(
            should_deliver_again_when_requeued,
            "a requeued message comes back, to any member"
        )
        .requested(Flag::requeue, instead!(refuse_to_requeue))
        .catching(&[RequeueDrops, AckOnReceive]),
        case!(
            should_wait_when_requeued_with_a_delay,
            "a requeued message does not come back before its time, and then it does"
        )
        .requested(Flag::requeue_delay, instead!(refuse_to_requeue_later))
        .catching(&[IgnoreRequeueDelay, RequeueDrops]),
        case!(
            should_change_nothing_when_settled_after_redelivery_elsewhere,
            "a late settlement is a strict no-op and answers `LeaseLost`"
        )
        .described(Flag::fenced_settlement)
        .catching(&[SettleOthers, SettleAnything]),
        case!(
            should_lose_nothing_when_settled_after_redelivery_elsewhere,
            "a late requeue or reject costs at worst one more delivery"
        )
        .catching(&[SettleOthers]),
    ]
}

async fn should_not_come_back_when_acked<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join_briefly(cx, "billing", &orders).await?;
    node.send(&cx.messages(&orders, 10)).await?;
    member.work(10).await?;
    member.nothing_for(cx.lease() + cx.quiet()).await?;
    member.subscriber.close().await?;
    let next = cx.node().await?.join_briefly(cx, "billing", &orders).await?;
    next.nothing_for(cx.lease() + cx.quiet()).await
}

async fn should_settle_what_was_named_when_settled_out_of_order<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let messages = cx.messages(&orders, 20);
    node.send(&messages).await?;
    let mut held = member.take(20).await?;
    // The last first, and every third not at all.
    held.reverse();
    let (left, acked): (Vec<_>, Vec<_>) = held.into_iter().enumerate().partition(|(n, _)| n % 3 == 1);
    for batch in acked.chunks(4) {
        let batch: Vec<Settlement> = batch
            .iter()
            .map(|(_, delivery)| Settlement::Ack(delivery.token))
            .collect();
        member
            .subscriber
            .settle(&batch)
            .await
            .into_iter()
            .collect::<Result<Vec<()>, _>>()?;
    }
    member.subscriber.close().await?;
    let next = node.join(cx, "billing", &orders).await?;
    let left: Vec<_> = left.into_iter().map(|(_, delivery)| delivery.message).collect();
    arrived_once(&left, next.work(left.len()).await?)?;
    next.nothing().await
}

async fn should_not_come_back_when_rejected<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing", "audit"]).await?;
    let member = node.join_briefly(cx, "billing", &orders).await?;
    node.send(&[cx.message(&orders, "bad")]).await?;
    let bad = member.take_one().await?;
    member.settle(Settlement::Reject(bad.token)).await?;
    ensure_eq!(node.lag("billing").await?, 0, "the lag after the reject");
    ensure_eq!(node.lag("audit").await?, 1, "the lag of the other group");
    member.nothing_for(cx.lease() + cx.quiet()).await
}

async fn should_answer_not_found_when_a_token_means_nothing<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let other = node.join(cx, "billing", &orders).await?;
    node.send(&[cx.message(&orders, 1)]).await?;
    let delivery = member.take_one().await?;
    let never = DeliveryToken::new(u64::MAX);
    for token in [never, delivery.token] {
        let subscriber = if token == never { &member } else { &other };
        for settlement in [Settlement::Ack(token), Settlement::Reject(token)] {
            refused(
                &subscriber.subscriber.settle(&[settlement]).await,
                ErrorKind::NotFound,
            )?;
        }
    }
    ensure_eq!(node.lag("billing").await?, 1, "the lag after settling nothing");
    member.ack(std::slice::from_ref(&delivery)).await?;
    refused(
        &member.subscriber.settle(&[Settlement::Ack(delivery.token)]).await,
        ErrorKind::NotFound,
    )?;
    let extend = if node.driver.info().capabilities.extend {
        ErrorKind::NotFound
    } else {
        ErrorKind::Unsupported
    };
    for token in [never, delivery.token] {
        refused(&member.subscriber.extend(&[token], cx.lease()).await, extend)?;
    }
    Ok(())
}

async fn should_answer_for_each_when_settlements_fail_in_part<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    node.send(&cx.messages(&orders, 3)).await?;
    let held = member.take(3).await?;
    let never = Settlement::Ack(DeliveryToken::new(u64::MAX));
    let batch = [
        never,
        Settlement::Ack(held[0].token),
        Settlement::Reject(held[1].token),
        never,
        Settlement::Ack(held[2].token),
        // Twice in one batch: the second finds nothing.
        Settlement::Ack(held[0].token),
        never,
    ];
    let answers = member.subscriber.settle(&batch).await;
    let kinds: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.err().map(|error| error.kind()))
        .collect();
    let missing = Some(ErrorKind::NotFound);
    ensure_eq!(
        kinds,
        vec![missing, None, None, missing, None, missing, missing],
        "the answers"
    );
    ensure_eq!(node.lag("billing").await?, 0, "the lag after the batch");
    Ok(())
}

async fn should_deliver_again_when_requeued<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let messages = cx.messages(&orders, 5);
    node.send(&messages).await?;
    let held = member.take(5).await?;
    let batch: Vec<Settlement> = held
        .iter()
        .map(|delivery| requeue(delivery.token, None))
        .collect();
    member
        .subscriber
        .settle(&batch)
        .await
        .into_iter()
        .collect::<Result<Vec<()>, _>>()?;
    ensure_eq!(node.lag("billing").await?, 5, "the lag after the requeue");
    let again = member.take(5).await?;
    for delivery in &again {
        ensure!(
            held.iter().all(|before| before.token != delivery.token),
            "a second delivery has the token of the first"
        );
    }
    // Another member may take it as well.
    member.settle(requeue(again[0].token, None)).await?;
    member.subscriber.close().await?;
    let next = cx.node().await?.join(cx, "billing", &orders).await?;
    arrived_once(&messages, next.work(5).await?)?;
    next.nothing().await
}

async fn refuse_to_requeue<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    stays_unsettled(cx, None).await
}

async fn refuse_to_requeue_later<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    stays_unsettled(cx, Some(Duration::from_millis(10))).await
}

/// Sees that a requeue is refused, and that the delivery can be acked after it.
async fn stays_unsettled<F: TransportFixture>(cx: &Cx<F>, after: Option<Duration>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    node.send(&[cx.message(&orders, 1)]).await?;
    let delivery = member.take_one().await?;
    let answers = member.subscriber.settle(&[requeue(delivery.token, after)]).await;
    refused(&answers, ErrorKind::Unsupported)?;
    member.nothing().await?;
    ensure_eq!(node.lag("billing").await?, 1, "the lag after the refusal");
    member.ack(&[delivery]).await?;
    ensure_eq!(node.lag("billing").await?, 0, "the lag after the ack");
    Ok(())
}

async fn should_wait_when_requeued_with_a_delay<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    node.send(&[cx.message(&orders, "later"), cx.message(&orders, "now")])
        .await?;
    let delay = cx.lease() + cx.quiet() * 2;
    let since = Stopwatch::start();
    for delivery in member.take(2).await? {
        let after = (body(&delivery.message) == "later").then_some(delay);
        member.settle(requeue(delivery.token, after)).await?;
    }
    // It does not hold up others, nor can another member have it.
    ensure_eq!(body(&member.work(1).await?[0]), "now", "what came back at once");
    let lag = node.lag("billing").await?;
    // A machine that is too slow for it has seen something else.
    if since.elapsed() < delay {
        ensure_eq!(lag, 1, "the lag while it waits");
    }
    let other = cx.node().await?.join(cx, "billing", &orders).await?;
    let later = Member::work_one_not_before(&[&member, &other], since, delay).await?;
    ensure_eq!(body(&later), "later", "what came back in its time");
    let (mine, its) = futures::future::join(member.nothing(), other.nothing()).await;
    mine.and(its)
}

/// One message that a first member held for too long and a second one holds now.
struct TakenOver {
    node: TransportNode,
    late: Member,
    late_token: DeliveryToken,
    holder: Member,
    holder_token: DeliveryToken,
}

async fn take_over<F: TransportFixture>(cx: &Cx<F>, node: &TransportNode) -> CaseResult<TakenOver> {
    let orders = topic("orders");
    let late = node.join_briefly(cx, "billing", &orders).await?;
    node.send(&[cx.message(&orders, "one")]).await?;
    let before = late.take_one().await?;
    late.subscriber.pause().await?;
    let holder = cx.node().await?.join(cx, "billing", &orders).await?;
    let now = holder.take_one().await?;
    ensure_eq!(now.message.id, before.message.id, "what was taken over");
    Ok(TakenOver {
        node: node.clone(),
        late,
        late_token: before.token,
        holder,
        holder_token: now.token,
    })
}

async fn should_change_nothing_when_settled_after_redelivery_elsewhere<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let capabilities = node.driver.info().capabilities;
    let mut late_settlements: Vec<fn(DeliveryToken) -> Settlement> =
        vec![Settlement::Ack, Settlement::Reject];
    if capabilities.requeue {
        late_settlements.push(|token| requeue(token, None));
    }
    for settlement in late_settlements {
        let over = take_over(cx, &node).await?;
        let answers = over.late.subscriber.settle(&[settlement(over.late_token)]).await;
        refused(&answers, ErrorKind::LeaseLost)?;
        if capabilities.extend {
            let answers = over.late.subscriber.extend(&[over.late_token], cx.lease()).await;
            refused(&answers, ErrorKind::LeaseLost)?;
        }
        ensure_eq!(
            over.node.lag("billing").await?,
            1,
            "the lag after a late settlement"
        );
        // The holder has it still, and nobody else.
        over.late.subscriber.resume().await?;
        over.late.nothing().await?;
        over.holder.settle(Settlement::Ack(over.holder_token)).await?;
        ensure_eq!(
            over.node.lag("billing").await?,
            0,
            "the lag after the holder's ack"
        );
        over.holder.subscriber.close().await?;
        over.late.subscriber.close().await?;
    }
    Ok(())
}

async fn should_lose_nothing_when_settled_after_redelivery_elsewhere<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let mut late_settlements: Vec<fn(DeliveryToken) -> Settlement> = vec![Settlement::Reject];
    if node.driver.info().capabilities.requeue {
        late_settlements.push(|token| requeue(token, None));
    }
    for settlement in late_settlements {
        let over = take_over(cx, &node).await?;
        // Whatever it answers: a transport that does not fence may say that it did something.
        let _late = over.late.settle(settlement(over.late_token)).await;
        over.late.subscriber.close().await?;
        // The holder dies before it is done: the message must still be there.
        over.holder.subscriber.close().await?;
        let next = cx.node().await?.join(cx, "billing", &orders).await?;
        ensure_eq!(
            body(&next.take_one().await?.message),
            "one",
            "what the next member gets"
        );
        let _rest = next.drain().await?;
        next.subscriber.close().await?;
        node.driver.remove_group(&crate::cx::group("billing")).await?;
        node.declare(super::node::unordered(&orders), &["billing"])
            .await?;
    }
    Ok(())
}

pub(super) const fn requeue(token: DeliveryToken, after: Option<Duration>) -> Settlement {
    Settlement::Requeue { token, after }
}
