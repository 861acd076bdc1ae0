//! Deaths, and what becomes of the claims of the dead.

use std::time::Duration;

use headless_abstractions::{
    Admission, Beat, Buried, Hold, Marked, NodeState, OwnedTx, Owner, Parked, Registration, Settled, StoreTx,
    UnitOfWorkStore,
};

use super::node::Member;
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    inbox::worker::Worker,
    mutation::Mutation::{
        BeatEveryone, BuryReborn, DeathFreesEveryone, DeathFreesStrangers, DeathKeepsClaims,
        DeathReturnsRounds, DeathToldTwice, LateLeaveFrees, LeaveForgotten, LeaveKeepsClaims,
        RebirthKeepsClaims, SuspicionFrees, SweepForgotten, SweepFreesEveryone, SweepFreesReborn,
    },
    outbox::{
        node::{nothing_lost, outlast_lease},
        samples::{LONG, claims, message, numbers, owner},
    },
    wait::eventually,
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_be_dead_for_good_when_it_was_silent_for_too_long,
            "a node is dead once it has been silent for too long, also before it is buried, and stays so"
        )
        .catching(&[BeatEveryone]),
        case!(
            should_free_what_the_dead_held_when_buried,
            "a dead node's rows of the outbox, the inbox and the park are free at once, whatever their leases"
        )
        .catching(&[DeathKeepsClaims]),
        case!(
            should_free_what_a_transaction_had_locked_when_swept_after_its_end,
            "what a burial passes over since a transaction of the dead has it locked is free soon after that has ended"
        )
        .catching(&[SweepForgotten]),
        case!(
            should_free_what_the_dead_claimed_when_swept_after_its_burial,
            "a claim that comes after the burial of its owner is freed by a later look"
        )
        .catching(&[SweepForgotten]),
        case!(
            should_keep_what_it_holds_when_it_was_swept_in_its_new_life,
            "an owner that has registered anew keeps what it holds, though its former life is looked at"
        )
        .catching(&[SweepFreesReborn]),
        case!(
            should_count_the_round_when_its_node_died,
            "a round that had begun counts, so that a message which kills its process comes to its last one"
        )
        .catching(&[DeathReturnsRounds]),
        case!(
            should_leave_the_claims_of_others_alone_when_one_is_buried,
            "the living, the suspected and those who never registered keep what they hold"
        )
        .catching(&[
            DeathFreesEveryone,
            DeathFreesStrangers,
            SuspicionFrees,
            SweepFreesEveryone
        ]),
        case!(
            should_tell_each_death_once_when_many_bury,
            "of any number who bury at once, one is told of each death"
        )
        .catching(&[DeathToldTwice]),
        case!(
            should_free_the_claims_of_its_former_life_when_a_dead_owner_registers_anew,
            "an owner that was dead begins without the claims of its former life, and keeps those it makes then"
        )
        .catching(&[BuryReborn, RebirthKeepsClaims]),
        case!(
            should_free_what_it_claimed_after_its_burial_when_it_registers_anew,
            "what an owner claims between its burial and its next registration is free then"
        )
        .catching(&[RebirthKeepsClaims]),
        case!(
            should_free_what_it_still_held_when_it_says_good_bye,
            "what a node still holds when it leaves is free at once, whatever its leases"
        )
        .catching(&[LeaveKeepsClaims, LeaveForgotten]),
        case!(
            should_keep_what_it_holds_when_the_good_bye_of_its_former_life_comes_late,
            "a good-bye of an incarnation that has ended frees nothing of the present one"
        )
        .catching(&[LateLeaveFrees]),
    ]
}

fn owners(buried: &[Buried]) -> Vec<Owner> {
    buried.iter().map(|death| death.owner).collect()
}

async fn should_be_dead_for_good_when_it_was_silent_for_too_long<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let member = Member::join(cx).await?;
    let incarnation = member.register(owner(1), cx.lease()).await?;
    outlast_lease(cx).await;
    ensure_eq!(
        member.state(incarnation).await?,
        Some(NodeState::Dead),
        "before it is buried"
    );
    ensure_eq!(
        member.beat(owner(1), incarnation).await?,
        Beat::Ended,
        "its late heartbeat"
    );
    ensure!(
        !member.membership.leave(owner(1), incarnation).await?,
        "its late good-bye"
    );
    ensure_eq!(
        owners(&member.membership.bury(10).await?),
        vec![owner(1)],
        "who is buried"
    );
    ensure_eq!(
        member.beat(owner(1), incarnation).await?,
        Beat::Ended,
        "after its burial"
    );
    ensure_eq!(
        member.state(incarnation).await?,
        Some(NodeState::Dead),
        "after its burial"
    );
    Ok(())
}

