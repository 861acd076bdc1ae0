//! The order of a key in the park: later messages wait behind a parked one, and follow it in order.

use std::time::Duration;

use headless_abstractions::{
    Abandon, Admission, Hold, InboxState, Marked, Message, Park, ParkLimits, Parked,
};

use super::worker::{Worker, hold_of};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AbandonForgetsDelay, AbandonToTail, ClaimIgnoresLease, ClaimReversed, ForgetKeyOrder, KeyFreeParks,
        LeaseForever, OrderForAll, ParkForgetsDelay, ParkForgetsKey, RunCutShort,
    },
    outbox::{
        node::{Node, nothing_lost, outlast_lease},
        samples::{LONG, claims, failure, id, keyed, message, numbers, owner, payments},
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_wait_behind_when_an_earlier_message_of_its_key_is_parked,
            "later messages of a parked key wait behind it, and nothing else does"
        )
        .catching(&[ForgetKeyOrder, ParkForgetsKey, ParkForgetsDelay]),
        case!(
            should_wait_behind_still_when_the_head_was_taken_over,
            "a key waits for its head through a take-over"
        )
        .catching(&[ForgetKeyOrder, ParkForgetsKey, LeaseForever]),
        case!(
            should_have_one_owner_when_the_limit_cuts_a_run,
            "a key is with one owner at a time"
        )
        .catching(&[ParkForgetsKey, ClaimIgnoresLease, ClaimReversed]),
        case!(
            should_be_due_at_once_when_the_head_is_finished,
            "what waits behind a head is due when that ends, however it ends"
        )
        .catching(&[RunCutShort, ParkForgetsKey]),
        case!(
            should_keep_its_place_when_the_head_is_parked_again,
            "a head that is parked again keeps its place"
        )
        .catching(&[AbandonToTail, ParkForgetsKey, ParkForgetsDelay]),
        case!(
            should_end_a_run_before_a_row_that_is_not_due,
            "a run ends before a row that has its own time"
        )
        .catching(&[AbandonForgetsDelay, ParkForgetsKey]),
        case!(
            should_answer_key_free_when_there_is_nothing_to_wait_for,
            "a message is parked behind another alone"
        )
        .catching(&[KeyFreeParks]),
        case!(
            should_wait_in_the_order_of_parking_when_a_whole_key_fails,
            "a key is handed out in the order of parking"
        )
        .catching(&[ClaimReversed, RunCutShort]),
        case!(
            should_wait_for_nothing_when_the_group_keeps_no_order,
            "without order, no key of a message ever waits"
        )
        .catching(&[OrderForAll]),
    ]
}

const NOW: Duration = Duration::ZERO;

async fn should_wait_behind_when_an_earlier_message_of_its_key_is_parked<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let hold = worker.run(&keyed(1, "a")).await?;
    worker.park(&keyed(1, "a"), hold, cx.lease()).await?;
    ensure_eq!(
        worker.admit(&keyed(2, "a")).await?,
        Admission::Behind,
        "the admission of a later message"
    );
    ensure_eq!(
        worker.mark(&keyed(2, "a"), Hold::Absent).await?,
        Marked::Behind,
        "its mark"
    );
    let broken = vec![failure("broken")];
    ensure_eq!(
        worker.bury(&keyed(2, "a"), Hold::Absent, broken).await?,
        Marked::Behind,
        "its burial"
    );
    ensure_eq!(worker.state(id(2)).await?, None, "its row after all this");

    // Another key, another topic and a message without a key do not wait.
    worker.run(&keyed(3, "b")).await?;
    let mut elsewhere = keyed(4, "a");
    elsewhere.topic = payments();
    worker.run(&elsewhere).await?;
    worker.run(&message(5)).await?;

    ensure_eq!(
        worker.park_behind(&keyed(2, "a"), Hold::Absent).await?,
        Parked::Now,
        "parking it behind"
    );
    ensure!(
        worker.claim(10).await?.is_empty(),
        "a follower was claimed while its head waits"
    );
    outlast_lease(cx).await;
    let rows = worker.claim(10).await?;
    ensure_eq!(
        numbers(&rows),
        vec![1, 2],
        "the key, from its head, once that is due"
    );
    // Claimed from the park and unfinished, they still stand before what comes.
    ensure_eq!(
        worker.admit(&keyed(6, "a")).await?,
        Admission::Behind,
        "the admission of a third message"
    );
    Ok(())
}

