//! Idempotency keys: one business operation, whatever the ids of the messages that ask for it.

use std::time::Duration;

use futures::future::try_join_all;
use headless_abstractions::{Admission, Hold, InboxState, Marked, Message, Parked};

use super::worker::{Worker, claim_of, hold_of};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        BehindReserves, ForgetIdempotencyKey, MarkForgotten, OperationOutlivesEnd, ParkFreesOperation,
        SkipDedupe,
    },
    outbox::{
        node::{Node, outlast_lease},
        samples::{LONG, failure, key, keyed, message, numbers, operation, owner},
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_wait_then_be_a_duplicate_when_the_operation_is_under_another_id,
            "an operation waits while another id runs it, and is a duplicate once that is processed"
        )
        .catching(&[ForgetIdempotencyKey, SkipDedupe]),
        case!(
            should_be_a_duplicate_when_the_operation_was_marked_without_admission,
            "a mark alone reserves the operation"
        )
        .catching(&[ForgetIdempotencyKey]),
        case!(
            should_run_when_the_operation_is_dead_or_discarded,
            "an operation is free once its message is dead or discarded"
        )
        .catching(&[OperationOutlivesEnd]),
        case!(
            should_run_one_when_many_ask_for_an_operation_at_once,
            "of many ids of one operation, one runs"
        )
        .catching(&[ForgetIdempotencyKey]),
        case!(
            should_keep_the_operation_when_the_lease_has_ended,
            "neither the end of a lease nor a release frees an operation"
        )
        .catching(&[ForgetIdempotencyKey]),
        case!(
            should_keep_the_operation_when_it_is_parked_by_failure,
            "a message parked by failure keeps its operation"
        )
        .catching(&[ParkFreesOperation, ForgetIdempotencyKey]),
        case!(
            should_reserve_nothing_when_parked_behind_another,
            "a message parked behind another reserves nothing"
        )
        .catching(&[BehindReserves]),
        case!(
            should_be_finished_as_processed_when_another_id_was_processed,
            "the parked claim finishes the duplicates of what was processed"
        )
        .catching(&[ForgetIdempotencyKey, MarkForgotten]),
        case!(
            should_take_its_turn_when_the_operation_becomes_free,
            "of what waits for an operation, one is handed out when it is free"
        )
        .catching(&[ForgetIdempotencyKey]),
    ]
}

/// The message with this number that asks for the one operation of the case.
pub(super) fn asking(n: u64) -> Message {
    message(n).with_idempotency_key(operation("pay order 7"))
}

const DONE: Admission = Admission::Settled(InboxState::Processed);
const DONE_BEFORE: Marked = Marked::Already(InboxState::Processed);

async fn should_wait_then_be_a_duplicate_when_the_operation_is_under_another_id<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let first = Worker::new(&node, owner(1));
    let second = Worker::new(&node, owner(2));
    let hold = first.run(&asking(1)).await?;
    ensure_eq!(
        second.admit(&asking(2)).await?,
        Admission::Behind,
        "an admission while it runs"
    );
    ensure_eq!(
        second.mark(&asking(2), Hold::Absent).await?,
        Marked::Behind,
        "a mark while it runs"
    );
    ensure_eq!(
        second.state(asking(2).id).await?,
        None,
        "the row of the one that has to wait"
    );

    first.mark(&asking(1), hold).await?;
    ensure_eq!(
        second.admit(&asking(2)).await?,
        DONE,
        "an admission once it is done"
    );
    ensure_eq!(
        second.mark(&asking(2), Hold::Absent).await?,
        DONE_BEFORE,
        "a mark once it is done"
    );
    let parked = second.park(&asking(2), Hold::Absent, Duration::ZERO).await?;
    ensure_eq!(
        parked,
        Parked::Already(InboxState::Processed),
        "a park once it is done"
    );
    ensure_eq!(
        second.park_behind(&asking(3), Hold::Absent).await?,
        parked,
        "a park behind it"
    );
    ensure!(second.claim(10).await?.is_empty(), "a duplicate was parked");

    let other = message(4).with_idempotency_key(operation("pay order 8"));
    second.run(&other).await?;
    Worker::of(&node, "shipping", owner(2)).run(&asking(2)).await?;
    Ok(())
}

