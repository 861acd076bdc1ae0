//! The park: not before its time, once, counted, bounded.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use futures::future::try_join_all;
use headless_abstractions::{
    Admission, ClaimParked, ErrorKind, Hold, InboxState, Marked, Message, Park, ParkLimits, Parked, ParkedRow,
};
use tokio::sync::Mutex;

use super::worker::{Worker, hold_of};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AcceptZero, ClaimIgnoresLease, ClaimOverLimit, ClaimReversed, ExceptIgnored, MixGroupRows,
        ParkForgetsDelay, ParkUnbounded, TruncateEnvelope,
    },
    outbox::{
        node::{Node, outlast_lease},
        samples::{LONG, complete, failure, id, keyed, message, numbers, orders, owner, payments},
    },
    wait::elapse,
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_come_once_and_not_before_its_time_when_parked,
            "a parked message comes once, not before its time, whole"
        )
        .catching(&[ParkForgetsDelay, ClaimIgnoresLease, TruncateEnvelope]),
        case!(
            should_hand_out_the_longest_due_first_when_claimed,
            "a parked claim takes the longest due, up to its limit"
        )
        .catching(&[ClaimReversed, ClaimOverLimit]),
        case!(
            should_hand_out_each_parked_message_once_when_many_claim_at_once,
            "concurrent parked claims are disjoint and miss nothing"
        )
        .catching(&[ClaimIgnoresLease]),
        case!(
            should_refuse_the_parked_claim_when_limit_or_lease_is_zero,
            "a limit or lease of zero is invalid"
        )
        .catching(&[AcceptZero]),
        case!(
            should_stay_in_its_group_when_parked,
            "each group has its own park"
        )
        .catching(&[MixGroupRows]),
        case!(
            should_leave_topics_out_when_they_are_excepted,
            "nothing of an excepted topic is claimed"
        )
        .catching(&[ExceptIgnored]),
        case!(
            should_be_full_when_a_bound_is_reached,
            "the park is bounded by key and by group, for what is not in it"
        )
        .catching(&[ParkUnbounded]),
    ]
}

const NOW: Duration = Duration::ZERO;

async fn should_come_once_and_not_before_its_time_when_parked<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let other = Worker::new(&node, owner(2));
    let hold = worker.run(&complete(1)).await?;
    ensure_eq!(
        worker.park(&complete(1), hold, cx.lease()).await?,
        Parked::Now,
        "parking for a while"
    );
    ensure_eq!(
        worker.park(&message(2), Hold::Absent, LONG).await?,
        Parked::Now,
        "parking for long"
    );
    ensure_eq!(
        worker.park(&message(3), Hold::Absent, NOW).await?,
        Parked::Now,
        "parking for no time"
    );
    ensure_eq!(
        worker.mark(&complete(1), hold).await?,
        Marked::LeaseLost,
        "a mark of what is parked"
    );
    let settled = Admission::Settled(InboxState::Parked);
    ensure_eq!(
        worker.admit(&complete(1)).await?,
        settled,
        "its delivery, should it come again"
    );

    ensure_eq!(numbers(&worker.claim(10).await?), vec![3], "what is due at once");
    outlast_lease(cx).await;
    let rows = other.claim(10).await?;
    ensure_eq!(numbers(&rows), vec![1], "what is due after its time");
    ensure_eq!(rows[0].message, complete(1), "the message, whole");
    ensure_eq!(
        rows[0].arrival,
        worker.arrival(&complete(1)),
        "the message as the group meets it"
    );
    ensure!(
        worker.claim(10).await?.is_empty(),
        "a message was claimed that another has"
    );
    let hold = hold_of(other.owner, &rows[0]);
    ensure_eq!(
        other.mark(&complete(1), hold).await?,
        Marked::Now,
        "the mark of the one who claimed it"
    );
    ensure_eq!(
        other.admit(&complete(1)).await?,
        Admission::Settled(InboxState::Processed),
        "its delivery"
    );
    Ok(())
}

async fn should_hand_out_the_longest_due_first_when_claimed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    // In one call, so that they differ by their delays alone.
    let parks = [(1, 400), (2, 200), (3, 0), (4, 300)].map(|(n, after)| {
        let (message, after) = (message(n), Duration::from_millis(after));
        let arrival = worker.arrival(&message);
        Park::failed(message, arrival, Hold::Absent, after, vec![failure("failed")])
    });
    node.parked.park(&parks, ParkLimits::default()).await?;
    elapse(Duration::from_millis(600)).await;
    ensure_eq!(
        numbers(&worker.claim(3).await?),
        vec![3, 2, 4],
        "the first claim, up to its limit"
    );
    ensure_eq!(numbers(&worker.claim(3).await?), vec![1], "the second claim");
    ensure!(
        worker.claim(3).await?.is_empty(),
        "a claim found a message where none is due"
    );
    Ok(())
}

