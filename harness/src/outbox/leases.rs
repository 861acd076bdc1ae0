//! Leases of rows: they end, are renewed, reaped and released, and guard every settling call.

use std::time::Duration;

use headless_abstractions::{Abandon, Claim, ClaimOutbox, Epoch, OutboxState, Settled};

use super::{
    node::{Node, nothing_lost, outlast_lease},
    samples::{LONG, claims, failure, id, keyed, message, numbers, owner, sorted},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AbandonForgetsDelay, DropEpochCheck, DropEpochOnRenew, DropOwnerCheck, EpochStands, HideLost,
        IgnoreBatchLimit, LateIsLost, LeaseForever, ReapForgotten, ReapLive, ReleaseAll, ReleaseForgotten,
        RenewForgotten,
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_come_back_when_the_lease_has_ended,
            "a row whose lease has ended is claimed again, with a higher epoch"
        )
        .catching(&[LeaseForever, EpochStands]),
        case!(
            should_raise_the_epoch_when_a_row_is_claimed_again,
            "each claim of a row has a higher epoch"
        )
        .catching(&[EpochStands]),
        case!(
            should_stay_leased_when_renewed,
            "a renewal holds a row for another lease"
        )
        .catching(&[RenewForgotten]),
        case!(
            should_be_held_again_when_renewed_late,
            "a row that nobody has taken is its owner's still, after the lease"
        )
        .catching(&[LateIsLost]),
        case!(
            should_change_nothing_when_settled_by_another_owner,
            "a stranger's settling call changes nothing and says so"
        )
        .catching(&[DropOwnerCheck, HideLost]),
        case!(
            should_change_nothing_when_settled_with_an_earlier_epoch,
            "a claim from before the row was claimed again settles nothing, a renewal neither"
        )
        .catching(&[DropEpochCheck, DropEpochOnRenew, HideLost]),
        case!(
            should_reject_late_results_when_the_owner_was_reaped,
            "reaping takes what has ended alone, in batches, and its owners' claims are lost"
        )
        .catching(&[ReapForgotten, ReapLive, IgnoreBatchLimit]),
        case!(
            should_free_the_rows_of_an_owner_when_released,
            "releasing an owner frees its rows at once, its attempts given back, and no one else's"
        )
        .catching(&[ReleaseForgotten, ReleaseAll]),
        case!(
            should_leave_waiting_rows_alone_when_an_owner_is_released,
            "neither a release nor a reap frees what waits for its time"
        )
        .catching(&[AbandonForgetsDelay]),
        case!(
            should_lose_nothing_when_claims_are_dropped,
            "what a dropped claim has taken comes back when its lease ends"
        )
        .catching(&[LeaseForever]),
    ]
}

/// Every settling call of the outbox, made with these claims.
const SETTLING: [&str; 4] = ["ack", "abandon", "fail", "renew"];

async fn settle<S: headless_abstractions::Store>(
    node: &Node<S>,
    call: &str,
    owner: headless_abstractions::Owner,
    claims: &[Claim],
) -> headless_abstractions::Result<Settled> {
    match call {
        "ack" => node.outbox.ack(owner, claims).await,
        "abandon" => node.outbox.abandon(owner, claims, &Abandon::unused()).await,
        "fail" => node.outbox.fail(owner, claims, &failure("of another time")).await,
        _ => node.outbox.renew(owner, claims, LONG).await,
    }
}

async fn should_come_back_when_the_lease_has_ended<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1), message(2)]).await?;
    let first = node
        .outbox
        .claim(&ClaimOutbox::new(owner(1), 1, cx.lease()))
        .await?
        .rows;
    ensure_eq!(numbers(&first), vec![1], "the row with the short lease");
    ensure_eq!(
        numbers(&node.claim(owner(2), 1).await?),
        vec![2],
        "the row with the long lease"
    );

    outlast_lease(cx).await;
    let again = node.claim(owner(2), 10).await?;
    ensure_eq!(numbers(&again), vec![1], "what comes back");
    ensure!(
        again[0].claim.epoch > first[0].claim.epoch,
        "the epoch did not rise: {} after {}",
        again[0].claim.epoch,
        first[0].claim.epoch
    );
    ensure_eq!(again[0].message, message(1), "the message of the second claim");
    ensure_eq!(
        again[0].attempts,
        0,
        "the attempts: what ended with its lease is not one"
    );
    Ok(())
}