async fn should_be_a_duplicate_when_the_operation_was_marked_without_admission<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    ensure_eq!(
        worker.mark(&asking(1), Hold::Absent).await?,
        Marked::Now,
        "the mark"
    );
    ensure_eq!(
        worker.mark(&asking(2), Hold::Absent).await?,
        DONE_BEFORE,
        "the mark under another id"
    );
    ensure_eq!(
        worker.admit(&asking(3)).await?,
        DONE,
        "the admission under another id"
    );

    let batch: Vec<_> = [5, 6]
        .map(|n| message(n).with_idempotency_key(operation("pay order 9")))
        .iter()
        .map(|message| (worker.arrival(message), Hold::Absent))
        .collect();
    ensure_eq!(
        node.inbox.mark(&batch).await?,
        vec![Marked::Now, DONE_BEFORE],
        "two ids of one operation in one batch"
    );
    Ok(())
}

async fn should_run_when_the_operation_is_dead_or_discarded<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let hold = worker.run(&asking(1)).await?;
    ensure_eq!(
        worker.bury(&asking(1), hold, vec![failure("broken")]).await?,
        Marked::Now,
        "burying the first"
    );
    let hold = worker.run(&asking(2)).await?;
    ensure_eq!(
        worker.discard(&asking(2), hold).await?,
        Marked::Now,
        "discarding the second"
    );
    let hold = worker.run(&asking(3)).await?;
    ensure_eq!(
        worker.mark(&asking(3), hold).await?,
        Marked::Now,
        "marking the third"
    );
    ensure_eq!(
        worker.admit(&asking(4)).await?,
        DONE,
        "the admission of the fourth"
    );
    Ok(())
}

async fn should_run_one_when_many_ask_for_an_operation_at_once<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let nodes = try_join_all((0..4).map(|_| Node::join(cx))).await?;
    let workers: Vec<_> = (0..40)
        .map(|n| Worker::new(&nodes[n % 4], owner(n as u128)))
        .collect();
    let messages: Vec<_> = (0..40).map(asking).collect();
    let answers = try_join_all(
        workers
            .iter()
            .zip(&messages)
            .map(|(worker, message)| worker.admit(message)),
    )
    .await?;
    let winners = answers
        .iter()
        .filter(|answer| matches!(answer, Admission::Run { .. }))
        .count();
    let behind = answers
        .iter()
        .filter(|answer| **answer == Admission::Behind)
        .count();
    ensure_eq!(
        (winners, behind),
        (1, 39),
        "those that run and those that wait, of forty ids of one operation"
    );
    Ok(())
}

async fn should_keep_the_operation_when_the_lease_has_ended<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    worker.run_for(&asking(1), cx.lease()).await?;
    outlast_lease(cx).await;
    let other = Worker::new(&node, owner(2));
    ensure_eq!(
        other.admit(&asking(2)).await?,
        Admission::Behind,
        "an admission under another id"
    );
    // The row keeps it for whoever takes the row over.
    let hold = other.run(&asking(1)).await?;
    ensure_eq!(
        other.mark(&asking(1), hold).await?,
        Marked::Now,
        "the mark after the take-over"
    );

    let hold = worker
        .run(&message(5).with_idempotency_key(operation("pay order 8")))
        .await?;
    let released = message(5).with_idempotency_key(operation("pay order 8"));
    let claims = [claim_of(&released, hold)];
    let attempt = headless_abstractions::AttemptUse::Return;
    let settled = node
        .inbox
        .release(&worker.group, worker.owner, &claims, attempt)
        .await?;
    ensure!(settled.is_complete(), "the release was lost");
    let waiting = message(6).with_idempotency_key(operation("pay order 8"));
    ensure_eq!(
        other.admit(&waiting).await?,
        Admission::Behind,
        "an admission beside a row that was released"
    );
    Ok(())
}

