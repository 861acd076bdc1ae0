//! Transactions that want the same rows: one has them, the others are told, and nobody waits for ever.

use std::time::Duration;

use futures::future::{join, try_join_all};
use headless_abstractions::{Admission, Arrival, Hold, InboxState, Marked, Parked, StoreTx, UnitOfWorkStore};

use super::{
    idempotency::asking,
    unit_of_work::{DONE, DONE_BEFORE, Tx, commit, mark_one, roll_back},
    worker::{Worker, hold_of},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{ForgetIdempotencyKey, MarkAtCommit, MarkForgotten, MarkOutsideTransaction},
    outbox::{
        node::{Node, outlast_lease},
        samples::{LONG, failure, keyed, message, numbers, operation, owner},
    },
    wait::{elapse, within},
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_mark_once_when_two_transactions_have_one_id,
            "of two transactions that mark one id, one does, in both orders"
        )
        .catching(&[MarkAtCommit, MarkOutsideTransaction]),
        case!(
            should_mark_once_when_two_transactions_have_one_operation,
            "of two transactions that mark one operation, one does, in both orders"
        )
        .catching(&[MarkAtCommit, ForgetIdempotencyKey]),
        case!(
            should_take_effect_once_when_many_transactions_have_one_message,
            "of many transactions with one batch, one takes effect"
        )
        .catching(&[MarkAtCommit, MarkForgotten]),
        case!(
            should_not_wait_for_each_other_when_batches_cross,
            "batches in opposite orders do not wait for each other"
        )
        .catching(&[MarkAtCommit]),
        case!(
            should_hold_its_rows_when_a_transaction_has_marked_them,
            "what an open transaction has marked nobody else changes"
        )
        .catching(&[MarkOutsideTransaction, MarkAtCommit]),
        case!(
            should_not_be_taken_over_when_a_transaction_holds_an_ended_lease,
            "an open transaction keeps a row whose lease has ended"
        )
        .catching(&[MarkAtCommit, MarkForgotten]),
        case!(
            should_not_be_stranded_when_parked_behind_a_head_that_ends,
            "what is parked behind a head while that ends is due, or told that there is none"
        )
        .catching(&[MarkForgotten]),
        case!(
            should_be_told_busy_when_the_holder_does_not_end,
            "a wait for another transaction is bounded, and dooms nothing"
        )
        .catching(&[MarkAtCommit, MarkForgotten]),
    ]
}

/// Two transactions mark what only one may have; the first ends as told while the second waits or has its answer.
async fn contend<F: StoreFixture>(
    cx: &Cx<F>,
    marks: [(Arrival, Hold); 2],
    first_commits: bool,
) -> CaseResult<(Marked, Option<Tx<F>>)> {
    let (one, two) = (Node::join(cx).await?, Node::join(cx).await?);
    let [first_mark, second_mark] = marks;
    let mut first = one.store.begin().await?;
    ensure_eq!(
        mark_one(&mut first, first_mark.0, first_mark.1).await?,
        Marked::Now,
        "the first mark"
    );
    let mut second = two.store.begin().await?;
    let end_first = async {
        // Time for the second to come as far as it can.
        elapse(Duration::from_millis(100)).await;
        if first_commits {
            commit(first).await
        } else {
            roll_back(first).await
        }
    };
    let contender = async {
        let answer = mark_one(&mut second, second_mark.0.clone(), second_mark.1).await?;
        CaseResult::Ok(answer)
    };
    let (ended, answer) = join(end_first, contender).await;
    ended?;
    let mut answer = answer?;
    let mut open = Some(second);
    if matches!(answer, Marked::Busy { .. }) {
        // It did not wait; the caller rolls back and asks again.
        if let Some(tx) = open.take() {
            roll_back(tx).await?;
        }
        let mut tx = two.store.begin().await?;
        answer = mark_one(&mut tx, second_mark.0, second_mark.1).await?;
        open = Some(tx);
    }
    Ok((answer, open))
}