async fn should_hand_out_each_parked_message_once_when_many_claim_at_once<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    const COUNT: u64 = 60;
    let nodes = try_join_all((0..6).map(|_| Node::join(cx))).await?;
    let parking = Worker::new(&nodes[0], owner(99));
    let parks: Vec<_> = (0..COUNT)
        .map(|n| {
            let message = if n % 3 == 0 {
                keyed(n, &(n % 5).to_string())
            } else {
                message(n)
            };
            let arrival = parking.arrival(&message);
            Park::failed(message, arrival, Hold::Absent, NOW, vec![failure("failed")])
        })
        .collect();
    nodes[0].parked.park(&parks, ParkLimits::default()).await?;

    let taken = Mutex::new(BTreeMap::<u64, u32>::new());
    let workers = nodes.iter().enumerate().map(|(index, node)| {
        let taken = &taken;
        async move {
            let worker = Worker::new(node, owner(index as u128));
            let mut last: Vec<ParkedRow> = Vec::new();
            loop {
                let rows = worker.claim(7).await?;
                // What was claimed before is settled only now, so that others have every chance to take it too.
                for row in &last {
                    let hold = hold_of(worker.owner, row);
                    ensure_eq!(
                        worker.mark(&row.message, hold).await?,
                        Marked::Now,
                        "the mark of a claimed message"
                    );
                }
                if rows.is_empty() && last.is_empty() {
                    return CaseResult::Ok(());
                }
                for n in numbers(&rows) {
                    *taken.lock().await.entry(n).or_default() += 1;
                }
                last = rows;
            }
        }
    });
    try_join_all(workers).await?;
    let mut taken = taken.into_inner();
    for n in numbers(&parking.claim(1_000).await?) {
        *taken.entry(n).or_default() += 1;
    }
    ensure_eq!(taken.len() as u64, COUNT, "how many messages were handed out");
    ensure!(
        taken.values().all(|times| *times == 1),
        "messages were handed out more than once: {taken:?}"
    );
    Ok(())
}

async fn should_refuse_the_parked_claim_when_limit_or_lease_is_zero<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    worker.park(&message(1), Hold::Absent, NOW).await?;
    for (limit, lease) in [(0, LONG), (1, NOW)] {
        let request = ClaimParked::new(worker.owner, worker.group.clone(), limit, lease);
        match node.parked.claim(&request).await {
            Ok(rows) => fail!("a claim of {limit} for {lease:?} was answered with {rows:?}"),
            Err(error) => ensure_eq!(
                error.kind(),
                ErrorKind::Invalid,
                "the error of a claim of {limit}"
            ),
        }
    }
    ensure_eq!(
        numbers(&worker.claim(1).await?),
        vec![1],
        "the message after the refused claims"
    );
    Ok(())
}

async fn should_stay_in_its_group_when_parked<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let billing = Worker::of(&node, "billing", owner(1));
    let shipping = Worker::of(&node, "shipping", owner(1));
    billing.park(&keyed(1, "a"), Hold::Absent, NOW).await?;
    ensure!(
        shipping.claim(10).await?.is_empty(),
        "a group claimed what another has parked"
    );
    shipping.run(&keyed(2, "a")).await?;
    shipping.run(&keyed(1, "a")).await?;
    ensure_eq!(
        numbers(&billing.claim(10).await?),
        vec![1],
        "what the group itself claims"
    );
    Ok(())
}

async fn should_leave_topics_out_when_they_are_excepted<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let mut paid = message(2);
    paid.topic = payments();
    worker.park(&message(1), Hold::Absent, NOW).await?;
    worker.park(&paid, Hold::Absent, NOW).await?;
    let claim = async |topics| {
        let request =
            ClaimParked::new(worker.owner, worker.group.clone(), 10, LONG).with_except_topics(topics);
        node.parked.claim(&request).await
    };
    ensure!(
        claim(vec![orders(), payments()]).await?.is_empty(),
        "a message of an excepted topic was claimed"
    );
    ensure_eq!(
        numbers(&claim(vec![orders()]).await?),
        vec![2],
        "what is of another topic"
    );
    ensure_eq!(
        numbers(&claim(Vec::new()).await?),
        vec![1],
        "what is left when nothing is excepted"
    );
    Ok(())
}

async fn should_be_full_when_a_bound_is_reached<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let bound = |most| NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN);
    let park = async |message: Message, hold, limits| -> CaseResult<Parked> {
        let park = Park::failed(
            message.clone(),
            worker.arrival(&message),
            hold,
            NOW,
            vec![failure("failed")],
        );
        Ok(node.parked.park(&[park], limits).await?[0])
    };
    let per_key = ParkLimits::new(bound(2), bound(100));
    ensure_eq!(
        park(keyed(1, "a"), Hold::Absent, per_key).await?,
        Parked::Now,
        "the first of a key"
    );
    ensure_eq!(
        park(keyed(2, "a"), Hold::Absent, per_key).await?,
        Parked::Now,
        "the second of a key"
    );
    ensure_eq!(
        park(keyed(3, "a"), Hold::Absent, per_key).await?,
        Parked::Full,
        "the third of a key of two"
    );
    ensure_eq!(
        worker.state(id(3)).await?,
        None,
        "the row of the one that found it full"
    );
    ensure_eq!(
        park(keyed(4, "b"), Hold::Absent, per_key).await?,
        Parked::Now,
        "the first of another key"
    );

    let per_group = ParkLimits::new(bound(100), bound(3));
    ensure_eq!(
        park(message(5), Hold::Absent, per_group).await?,
        Parked::Full,
        "the fourth of a group of three"
    );
    // What has a place already keeps it, however full the park is.
    let rows = worker.claim(1).await?;
    let tight = ParkLimits::new(bound(1), bound(1));
    let again = park(rows[0].message.clone(), hold_of(worker.owner, &rows[0]), tight).await?;
    ensure_eq!(again, Parked::Now, "parking again what was claimed from the park");
    let again = park(keyed(4, "b"), Hold::Absent, tight).await?;
    ensure_eq!(
        again,
        Parked::Already(InboxState::Parked),
        "parking what is parked"
    );
    Ok(())
}