async fn should_keep_the_operation_when_it_is_parked_by_failure<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    // Parked after its run, and parked by a failure that no admission went before.
    for (parked, other, name) in [(1, 2, "pay order 7"), (3, 4, "pay order 8")] {
        let asking = |n| message(n).with_idempotency_key(operation(name));
        let hold = if parked == 1 {
            worker.run(&asking(parked)).await?
        } else {
            Hold::Absent
        };
        ensure_eq!(
            worker.park(&asking(parked), hold, LONG).await?,
            Parked::Now,
            "parking {parked}"
        );
        ensure_eq!(
            worker.admit(&asking(other)).await?,
            Admission::Behind,
            "admitting {other}"
        );
        ensure_eq!(
            worker.mark(&asking(other), Hold::Absent).await?,
            Marked::Behind,
            "marking {other}"
        );
    }
    Ok(())
}

async fn should_reserve_nothing_when_parked_behind_another<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    ensure_eq!(
        worker.park(&keyed(1, "a"), Hold::Absent, LONG).await?,
        Parked::Now,
        "parking the head"
    );
    let follower = asking(2).with_key(key("a"));
    ensure_eq!(
        worker.park_behind(&follower, Hold::Absent).await?,
        Parked::Now,
        "parking the follower"
    );

    // Another id of its operation, of another key, need not wait for it.
    let hold = worker.run(&asking(3)).await?;
    ensure_eq!(
        worker.mark(&asking(3), hold).await?,
        Marked::Now,
        "the mark under another id"
    );
    Ok(())
}

async fn should_be_finished_as_processed_when_another_id_was_processed<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let hold = worker.run(&asking(1)).await?;
    ensure_eq!(
        worker.park_behind(&asking(2), Hold::Absent).await?,
        Parked::Now,
        "parking behind it"
    );
    // A follower of the one that waits, in its key.
    let waiting = asking(3).with_key(key("a"));
    ensure_eq!(
        worker.park_behind(&waiting, Hold::Absent).await?,
        Parked::Now,
        "parking another behind it"
    );
    let follower = keyed(4, "a");
    ensure_eq!(
        worker.park_behind(&follower, Hold::Absent).await?,
        Parked::Now,
        "parking its follower"
    );
    ensure!(
        worker.claim(10).await?.is_empty(),
        "a message was claimed whose operation runs under another id"
    );

    ensure_eq!(worker.mark(&asking(1), hold).await?, Marked::Now, "the mark");
    let mut rows = worker.claim(10).await?;
    if rows.is_empty() {
        // What a claim finishes may let the next one through only at the claim after it.
        rows = worker.claim(10).await?;
    }
    ensure_eq!(
        numbers(&rows),
        vec![4],
        "what is handed out: the follower of a duplicate alone"
    );
    for n in [2, 3] {
        let state = worker.state(asking(n).id).await?;
        ensure_eq!(state, Some(InboxState::Processed), "the row of duplicate {n}");
    }
    Ok(())
}

async fn should_take_its_turn_when_the_operation_becomes_free<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let hold = worker.run(&asking(1)).await?;
    for n in [2, 3] {
        ensure_eq!(
            worker.park_behind(&asking(n), Hold::Absent).await?,
            Parked::Now,
            "parking {n} behind it"
        );
    }
    worker.bury(&asking(1), hold, vec![failure("broken")]).await?;

    // Either takes the operation, and the other goes on waiting.
    let rows = worker.claim(10).await?;
    ensure_eq!(
        rows.len(),
        1,
        "how many are handed out once the operation is free"
    );
    let (taken, hold) = (&rows[0].message, hold_of(worker.owner, &rows[0]));
    ensure_eq!(
        worker.admit(&asking(4)).await?,
        Admission::Behind,
        "an admission while it runs"
    );
    ensure_eq!(
        worker.park(taken, hold, LONG).await?,
        Parked::Now,
        "parking it again"
    );
    ensure!(
        worker.claim(10).await?.is_empty(),
        "a message was claimed whose operation is parked"
    );
    Ok(())
}
