//! Another order, or another count of partitions, for a topic that exists.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use headless_abstractions::{
    Error, ErrorKind, GroupSpec, Message, Partition, Partitions, Sent, StartFrom, TopicName, TopicOrder,
    Topology,
};

use super::{
    member::Member,
    node::{ordered, unordered},
    ordering::{OrderCheck, keyed},
    refusing::refused,
    sending::arrived_once,
    settling::requeue,
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq, fail, instead},
    cx::{Cx, group, topic},
    fixture::{TransportFixture, TransportNode},
    mutation::Mutation::{
        DropDelivery, ForgetRepartition, HideRevocations, IgnoreStartFrom, ReorderDeliveries,
        RepartitionLosesWhatWaits, SwallowRepartitionError, WrongPartition,
    },
    wait::{Stopwatch, elapse},
};

pub(super) fn cases<F: TransportFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_go_by_the_new_count_when_repartitioned,
            "every handle's sends go by the new count, whatever it knew; groups and members stay, and repeating it changes \
             nothing"
        )
        .requested(Flag::repartition, instead!(refuse_to_repartition))
        .described(Flag::ordering)
        .catching(&[ForgetRepartition, WrongPartition]),
        case!(
            should_refuse_to_repartition_when_a_group_holds_something,
            "what waits, is delayed or is unsettled in any group stands in the way: `Conflict` names group and number, and \
             nothing is changed"
        )
        .requested(Flag::repartition, instead!(refuse_to_repartition))
        .described(Flag::ordering)
        .catching(&[SwallowRepartitionError, RepartitionLosesWhatWaits]),
        case!(
            should_refuse_to_repartition_when_the_topic_is_unknown,
            "a topic that was never declared is `NotFound`, and is not made"
        )
        .requested(Flag::repartition, instead!(refuse_to_repartition))
        .catching(&[SwallowRepartitionError]),
        case!(
            should_share_the_new_partitions_when_repartitioned,
            "members are told of the partitions that they held, and share the new ones"
        )
        .requested(Flag::repartition, instead!(refuse_to_repartition))
        .described(Flag::ordering)
        .catching(&[HideRevocations, ForgetRepartition]),
        case!(
            should_begin_and_end_to_keep_order_when_repartitioned,
            "a topic without order is given one, and back; its members go on"
        )
        .requested(Flag::repartition, instead!(refuse_to_repartition))
        .described(Flag::ordering)
        .catching(&[ForgetRepartition, HideRevocations]),
        case!(
            should_replay_nothing_from_before_when_repartitioned,
            "a group that begins with the oldest gets what was sent since"
        )
        .requested(Flag::repartition, instead!(refuse_to_repartition))
        .described(Flag::ordering)
        .described(Flag::replay_from_start)
        .catching(&[ForgetRepartition, IgnoreStartFrom]),
        case!(
            should_agree_when_several_repartition_at_once,
            "each is done or refused by itself, one after the other"
        )
        .requested(Flag::repartition, instead!(refuse_to_repartition))
        .described(Flag::ordering)
        .catching(&[ForgetRepartition]),
        case!(
            should_keep_key_order_when_repartitioned_under_load,
            "several senders and members while the count changes again and again: each key in order, nothing lost or doubled"
        )
        .requested(Flag::repartition, instead!(refuse_to_repartition))
        .described(Flag::ordering)
        .catching(&[DropDelivery, ReorderDeliveries]),
    ]
}

fn partitions(count: u16) -> CaseResult<TopicOrder> {
    Ok(TopicOrder::Partitioned(Partitions::new(count)?))
}

async fn refuse_to_repartition<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    match node.driver.repartition(&orders, partitions(4)?).await {
        Ok(before) => fail!("it was done, and the topic was {before}"),
        Err(error) => ensure_eq!(
            error.kind(),
            ErrorKind::Unsupported,
            "why it was refused ({error})"
        ),
    }
    // The topic is what it was, also for messages that an ordered one would refuse.
    node.declare(unordered(&orders), &["billing"]).await?;
    let message = cx.message(&orders, "x");
    node.send(std::slice::from_ref(&message)).await?;
    let member = node.join(cx, "billing", &orders).await?;
    arrived_once(&[message], member.work(1).await?)
}