async fn should_free_what_the_dead_held_when_buried<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let (dead, heir) = (Member::join(cx).await?, Member::join(cx).await?);
    dead.register(owner(1), cx.lease()).await?;
    let (worker, next) = (
        Worker::new(&dead.node, owner(1)),
        Worker::new(&heir.node, owner(2)),
    );
    // One row of each kind, all under leases that outlast the case.
    dead.node.outbox.append(&[message(1)]).await?;
    let sent = dead.node.claim(owner(1), 1).await?;
    ensure_eq!(numbers(&sent), vec![1], "what the outbox hands out");
    let Admission::Run { epoch: running, .. } = worker.admit(&message(2)).await? else {
        fail!("the first admission does not run");
    };
    let parked = worker.park(&message(3), Hold::Absent, Duration::ZERO).await?;
    ensure_eq!(parked, Parked::Now, "the park");
    let picked = worker.claim(1).await?;
    ensure_eq!(picked.len(), 1, "what the park hands out");

    outlast_lease(cx).await;
    let buried = heir.membership.bury(10).await?;
    ensure_eq!(owners(&buried), vec![owner(1)], "who is buried");
    ensure_eq!(buried[0].freed, 3, "the claims that were freed");

    let again = heir.node.claim(owner(2), 10).await?;
    ensure_eq!(numbers(&again), vec![1], "what the outbox hands out again");
    ensure!(
        again[0].claim.epoch > sent[0].claim.epoch,
        "the outbox's epoch does not rise"
    );
    match next.admit(&message(2)).await? {
        Admission::Run { epoch, .. } => ensure!(epoch > running, "epoch {epoch} follows {running}"),
        other => fail!("the delivery of a dead node is answered {other:?}"),
    }
    let once_more = next.claim(10).await?;
    ensure_eq!(once_more.len(), 1, "what the park hands out again");
    ensure!(
        once_more[0].claim.epoch > picked[0].claim.epoch,
        "the park's epoch does not rise"
    );

    // What the dead says now is lost, without harm.
    let late = dead.node.outbox.ack(owner(1), &claims(&sent)).await?;
    ensure_eq!(late, Settled::without(claims(&sent)), "the late acknowledgement");
    nothing_lost(&heir.node.outbox.ack(owner(2), &claims(&again)).await?)
}

/// Looks again and again, as a store may look at each node no more often than each second, until so many claims are free.
async fn sweep<F: StoreFixture>(cx: &Cx<F>, member: &Member<F::Store>, claims: u64) -> CaseResult {
    let mut freed = 0;
    eventually(cx.patience(), "the claims are free", async || {
        freed += member.membership.sweep(10).await?;
        Ok((freed >= claims).then_some(()))
    })
    .await?;
    ensure_eq!(freed, claims, "the claims that were freed");
    Ok(())
}

async fn should_free_what_a_transaction_had_locked_when_swept_after_its_end<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let (dead, heir) = (Member::join(cx).await?, Member::join(cx).await?);
    dead.register(owner(1), cx.lease()).await?;
    let worker = Worker::new(&dead.node, owner(1));
    let hold = worker.run(&message(1)).await?;
    let Hold::Running { epoch: running, .. } = hold else {
        fail!("the admission holds nothing");
    };
    let mut tx = dead.node.store.begin().await?;
    let marked = tx.mark_processed(&[(worker.arrival(&message(1)), hold)]).await?;
    ensure_eq!(marked, vec![Marked::Now], "the mark");
    outlast_lease(cx).await;
    let buried = heir.membership.bury(10).await?;
    ensure_eq!(owners(&buried), vec![owner(1)], "who is buried");
    ensure_eq!(buried[0].freed, 0, "the claims that were freed");
    ensure_eq!(heir.membership.sweep(10).await?, 0, "while it is locked");
    let next = Worker::new(&heir.node, owner(2));
    let busy = next.admit(&message(1)).await?;
    ensure!(matches!(busy, Admission::Busy { .. }), "it is answered {busy:?}");
    Box::new(tx).rollback().await?;
    sweep(cx, &heir, 1).await?;
    match next.admit(&message(1)).await? {
        Admission::Run { epoch, rounds } => {
            ensure!(epoch > running, "epoch {epoch} follows {running}");
            ensure_eq!(rounds, 2, "the rounds so far");
        }
        other => fail!("the delivery of a dead node is answered {other:?}"),
    }
    Ok(())
}