async fn should_wait_behind_still_when_the_head_was_taken_over<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let victim = Node::join(cx).await?;
    let node = Node::join(cx).await?;
    let dying = Worker::new(&victim, owner(1));
    let worker = Worker::new(&node, owner(2));
    dying.park(&keyed(1, "a"), Hold::Absent, NOW).await?;
    dying.park_behind(&keyed(2, "a"), Hold::Absent).await?;
    let request = headless_abstractions::ClaimParked::new(dying.owner, dying.group.clone(), 1, cx.lease());
    ensure_eq!(
        numbers(&victim.parked.claim(&request).await?),
        vec![1],
        "what the victim claims"
    );
    victim.kill();
    ensure!(
        worker.claim(10).await?.is_empty(),
        "a follower was claimed while its head is with another"
    );

    outlast_lease(cx).await;
    ensure_eq!(
        worker.admit(&keyed(3, "a")).await?,
        Admission::Behind,
        "the admission of a later message"
    );
    let rows = worker.claim(10).await?;
    ensure_eq!(numbers(&rows), vec![1, 2], "the key from its head");
    Ok(())
}

async fn should_have_one_owner_when_the_limit_cuts_a_run<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let other = Worker::new(&node, owner(2));
    for n in 1..=4 {
        worker.park(&keyed(n, "a"), Hold::Absent, NOW).await?;
    }
    let rows = worker.claim(2).await?;
    ensure_eq!(numbers(&rows), vec![1, 2], "a run up to the limit");
    ensure!(
        other.claim(10).await?.is_empty(),
        "a second owner was given a part of the key"
    );
    // The second is done before the first: it waits for the first, held or not.
    let second = async || worker.mark(&keyed(2, "a"), hold_of(worker.owner, &rows[1])).await;
    ensure_eq!(second().await?, Marked::Behind, "the second before the first");
    ensure!(
        other.claim(10).await?.is_empty(),
        "a row was handed out while an earlier one runs"
    );
    let first = worker
        .mark(&keyed(1, "a"), hold_of(worker.owner, &rows[0]))
        .await?;
    ensure_eq!(first, Marked::Now, "the first");
    ensure_eq!(second().await?, Marked::Now, "the second after the first");
    ensure_eq!(
        numbers(&other.claim(10).await?),
        vec![3, 4],
        "the rest of the key"
    );
    Ok(())
}

async fn should_be_due_at_once_when_the_head_is_finished<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    // One key for each way in which a head ends.
    for (n, name) in [(10, "processed"), (20, "discarded"), (30, "dead")] {
        let head = keyed(n, name);
        worker.park(&head, Hold::Absent, NOW).await?;
        let rows = worker.claim(1).await?;
        ensure_eq!(numbers(&rows), vec![n], "the head");
        for follower in [n + 1, n + 2] {
            let parked = worker.park_behind(&keyed(follower, name), Hold::Absent).await?;
            ensure_eq!(parked, Parked::Now, "parking {follower} behind");
        }
        ensure!(
            worker.claim(10).await?.is_empty(),
            "a follower was claimed before its head has ended"
        );
        let hold = hold_of(worker.owner, &rows[0]);
        let ended = match n {
            10 => worker.mark(&head, hold).await?,
            20 => worker.discard(&head, hold).await?,
            _ => worker.bury(&head, hold, vec![failure("broken")]).await?,
        };
        ensure_eq!(ended, Marked::Now, "ending the head as {name}");
        ensure_eq!(
            numbers(&worker.claim(10).await?),
            vec![n + 1, n + 2],
            "followers of a head that is {name}"
        );
    }
    Ok(())
}

async fn should_keep_its_place_when_the_head_is_parked_again<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    worker.park(&keyed(1, "a"), Hold::Absent, NOW).await?;
    for n in [2, 3] {
        worker.park_behind(&keyed(n, "a"), Hold::Absent).await?;
    }
    // The head alone fails, and is due again at once.
    let rows = worker.claim(1).await?;
    worker
        .park(&keyed(1, "a"), hold_of(worker.owner, &rows[0]), NOW)
        .await?;
    let rows = worker.claim(10).await?;
    ensure_eq!(numbers(&rows), vec![1, 2, 3], "the run");
    // The head fails again; what follows it goes back, unused.
    let parked = worker
        .park(&keyed(1, "a"), hold_of(worker.owner, &rows[0]), cx.lease())
        .await?;
    ensure_eq!(parked, Parked::Now, "parking the head again");
    let rest = claims(&rows)[1..].to_vec();
    let settled = node
        .parked
        .abandon(&worker.group, worker.owner, &rest, &Abandon::unused())
        .await?;
    ensure!(settled.is_complete(), "abandoning the rest was lost");

    ensure!(worker.claim(10).await?.is_empty(), "a follower overtook its head");
    ensure_eq!(
        worker.admit(&keyed(4, "a")).await?,
        Admission::Behind,
        "the admission of a later message"
    );
    outlast_lease(cx).await;
    let rows = worker.claim(10).await?;
    ensure_eq!(numbers(&rows), vec![1, 2, 3], "the run, once its head is due");
    let rounds: Vec<_> = rows.iter().map(|row| row.rounds).collect();
    ensure_eq!(
        rounds,
        vec![4, 1, 1],
        "rounds: the head's are consumed, the others' given back"
    );
    Ok(())
}