async fn should_mark_once_when_two_transactions_have_one_id<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let arrival = || (worker.arrival(&message(1)), Hold::Absent);
    let (answer, tx) = contend(cx, [arrival(), arrival()], false).await?;
    ensure_eq!(
        answer,
        Marked::Now,
        "the second mark after the first was rolled back"
    );
    if let Some(tx) = tx {
        commit(tx).await?;
    }
    ensure_eq!(
        worker.state(message(1).id).await?,
        Some(InboxState::Processed),
        "the row"
    );

    let arrival = || (worker.arrival(&message(2)), Hold::Absent);
    let (answer, tx) = contend(cx, [arrival(), arrival()], true).await?;
    ensure_eq!(
        answer,
        DONE_BEFORE,
        "the second mark after the first was committed"
    );
    if let Some(tx) = tx {
        roll_back(tx).await?;
    }
    ensure_eq!(
        worker.state(message(2).id).await?,
        Some(InboxState::Processed),
        "the row"
    );
    Ok(())
}

async fn should_mark_once_when_two_transactions_have_one_operation<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let arrival = |n| (worker.arrival(&asking(n)), Hold::Absent);
    // In both orders of the ids, so that no order of locks hides the other.
    let (answer, tx) = contend(cx, [arrival(2), arrival(1)], false).await?;
    ensure_eq!(
        answer,
        Marked::Now,
        "the second mark after the first was rolled back"
    );
    if let Some(tx) = tx {
        roll_back(tx).await?;
    }
    let (answer, tx) = contend(cx, [arrival(3), arrival(4)], true).await?;
    ensure_eq!(
        answer,
        DONE_BEFORE,
        "the second mark after the first was committed"
    );
    if let Some(tx) = tx {
        roll_back(tx).await?;
    }
    ensure_eq!(worker.state(asking(4).id).await?, None, "the row of the loser");
    ensure_eq!(
        worker.admit(&asking(1)).await?,
        DONE,
        "another id of the operation"
    );
    Ok(())
}

async fn should_take_effect_once_when_many_transactions_have_one_message<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let nodes = try_join_all((0..8).map(|_| Node::join(cx))).await?;
    let attempts = nodes.iter().enumerate().map(|(index, node)| async move {
        let worker = Worker::new(node, owner(index as u128));
        let mut tx = node.store.begin().await?;
        let batch: Vec<_> = [1, 2, 3]
            .map(|n| (worker.arrival(&message(n)), Hold::Absent))
            .into();
        let answers = tx.mark_processed(&batch).await?;
        elapse(Duration::from_millis(5)).await;
        if answers.iter().any(|answer| *answer != Marked::Now) {
            roll_back(tx).await?;
            return CaseResult::Ok(0);
        }
        F::write_row(&mut tx, &format!("effect-{index}"), "once").await?;
        commit(tx).await?;
        Ok(1)
    });
    let effects: u32 = try_join_all(attempts).await?.into_iter().sum();
    ensure_eq!(effects, 1, "transactions of eight that committed the effect");
    ensure_eq!(cx.fixture().rows().await?.len(), 1, "the effects that are stored");
    Ok(())
}

async fn should_not_wait_for_each_other_when_batches_cross<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let (one, two) = (Node::join(cx).await?, Node::join(cx).await?);
    let run = async |node: &Node<F::Store>, order: [u64; 4], key: String| -> CaseResult<bool> {
        let worker = Worker::new(node, owner(1));
        let mut tx = node.store.begin().await?;
        let batch: Vec<_> = order.map(|n| (worker.arrival(&message(n)), Hold::Absent)).into();
        let answers = tx.mark_processed(&batch).await?;
        if answers.iter().any(|answer| *answer != Marked::Now) {
            roll_back(tx).await?;
            return Ok(false);
        }
        elapse(Duration::from_millis(20)).await;
        F::write_row(&mut tx, &key, "once").await?;
        commit(tx).await?;
        Ok(true)
    };
    for round in 0..5 {
        let n = round * 4;
        let both = join(
            run(&one, [n + 1, n + 2, n + 3, n + 4], format!("up-{round}")),
            run(&two, [n + 4, n + 3, n + 2, n + 1], format!("down-{round}")),
        );
        let (up, down) = within(cx.patience(), "batches in opposite orders", both).await?;
        let (up, down) = (up?, down?);
        ensure!(
            up != down,
            "of two crossing batches, up committed: {up}, down committed: {down}"
        );
    }
    Ok(())
}