async fn should_free_what_the_dead_claimed_when_swept_after_its_burial<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let member = Member::join(cx).await?;
    member.register(owner(1), cx.lease()).await?;
    outlast_lease(cx).await;
    ensure_eq!(
        owners(&member.membership.bury(10).await?),
        vec![owner(1)],
        "who is buried"
    );
    member.node.outbox.append(&[message(1)]).await?;
    let held = member.node.claim(owner(1), 1).await?;
    ensure_eq!(numbers(&held), vec![1], "what the outbox hands out");
    sweep(cx, &member, 1).await?;
    let late = member.node.outbox.ack(owner(1), &claims(&held)).await?;
    ensure_eq!(late, Settled::without(claims(&held)), "the claim of the dead");
    ensure_eq!(
        numbers(&member.node.claim(owner(2), 1).await?),
        vec![1],
        "what the outbox hands out again"
    );
    Ok(())
}

async fn should_keep_what_it_holds_when_it_was_swept_in_its_new_life<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let member = Member::join(cx).await?;
    member.register(owner(1), cx.lease()).await?;
    outlast_lease(cx).await;
    ensure_eq!(
        owners(&member.membership.bury(10).await?),
        vec![owner(1)],
        "who is buried"
    );
    let anew = member.register_for_long(owner(1)).await?;
    member.node.outbox.append(&[message(1)]).await?;
    let held = member.node.claim(owner(1), 1).await?;
    ensure_eq!(member.membership.sweep(10).await?, 0, "what was freed");
    // And where the new life ends, too, what it held is free.
    nothing_lost(&member.node.outbox.renew(owner(1), &claims(&held), LONG).await?)?;
    ensure!(member.membership.leave(owner(1), anew).await?, "its good-bye");
    let again = member.node.claim(owner(2), 1).await?;
    ensure_eq!(numbers(&again), vec![1], "what the outbox hands out again");
    ensure_eq!(
        member.membership.sweep(10).await?,
        0,
        "what was freed of another's"
    );
    nothing_lost(&member.node.outbox.ack(owner(2), &claims(&again)).await?)
}

async fn should_count_the_round_when_its_node_died<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let heir = Member::join(cx).await?;
    for round in 1..=3_u32 {
        let dead = Member::join(cx).await?;
        let me = owner(u128::from(round));
        dead.register(me, cx.lease()).await?;
        match Worker::new(&dead.node, me).admit(&message(1)).await? {
            Admission::Run { rounds, .. } => ensure_eq!(rounds, round, "the rounds so far"),
            other => fail!("round {round} is answered {other:?}"),
        }
        dead.node.kill();
        outlast_lease(cx).await;
        ensure_eq!(
            owners(&heir.membership.bury(10).await?),
            vec![me],
            "who is buried"
        );
    }
    Ok(())
}

async fn should_leave_the_claims_of_others_alone_when_one_is_buried<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let member = Member::join(cx).await?;
    member.register(owner(1), cx.lease()).await?;
    // Suspected by then, and not dead for long.
    let suspected = Registration::new(owner(2), "orders", "silent")?.with_silence(cx.lease() / 2, LONG)?;
    member.membership.register(&suspected).await?;
    member.register_for_long(owner(3)).await?;
    let mut held = Vec::new();
    for n in 1..=4_u64 {
        let me = owner(u128::from(n));
        member.node.outbox.append(&[message(n)]).await?;
        held.push(member.node.claim(me, 1).await?);
        let Admission::Run { .. } = Worker::new(&member.node, me).admit(&message(10 + n)).await? else {
            fail!("the first admission does not run");
        };
    }
    outlast_lease(cx).await;
    ensure_eq!(
        owners(&member.membership.bury(10).await?),
        vec![owner(1)],
        "who is buried"
    );
    ensure_eq!(member.membership.sweep(10).await?, 0, "what is freed later");
    ensure_eq!(
        numbers(&member.node.claim(owner(9), 10).await?),
        vec![1],
        "what the outbox hands out: of the dead alone"
    );
    let heir = Worker::new(&member.node, owner(9));
    for n in 2..=4_u64 {
        let busy = heir.admit(&message(10 + n)).await?;
        ensure!(
            matches!(busy, Admission::Busy { .. }),
            "what owner {n} runs is answered {busy:?}"
        );
        nothing_lost(
            &member
                .node
                .outbox
                .ack(owner(u128::from(n)), &claims(&held[usize::try_from(n - 1)?]))
                .await?,
        )?;
    }
    Ok(())
}

