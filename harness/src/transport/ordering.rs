//! The order of a key, with one member and through a take-over.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use headless_abstractions::{
    Delivery, Message, MessageId, PartitionKey, Partitions, Revoked, Subscription, TopicName,
};

use super::{
    declaring::{unsupported, was_not_made},
    member::{Member, bodies, body},
    node::{ordered, topology},
    sending::arrived_once,
    settling::requeue,
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure_eq, fail, instead},
    cx::{Cx, group, topic},
    fixture::{TransportFixture, TransportNode},
    mutation::Mutation::{
        AckByPrefix, BlockWhileUnsettled, IgnorePrefetch, LoseAck, ReorderDeliveries, RequeueToTail,
        WrongPartition,
    },
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_put_a_key_into_its_partition_when_sent,
            "a key's partition is its hash as every transport computes it, and deliveries name it"
        )
        .requested(Flag::ordering, instead!(refuse_order))
        .catching(&[WrongPartition]),
        case!(
            should_keep_the_order_of_a_key_when_delivered,
            "messages of one key are delivered in the order in which they were accepted"
        )
        .requested(Flag::ordering, instead!(refuse_order))
        .catching(&[ReorderDeliveries]),
        case!(
            should_go_on_with_other_partitions_when_one_is_unsettled,
            "an unsettled delivery does not hold up what may be prefetched after it, nor other partitions"
        )
        .requested(Flag::ordering, instead!(refuse_order))
        .catching(&[BlockWhileUnsettled]),
        case!(
            should_hold_no_more_of_a_partition_than_the_prefetch,
            "the prefetch bounds the unsettled deliveries of each partition"
        )
        .requested(Flag::ordering, instead!(refuse_order))
        .catching(&[IgnorePrefetch]),
        case!(
            should_go_back_to_its_place_when_requeued_on_an_ordered_topic,
            "a requeued message is delivered again before what follows in its partition"
        )
        .requested(Flag::ordering, instead!(refuse_order))
        .described(Flag::requeue)
        .catching(&[RequeueToTail]),
        case!(
            should_redeliver_in_place_when_acked_out_of_order,
            "after acks out of order the next holder gets exactly what was unsettled, in its order"
        )
        .requested(Flag::ordering, instead!(refuse_order))
        .catching(&[AckByPrefix, LoseAck]),
    ]
}

/// `count` messages over `keys` keys in turn; the body is `<key>:<place in the key>`.
pub(super) fn keyed<F>(cx: &Cx<F>, topic: &TopicName, count: usize, keys: usize) -> CaseResult<Vec<Message>> {
    (0..count)
        .map(|n| {
            let key = format!("k{}", n % keys);
            let message = cx.message(topic, format!("{key}:{}", n / keys));
            Ok(message.with_key(PartitionKey::parse(&key)?))
        })
        .collect()
}

/// Watches first occurrences: of each key in order.
#[derive(Debug, Default)]
pub(super) struct OrderCheck {
    next: BTreeMap<String, usize>,
    seen: BTreeMap<MessageId, usize>,
}

impl OrderCheck {
    /// A delivery, in the order in which deliveries were made.
    pub(super) fn see(&mut self, message: &Message) -> CaseResult {
        let times = self.seen.entry(message.id).or_default();
        *times += 1;
        if *times > 1 {
            return Ok(());
        }
        let text = body(message);
        let Some((key, place)) = text.split_once(':') else {
            fail!("{text:?} is no body of this case");
        };
        let next = self.next.entry(key.to_owned()).or_default();
        ensure_eq!(
            place.parse::<usize>()?,
            *next,
            "the place of the next message of {key}"
        );
        *next += 1;
        Ok(())
    }

    /// How many different messages were seen.
    pub(super) fn different(&self) -> usize {
        self.seen.len()
    }
}

pub(super) async fn refuse_order<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node().await?;
    unsupported(&node, &topology(ordered(&orders, 4)?, &["billing"])).await?;
    was_not_made(cx, &node, &orders, "billing").await
}

async fn should_put_a_key_into_its_partition_when_sent<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 7, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let messages = keyed(cx, &orders, 60, 30)?;
    node.send(&messages).await?;
    let partitions = Partitions::new(7)?;
    let taken = member.take(60).await?;
    for delivery in &taken {
        let key = delivery.message.key.as_ref();
        ensure_eq!(
            delivery.partition,
            key.map(|key| partitions.of(key)),
            "the partition of {key:?}"
        );
    }
    member.ack(&taken).await
}

