//! Who holds which partition, and for how long.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use headless_abstractions::{Delivery, Partition, TopicName};

use super::{
    member::{Member, bodies},
    ordering::{OrderCheck, keyed, narrow, of},
    sending::arrived_once,
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq},
    cx::{Cx, topic},
    fixture::TransportFixture,
    mutation::Mutation::{
        ExtendHoldsPartitions, ForgetRenewal, HideRevocations, HoldLapsesAtWork, IgnoreMax, PauseIgnored,
        SleepThroughWait,
    },
    wait::{Stopwatch, elapse, within},
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_share_the_partitions_when_members_join,
            "every partition has one holder, every member holds some, and moves are reported"
        )
        .described(Flag::ordering)
        .catching(&[HideRevocations]),
        case!(
            should_keep_its_partitions_when_it_takes_nothing,
            "a receive of nothing renews the hold: a handler may run for longer than the visibility time"
        )
        .described(Flag::ordering)
        .catching(&[ForgetRenewal, IgnoreMax, HoldLapsesAtWork]),
        case!(
            should_keep_its_partitions_when_paused,
            "a paused member keeps its partitions for as long as it receives"
        )
        .described(Flag::ordering)
        .catching(&[ForgetRenewal, PauseIgnored]),
        case!(
            should_lose_its_partitions_when_it_stops_receiving,
            "a member that freezes past the visibility time loses its partitions and is told so"
        )
        .described(Flag::ordering)
        .catching(&[HideRevocations]),
        case!(
            should_report_a_revocation_at_once_when_a_receive_waits,
            "a receive that waits returns when a partition is to move, also when it takes nothing"
        )
        .described(Flag::ordering)
        .catching(&[HideRevocations, SleepThroughWait]),
        case!(
            should_report_a_revocation_again_when_receive_is_dropped,
            "dropping a receive loses no revocation: the partition does not move before the member was told"
        )
        .described(Flag::ordering)
        .catching(&[HideRevocations]),
        case!(
            should_succeed_without_effect_when_an_ordered_delivery_is_extended,
            "deliveries of an ordered topic are held by the hold on their partition"
        )
        .described(Flag::ordering)
        .described(Flag::extend)
        .catching(&[ExtendHoldsPartitions]),
    ]
}

/// Who holds what, as far as deliveries and revocations have shown.
#[derive(Debug, Default)]
struct Holders(BTreeMap<(TopicName, Partition), usize>);

impl Holders {
    /// One receive of member `n`; acks what came.
    async fn turn(&mut self, n: usize, member: &Member, order: &mut OrderCheck) -> CaseResult {
        let received = member.receive(20, Duration::from_millis(20)).await?;
        for gone in &received.revoked {
            if self.0.get(&(gone.topic.clone(), gone.partition)) == Some(&n) {
                self.0.remove(&(gone.topic.clone(), gone.partition));
            }
        }
        for delivery in &received.deliveries {
            order.see(&delivery.message)?;
            if let Some(partition) = delivery.partition {
                let holder = *self
                    .0
                    .entry((delivery.message.topic.clone(), partition))
                    .or_insert(n);
                ensure_eq!(n, holder, "the member that is given partition {partition}");
            }
        }
        member.ack(&received.deliveries).await
    }
}

async fn should_share_the_partitions_when_members_join<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 12, &["billing"]).await?;
    let mut members = vec![narrow(cx, &node, 10, cx.lease()).await?];
    let (mut holders, mut order) = (Holders::default(), OrderCheck::default());
    let mut sent = 0;
    for size in 1..=3 {
        if size > 1 {
            members.push(narrow(cx, &cx.node().await?, 10, cx.lease()).await?);
        }
        // Traffic on all partitions until each member has its share.
        let watch = Stopwatch::start();
        loop {
            let shares: BTreeSet<usize> = holders.0.values().copied().collect();
            if shares.len() == size && holders.0.len() == 12 {
                break;
            }
            ensure!(
                watch.elapsed() < cx.lease() + cx.patience(),
                "{size} members hold partitions like this: {:?}",
                holders.0
            );
            let messages = more_of_each(cx, &orders, sent)?;
            node.send(&messages).await?;
            sent += 1;
            for (n, member) in members.iter().enumerate() {
                holders.turn(n, member, &mut order).await?;
            }
        }
    }
    // And nothing was lost on the way.
    let all = sent * KEYS;
    let watch = Stopwatch::start();
    while order.different() < all {
        ensure!(
            watch.elapsed() < cx.patience(),
            "{} of {all} came",
            order.different()
        );
        for (n, member) in members.iter().enumerate() {
            holders.turn(n, member, &mut order).await?;
        }
    }
    Ok(())
}