async fn should_tell_each_death_once_when_many_bury<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let mut members = Vec::new();
    for _ in 0..4 {
        members.push(Member::join(cx).await?);
    }
    for n in 1..=20 {
        members[0].register(owner(n), cx.lease()).await?;
    }
    outlast_lease(cx).await;
    let mut told = Vec::new();
    // What one call has in hand, another passes over: so they are asked until nobody is left.
    for _ in 0..10 {
        let calls = members.iter().map(|member| member.membership.bury(7));
        for buried in futures::future::join_all(calls).await {
            told.extend(owners(&buried?));
        }
    }
    told.sort_unstable();
    let all: Vec<_> = (1..=20).map(owner).collect();
    ensure_eq!(told, all, "the deaths that were told");
    Ok(())
}

async fn should_free_the_claims_of_its_former_life_when_a_dead_owner_registers_anew<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let member = Member::join(cx).await?;
    member.register(owner(1), cx.lease()).await?;
    member.node.outbox.append(&[message(1)]).await?;
    let former = member.node.claim(owner(1), 1).await?;
    outlast_lease(cx).await;
    let anew = member.register_for_long(owner(1)).await?;
    let lost = member.node.outbox.ack(owner(1), &claims(&former)).await?;
    ensure_eq!(
        lost,
        Settled::without(claims(&former)),
        "a claim of its former life"
    );
    let now = member.node.claim(owner(1), 1).await?;
    ensure_eq!(numbers(&now), vec![1], "what it claims anew");
    // Nobody is left to bury: what it holds now stays.
    ensure_eq!(
        owners(&member.membership.bury(10).await?),
        vec![],
        "who is buried"
    );
    ensure_eq!(
        member.beat(owner(1), anew).await?,
        Beat::Accepted,
        "its heartbeat"
    );
    nothing_lost(&member.node.outbox.ack(owner(1), &claims(&now)).await?)
}

async fn should_free_what_it_claimed_after_its_burial_when_it_registers_anew<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let member = Member::join(cx).await?;
    member.register(owner(1), cx.lease()).await?;
    outlast_lease(cx).await;
    ensure_eq!(
        owners(&member.membership.bury(10).await?),
        vec![owner(1)],
        "who is buried"
    );
    // It does not know yet.
    member.node.outbox.append(&[message(1)]).await?;
    let held = member.node.claim(owner(1), 1).await?;
    ensure_eq!(numbers(&held), vec![1], "what the outbox hands out");
    member.register_for_long(owner(1)).await?;
    let late = member.node.outbox.ack(owner(1), &claims(&held)).await?;
    ensure_eq!(
        late,
        Settled::without(claims(&held)),
        "a claim of its former life"
    );
    ensure_eq!(
        numbers(&member.node.claim(owner(2), 1).await?),
        vec![1],
        "what the outbox hands out again"
    );
    Ok(())
}

async fn should_free_what_it_still_held_when_it_says_good_bye<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let (leaver, heir) = (Member::join(cx).await?, Member::join(cx).await?);
    let incarnation = leaver.register_for_long(owner(1)).await?;
    leaver.node.outbox.append(&[message(1)]).await?;
    let sent = leaver.node.claim(owner(1), 1).await?;
    let Admission::Run { epoch: running, .. } =
        Worker::new(&leaver.node, owner(1)).admit(&message(2)).await?
    else {
        fail!("the first admission does not run");
    };
    ensure!(
        leaver.membership.leave(owner(1), incarnation).await?,
        "the good-bye"
    );
    let again = heir.node.claim(owner(2), 10).await?;
    ensure_eq!(numbers(&again), vec![1], "what the outbox hands out again");
    match Worker::new(&heir.node, owner(2)).admit(&message(2)).await? {
        Admission::Run { epoch, .. } => ensure!(epoch > running, "epoch {epoch} follows {running}"),
        other => fail!("the delivery of a node that has left is answered {other:?}"),
    }
    let late = leaver.node.outbox.ack(owner(1), &claims(&sent)).await?;
    ensure_eq!(late, Settled::without(claims(&sent)), "the late acknowledgement");
    nothing_lost(&heir.node.outbox.ack(owner(2), &claims(&again)).await?)
}

async fn should_keep_what_it_holds_when_the_good_bye_of_its_former_life_comes_late<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let member = Member::join(cx).await?;
    let former = member.register_for_long(owner(1)).await?;
    let anew = member.register_for_long(owner(1)).await?;
    member.node.outbox.append(&[message(1)]).await?;
    let held = member.node.claim(owner(1), 1).await?;
    ensure!(
        !member.membership.leave(owner(1), former).await?,
        "the late good-bye"
    );
    ensure_eq!(
        member.beat(owner(1), anew).await?,
        Beat::Accepted,
        "its heartbeat"
    );
    nothing_lost(&member.node.outbox.ack(owner(1), &claims(&held)).await?)
}