/// Sees that another count is refused, and the declared one is not.
async fn is_ordered_by(node: &TransportNode, topic: &TopicName, count: u16, not: u16) -> CaseResult {
    node.declare(ordered(topic, count)?, &[]).await?;
    match node
        .driver
        .declare(&Topology::new().with_topic(ordered(topic, not)?))
        .await
    {
        Ok(()) => fail!("the topic was declared with {not} partitions, and has {count}"),
        Err(error) => ensure_eq!(error.kind(), ErrorKind::Conflict, "why it was refused ({error})"),
    }
    Ok(())
}

async fn should_go_by_the_new_count_when_repartitioned<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 4, &["billing", "audit"]).await?;
    let other = cx.node().await?;
    let billing = node.join(cx, "billing", &orders).await?;
    let audit = other.join(cx, "audit", &orders).await?;
    // Both handles know the topic.
    let before = keyed(cx, &orders, 40, 20)?;
    node.send(&before[..20]).await?;
    other.send(&before[20..]).await?;
    for member in [&billing, &audit] {
        arrived_once(&before, member.work(40).await?)?;
    }

    let had = cx
        .node()
        .await?
        .driver
        .repartition(&orders, partitions(7)?)
        .await?;
    ensure_eq!(had, partitions(4)?, "the order before");
    is_ordered_by(&node, &orders, 7, 4).await?;
    let again = node.driver.repartition(&orders, partitions(7)?).await?;
    ensure_eq!(again, partitions(7)?, "the order before the same once more");

    let after = keyed(cx, &orders, 60, 30)?;
    node.send(&after[..30]).await?;
    other.send(&after[30..]).await?;
    let count = Partitions::new(7)?;
    for member in [&billing, &audit] {
        let mut order = OrderCheck::default();
        let taken = member.take(60).await?;
        for delivery in &taken {
            let key = delivery.message.key.as_ref();
            ensure_eq!(
                delivery.partition,
                key.map(|key| count.of(key)),
                "the partition of {key:?} among the new ones"
            );
            order.see(&delivery.message)?;
        }
        member.ack(&taken).await?;
        arrived_once(
            &after,
            taken.into_iter().map(|delivery| delivery.message).collect(),
        )?;
        member.nothing().await?;
    }
    // What is there does not stand in the way of what changes nothing.
    node.send(&keyed(cx, &orders, 1, 1)?).await?;
    let same = node.driver.repartition(&orders, partitions(7)?).await?;
    ensure_eq!(same, partitions(7)?, "the order before, with a message there");
    Ok(())
}

/// Sees that the topic is not drained: so many messages are with `name`, and no other group is named.
async fn is_held<F: TransportFixture>(
    cx: &Cx<F>,
    node: &TransportNode,
    name: &str,
    count: usize,
) -> CaseResult {
    let orders = topic("orders");
    let error: Error = match node.driver.repartition(&orders, partitions(7)?).await {
        Ok(before) => fail!("it was done while {name} had {count} messages, and was {before}"),
        Err(error) => error,
    };
    ensure_eq!(error.kind(), ErrorKind::Conflict, "why it was refused ({error})");
    ensure!(error.is_retryable(), "trying again helps: {error}");
    let line = error.to_string();
    ensure!(
        line.contains(&format!("{name} {count}")),
        "it does not say that {name} has {count}: {line}"
    );
    for other in ["billing", "audit", "shipping"]
        .into_iter()
        .filter(|other| *other != name)
    {
        ensure!(
            !line.contains(other),
            "it names {other}, which has nothing: {line}"
        );
    }
    is_ordered_by(&cx.node().await?, &orders, 4, 7).await
}

async fn should_refuse_to_repartition_when_a_group_holds_something<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 4, &["billing", "audit"]).await?;
    // Something of another topic does not matter.
    let payments = topic("payments");
    node.declare(unordered(&payments), &["shipping"]).await?;
    node.send(&[cx.message(&payments, "other")]).await?;

    let messages = keyed(cx, &orders, 12, 6)?;
    node.send(&messages).await?;
    let audit = node.join(cx, "audit", &orders).await?;
    arrived_once(&messages, audit.work(12).await?)?;
    is_held(cx, &node, "billing", 12).await?;

    let billing = node.join(cx, "billing", &orders).await?;
    let taken = billing.take(12).await?;
    is_held(cx, &node, "billing", 12).await?;
    billing.ack(&taken[1..]).await?;
    is_held(cx, &node, "billing", 1).await?;
    let mut last = taken[0].token;
    if node.driver.info().capabilities.requeue {
        billing.settle(requeue(last, None)).await?;
        is_held(cx, &node, "billing", 1).await?;
        last = billing.take_one().await?.token;
    }
    billing
        .settle(headless_abstractions::Settlement::Ack(last))
        .await?;

    if node.driver.info().capabilities.delayed_send {
        let mut late = keyed(cx, &orders, 1, 1)?;
        late[0].deliver_after = Some(cx.lease());
        node.send(&late).await?;
        match node.driver.repartition(&orders, partitions(7)?).await {
            Ok(_) => fail!("it was done while a message waited for its time"),
            Err(error) => ensure_eq!(error.kind(), ErrorKind::Conflict, "why it was refused ({error})"),
        }
        arrived_once(&late, billing.work(1).await?)?;
        is_held(cx, &node, "audit", 1).await?;
        arrived_once(&late, audit.work(1).await?)?;
    }
    let had = node.driver.repartition(&orders, partitions(7)?).await?;
    ensure_eq!(had, partitions(4)?, "the order before, once nothing is held");
    ensure_eq!(node.lag("shipping").await?, 1, "what waits of another topic");
    Ok(())
}

