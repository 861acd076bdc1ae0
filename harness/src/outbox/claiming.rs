//! What a claim hands out: ready rows, in order, to one owner each.

use std::{collections::BTreeMap, time::Duration};

use headless_abstractions::{ClaimOutbox, ErrorKind, Message, OutboxState, Priority};
use tokio::sync::Mutex;

use super::{
    node::{Node, outlast_lease},
    samples::{LONG, claims, id, keyed, message, numbers, owner},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AcceptZero, ClaimIgnoresLease, ClaimOverLimit, ClaimReversed, FlattenPriority, ForgetDelay,
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_hand_out_the_oldest_up_to_the_limit_when_claimed,
            "a claim takes the oldest ready rows, no more than asked"
        )
        .catching(&[ClaimOverLimit, ClaimReversed, ClaimIgnoresLease]),
        case!(
            should_refuse_the_claim_when_limit_or_lease_is_zero,
            "a limit or lease of zero is invalid"
        )
        .catching(&[AcceptZero]),
        case!(
            should_prefer_higher_priorities_when_claimed,
            "higher priorities go first, then the oldest"
        )
        .catching(&[FlattenPriority, ClaimReversed]),
        case!(
            should_hand_out_each_row_once_when_many_claim_at_once,
            "concurrent claims are disjoint and miss nothing"
        )
        .catching(&[ClaimIgnoresLease]),
        case!(
            should_wait_when_a_row_is_delayed,
            "a delayed row is not handed out before its time, and then without its delay"
        )
        .catching(&[ForgetDelay]),
    ]
}

async fn should_hand_out_the_oldest_up_to_the_limit_when_claimed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    for n in 1..=7 {
        node.outbox.append(&[message(n)]).await?;
    }
    ensure_eq!(
        numbers(&node.claim(owner(1), 3).await?),
        vec![1, 2, 3],
        "the first claim"
    );
    ensure_eq!(
        numbers(&node.claim(owner(2), 3).await?),
        vec![4, 5, 6],
        "the second claim"
    );
    ensure_eq!(
        numbers(&node.claim(owner(1), 3).await?),
        vec![7],
        "the third claim"
    );
    ensure!(
        node.claim(owner(1), 3).await?.is_empty(),
        "a claim found a row where none is ready"
    );
    Ok(())
}

async fn should_refuse_the_claim_when_limit_or_lease_is_zero<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1)]).await?;
    for request in [
        ClaimOutbox::new(owner(1), 0, LONG),
        ClaimOutbox::new(owner(1), 1, Duration::ZERO),
    ] {
        match node.outbox.claim(&request).await {
            Ok(claimed) => fail!("{request:?} was answered with {claimed:?}"),
            Err(error) => ensure_eq!(error.kind(), ErrorKind::Invalid, "the error for {request:?}"),
        }
    }
    let rows = node.claim(owner(1), 1).await?;
    match node.outbox.renew(owner(1), &claims(&rows), Duration::ZERO).await {
        Ok(settled) => fail!("a renewal for no time was answered with {settled:?}"),
        Err(error) => ensure_eq!(error.kind(), ErrorKind::Invalid, "the error of the renewal"),
    }
    node.ack_all(owner(1), &claims(&rows)).await
}

async fn should_prefer_higher_priorities_when_claimed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let with_priority = |n: u64, priority: u8| -> headless_abstractions::Result<Message> {
        let mut message = message(n);
        message.priority = Priority::new(priority)?;
        Ok(message)
    };
    node.outbox
        .append(&[
            with_priority(1, 0)?,
            with_priority(2, 5)?,
            with_priority(3, 9)?,
            with_priority(4, 5)?,
            with_priority(5, 0)?,
        ])
        .await?;
    ensure_eq!(
        numbers(&node.claim(owner(1), 2).await?),
        vec![3, 2],
        "the two most urgent"
    );
    ensure_eq!(
        numbers(&node.claim(owner(1), 10).await?),
        vec![4, 1, 5],
        "the rest"
    );
    Ok(())
}

async fn should_hand_out_each_row_once_when_many_claim_at_once<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    const ROWS: u64 = 120;
    let nodes = futures::future::try_join_all((0..6).map(|_| Node::join(cx))).await?;
    let batch: Vec<_> = (1..=ROWS)
        .map(|n| {
            if n % 3 == 0 {
                keyed(n, &format!("key {}", n % 7))
            } else {
                message(n)
            }
        })
        .collect();
    nodes[0].outbox.append(&batch).await?;

    let taken = Mutex::new(BTreeMap::<u64, u32>::new());
    let relays = nodes.iter().enumerate().map(|(index, node)| {
        let taken = &taken;
        async move {
            // A row stays leased until this relay has claimed again, so that others have every chance to take it too.
            let mut held = Vec::new();
            loop {
                let rows = node.claim_runs(owner(index as u128), 7).await?;
                node.ack_all(owner(index as u128), &held).await?;
                if rows.is_empty() && held.is_empty() {
                    return CaseResult::Ok(());
                }
                held = claims(&rows);
                let mut taken = taken.lock().await;
                for n in numbers(&rows) {
                    *taken.entry(n).or_default() += 1;
                }
            }
        }
    });
    futures::future::try_join_all(relays).await?;
    // What was behind a leased row of its key when the last relay went may still be there.
    let rest = nodes[0].claim_runs(owner(99), 1_000).await?;
    let mut taken = taken.into_inner();
    for n in numbers(&rest) {
        *taken.entry(n).or_default() += 1;
    }
    ensure_eq!(taken.len() as u64, ROWS, "how many rows were handed out");
    ensure!(
        taken.values().all(|times| *times == 1),
        "rows were handed out more than once: {:?}",
        taken.iter().filter(|(_, times)| **times != 1).collect::<Vec<_>>()
    );
    Ok(())
}

async fn should_wait_when_a_row_is_delayed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let mut soon = message(1);
    soon.deliver_after = Some(cx.lease());
    let mut late = message(2);
    late.deliver_after = Some(LONG);
    let mut never = message(3);
    never.deliver_after = Some(Message::MAX_DELAY);
    node.outbox.append(&[soon, late, never]).await?;
    node.outbox.append(&[message(4)]).await?;

    ensure_eq!(
        numbers(&node.claim(owner(1), 10).await?),
        vec![4],
        "what is ready at once"
    );
    let entry = node.outbox_queries.get(id(1)).await?;
    ensure_eq!(
        entry.map(|entry| entry.state),
        Some(OutboxState::Delayed),
        "the state of a delayed row"
    );

    outlast_lease(cx).await;
    let rows = node.claim(owner(1), 10).await?;
    ensure_eq!(numbers(&rows), vec![1], "what is ready after the delay");
    ensure_eq!(rows[0].message, message(1), "the message, its delay taken off");
    Ok(())
}