/// Enough keys that each of twelve partitions has some.
const KEYS: usize = 96;

/// The message with this place of every key.
fn more_of_each<F>(
    cx: &Cx<F>,
    orders: &TopicName,
    place: usize,
) -> CaseResult<Vec<headless_abstractions::Message>> {
    let mut messages = keyed(cx, orders, KEYS, KEYS)?;
    for (n, message) in messages.iter_mut().enumerate() {
        message.payload = format!("k{n}:{place}").into_bytes().into();
    }
    Ok(messages)
}

async fn should_keep_its_partitions_when_it_takes_nothing<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 16, &["billing"]).await?;
    let busy = narrow(cx, &node, 3, cx.lease()).await?;
    node.send(&keyed(cx, &orders, 160, 80)?).await?;
    let held = busy.hold().await?;
    let (kept, _other) = hold_on(cx, &busy, held, 0).await?;
    busy.ack(&kept).await
}

async fn should_keep_its_partitions_when_paused<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 16, &["billing"]).await?;
    let paused = narrow(cx, &node, 100, cx.lease()).await?;
    node.send(&keyed(cx, &orders, 80, 80)?).await?;
    let held = paused.hold().await?;
    paused.subscriber.pause().await?;
    // There is more to come, and room for it.
    node.send(&keyed(cx, &orders, 80, 80)?).await?;
    let (held, _other) = hold_on(cx, &paused, held, 100).await?;
    paused.subscriber.resume().await?;
    let more = paused.take(held.len()).await?;
    for delivery in &more {
        ensure!(
            held.iter().any(|before| before.partition == delivery.partition),
            "{:?} came after the pause, of which it held {:?}",
            delivery.partition,
            held.iter()
                .filter_map(|before| before.partition)
                .collect::<BTreeSet<_>>()
        );
    }
    paused.ack(&held).await?;
    paused.ack(&more).await
}

/// Another member joins and gets its share; then the first one receives `max` of nothing for several visibility
/// times, and keeps what it has left. Answers what it holds then, and the other, who gives its share back when dropped.
async fn hold_on<F: TransportFixture>(
    cx: &Cx<F>,
    member: &Member,
    mut held: Vec<Delivery>,
    max: usize,
) -> CaseResult<(Vec<Delivery>, Member)> {
    let other = narrow(cx, &cx.node().await?, 3, cx.lease()).await?;
    let mut lost = 0;
    let (all, mut last) = (Stopwatch::start(), Stopwatch::start());
    while lost == 0 || last.elapsed() < cx.lease() {
        ensure!(
            all.elapsed() < cx.patience() + cx.lease() * 2,
            "nothing moved to the member that joined"
        );
        let received = member.receive(0, Duration::from_millis(20)).await?;
        other.receive(0, Duration::from_millis(20)).await?;
        if !received.revoked.is_empty() {
            lost += received.revoked.len();
            held.retain(|delivery| !received.revoked.iter().any(|gone| of(gone, delivery)));
            last = Stopwatch::start();
        }
    }
    ensure!(
        !held.is_empty(),
        "every partition moved to the member that joined"
    );

    let watch = Stopwatch::start();
    while watch.elapsed() < cx.lease() * 3 {
        let received = member.receive(max, cx.lease() / 8).await?;
        ensure!(
            received.deliveries.is_empty(),
            "a paused or full member was given {:?}",
            bodies(&received.deliveries)
        );
        ensure!(
            received.revoked.is_empty(),
            "the member lost its partitions: {:?}",
            received.revoked
        );
        for delivery in other.receive(100, cx.lease() / 8).await?.deliveries {
            ensure!(
                held.iter().all(|mine| mine.partition != delivery.partition),
                "partition {:?} went to another member",
                delivery.partition
            );
        }
    }
    Ok((held, other))
}

async fn should_lose_its_partitions_when_it_stops_receiving<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 4, &["billing"]).await?;
    let frozen = narrow(cx, &node, 5, cx.lease()).await?;
    let messages = keyed(cx, &orders, 40, 8)?;
    node.send(&messages).await?;
    let held = frozen.hold().await?;

    let other = narrow(cx, &cx.node().await?, 5, cx.lease()).await?;
    let mut order = OrderCheck::default();
    for _ in 0..40 {
        let taken = other.take(1).await?;
        order.see(&taken[0].message)?;
        other.ack(&taken).await?;
    }
    // It wakes up, and is told before anything else.
    let mut lost = BTreeSet::new();
    let watch = Stopwatch::start();
    while !held
        .iter()
        .all(|delivery| lost.iter().any(|gone| Some(*gone) == delivery.partition))
    {
        ensure!(watch.elapsed() < cx.patience(), "it was not told: {lost:?}");
        let received = frozen.receive(10, Duration::from_millis(20)).await?;
        lost.extend(received.revoked.into_iter().map(|gone| gone.partition));
        frozen.ack(&received.deliveries).await?;
    }
    other.nothing().await
}