async fn should_refuse_to_repartition_when_the_topic_is_unknown<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let nowhere = topic("nowhere");
    let node = cx.node().await?;
    match node.driver.repartition(&nowhere, TopicOrder::Unordered).await {
        Ok(before) => fail!("a topic that was never declared was {before}"),
        Err(error) => ensure_eq!(error.kind(), ErrorKind::NotFound, "why it was refused ({error})"),
    }
    refused(
        &node.driver.send(&[cx.message(&nowhere, "x")]).await,
        ErrorKind::NotFound,
    )
}

async fn should_share_the_new_partitions_when_repartitioned<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 3, &["billing"]).await?;
    let first = node.join(cx, "billing", &orders).await?;
    // It has been given something of each, so it holds them all.
    let messages = keyed(cx, &orders, 30, 30)?;
    node.send(&messages).await?;
    first.work(30).await?;
    node.driver.repartition(&orders, partitions(8)?).await?;

    let mut revoked = BTreeSet::new();
    let watch = Stopwatch::start();
    while revoked.len() < 3 {
        ensure!(
            watch.elapsed() < cx.patience(),
            "of 3 partitions that are no more, the member was told of {revoked:?}"
        );
        let received = first.receive(10, Duration::from_millis(50)).await?;
        ensure!(received.deliveries.is_empty(), "nothing was sent");
        for gone in received.revoked {
            ensure_eq!(gone.topic, orders, "the topic of what was revoked");
            ensure!(
                revoked.insert(gone.partition),
                "partition {} was revoked twice",
                gone.partition
            );
        }
    }
    let of_old: BTreeSet<Partition> = Partitions::new(3)?.iter().collect();
    ensure_eq!(revoked, of_old, "the partitions that were revoked");

    // Who comes now has its share of the new ones.
    let second = cx.node().await?.join(cx, "billing", &orders).await?;
    let after = keyed(cx, &orders, 400, 100)?;
    let mut order = OrderCheck::default();
    let (mut by_first, mut by_second) = (0, 0);
    let watch = Stopwatch::start();
    for batch in after.chunks(100) {
        node.send(batch).await?;
        let enough = order.different() + batch.len();
        while order.different() < enough {
            ensure!(
                watch.elapsed() < cx.patience() * 2,
                "{} of 400 messages came",
                order.different()
            );
            for (member, mine) in [(&first, &mut by_first), (&second, &mut by_second)] {
                let received = member.receive(50, Duration::from_millis(5)).await?;
                for delivery in &received.deliveries {
                    order.see(&delivery.message)?;
                    *mine += 1;
                }
                member.ack(&received.deliveries).await?;
            }
        }
    }
    ensure!(
        by_first > 0 && by_second > 0,
        "of two members one did {by_first} and the other {by_second}"
    );
    Ok(())
}

