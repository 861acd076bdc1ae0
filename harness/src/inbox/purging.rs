//! What is purged of the inbox, and what never is.

use std::time::Duration;

use headless_abstractions::{Admission, ClaimParked, Hold, InboxState, Marked, UnitOfWorkStore};

use super::{
    idempotency::asking,
    unit_of_work::{DONE, commit, mark_one},
    worker::{Worker, hold_of},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{IgnoreBatchLimit, PurgeEndsRunning, PurgeIgnoresAge, PurgeKeepsStranded},
    outbox::{
        node::{Node, outlast_lease},
        samples::{LONG, failure, id, message, numbers, owner},
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_remove_what_is_done_and_old_alone_when_purged,
            "a purge removes what is done and old, in batches, and forgets it wholly"
        )
        .catching(&[PurgeIgnoresAge, IgnoreBatchLimit, PurgeEndsRunning]),
        case!(
            should_free_the_operation_when_its_delivery_never_came_again,
            "a purge removes what was admitted long ago and never came again, and what waits for its operation goes on"
        )
        .catching(&[PurgeKeepsStranded, PurgeIgnoresAge, IgnoreBatchLimit]),
        case!(
            should_keep_a_running_row_when_somebody_may_yet_end_it,
            "a purge keeps what is under a lease, what came from the park, and what an open unit of work holds"
        )
        .catching(&[PurgeEndsRunning]),
    ]
}

const NOW: Duration = Duration::ZERO;

async fn should_remove_what_is_done_and_old_alone_when_purged<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    worker.mark(&asking(1), Hold::Absent).await?;
    worker.discard(&message(2), Hold::Absent).await?;
    worker.mark(&message(3), Hold::Absent).await?;
    worker
        .bury(&message(4), Hold::Absent, vec![failure("broken")])
        .await?;
    worker.park(&message(5), Hold::Absent, NOW).await?;
    let running = worker.run(&message(6)).await?;
    outlast_lease(cx).await;
    worker.mark(&message(7), Hold::Absent).await?;

    ensure_eq!(
        node.inbox.purge(LONG, 100).await?,
        0,
        "rows of an age that none has"
    );
    ensure_eq!(
        node.inbox.purge(cx.lease(), 2).await?,
        2,
        "rows purged up to the limit"
    );
    ensure_eq!(
        node.inbox.purge(cx.lease(), 2).await?,
        1,
        "rows purged after that"
    );
    ensure_eq!(node.inbox.purge(cx.lease(), 2).await?, 0, "rows purged at last");
    for (n, state) in [
        (4, InboxState::Dead),
        (5, InboxState::Parked),
        (6, InboxState::Running),
        (7, InboxState::Processed),
    ] {
        ensure_eq!(worker.state(id(n)).await?, Some(state), "the row of message {n}");
    }
    // A message that comes again after its mark was purged is a new one, and so is its operation.
    match worker.admit(&asking(8)).await? {
        Admission::Run { .. } => {}
        other => fail!("the operation of a mark that was purged was answered with {other:?}"),
    }
    worker.run(&message(3)).await?;
    ensure_eq!(
        worker.mark(&message(6), running).await?,
        Marked::Now,
        "the mark of a row that was running"
    );
    Ok(())
}

async fn should_free_the_operation_when_its_delivery_never_came_again<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let stranded = worker.run_for(&asking(1), cx.lease()).await?;
    worker.run_for(&message(2), cx.lease()).await?;
    worker.park_behind(&asking(3), Hold::Absent).await?;
    ensure!(
        worker.claim(10).await?.is_empty(),
        "a message was handed out while another ran its operation"
    );
    outlast_lease(cx).await;
    ensure_eq!(
        node.inbox.purge(LONG, 10).await?,
        0,
        "rows purged whose lease ended a moment ago"
    );
    ensure_eq!(
        worker.state(id(1)).await?,
        Some(InboxState::Running),
        "a row whose lease ended a moment ago"
    );

    outlast_lease(cx).await;
    for (wanted, what) in [(1, "at first"), (1, "after that"), (0, "at last")] {
        ensure_eq!(
            node.inbox.purge(cx.lease(), 1).await?,
            wanted,
            "rows purged {what}, one at a time"
        );
    }
    ensure_eq!(worker.state(id(1)).await?, None, "the row that was purged");
    ensure_eq!(
        worker.mark(&asking(1), stranded).await?,
        Marked::LeaseLost,
        "a mark of its owner, which woke after all"
    );

    let rows = worker.claim(10).await?;
    ensure_eq!(numbers(&rows), vec![3], "what waited for the operation");
    worker.mark(&asking(3), hold_of(worker.owner, &rows[0])).await?;
    ensure_eq!(
        worker.admit(&asking(1)).await?,
        DONE,
        "the admission of the first message when it comes after all"
    );
    match worker.admit(&message(2)).await? {
        Admission::Run { rounds: 1, .. } => {}
        other => fail!("a message that comes after its purge was answered with {other:?}"),
    }
    Ok(())
}

async fn should_keep_a_running_row_when_somebody_may_yet_end_it<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    worker.park(&message(1), Hold::Absent, NOW).await?;
    let of_park = ClaimParked::new(worker.owner, worker.group.clone(), 1, cx.lease());
    let claimed = node.parked.claim(&of_park).await?;
    ensure_eq!(numbers(&claimed), vec![1], "the row claimed from the park");
    let live = worker.run(&message(2)).await?;
    let marking = worker.run_for(&message(3), cx.lease()).await?;
    let mut tx = node.store.begin().await?;
    ensure_eq!(
        mark_one(&mut tx, worker.arrival(&message(3)), marking).await?,
        Marked::Now,
        "the mark of a transaction that stays open"
    );
    outlast_lease(cx).await;
    outlast_lease(cx).await;

    ensure_eq!(node.inbox.purge(cx.lease(), 10).await?, 0, "rows purged");
    commit(tx).await?;
    ensure_eq!(
        worker.state(id(3)).await?,
        Some(InboxState::Processed),
        "the row that an open unit of work held"
    );
    ensure_eq!(
        worker.mark(&message(2), live).await?,
        Marked::Now,
        "the mark of the row that is under a lease"
    );
    // Its lease has ended, so it is back in the park, with all that was stored of it.
    node.parked.reap_expired(10).await?;
    let rows = worker.claim(10).await?;
    ensure_eq!(numbers(&rows), vec![1], "what was claimed from the park");
    ensure_eq!(rows[0].rounds, claimed[0].rounds + 1, "its rounds");
    Ok(())
}
