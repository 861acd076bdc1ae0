//! Admitting: one winner for each row, rounds and epochs that rise, take-over of what was left behind.

use std::time::Duration;

use futures::future::try_join_all;
use headless_abstractions::{Admission, Epoch, ErrorKind, Hold, InboxState, Marked};

use super::worker::Worker;
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AcceptZero, AdmitIgnoresLease, BusyWithoutTime, EpochStands, ForgetRounds, LeaseForever,
        MarkForgotten, MixGroupRows, SkipDedupe,
    },
    outbox::{
        node::{Node, outlast_lease},
        samples::{LONG, keyed, message, owner},
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_run_once_when_admitted_by_many_at_once,
            "of a hundred concurrent admissions of one row, one runs"
        )
        .catching(&[AdmitIgnoresLease]),
        case!(
            should_take_over_once_when_many_meet_an_ended_lease,
            "of many that meet a row that was left behind, one takes it over"
        )
        .catching(&[AdmitIgnoresLease, LeaseForever]),
        case!(
            should_tell_the_time_left_when_it_runs_elsewhere,
            "a row that runs elsewhere is busy for as long as its lease lasts"
        )
        .catching(&[BusyWithoutTime, AdmitIgnoresLease]),
        case!(
            should_count_each_round_when_taken_over,
            "each take-over counts a round and raises the epoch"
        )
        .catching(&[ForgetRounds, EpochStands, LeaseForever]),
        case!(
            should_be_done_once_when_the_same_message_comes_again,
            "what a group has processed is done, however often it comes"
        )
        .catching(&[SkipDedupe, MarkForgotten]),
        case!(
            should_run_in_each_group_when_several_have_it,
            "each group has its own row of a message"
        )
        .catching(&[MixGroupRows]),
        case!(
            should_report_the_second_when_a_batch_has_an_id_twice,
            "an id twice in a batch is reported, each message for itself"
        )
        .catching(&[AdmitIgnoresLease, SkipDedupe]),
        case!(should_refuse_when_the_lease_is_zero, "a lease of zero is invalid").catching(&[AcceptZero]),
    ]
}

async fn should_run_once_when_admitted_by_many_at_once<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let nodes = try_join_all((0..5).map(|_| Node::join(cx))).await?;
    let workers: Vec<_> = (0..100)
        .map(|n| Worker::new(&nodes[n % nodes.len()], owner(n as u128)))
        .collect();
    let message = keyed(1, "a");
    let answers = try_join_all(workers.iter().map(|worker| worker.admit(&message))).await?;
    let winners: Vec<_> = answers
        .iter()
        .filter(|answer| matches!(answer, Admission::Run { .. }))
        .collect();
    ensure_eq!(
        winners,
        vec![&Admission::Run {
            epoch: Epoch::new(1),
            rounds: 1
        }],
        "those of a hundred that were given the row"
    );
    let busy = answers
        .iter()
        .filter(|answer| matches!(answer, Admission::Busy { .. }))
        .count();
    ensure_eq!(busy, 99, "those of a hundred that were told to wait");
    Ok(())
}

async fn should_take_over_once_when_many_meet_an_ended_lease<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let nodes = try_join_all((0..5).map(|_| Node::join(cx))).await?;
    let victim = Worker::new(&nodes[0], owner(1_000));
    let message = message(1);
    victim.run_for(&message, cx.lease()).await?;
    nodes[0].kill();
    outlast_lease(cx).await;

    let workers: Vec<_> = (0..40)
        .map(|n| Worker::new(&nodes[1 + n % 4], owner(n as u128)))
        .collect();
    let answers = try_join_all(workers.iter().map(|worker| worker.admit(&message))).await?;
    let winners = answers
        .iter()
        .filter(|answer| matches!(answer, Admission::Run { .. }))
        .count();
    ensure_eq!(winners, 1, "those of forty that took the row over");
    Ok(())
}

async fn should_tell_the_time_left_when_it_runs_elsewhere<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    Worker::new(&node, owner(1)).run_for(&message(1), LONG).await?;
    match Worker::new(&node, owner(2)).admit(&message(1)).await? {
        Admission::Busy { lease_left } => ensure!(
            lease_left <= LONG && lease_left > LONG - Duration::from_secs(60),
            "{lease_left:?} is left of a lease of {LONG:?}"
        ),
        other => fail!("a row with a live lease was answered with {other:?}"),
    }
    // Its own owner is no exception: the delivery may be a second copy.
    let again = Worker::new(&node, owner(1)).admit(&message(1)).await?;
    ensure!(
        matches!(again, Admission::Busy { .. }),
        "the owner's second admission was answered with {again:?}"
    );
    Ok(())
}

