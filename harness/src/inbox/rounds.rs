//! Rounds and what failed in them: counted, given back, and kept through take-overs.

use std::time::Duration;

use headless_abstractions::{
    Abandon, Admission, AttemptUse, ClaimParked, Epoch, Hold, InboxState, Marked, Park,
};

use super::worker::{Worker, hold_of};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AbandonForgetsDelay, AttemptAlwaysCounted, AttemptNeverCounted, DropEpochCheck, DropOwnerCheck,
        EpochStands, ForgetFailures, ForgetRounds, HideLost, IgnoreBatchLimit, LeaseForever, ReapForgotten,
        ReapLive,
    },
    outbox::{
        node::{Node, nothing_lost, outlast_lease},
        samples::{LONG, claims, failure, id, message, numbers, owner, sorted},
    },
};

const NOW: Duration = Duration::ZERO;

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_count_rounds_as_asked_when_parked,
            "a round is counted at the claim, and given back where asked"
        )
        .catching(&[AttemptAlwaysCounted, AttemptNeverCounted, ForgetRounds]),
        case!(
            should_gather_failures_when_parked_again_and_again,
            "a row keeps the failures of all its rounds"
        )
        .catching(&[ForgetFailures]),
        case!(
            should_go_back_as_asked_when_abandoned,
            "an abandoned message waits as long as asked, its round counted or not"
        )
        .catching(&[
            AbandonForgetsDelay,
            AttemptAlwaysCounted,
            AttemptNeverCounted,
            HideLost,
        ]),
        case!(
            should_be_parked_again_when_the_lease_of_a_claim_ends,
            "a claim whose lease has ended is parked again, the round consumed"
        )
        .catching(&[ReapForgotten, ReapLive, IgnoreBatchLimit, HideLost]),
        case!(
            should_be_claimed_again_when_nobody_reaps,
            "a claim whose lease has ended can be claimed again, with a higher epoch"
        )
        .catching(&[LeaseForever, EpochStands, DropEpochCheck, DropOwnerCheck]),
        case!(
            should_lose_nothing_when_calls_are_dropped,
            "what a dropped admission or claim has taken comes back when its lease ends"
        )
        .catching(&[LeaseForever]),
    ]
}

async fn should_count_rounds_as_asked_when_parked<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let park = async |n: u64, hold, attempt| {
        let park = Park::failed(
            message(n),
            worker.arrival(&message(n)),
            hold,
            NOW,
            vec![failure("failed")],
        );
        worker.park_as(park.with_attempt(attempt)).await
    };
    // From nothing, a consumed attempt is the first round; one that is given back leaves none.
    park(1, Hold::Absent, AttemptUse::Consume).await?;
    park(2, Hold::Absent, AttemptUse::Return).await?;
    for (n, attempt) in [(3, AttemptUse::Consume), (4, AttemptUse::Return)] {
        let hold = worker.run(&message(n)).await?;
        park(n, hold, attempt).await?;
    }
    let mut rows = worker.claim(10).await?;
    rows.sort_by_key(|row| row.message.id);
    let rounds: Vec<_> = rows.iter().map(|row| row.rounds).collect();
    ensure_eq!(
        rounds,
        vec![2, 1, 2, 1],
        "rounds with the claim: consumed, given back, consumed, given back"
    );

    // A row from the park is counted in the same way when it is parked again.
    park(1, hold_of(worker.owner, &rows[0]), AttemptUse::Consume).await?;
    park(2, hold_of(worker.owner, &rows[1]), AttemptUse::Return).await?;
    let mut rows = worker.claim(10).await?;
    rows.sort_by_key(|row| row.message.id);
    let rounds: Vec<_> = rows.iter().map(|row| row.rounds).collect();
    ensure_eq!(rounds, vec![3, 1], "rounds of the third and the second claim");
    Ok(())
}