async fn should_raise_the_epoch_when_a_row_is_claimed_again<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1)]).await?;
    let mut last = Epoch::default();
    for _ in 0..4 {
        let rows = node.claim(owner(1), 1).await?;
        ensure_eq!(rows.len(), 1, "rows that are ready");
        ensure!(
            rows[0].claim.epoch > last,
            "epoch {} follows {last}",
            rows[0].claim.epoch
        );
        last = rows[0].claim.epoch;
        nothing_lost(
            &node
                .outbox
                .abandon(owner(1), &claims(&rows), &Abandon::unused())
                .await?,
        )?;
    }
    Ok(())
}

async fn should_stay_leased_when_renewed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1), message(2)]).await?;
    let rows = node
        .outbox
        .claim(&ClaimOutbox::new(owner(1), 2, cx.lease()))
        .await?
        .rows;
    let renewed = node.outbox.renew(owner(1), &claims(&rows)[..1], LONG).await?;
    ensure!(renewed.is_complete(), "the renewal was lost: {renewed:?}");

    outlast_lease(cx).await;
    ensure_eq!(
        numbers(&node.claim(owner(2), 10).await?),
        vec![2],
        "what was not renewed, alone"
    );
    node.ack_all(owner(1), &claims(&rows)[..1]).await
}

async fn should_be_held_again_when_renewed_late<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1), message(2), message(3)]).await?;
    let rows = node
        .outbox
        .claim(&ClaimOutbox::new(owner(1), 3, cx.lease()))
        .await?
        .rows;
    let rows = claims(&rows);
    outlast_lease(cx).await;
    // Nobody has taken the rows since: they are this owner's to renew and to settle.
    ensure_eq!(
        node.outbox.renew(owner(1), &rows[..1], LONG).await?,
        Settled::all(),
        "a late renewal"
    );
    ensure_eq!(
        node.outbox.ack(owner(1), &rows[1..2]).await?,
        Settled::all(),
        "a late acknowledgement"
    );
    ensure_eq!(
        numbers(&node.claim(owner(2), 10).await?),
        vec![3],
        "what was neither renewed nor settled"
    );
    node.ack_all(owner(1), &rows[..1]).await
}

async fn should_change_nothing_when_settled_by_another_owner<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1), message(2)]).await?;
    let theirs = claims(&node.claim(owner(1), 1).await?);
    let mine = claims(&node.claim(owner(2), 1).await?);
    let unknown = Claim::new(id(99), Epoch::new(1));
    for call in SETTLING {
        // The names of three claims, of which the caller holds none.
        let named = [unknown, theirs[0], mine[0]];
        let settled = settle(&node, call, owner(3), &named).await?;
        ensure_eq!(
            settled.lost,
            named.to_vec(),
            "what {call} of a stranger did not find"
        );
        let entry = node.outbox_queries.get(id(1)).await?;
        let state = entry.as_ref().map(|entry| (entry.state, entry.owner));
        ensure_eq!(
            state,
            Some((OutboxState::Leased, Some(owner(1)))),
            "the row after {call}"
        );
    }
    let settled = node.outbox.ack(owner(2), &[theirs[0], mine[0]]).await?;
    ensure_eq!(
        settled.lost,
        theirs,
        "what an acknowledgement of one's own and another's did not find"
    );
    node.ack_all(owner(1), &theirs).await
}

async fn should_change_nothing_when_settled_with_an_earlier_epoch<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1)]).await?;
    let old = claims(&node.claim(owner(1), 1).await?);
    nothing_lost(&node.outbox.abandon(owner(1), &old, &Abandon::unused()).await?)?;
    // The same owner has the row again: only the epoch tells its two claims apart.
    let new = claims(
        &node
            .outbox
            .claim(&ClaimOutbox::new(owner(1), 1, cx.lease()))
            .await?
            .rows,
    );
    for call in SETTLING {
        let settled = settle(&node, call, owner(1), &old).await?;
        ensure_eq!(
            settled.lost,
            old,
            "what {call} with the earlier epoch did not find"
        );
    }
    ensure_eq!(
        node.outbox_queries.get(id(1)).await?.map(|entry| entry.state),
        Some(OutboxState::Leased),
        "the row after its settling by an earlier claim"
    );
    outlast_lease(cx).await;
    ensure_eq!(
        numbers(&node.claim(owner(2), 1).await?),
        vec![1],
        "the row once its lease, which nobody renewed, has ended"
    );
    let settled = node.outbox.ack(owner(1), &new).await?;
    ensure_eq!(
        settled.lost,
        new,
        "what the former owner's acknowledgement did not find"
    );
    Ok(())
}

