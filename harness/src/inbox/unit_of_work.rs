//! Marks within a unit of work: they commit with its rows and messages, hold their rows until then, or vanish.

use std::time::Duration;

use headless_abstractions::{
    Admission, Arrival, Hold, InboxState, Marked, OwnedTx, StoreTx, UnitOfWorkStore,
};

use super::{idempotency::asking, worker::Worker};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AppendOutsideTransaction, CommitLosesAppend, HideLost, MarkDooms, MarkForgotten,
        MarkOutsideTransaction, RollbackCommits, SkipDedupe,
    },
    outbox::{
        node::Node,
        samples::{LONG, keyed, message, numbers, operation, owner},
    },
    wait::eventually,
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_commit_effect_mark_and_message_together,
            "effect, mark and message commit together"
        )
        .catching(&[MarkOutsideTransaction, MarkForgotten, CommitLosesAppend]),
        case!(
            should_leave_no_mark_when_rolled_back,
            "a rollback leaves neither mark nor effect, and frees rows and operations"
        )
        .catching(&[RollbackCommits, MarkOutsideTransaction]),
        case!(
            should_free_what_it_held_when_the_transaction_is_dropped,
            "a dropped transaction frees what it held"
        )
        .catching(&[MarkOutsideTransaction, AppendOutsideTransaction]),
        case!(
            should_free_what_it_held_when_the_node_dies,
            "a transaction whose process died frees what it held"
        )
        .catching(&[MarkOutsideTransaction, AppendOutsideTransaction]),
        case!(
            should_go_on_when_a_mark_is_not_now,
            "a mark that is refused does not doom the transaction"
        )
        .catching(&[MarkDooms, SkipDedupe, HideLost]),
        case!(
            should_hold_and_answer_alike_when_begun_to_be_marked,
            "a transaction that is begun to be marked answers and holds as any other"
        )
        .catching(&[MarkForgotten, MarkOutsideTransaction, SkipDedupe, HideLost]),
        case!(
            should_make_followers_due_when_a_head_is_marked_in_a_transaction,
            "followers are due once the commit has finished their head"
        )
        .catching(&[MarkForgotten, MarkOutsideTransaction]),
    ]
}

pub(super) const DONE: Admission = Admission::Settled(InboxState::Processed);
pub(super) const DONE_BEFORE: Marked = Marked::Already(InboxState::Processed);

pub(super) type Tx<F> = <<F as StoreFixture>::Store as UnitOfWorkStore>::Tx;

pub(super) async fn mark_one(
    tx: &mut impl StoreTx,
    arrival: Arrival,
    hold: Hold,
) -> headless_abstractions::Result<Marked> {
    Ok(tx.mark_processed(&[(arrival, hold)]).await?[0])
}

pub(super) async fn commit(tx: impl OwnedTx) -> headless_abstractions::Result<()> {
    Box::new(tx).commit().await
}

pub(super) async fn roll_back(tx: impl OwnedTx) -> headless_abstractions::Result<()> {
    Box::new(tx).rollback().await
}

async fn should_commit_effect_mark_and_message_together<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let hold = worker.run(&message(1)).await?;
    let mut tx = node.store.begin().await?;
    ensure_eq!(
        mark_one(&mut tx, worker.arrival(&message(1)), hold).await?,
        Marked::Now,
        "the mark"
    );
    let unseen = mark_one(&mut tx, worker.arrival(&message(2)), Hold::Absent).await?;
    ensure_eq!(unseen, Marked::Now, "the mark of a message that was not admitted");
    F::write_row(&mut tx, "invoice-1", "settled").await?;
    tx.append(&[message(10)]).await?;

    // The row may be held by the transaction, but it is not processed before the commit.
    let state = worker.state(message(1).id).await?;
    ensure_eq!(state, Some(InboxState::Running), "the row before the commit");
    ensure_eq!(
        worker.state(message(2).id).await?,
        None,
        "the row of the other before the commit"
    );
    ensure!(
        node.claim(owner(1), 10).await?.is_empty(),
        "the message was claimed before the commit"
    );

    commit(tx).await?;
    for n in [1, 2] {
        let state = worker.state(message(n).id).await?;
        ensure_eq!(state, Some(InboxState::Processed), "row {n} after the commit");
    }
    ensure_eq!(
        numbers(&node.claim(owner(1), 10).await?),
        vec![10],
        "the message after the commit"
    );
    ensure_eq!(
        cx.fixture().rows().await?.len(),
        1,
        "the user's rows after the commit"
    );
    Ok(())
}