async fn should_count_each_round_when_taken_over<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let mut last = Epoch::default();
    for round in 1..=4 {
        match Worker::new(&node, owner(u128::from(round)))
            .admit_for(&message(1), cx.lease())
            .await?
        {
            Admission::Run { epoch, rounds } => {
                ensure_eq!(rounds, round, "the rounds that were counted");
                ensure!(epoch > last, "epoch {epoch} follows {last}");
                last = epoch;
            }
            other => fail!("round {round} was answered with {other:?}"),
        }
        outlast_lease(cx).await;
    }
    let entry = node
        .inbox_queries
        .get(&crate::cx::group("billing"), message(1).id)
        .await?;
    ensure_eq!(
        entry.map(|entry| entry.rounds),
        Some(4),
        "the rounds that the query shows"
    );
    Ok(())
}

async fn should_be_done_once_when_the_same_message_comes_again<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let elsewhere = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let other = Worker::new(&elsewhere, owner(2));
    let hold = worker.run(&message(1)).await?;
    ensure_eq!(worker.mark(&message(1), hold).await?, Marked::Now, "the mark");
    ensure_eq!(
        worker.mark(&message(2), Hold::Absent).await?,
        Marked::Now,
        "the mark without admission"
    );

    for n in [1, 2] {
        let done = Admission::Settled(InboxState::Processed);
        ensure_eq!(
            other.admit(&message(n)).await?,
            done,
            "message {n} delivered again"
        );
        let already = Marked::Already(InboxState::Processed);
        ensure_eq!(
            other.mark(&message(n), Hold::Absent).await?,
            already,
            "message {n} marked again"
        );
    }
    let again = worker.mark(&message(1), hold).await?;
    ensure_eq!(
        again,
        Marked::Already(InboxState::Processed),
        "the same mark repeated"
    );
    Ok(())
}

async fn should_run_in_each_group_when_several_have_it<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let billing = Worker::of(&node, "billing", owner(1));
    let hold = billing.run(&message(1)).await?;
    billing.mark(&message(1), hold).await?;
    let shipping = Worker::of(&node, "shipping", owner(1));
    let hold = shipping.run(&message(1)).await?;
    ensure_eq!(
        shipping.mark(&message(1), hold).await?,
        Marked::Now,
        "the mark of the second group"
    );
    ensure_eq!(
        Worker::of(&node, "billing.eu", owner(1))
            .state(message(1).id)
            .await?,
        None,
        "the row of a group that has not met the message"
    );
    Ok(())
}

async fn should_report_the_second_when_a_batch_has_an_id_twice<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let done = message(3);
    worker.mark(&done, Hold::Absent).await?;
    let batch: Vec<_> = [&message(1), &message(2), &message(1), &done]
        .map(|message| worker.arrival(message))
        .into();
    let answers = node.inbox.admit(worker.owner, LONG, &batch).await?;
    let run = Admission::Run {
        epoch: Epoch::new(1),
        rounds: 1,
    };
    ensure_eq!(answers.len(), 4, "answers to a batch of four");
    ensure_eq!(answers[..2], [run, run], "the first two");
    ensure!(
        matches!(answers[2], Admission::Busy { .. }),
        "the same row again: {:?}",
        answers[2]
    );
    ensure_eq!(
        answers[3],
        Admission::Settled(InboxState::Processed),
        "one that is done"
    );

    let marks: Vec<_> = [4, 5, 4]
        .map(|n| (worker.arrival(&message(n)), Hold::Absent))
        .into();
    ensure_eq!(
        node.inbox.mark(&marks).await?,
        vec![Marked::Now, Marked::Now, Marked::Already(InboxState::Processed)],
        "marking an id twice in one batch"
    );
    Ok(())
}

async fn should_refuse_when_the_lease_is_zero<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    match worker.admit_for(&message(1), Duration::ZERO).await {
        Ok(answer) => fail!("an admission for no time was answered with {answer:?}"),
        Err(error) => ensure_eq!(error.kind(), ErrorKind::Invalid, "the error of the admission"),
    }
    ensure_eq!(
        worker.state(message(1).id).await?,
        None,
        "the row after a refused admission"
    );
    let hold = worker.run(&message(1)).await?;
    let claims = [super::worker::claim_of(&message(1), hold)];
    match node
        .inbox
        .renew(&worker.group, worker.owner, &claims, Duration::ZERO)
        .await
    {
        Ok(settled) => fail!("a renewal for no time was answered with {settled:?}"),
        Err(error) => ensure_eq!(error.kind(), ErrorKind::Invalid, "the error of the renewal"),
    }
    Ok(())
}