async fn should_report_a_revocation_at_once_when_a_receive_waits<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    // So many that some are bound to move.
    let node = cx.ordered_node_with(&orders, 32, &["billing"]).await?;
    let first = narrow(cx, &node, 5, Duration::from_secs(3_600)).await?;
    node.send(&keyed(cx, &orders, 64, 64)?).await?;
    let held = first.hold().await?;
    let waiting = {
        let member = first.clone();
        tokio::spawn(async move { member.subscriber.receive(0, Duration::from_secs(1_800)).await })
    };
    elapse(cx.quiet()).await;
    let second = narrow(cx, &cx.node().await?, 5, Duration::from_secs(3_600)).await?;
    let joining = {
        let member = second.clone();
        tokio::spawn(async move { member.take_one().await })
    };
    let received = within(cx.patience(), "a receive that waits while another joins", waiting).await???;
    ensure!(received.deliveries.is_empty(), "a receive of none gave something");
    ensure!(
        !received.revoked.is_empty(),
        "nothing was revoked when another joined"
    );
    for gone in &received.revoked {
        ensure!(
            held.iter().any(|delivery| of(gone, delivery)) || gone.topic == orders,
            "{gone:?} was never held"
        );
    }
    // What was revoked goes to the other, unsettled first.
    let moved = within(
        cx.patience(),
        "the first delivery of the member that joined",
        joining,
    )
    .await???;
    ensure!(
        received.revoked.iter().any(|gone| of(gone, &moved)),
        "{:?} moved without being revoked",
        moved.partition
    );
    Ok(())
}

async fn should_report_a_revocation_again_when_receive_is_dropped<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 32, &["billing"]).await?;
    let first = narrow(cx, &node, 5, Duration::from_secs(3_600)).await?;
    node.send(&keyed(cx, &orders, 64, 64)?).await?;
    first.hold().await?;
    let second = narrow(cx, &cx.node().await?, 5, Duration::from_secs(3_600)).await?;
    // The first member's receives are dropped before they return, so nothing may move.
    for _ in 0..20 {
        let mut dropped = first.subscriber.receive(0, Duration::from_secs(60));
        let polled = futures::FutureExt::now_or_never(&mut dropped);
        drop(dropped);
        let told = polled
            .transpose()?
            .is_some_and(|received| !received.revoked.is_empty());
        let moved = second.receive(10, Duration::from_millis(5)).await?.deliveries;
        if told {
            // It answered at its first poll: then it was told.
            return Ok(());
        }
        ensure!(
            moved.is_empty(),
            "{:?} moved although the receive that would have told was dropped",
            bodies(&moved)
        );
    }
    let watch = Stopwatch::start();
    let mut revoked = Vec::new();
    while revoked.is_empty() {
        ensure!(
            watch.elapsed() < cx.patience(),
            "the revocation was lost with the dropped receives"
        );
        revoked = first.receive(0, Duration::from_millis(50)).await?.revoked;
    }
    let moved = second.take_one().await?;
    ensure!(
        revoked.iter().any(|gone| of(gone, &moved)),
        "{:?} was not revoked",
        moved.partition
    );
    Ok(())
}

async fn should_succeed_without_effect_when_an_ordered_delivery_is_extended<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 8, &["billing"]).await?;
    let messages = keyed(cx, &orders, 40, 40)?;
    node.send(&messages).await?;
    let member = narrow(cx, &node, 100, cx.lease()).await?;
    let held = member.hold().await?;
    let tokens: Vec<_> = held.iter().map(|delivery| delivery.token).collect();
    for answer in member.subscriber.extend(&tokens, cx.lease() * 20).await {
        answer?;
    }
    // Without receiving, all of its partitions go, extended or not.
    elapse(cx.lease() + cx.quiet()).await;
    let other = narrow(cx, &cx.node().await?, 100, cx.lease()).await?;
    let mut arrived = Vec::new();
    let all = within(
        cx.lease() * 5,
        "all partitions of a member that does not receive",
        async {
            while arrived.len() < messages.len() {
                arrived.extend(other.work(1).await?);
            }
            CaseResult::Ok(())
        },
    );
    all.await??;
    arrived_once(&messages, arrived)
}