async fn should_leave_no_mark_when_rolled_back<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let hold = worker.run(&message(1)).await?;
    let mut tx = node.store.begin().await?;
    let marks = [
        (worker.arrival(&message(1)), hold),
        (worker.arrival(&asking(2)), Hold::Absent),
    ];
    ensure_eq!(
        tx.mark_processed(&marks).await?,
        vec![Marked::Now; 2],
        "the marks"
    );
    F::write_row(&mut tx, "invoice-1", "settled").await?;
    roll_back(tx).await?;

    ensure!(
        cx.fixture().rows().await?.is_empty(),
        "the user's rows outlived the rollback"
    );
    ensure_eq!(
        worker.state(message(1).id).await?,
        Some(InboxState::Running),
        "the row after the rollback"
    );
    ensure_eq!(
        worker.mark(&message(1), hold).await?,
        Marked::Now,
        "the hold after the rollback"
    );
    ensure_eq!(
        worker.state(asking(2).id).await?,
        None,
        "the row of the other after the rollback"
    );
    // Its operation is free as well: another id may have it, at once.
    worker.run(&asking(3)).await?;
    Ok(())
}

/// Both ways of leaving a transaction without a word.
async fn free_what_it_held<F: StoreFixture>(
    cx: &Cx<F>,
    leave: impl AsyncFnOnce(Node<F::Store>, Tx<F>) -> Option<Tx<F>>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let survivor = Node::join(cx).await?;
    let group = Worker::new(&node, owner(1));
    let mut tx = node.store.begin().await?;
    let marks = [
        (group.arrival(&message(1)), Hold::Absent),
        (group.arrival(&asking(2)), Hold::Absent),
    ];
    ensure_eq!(
        tx.mark_processed(&marks).await?,
        vec![Marked::Now; 2],
        "the marks"
    );
    F::write_row(&mut tx, "invoice-1", "settled").await?;
    tx.append(&[message(10)]).await?;
    let kept = leave(node, tx).await;

    let worker = Worker::new(&survivor, owner(2));
    eventually(cx.patience(), "the held row is free", async || {
        match worker.admit(&message(1)).await? {
            Admission::Run { .. } => Ok(Some(())),
            Admission::Busy { .. } => Ok(None),
            other => fail!("the row of a transaction that did not commit was answered with {other:?}"),
        }
    })
    .await?;
    worker.run(&asking(3)).await?;
    ensure!(
        cx.fixture().rows().await?.is_empty(),
        "the user's rows outlived their transaction"
    );
    ensure!(
        survivor.claim(owner(2), 10).await?.is_empty(),
        "the message outlived its transaction"
    );
    drop(kept);
    Ok(())
}

async fn should_free_what_it_held_when_the_transaction_is_dropped<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    free_what_it_held(cx, async |_node, tx| {
        drop(tx);
        None
    })
    .await
}

async fn should_free_what_it_held_when_the_node_dies<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    free_what_it_held(cx, async |node, tx| {
        node.kill();
        // The dead process never drops anything either.
        Some(tx)
    })
    .await
}

async fn should_go_on_when_a_mark_is_not_now<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    worker.mark(&message(1), Hold::Absent).await?;
    worker.park(&keyed(2, "a"), Hold::Absent, LONG).await?;
    let lost = worker.hold(headless_abstractions::Epoch::new(7));
    let mut tx = node.store.begin().await?;
    let marks = [
        (worker.arrival(&message(1)), Hold::Absent),
        (worker.arrival(&keyed(3, "a")), Hold::Absent),
        (worker.arrival(&message(4)), lost),
        (worker.arrival(&message(5)), Hold::Absent),
    ];
    ensure_eq!(
        tx.mark_processed(&marks).await?,
        vec![DONE_BEFORE, Marked::Behind, Marked::LeaseLost, Marked::Now],
        "the answers in the order of the batch"
    );
    tx.append(&[message(10)]).await?;
    commit(tx).await?;
    ensure_eq!(
        numbers(&node.claim(owner(1), 10).await?),
        vec![10],
        "what the transaction stored"
    );
    ensure_eq!(
        worker.state(message(5).id).await?,
        Some(InboxState::Processed),
        "the row that was marked"
    );
    for n in [3, 4] {
        ensure_eq!(
            worker.state(message(n).id).await?,
            None,
            "row {n}, whose mark was refused"
        );
    }
    Ok(())
}