async fn should_hold_its_rows_when_a_transaction_has_marked_them<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let elsewhere = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let other = Worker::new(&elsewhere, owner(2));
    let mut tx = node.store.begin().await?;
    let marks: Vec<_> = [1, 2, 3, 4, 5]
        .map(|n| (worker.arrival(&message(n)), Hold::Absent))
        .into();
    tx.mark_processed(&marks).await?;

    // Each call is told that the row is busy, or waits; whichever it is, it changes nothing.
    let calls = async {
        let bound = cx.patience();
        let admitted = within(bound, "an admission", other.admit(&message(1))).await??;
        ensure!(
            matches!(admitted, Admission::Busy { .. } | DONE),
            "an admission was answered with {admitted:?}"
        );
        let marked = within(bound, "a mark", other.mark(&message(2), Hold::Absent)).await??;
        ensure!(
            matches!(marked, Marked::Busy { .. } | DONE_BEFORE),
            "a mark was answered with {marked:?}"
        );
        let broken = vec![failure("broken")];
        let buried = within(bound, "a burial", other.bury(&message(3), Hold::Absent, broken)).await??;
        ensure!(
            matches!(buried, Marked::Busy { .. } | DONE_BEFORE),
            "a burial was answered with {buried:?}"
        );
        let parked = within(bound, "a park", other.park(&message(4), Hold::Absent, LONG)).await??;
        ensure!(
            matches!(parked, Parked::LeaseLost | Parked::Already(InboxState::Processed)),
            "a park was answered with {parked:?}"
        );
        let dropped = within(bound, "a discard", other.discard(&message(5), Hold::Absent)).await??;
        ensure!(
            matches!(dropped, Marked::Busy { .. } | DONE_BEFORE),
            "a discard was answered with {dropped:?}"
        );
        CaseResult::Ok(())
    };
    let end = async {
        elapse(Duration::from_millis(200)).await;
        for n in 1..=5 {
            let state = other.state(message(n).id).await?;
            ensure_eq!(state, None, "row {n} while the transaction is open");
        }
        commit(tx).await?;
        CaseResult::Ok(())
    };
    let (calls, end) = join(calls, end).await;
    end?;
    calls?;
    for n in 1..=5 {
        let state = worker.state(message(n).id).await?;
        ensure_eq!(state, Some(InboxState::Processed), "row {n} after the commit");
    }
    Ok(())
}

async fn should_not_be_taken_over_when_a_transaction_holds_an_ended_lease<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let elsewhere = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let other = Worker::new(&elsewhere, owner(2));
    let hold = worker.run_for(&message(1), cx.lease()).await?;
    let mut tx = node.store.begin().await?;
    ensure_eq!(
        mark_one(&mut tx, worker.arrival(&message(1)), hold).await?,
        Marked::Now,
        "the mark"
    );
    outlast_lease(cx).await;

    let ask = async { Ok::<_, crate::case::CaseError>(other.admit(&message(1)).await?) };
    let end = async {
        elapse(Duration::from_millis(100)).await;
        Ok::<_, crate::case::CaseError>(commit(tx).await?)
    };
    let (answer, ended) = join(ask, end).await;
    ended?;
    let answer = answer?;
    ensure!(
        matches!(answer, Admission::Busy { .. } | DONE),
        "a row that an open transaction has marked was answered with {answer:?}"
    );
    ensure_eq!(other.admit(&message(1)).await?, DONE, "the row after the commit");
    Ok(())
}

