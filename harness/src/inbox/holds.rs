//! Holding a row: renewals, releases, and results that come too late.

use headless_abstractions::{Admission, AttemptUse, ClaimParked, Hold, InboxState, Marked, Parked};

use super::worker::{Worker, claim_of};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AttemptAlwaysCounted, AttemptNeverCounted, DropEpochCheck, DropEpochOnRenew, HideLost, LateIsLost,
        ReleaseAll, ReleaseForgotten, ReleaseKeepsHold, RenewForgotten,
    },
    outbox::{
        node::{Node, outlast_lease},
        samples::{LONG, claims, failure, message, numbers, owner},
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_settle_late_when_nobody_has_taken_the_row,
            "a hold whose lease has ended is good until someone takes the row"
        )
        .catching(&[LateIsLost]),
        case!(
            should_refuse_late_results_when_the_row_was_taken_over,
            "results of an earlier epoch are lost and change nothing"
        )
        .catching(&[DropEpochCheck, HideLost]),
        case!(
            should_not_be_held_longer_when_an_earlier_hold_is_renewed,
            "a late renewal never steals a row back"
        )
        .catching(&[DropEpochOnRenew]),
        case!(
            should_stay_busy_when_renewed,
            "a renewal holds rows of both origins for another lease"
        )
        .catching(&[RenewForgotten]),
        case!(
            should_be_free_with_a_higher_epoch_when_released,
            "a released row can be admitted at once, its round given back or not"
        )
        .catching(&[ReleaseKeepsHold, AttemptAlwaysCounted, AttemptNeverCounted]),
        case!(
            should_be_parked_and_due_when_released_from_the_park,
            "a row from the park is parked and due when released"
        )
        .catching(&[ReleaseKeepsHold, AttemptAlwaysCounted, AttemptNeverCounted]),
        case!(
            should_free_all_groups_when_an_owner_is_released,
            "releasing an owner frees its rows in every group, and no one else's"
        )
        .catching(&[ReleaseForgotten, ReleaseAll]),
    ]
}

async fn should_settle_late_when_nobody_has_taken_the_row<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let mut holds = Vec::new();
    for n in 1..=5 {
        holds.push(worker.run_for(&message(n), cx.lease()).await?);
    }
    outlast_lease(cx).await;
    ensure_eq!(
        worker.mark(&message(1), holds[0]).await?,
        Marked::Now,
        "a late mark"
    );
    ensure_eq!(
        worker.discard(&message(2), holds[1]).await?,
        Marked::Now,
        "a late discard"
    );
    ensure_eq!(
        worker.bury(&message(3), holds[2], vec![failure("late")]).await?,
        Marked::Now,
        "a late burial"
    );
    ensure_eq!(
        worker.park(&message(4), holds[3], LONG).await?,
        Parked::Now,
        "a late park"
    );
    let late = [claim_of(&message(5), holds[4])];
    let renewed = node.inbox.renew(&worker.group, worker.owner, &late, LONG).await?;
    ensure!(renewed.is_complete(), "a late renewal was lost");
    let answer = Worker::new(&node, owner(2)).admit(&message(5)).await?;
    ensure!(
        matches!(answer, Admission::Busy { .. }),
        "what was renewed late was answered with {answer:?}"
    );
    Ok(())
}

async fn should_refuse_late_results_when_the_row_was_taken_over<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let paused = Worker::new(&node, owner(1));
    let old = paused.run_for(&message(1), cx.lease()).await?;
    outlast_lease(cx).await;
    // The same owner takes the row over: a second delivery of it to the same process.
    let new = paused.run(&message(1)).await?;

    ensure_eq!(
        paused.mark(&message(1), old).await?,
        Marked::LeaseLost,
        "a mark with the earlier epoch"
    );
    ensure_eq!(
        paused.discard(&message(1), old).await?,
        Marked::LeaseLost,
        "a discard with it"
    );
    let failures = vec![failure("late")];
    ensure_eq!(
        paused.bury(&message(1), old, failures).await?,
        Marked::LeaseLost,
        "a burial with it"
    );
    ensure_eq!(
        paused.park(&message(1), old, LONG).await?,
        Parked::LeaseLost,
        "a park with it"
    );
    let claims = [claim_of(&message(1), old)];
    let settled = node
        .inbox
        .release(&paused.group, paused.owner, &claims, AttemptUse::Return)
        .await?;
    ensure_eq!(
        settled.lost,
        claims.to_vec(),
        "what a release with it did not find"
    );

    let letters = node
        .letter_queries
        .list(&headless_abstractions::DeadLetterFilter::open(), None, 10)
        .await?;
    ensure!(
        letters.items.is_empty(),
        "a late burial left a dead letter: {:?}",
        letters.items
    );
    ensure_eq!(
        paused.mark(&message(1), new).await?,
        Marked::Now,
        "the mark of the one who holds it"
    );
    Ok(())
}

async fn should_not_be_held_longer_when_an_earlier_hold_is_renewed<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let paused = Worker::new(&node, owner(1));
    let old = paused.run_for(&message(1), cx.lease()).await?;
    outlast_lease(cx).await;
    paused.run_for(&message(1), cx.lease()).await?;
    let late = [claim_of(&message(1), old)];
    let renewed = node.inbox.renew(&paused.group, paused.owner, &late, LONG).await?;
    ensure_eq!(renewed.lost, late.to_vec(), "what the late renewal did not find");
    outlast_lease(cx).await;
    Worker::new(&node, owner(2)).run(&message(1)).await?;
    Ok(())
}