async fn should_keep_the_order_of_a_key_when_delivered<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 4, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let messages = keyed(cx, &orders, 400, 10)?;
    for batch in messages.chunks(50) {
        node.send(batch).await?;
    }
    let mut order = OrderCheck::default();
    for message in member.work(400).await? {
        order.see(&message)?;
    }
    member.nothing().await
}

async fn should_go_on_with_other_partitions_when_one_is_unsettled<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 16, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let slow = keyed(cx, &orders, 1, 1)?;
    node.send(&slow).await?;
    let stuck = member.take_one().await?;
    let messages: Vec<Message> = keyed(cx, &orders, 64, 32)?
        .into_iter()
        .filter(|message| message.key != stuck.message.key)
        .collect();
    node.send(&messages).await?;
    let mut order = OrderCheck::default();
    let arrived = member.work(messages.len()).await?;
    for message in &arrived {
        order.see(message)?;
    }
    arrived_once(&messages, arrived)?;
    member.ack(&[stuck]).await
}

async fn should_hold_no_more_of_a_partition_than_the_prefetch<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 1, &["billing"]).await?;
    let member = narrow(cx, &node, 5, cx.lease()).await?;
    node.send(&keyed(cx, &orders, 20, 2)?).await?;
    let mut order = OrderCheck::default();
    for _ in 0..4 {
        let held = member.take(5).await?;
        member.nothing().await?;
        for delivery in &held {
            order.see(&delivery.message)?;
        }
        member.ack(&held).await?;
    }
    member.nothing().await
}

async fn should_go_back_to_its_place_when_requeued_on_an_ordered_topic<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 1, &["billing"]).await?;
    let member = narrow(cx, &node, 3, cx.lease()).await?;
    node.send(&keyed(cx, &orders, 6, 1)?).await?;
    let held = member.take(3).await?;
    member.settle(requeue(held[0].token, None)).await?;
    member.ack(&held[1..]).await?;
    let rest = member.take(3).await?;
    ensure_eq!(
        bodies(&rest),
        vec!["k0:0", "k0:3", "k0:4"],
        "what comes after a requeue of the first"
    );
    if node.driver.info().capabilities.requeue_delay {
        // With a delay the partition waits for it.
        member.ack(&rest[1..]).await?;
        let delay = cx.lease() + cx.quiet();
        member.settle(requeue(rest[0].token, Some(delay))).await?;
        member.nothing_for(cx.lease()).await?;
        ensure_eq!(
            bodies(&member.take(2).await?),
            vec!["k0:0", "k0:5"],
            "what comes after the delay"
        );
    }
    Ok(())
}

async fn should_redeliver_in_place_when_acked_out_of_order<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 1, &["billing"]).await?;
    let member = narrow(cx, &node, 6, cx.lease()).await?;
    node.send(&keyed(cx, &orders, 10, 1)?).await?;
    let held = member.take(6).await?;
    for n in [4, 1, 2] {
        member.ack(&held[n..=n]).await?;
    }
    member.subscriber.close().await?;
    let next = narrow(cx, &node, 7, cx.lease()).await?;
    let mut expected: Vec<String> = [0, 3, 5, 6, 7, 8, 9].iter().map(|n| format!("k0:{n}")).collect();
    let mut taken = bodies(&next.take(7).await?);
    if !node.driver.info().capabilities.fenced_settlement && taken != expected {
        // A transport that keeps one mark for each partition may give again what was acked after it.
        expected.extend([1, 2, 4].map(|n| format!("k0:{n}")));
        expected.sort_unstable();
        taken.extend(bodies(&next.take(expected.len() - 7).await?));
    }
    ensure_eq!(taken, expected, "what the next holder gets");
    Ok(())
}

/// Whether the delivery is of this partition.
pub(super) fn of(gone: &Revoked, delivery: &Delivery) -> bool {
    delivery.message.topic == gone.topic && delivery.partition == Some(gone.partition)
}

/// A member of `billing` on `orders` with this prefetch and visibility time.
pub(super) async fn narrow<F: TransportFixture>(
    cx: &Cx<F>,
    node: &TransportNode,
    prefetch: usize,
    visibility: Duration,
) -> CaseResult<Member> {
    let Some(prefetch) = NonZeroUsize::new(prefetch) else {
        fail!("a prefetch of nothing");
    };
    let subscription = Subscription::new(group("billing"), topic("orders"), cx.owner())
        .with_prefetch(prefetch)
        .with_visibility(visibility);
    node.join_as(cx, subscription).await
}