async fn should_begin_and_end_to_keep_order_when_repartitioned<F: TransportFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let orders = topic("orders");
    let node = cx.node_with(&orders, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    node.send(&[cx.message(&orders, "before")]).await?;
    member.work(1).await?;

    let had = node.driver.repartition(&orders, partitions(3)?).await?;
    ensure_eq!(had, TopicOrder::Unordered, "the order before");
    refused(
        &node.driver.send(&[cx.message(&orders, "without a key")]).await,
        ErrorKind::Invalid,
    )?;
    let messages = keyed(cx, &orders, 60, 6)?;
    node.send(&messages).await?;
    let count = Partitions::new(3)?;
    let mut order = OrderCheck::default();
    let taken = member.take(60).await?;
    for delivery in &taken {
        let key = delivery.message.key.as_ref();
        ensure_eq!(
            delivery.partition,
            key.map(|key| count.of(key)),
            "the partition of {key:?}"
        );
        order.see(&delivery.message)?;
    }
    member.ack(&taken).await?;

    let had = node.driver.repartition(&orders, TopicOrder::Unordered).await?;
    ensure_eq!(had, partitions(3)?, "the order before the way back");
    let message = cx.message(&orders, "without a key again");
    node.send(std::slice::from_ref(&message)).await?;
    let watch = Stopwatch::start();
    let (mut revoked, mut taken) = (BTreeSet::new(), Vec::new());
    while taken.is_empty() || revoked.len() < 3 {
        ensure!(
            watch.elapsed() < cx.patience(),
            "{} came, and of 3 partitions the member was told of {revoked:?}",
            taken.len()
        );
        let received = member.receive(1, Duration::from_millis(50)).await?;
        revoked.extend(received.revoked.into_iter().map(|gone| gone.partition));
        taken.extend(received.deliveries);
    }
    ensure_eq!(taken[0].partition, None, "the partition on a topic without order");
    member.ack(&taken).await?;
    arrived_once(
        &[message],
        taken.into_iter().map(|delivery| delivery.message).collect(),
    )?;
    member.nothing().await
}

async fn should_replay_nothing_from_before_when_repartitioned<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 4, &["billing"]).await?;
    let member = node.join(cx, "billing", &orders).await?;
    node.send(&keyed(cx, &orders, 20, 5)?).await?;
    member.work(20).await?;
    node.driver.repartition(&orders, partitions(6)?).await?;
    let since = keyed(cx, &orders, 10, 5)?;
    node.send(&since).await?;
    member.work(10).await?;

    let audit = GroupSpec::new(group("audit"), orders.clone()).with_start(StartFrom::Oldest);
    node.driver.declare(&Topology::new().with_group(audit)).await?;
    let auditor = node.join(cx, "audit", &orders).await?;
    arrived_once(&since, auditor.work(10).await?)?;
    auditor.nothing().await
}

async fn should_agree_when_several_repartition_at_once<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 2, &["billing"]).await?;
    let mut asked = Vec::new();
    for count in 3..9 {
        let (driver, orders) = (cx.node().await?.driver, orders.clone());
        asked.push(tokio::spawn(async move {
            let order = TopicOrder::Partitioned(Partitions::new(count)?);
            driver.repartition(&orders, order).await
        }));
    }
    // Each found what the one before it had made, so that one of them was the last.
    let mut left: BTreeSet<u16> = (2..9).collect();
    for had in join_all(asked).await {
        let had = had??.partitions().map(Partitions::get);
        ensure!(
            had.is_some_and(|count| left.remove(&count)),
            "two found the same, or what was never there: {had:?}, with {left:?} left"
        );
    }
    let last = match left.into_iter().collect::<Vec<_>>()[..] {
        [last] => last,
        ref others => fail!("nobody was the last: {others:?}"),
    };
    ensure!(last != 2, "nobody found what was there first");
    is_ordered_by(&node, &orders, last, 9).await?;
    let member = node.join(cx, "billing", &orders).await?;
    let messages = keyed(cx, &orders, 40, 20)?;
    node.send(&messages).await?;
    arrived_once(&messages, member.work(40).await?)
}

/// Sends until each is accepted, in their order: a topic that changes all the time may have a send refused for now.
async fn send_all(node: &TransportNode, mut batch: Vec<Message>, bound: Duration) -> CaseResult {
    let watch = Stopwatch::start();
    while !batch.is_empty() {
        ensure!(
            watch.elapsed() < bound,
            "{} were refused again and again",
            batch.len()
        );
        let mut refused = Vec::new();
        for (message, answer) in batch.iter().zip(node.driver.send(&batch).await) {
            match answer {
                Ok(sent) => ensure_eq!(sent, Sent::Accepted, "what became of a message"),
                Err(error) if error.is_outcome_unknown() => return Err(error.into()),
                // Behind one that was refused for now.
                Err(error) if error.is_retryable() || !refused.is_empty() => refused.push(message.clone()),
                Err(error) => return Err(error.into()),
            }
        }
        batch = refused;
    }
    Ok(())
}

/// What the members of a case were given, in that order.
#[derive(Debug, Default)]
struct Given {
    order: OrderCheck,
    messages: Vec<Message>,
}

fn lock(given: &Mutex<Given>) -> MutexGuard<'_, Given> {
    given.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Works until so many messages were given to members. Each is noted before it is acked: what was acked may be followed by