async fn should_gather_failures_when_parked_again_and_again<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let park = |hold, texts: &[&str]| {
        let failures = texts.iter().map(|text| failure(text)).collect();
        Park::failed(message(1), worker.arrival(&message(1)), hold, NOW, failures)
    };
    worker
        .park_as(park(Hold::Absent, &["inline 1", "inline 2"]))
        .await?;
    let rows = worker.claim(1).await?;
    worker
        .park_as(park(hold_of(worker.owner, &rows[0]), &["second round"]))
        .await?;
    let rows = worker.claim(1).await?;
    let how = Abandon::failed(NOW, failure("third round"));
    nothing_lost(
        &node
            .parked
            .abandon(&worker.group, worker.owner, &claims(&rows), &how)
            .await?,
    )?;
    let rows = worker.claim(1).await?;
    let texts: Vec<_> = rows
        .iter()
        .flat_map(|row| &row.failures)
        .map(|f| f.message.as_str())
        .collect();
    ensure_eq!(
        texts,
        vec!["inline 1", "inline 2", "second round", "third round"],
        "what the row keeps"
    );
    let entry = node.inbox_queries.get(&worker.group, id(1)).await?;
    ensure_eq!(
        entry.map(|entry| entry.failures.len()),
        Some(4),
        "how many failures the query shows"
    );
    Ok(())
}

async fn should_go_back_as_asked_when_abandoned<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    for n in 1..=3 {
        worker.park(&message(n), Hold::Absent, NOW).await?;
    }
    let rows = worker.claim(3).await?;
    ensure_eq!(sorted(&rows), vec![1, 2, 3], "what is claimed");
    let of = |n| {
        rows.iter()
            .filter(|row| row.message.id == id(n))
            .map(|row| row.claim)
            .collect::<Vec<_>>()
    };
    let abandon = async |n, how: Abandon| {
        node.parked
            .abandon(&worker.group, worker.owner, &of(n), &how)
            .await
    };
    ensure!(
        abandon(1, Abandon::unused()).await?.is_complete(),
        "the first abandon was lost"
    );
    let later = Abandon::failed(cx.lease(), failure("again"));
    ensure!(
        abandon(2, later).await?.is_complete(),
        "the second abandon was lost"
    );
    ensure!(
        abandon(3, Abandon::unused().with_after(LONG))
            .await?
            .is_complete(),
        "the third abandon was lost"
    );
    ensure_eq!(
        abandon(1, Abandon::unused()).await?.lost,
        of(1),
        "what a second abandon did not find"
    );

    let again = worker.claim(10).await?;
    ensure_eq!(numbers(&again), vec![1], "what is due at once");
    ensure_eq!(again[0].rounds, 2, "the rounds where the attempt was given back");
    outlast_lease(cx).await;
    let again = worker.claim(10).await?;
    ensure_eq!(numbers(&again), vec![2], "what is due after its time");
    ensure_eq!(again[0].rounds, 3, "the rounds where the attempt was consumed");
    Ok(())
}