async fn should_stay_busy_when_renewed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let hold = worker.run_for(&message(1), cx.lease()).await?;
    worker.run_for(&message(2), cx.lease()).await?;
    let renewed = node
        .inbox
        .renew(&worker.group, worker.owner, &[claim_of(&message(1), hold)], LONG)
        .await?;
    ensure!(renewed.is_complete(), "the renewal was lost: {renewed:?}");

    // One from the park is held in the same way.
    worker
        .park(&message(3), Hold::Absent, std::time::Duration::ZERO)
        .await?;
    let request = ClaimParked::new(worker.owner, worker.group.clone(), 1, cx.lease());
    let rows = node.parked.claim(&request).await?;
    let renewed = node
        .inbox
        .renew(&worker.group, worker.owner, &claims(&rows), LONG)
        .await?;
    ensure!(
        renewed.is_complete(),
        "the renewal of a parked message was lost: {renewed:?}"
    );

    outlast_lease(cx).await;
    let other = Worker::new(&node, owner(2));
    let answer = other.admit(&message(1)).await?;
    ensure!(
        matches!(answer, Admission::Busy { .. }),
        "what was renewed was answered with {answer:?}"
    );
    other.run(&message(2)).await?;
    ensure!(
        other.claim(10).await?.is_empty(),
        "a parked message that was renewed was claimed by another"
    );
    ensure_eq!(
        worker.mark(&message(1), hold).await?,
        Marked::Now,
        "the mark of the one who renewed"
    );
    Ok(())
}

async fn should_be_free_with_a_higher_epoch_when_released<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let hold = worker.run(&message(1)).await?;
    let held = [claim_of(&message(1), hold)];
    let release = async |held, attempt| {
        node.inbox
            .release(&worker.group, worker.owner, held, attempt)
            .await
    };
    ensure!(
        release(&held, AttemptUse::Return).await?.is_complete(),
        "the release was lost"
    );
    ensure_eq!(
        worker.mark(&message(1), hold).await?,
        Marked::LeaseLost,
        "a mark after the release"
    );
    ensure_eq!(
        release(&held, AttemptUse::Return).await?.lost,
        held.to_vec(),
        "what a second release lost"
    );

    let second = match worker.admit(&message(1)).await? {
        Admission::Run { epoch, rounds } => {
            ensure!(epoch > held[0].epoch, "epoch {epoch} follows {}", held[0].epoch);
            ensure_eq!(rounds, 1, "the rounds where the first was given back");
            worker.hold(epoch)
        }
        other => fail!("a row that was released was answered with {other:?}"),
    };
    let held = [claim_of(&message(1), second)];
    ensure!(
        release(&held, AttemptUse::Consume).await?.is_complete(),
        "the release was lost"
    );
    match worker.admit(&message(1)).await? {
        Admission::Run { rounds, .. } => ensure_eq!(rounds, 2, "the rounds where the first was consumed"),
        other => fail!("a row that was released was answered with {other:?}"),
    }
    Ok(())
}

async fn should_be_parked_and_due_when_released_from_the_park<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    worker
        .park(&message(1), Hold::Absent, std::time::Duration::ZERO)
        .await?;
    for (attempt, rounds) in [
        (AttemptUse::Return, 2),
        (AttemptUse::Consume, 2),
        (AttemptUse::Return, 3),
    ] {
        let rows = worker.claim(10).await?;
        ensure_eq!(numbers(&rows), vec![1], "what is due");
        ensure_eq!(
            rows[0].rounds,
            rounds,
            "its rounds before the release with {attempt:?}"
        );
        let released = node
            .inbox
            .release(&worker.group, worker.owner, &claims(&rows), attempt)
            .await?;
        ensure!(released.is_complete(), "the release was lost");
        ensure_eq!(
            worker.state(message(1).id).await?,
            Some(InboxState::Parked),
            "the row after its release"
        );
        let late = super::worker::hold_of(worker.owner, &rows[0]);
        ensure_eq!(
            worker.mark(&message(1), late).await?,
            Marked::LeaseLost,
            "a mark after the release"
        );
    }
    Ok(())
}

async fn should_free_all_groups_when_an_owner_is_released<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let billing = Worker::of(&node, "billing", owner(1));
    let shipping = Worker::of(&node, "shipping", owner(1));
    let staying = Worker::of(&node, "billing", owner(2));
    let first = billing.run(&message(1)).await?;
    shipping.run(&message(1)).await?;
    billing
        .park(&message(2), Hold::Absent, std::time::Duration::ZERO)
        .await?;
    ensure_eq!(
        numbers(&billing.claim(1).await?),
        vec![2],
        "what is claimed from the park"
    );
    let kept = staying.run(&message(3)).await?;

    ensure_eq!(
        node.inbox.release_owner(owner(1)).await?,
        3,
        "rows of the owner that left"
    );
    ensure_eq!(
        node.inbox.release_owner(owner(1)).await?,
        0,
        "rows of it after that"
    );
    ensure_eq!(
        billing.mark(&message(1), first).await?,
        Marked::LeaseLost,
        "a mark of the owner that left"
    );
    for group in ["billing", "shipping"] {
        match Worker::of(&node, group, owner(3)).admit(&message(1)).await? {
            Admission::Run { rounds, .. } => ensure_eq!(rounds, 1, "rounds in {group}: given back"),
            other => fail!("a row of {group} that was released was answered with {other:?}"),
        }
    }
    let rows = staying.claim(10).await?;
    ensure_eq!(numbers(&rows), vec![2], "what is due in the park");
    ensure_eq!(
        rows[0].rounds,
        2,
        "its rounds, where the released one was given back"
    );
    ensure_eq!(
        staying.mark(&message(3), kept).await?,
        Marked::Now,
        "the mark of the owner that stays"
    );
    Ok(())
}