async fn should_reject_late_results_when_the_owner_was_reaped<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox
        .append(&[message(1), keyed(2, "a"), message(3)])
        .await?;
    // Which two of the three is the store's choice: they have nothing to do with each other.
    let rows = node
        .outbox
        .claim(&ClaimOutbox::new(owner(1), 2, cx.lease()))
        .await?
        .rows;
    let (dead, reaped) = (claims(&rows), sorted(&rows));
    ensure_eq!(reaped.len(), 2, "how many rows were claimed");
    let live = claims(&node.claim(owner(2), 1).await?);
    ensure_eq!(live.len(), 1, "how many rows were left");
    ensure_eq!(
        node.outbox.reap_expired(10).await?,
        0,
        "rows reaped while their leases last"
    );

    outlast_lease(cx).await;
    ensure_eq!(
        node.outbox.reap_expired(1).await?,
        1,
        "rows reaped up to the limit"
    );
    ensure_eq!(node.outbox.reap_expired(10).await?, 1, "rows reaped after that");
    ensure_eq!(node.outbox.reap_expired(10).await?, 0, "rows reaped once more");
    for call in SETTLING {
        ensure_eq!(
            settle(&node, call, owner(1), &dead).await?.lost,
            dead,
            "what {call} of the reaped owner did not find"
        );
    }
    node.ack_all(owner(2), &live).await?;
    ensure_eq!(
        sorted(&node.claim(owner(2), 10).await?),
        reaped,
        "what was reaped is ready"
    );
    Ok(())
}

async fn should_free_the_rows_of_an_owner_when_released<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox
        .append(&[keyed(1, "a"), keyed(2, "a"), message(3), message(4)])
        .await?;
    let leaving = claims(&node.claim_runs(owner(1), 3).await?);
    let staying = claims(&node.claim(owner(2), 1).await?);

    ensure_eq!(
        node.outbox.release_owner(owner(1)).await?,
        3,
        "rows of the owner that left"
    );
    ensure_eq!(
        node.outbox.release_owner(owner(1)).await?,
        0,
        "rows of it after that"
    );
    for call in SETTLING {
        let lost = settle(&node, call, owner(1), &leaving).await?.lost;
        ensure_eq!(lost, leaving, "what {call} of the released owner did not find");
    }
    node.ack_all(owner(2), &staying).await?;
    let rows = node.claim_runs(owner(3), 10).await?;
    ensure_eq!(
        numbers(&rows),
        vec![1, 2, 3],
        "what was released is ready at once"
    );
    ensure!(
        rows.iter().all(|row| row.attempts == 0),
        "the release consumed attempts: {rows:?}"
    );
    Ok(())
}

async fn should_leave_waiting_rows_alone_when_an_owner_is_released<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1)]).await?;
    let rows = claims(&node.claim(owner(1), 1).await?);
    nothing_lost(
        &node
            .outbox
            .abandon(owner(1), &rows, &Abandon::unused().with_after(cx.lease()))
            .await?,
    )?;
    ensure_eq!(
        node.outbox.release_owner(owner(1)).await?,
        0,
        "rows of an owner that gave all back"
    );
    ensure_eq!(node.outbox.reap_expired(10).await?, 0, "leases that ended");
    ensure!(
        node.claim(owner(2), 10).await?.is_empty(),
        "a row that waits was freed before its time"
    );
    outlast_lease(cx).await;
    ensure_eq!(
        numbers(&node.claim(owner(2), 10).await?),
        vec![1],
        "the row at its time"
    );
    Ok(())
}

async fn should_lose_nothing_when_claims_are_dropped<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    const COUNT: u64 = 16;
    let node = Node::join(cx).await?;
    node.outbox
        .append(&(0..COUNT).map(message).collect::<Vec<_>>())
        .await?;
    // Each claim is given up after another time: some before they begin, some on their way, some too late.
    let request = ClaimOutbox::new(owner(1), 1, cx.lease());
    for n in 0..COUNT {
        let patience = Duration::from_micros(n * 150);
        let _given_up = tokio::time::timeout(patience, node.outbox.claim(&request)).await;
    }
    outlast_lease(cx).await;
    let rows = node.claim(owner(2), 100).await?;
    ensure_eq!(
        numbers(&rows),
        (0..COUNT).collect::<Vec<_>>(),
        "what can be claimed after the leases"
    );
    Ok(())
}