/// what goes by another count.
async fn work(member: Member, given: Arc<Mutex<Given>>, enough: usize, bound: Duration) -> CaseResult {
    let watch = Stopwatch::start();
    loop {
        let done = lock(&given).messages.len();
        if done >= enough {
            return Ok(());
        }
        ensure!(watch.elapsed() < bound, "{done} of {enough} messages came");
        let received = member.receive(25, Duration::from_millis(50)).await?;
        {
            let mut given = lock(&given);
            for delivery in &received.deliveries {
                given.order.see(&delivery.message)?;
                given.messages.push(delivery.message.clone());
            }
        }
        elapse(Duration::from_millis(1)).await;
        member.ack(&received.deliveries).await?;
    }
}

async fn should_keep_key_order_when_repartitioned_under_load<F: TransportFixture>(cx: &Cx<F>) -> CaseResult {
    const SENDERS: usize = 3;
    const ROUNDS: usize = 25;
    const EACH: usize = 20;
    const COUNT: usize = SENDERS * ROUNDS * EACH;
    let orders = topic("orders");
    let node = cx.ordered_node_with(&orders, 4, &["billing"]).await?;
    let given = Arc::<Mutex<Given>>::default();
    let bound = cx.patience() * 4;
    let mut workers = Vec::new();
    for _ in 0..3 {
        let member = cx.node().await?.join(cx, "billing", &orders).await?;
        workers.push(tokio::spawn(work(member, given.clone(), COUNT, bound)));
    }

    // It never rests, so that it meets the ends of rounds, when the last is acked, and their beginnings.
    let (over, changes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let changing = {
        let (driver, orders) = (cx.node().await?.driver, orders.clone());
        let (over, changes) = (over.clone(), changes.clone());
        tokio::spawn(async move {
            for count in [5, 1, 16, 3, 7].into_iter().cycle() {
                let order = partitions(count)?;
                loop {
                    elapse(Duration::from_millis(1)).await;
                    if over.load(Ordering::Acquire) {
                        return CaseResult::Ok(());
                    }
                    match driver.repartition(&orders, order).await {
                        Ok(_) => {
                            changes.fetch_add(1, Ordering::AcqRel);
                            elapse(Duration::from_millis(10)).await;
                            break;
                        }
                        Err(error) if error.is_retryable() => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Ok(())
        })
    };

    // Each sender has keys of its own and a handle of its own, which knows the count that it found.
    let mut senders = Vec::new();
    for _ in 0..SENDERS {
        senders.push(cx.node().await?);
    }
    let messages = keyed(cx, &orders, COUNT, SENDERS * 4)?;
    let watch = Stopwatch::start();
    for (round, part) in messages.chunks(SENDERS * EACH).enumerate() {
        let sends = senders.iter().enumerate().map(|(n, sender)| {
            let of_sender = |message: &&Message| {
                let key = message.key.as_ref().map_or("", |key| key.as_str());
                key.trim_start_matches('k')
                    .parse::<usize>()
                    .is_ok_and(|key| key % SENDERS == n)
            };
            let own: Vec<Message> = part.iter().filter(of_sender).cloned().collect();
            async move {
                for batch in own.chunks(5) {
                    send_all(sender, batch.to_vec(), bound).await?;
                }
                CaseResult::Ok(())
            }
        });
        for sent in join_all(sends).await {
            sent?;
        }
        let enough = (round + 1) * SENDERS * EACH;
        // Of three rounds one runs into the next, one ends when its last message is given and about to be acked, and one
        // when the count was changed behind it: all senders know the former one then.
        let before = changes.load(Ordering::Acquire);
        let is_over = || match round % 3 {
            0 => true,
            1 => lock(&given).messages.len() >= enough,
            _ => lock(&given).messages.len() >= enough && changes.load(Ordering::Acquire) > before,
        };
        while !is_over() {
            ensure!(watch.elapsed() < bound, "round {round} was not worked off");
            elapse(Duration::from_millis(2)).await;
        }
    }
    for worker in join_all(workers).await {
        worker??;
    }
    over.store(true, Ordering::Release);
    changing.await??;
    let changes = changes.load(Ordering::Acquire);
    ensure!(changes >= ROUNDS / 3, "the count was changed {changes} times");
    let arrived = std::mem::take(&mut lock(&given).messages);
    arrived_once(&messages, arrived)?;
    ensure_eq!(node.lag("billing").await?, 0, "the lag at the end");
    Ok(())
}