async fn should_be_parked_again_when_the_lease_of_a_claim_ends<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let victim = Node::join(cx).await?;
    let survivor = Node::join(cx).await?;
    let dying = Worker::new(&victim, owner(1));
    let worker = Worker::new(&survivor, owner(2));
    for n in [1, 2, 3] {
        dying.park(&message(n), Hold::Absent, NOW).await?;
    }
    let request = ClaimParked::new(dying.owner, dying.group.clone(), 2, cx.lease());
    let rows = victim.parked.claim(&request).await?;
    ensure_eq!(rows.len(), 2, "what the victim claims");
    let live = worker.claim(1).await?;
    ensure_eq!(
        survivor.parked.reap_expired(10).await?,
        0,
        "claims reaped while their leases last"
    );
    victim.kill();

    outlast_lease(cx).await;
    ensure_eq!(
        survivor.parked.reap_expired(1).await?,
        1,
        "claims reaped up to the limit"
    );
    ensure_eq!(
        survivor.parked.reap_expired(10).await?,
        1,
        "claims reaped after that"
    );
    ensure_eq!(
        survivor.parked.reap_expired(10).await?,
        0,
        "claims reaped once more"
    );
    for row in &rows {
        let late = worker.mark(&row.message, hold_of(dying.owner, row)).await?;
        ensure_eq!(late, Marked::LeaseLost, "a mark of the owner that was reaped");
    }
    let late = survivor
        .parked
        .abandon(&dying.group, dying.owner, &claims(&rows), &Abandon::unused())
        .await?;
    ensure_eq!(
        late.lost,
        claims(&rows),
        "what an abandon of the reaped owner did not find"
    );
    let again = worker.claim(10).await?;
    ensure_eq!(sorted(&again), sorted(&rows), "what is due, at once");
    ensure!(
        again.iter().all(|row| row.rounds == 3),
        "the lost round was not consumed: {again:?}"
    );
    let hold = hold_of(worker.owner, &live[0]);
    ensure_eq!(
        worker.mark(&live[0].message, hold).await?,
        Marked::Now,
        "the mark of a live owner"
    );
    Ok(())
}

async fn should_be_claimed_again_when_nobody_reaps<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    worker.park(&message(1), Hold::Absent, NOW).await?;
    let request = ClaimParked::new(worker.owner, worker.group.clone(), 1, cx.lease());
    let first = node.parked.claim(&request).await?;
    outlast_lease(cx).await;
    let settled = Admission::Settled(InboxState::Parked);
    ensure_eq!(
        worker.admit(&message(1)).await?,
        settled,
        "its delivery: it is parked, not taken over"
    );
    let second = worker.claim(10).await?;
    ensure_eq!(numbers(&second), vec![1], "what is claimed again");
    ensure!(
        second[0].claim.epoch > first[0].claim.epoch,
        "the epoch did not rise: {second:?} after {first:?}"
    );
    let late = worker.mark(&message(1), hold_of(worker.owner, &first[0])).await?;
    ensure_eq!(late, Marked::LeaseLost, "a mark with the earlier epoch");
    let old = Epoch::new(first[0].claim.epoch.get());
    let stale = [headless_abstractions::Claim::new(id(1), old)];
    let lost = node
        .parked
        .abandon(&worker.group, worker.owner, &stale, &Abandon::unused())
        .await?
        .lost;
    ensure_eq!(
        lost,
        stale.to_vec(),
        "what an abandon with the earlier epoch did not find"
    );
    let lost = node
        .parked
        .abandon(&worker.group, owner(2), &claims(&second), &Abandon::unused())
        .await?
        .lost;
    ensure_eq!(
        lost,
        claims(&second),
        "what an abandon of another owner did not find"
    );
    Ok(())
}

async fn should_lose_nothing_when_calls_are_dropped<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    const COUNT: u64 = 12;
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    for n in 0..COUNT {
        worker.park(&message(n), Hold::Absent, NOW).await?;
    }
    // Each call is given up after another time: some before they begin, some on their way, some too late.
    let request = ClaimParked::new(worker.owner, worker.group.clone(), 1, cx.lease());
    for n in 0..COUNT {
        let patience = Duration::from_micros(n * 150);
        let _given_up = tokio::time::timeout(patience, node.parked.claim(&request)).await;
        let arriving = message(COUNT + n);
        let admission = worker.admit_for(&arriving, cx.lease());
        let _given_up = tokio::time::timeout(patience, admission).await;
    }
    outlast_lease(cx).await;
    let rows = worker.claim(100).await?;
    ensure_eq!(
        sorted(&rows),
        (0..COUNT).collect::<Vec<_>>(),
        "what can be claimed after the leases"
    );
    for n in COUNT..2 * COUNT {
        worker.run(&message(n)).await?;
    }
    Ok(())
}