async fn should_not_be_stranded_when_parked_behind_a_head_that_ends<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let (one, two) = (Node::join(cx).await?, Node::join(cx).await?);
    let (ending, parking) = (Worker::new(&one, owner(1)), Worker::new(&two, owner(2)));
    for round in 0..12_u64 {
        // A head of a key and one of an operation; what waits behind either comes while it ends.
        let name = format!("round {round}");
        let of_key = |n| keyed(10 * round + n, &name);
        let of_operation = |n| message(10 * round + n).with_idempotency_key(operation(&name));
        ending.park(&of_key(1), Hold::Absent, Duration::ZERO).await?;
        let head = ending.claim(1).await?;
        ensure_eq!(numbers(&head), vec![10 * round + 1], "the head of the key");
        let by_key = hold_of(ending.owner, &head[0]);
        let by_operation = ending.run(&of_operation(3)).await?;

        let (first, second) = (of_key(1), of_operation(3));
        let end = async {
            let of_key = ending.mark(&first, by_key).await?;
            let of_operation = ending.mark(&second, by_operation).await?;
            CaseResult::Ok([of_key, of_operation])
        };
        let (behind_key, behind_operation) = (of_key(2), of_operation(4));
        let park = async {
            let of_key = parking.park_behind(&behind_key, Hold::Absent).await?;
            let of_operation = parking.park_behind(&behind_operation, Hold::Absent).await?;
            CaseResult::Ok([of_key, of_operation])
        };
        // Both orders of asking, so that each may come first.
        let (ended, parked) = if round % 2 == 0 {
            futures::future::try_join(end, park).await?
        } else {
            let (parked, ended) = futures::future::try_join(park, end).await?;
            (ended, parked)
        };
        ensure_eq!(ended, [Marked::Now; 2], "the marks of the heads");
        ensure!(
            matches!(parked[1], Parked::Now | Parked::Already(InboxState::Processed)),
            "parking behind the head of an operation was answered with {:?}",
            parked[1]
        );

        let rows = parking.claim(10).await?;
        let followers = match parked[0] {
            Parked::Now => vec![10 * round + 2],
            Parked::KeyFree => Vec::new(),
            other => fail!("parking behind the head of a key was answered with {other:?}"),
        };
        ensure_eq!(
            numbers(&rows),
            followers,
            "what can be claimed once the heads have ended"
        );
        let duplicate = parking.admit(&behind_operation).await?;
        ensure_eq!(duplicate, DONE, "the other id of an operation that is done");
    }
    Ok(())
}

async fn should_be_told_busy_when_the_holder_does_not_end<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let (one, two) = (Node::join(cx).await?, Node::join(cx).await?);
    let worker = Worker::new(&one, owner(1));
    let mut holder = one.store.begin().await?;
    let first = mark_one(&mut holder, worker.arrival(&message(1)), Hold::Absent).await?;
    ensure_eq!(first, Marked::Now, "the mark of the one that does not end");

    let mut waiting = two.store.begin().await?;
    let marks = [1, 2].map(|n| (worker.arrival(&message(n)), Hold::Absent));
    let told = within(
        cx.patience(),
        "a mark that has to wait",
        waiting.mark_processed(&marks),
    )
    .await??;
    ensure!(
        matches!(told[0], Marked::Busy { .. }),
        "the mark that had to wait was answered with {told:?}"
    );
    // It may leave out what it could not have, and commit the rest.
    waiting.append(&[message(10)]).await?;
    commit(waiting).await?;
    ensure_eq!(
        numbers(&two.claim(owner(1), 10).await?),
        vec![10],
        "what the other transaction stored"
    );
    commit(holder).await?;
    ensure_eq!(
        worker.admit(&message(1)).await?,
        DONE,
        "the row of the one that ended at last"
    );
    Ok(())
}