async fn should_make_followers_due_when_a_head_is_marked_in_a_transaction<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    worker.park(&keyed(1, "a"), Hold::Absent, Duration::ZERO).await?;
    let rows = worker.claim(1).await?;
    ensure_eq!(numbers(&rows), vec![1], "the head");
    worker.park_behind(&keyed(2, "a"), Hold::Absent).await?;
    let hold = super::worker::hold_of(worker.owner, &rows[0]);
    let mut tx = node.store.begin().await?;
    ensure_eq!(
        mark_one(&mut tx, worker.arrival(&keyed(1, "a")), hold).await?,
        Marked::Now,
        "the mark"
    );
    ensure!(
        worker.claim(10).await?.is_empty(),
        "a follower was claimed before its head's mark was committed"
    );
    commit(tx).await?;
    ensure_eq!(
        numbers(&worker.claim(10).await?),
        vec![2],
        "the follower once its head is done"
    );
    Ok(())
}

async fn should_hold_and_answer_alike_when_begun_to_be_marked<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    worker.mark(&message(1), Hold::Absent).await?;
    worker.park(&keyed(2, "a"), Hold::Absent, LONG).await?;
    // Several times, since a connection that was used before may take another way.
    for round in 1..=3 {
        let n = |n| 10 * round + n;
        let odd = message(n(6))
            .with_idempotency_key(operation(&format!("{round}: \"Zoë\", it's {{\\}} NULL, 東京")));
        let hold = worker.run(&message(n(5))).await?;
        let marks = [
            (worker.arrival(&message(1)), Hold::Absent),
            (worker.arrival(&keyed(n(3), "a")), Hold::Absent),
            (worker.arrival(&message(n(4))), hold),
            (worker.arrival(&message(n(5))), hold),
            (worker.arrival(&odd), Hold::Absent),
            (worker.arrival(&keyed(n(7), "b")), Hold::Absent),
        ];
        let answers = vec![
            DONE_BEFORE,
            Marked::Behind,
            Marked::LeaseLost,
            Marked::Now,
            Marked::Now,
            Marked::Now,
        ];
        let mut refused = node.store.begin_to_mark().await?;
        let marked = refused.mark_processed(&marks).await?;
        ensure_eq!(marked, answers, "the answers in the order of the batch");
        roll_back(refused).await?;
        ensure_eq!(
            worker.state(odd.id).await?,
            None,
            "a row whose transaction was rolled back"
        );

        let mut tx = node.store.begin_to_mark().await?;
        let marked = tx.mark_processed(&marks[3..]).await?;
        ensure_eq!(marked, vec![Marked::Now; 3], "the marks after the rollback");
        F::write_row(&mut tx, &format!("invoice-{round}"), "settled").await?;
        let state = worker.state(message(n(5)).id).await?;
        ensure_eq!(state, Some(InboxState::Running), "a row before the commit");
        commit(tx).await?;
        for message in [&message(n(5)), &odd, &keyed(n(7), "b")] {
            let state = worker.state(message.id).await?;
            ensure_eq!(
                state,
                Some(InboxState::Processed),
                "row {} after the commit",
                message.id
            );
        }
        let duplicate = message(n(8))
            .with_idempotency_key(operation(&format!("{round}: \"Zoë\", it's {{\\}} NULL, 東京")));
        ensure_eq!(
            worker.admit(&duplicate).await?,
            DONE,
            "another id of the odd operation"
        );
        ensure_eq!(
            cx.fixture().rows().await?.len() as u64,
            round,
            "the user's rows after the commit"
        );
    }
    Ok(())
}