async fn should_end_a_run_before_a_row_that_is_not_due<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    for n in [1, 2, 3] {
        worker.park(&keyed(n, "a"), Hold::Absent, NOW).await?;
    }
    let rows = worker.claim(10).await?;
    ensure_eq!(numbers(&rows), vec![1, 2, 3], "the run");
    let abandon = async |index: usize, how: Abandon| {
        node.parked
            .abandon(&worker.group, worker.owner, &claims(&rows)[index..=index], &how)
            .await
    };
    nothing_lost(&abandon(0, Abandon::unused()).await?)?;
    nothing_lost(&abandon(1, Abandon::failed(cx.lease(), failure("its own"))).await?)?;
    nothing_lost(&abandon(2, Abandon::unused()).await?)?;
    let head = worker.claim(10).await?;
    ensure_eq!(
        numbers(&head),
        vec![1],
        "the run up to the row that has its own time"
    );
    outlast_lease(cx).await;
    worker
        .mark(&keyed(1, "a"), hold_of(worker.owner, &head[0]))
        .await?;
    ensure_eq!(
        numbers(&worker.claim(10).await?),
        vec![2, 3],
        "the rest, in order"
    );
    Ok(())
}

async fn should_answer_key_free_when_there_is_nothing_to_wait_for<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let free = async |message: &Message, hold| -> CaseResult {
        ensure_eq!(
            worker.park_behind(message, hold).await?,
            Parked::KeyFree,
            "parking behind nothing"
        );
        Ok(())
    };
    free(&keyed(1, "a"), Hold::Absent).await?;
    free(&message(2), Hold::Absent).await?;
    free(&super::idempotency::asking(3), Hold::Absent).await?;
    for n in [1, 2, 3] {
        ensure_eq!(
            worker.state(id(n)).await?,
            None,
            "row {n} after it was answered `KeyFree`"
        );
    }
    // The head may go between the answer `Behind` and the park.
    worker.park(&keyed(4, "a"), Hold::Absent, NOW).await?;
    ensure_eq!(
        worker.admit(&keyed(5, "a")).await?,
        Admission::Behind,
        "the admission behind the head"
    );
    let rows = worker.claim(1).await?;
    worker
        .mark(&keyed(4, "a"), hold_of(worker.owner, &rows[0]))
        .await?;
    free(&keyed(5, "a"), Hold::Absent).await?;
    worker.run(&keyed(5, "a")).await?;

    // One that runs and meets a parked message of its key can be parked behind it.
    let hold = worker.run(&keyed(6, "b")).await?;
    free(&keyed(6, "b"), hold).await?;
    worker.park(&keyed(7, "b"), Hold::Absent, LONG).await?;
    ensure_eq!(
        worker.park_behind(&keyed(6, "b"), hold).await?,
        Parked::Now,
        "parking a running one behind"
    );
    Ok(())
}

async fn should_wait_in_the_order_of_parking_when_a_whole_key_fails<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    // In one batch and in several, their numbers descending: the order is that of parking alone.
    let parks: Vec<_> = [9, 8]
        .map(|n| {
            let message = keyed(n, "a");
            let arrival = worker.arrival(&message);
            Park::failed(message, arrival, Hold::Absent, NOW, vec![failure("failed")])
        })
        .into();
    let answers = node.parked.park(&parks, ParkLimits::default()).await?;
    ensure_eq!(answers, vec![Parked::Now; 2], "parking a batch");
    worker.park(&keyed(7, "a"), Hold::Absent, NOW).await?;
    worker.park_behind(&keyed(6, "a"), Hold::Absent).await?;
    ensure_eq!(numbers(&worker.claim(10).await?), vec![9, 8, 7, 6], "the key");
    Ok(())
}

async fn should_wait_for_nothing_when_the_group_keeps_no_order<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let unordered = |n| headless_abstractions::Arrival::of(&worker.group, &keyed(n, "a"), false);
    let park = Park::failed(
        keyed(1, "a"),
        unordered(1),
        Hold::Absent,
        LONG,
        vec![failure("failed")],
    );
    ensure_eq!(worker.park_as(park).await?, Parked::Now, "parking one of the key");
    let answer = node.inbox.admit(worker.owner, LONG, &[unordered(2)]).await?;
    ensure!(
        matches!(answer[0], Admission::Run { .. }),
        "another of the key was answered with {answer:?}"
    );
    let marked = node.inbox.mark(&[(unordered(3), Hold::Absent)]).await?;
    ensure_eq!(marked, vec![Marked::Now], "the mark of a third");
    ensure_eq!(worker.state(id(1)).await?, Some(InboxState::Parked), "the first");
    Ok(())
}
