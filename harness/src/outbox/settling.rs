//! How rows end or go back: acknowledged, abandoned, dead-lettered, redriven.

use std::collections::BTreeSet;

use headless_abstractions::{
    Abandon, AttemptUse, Claim, ClaimOutbox, DeadLetterFilter, Epoch, FailureCause, Origin, OutboxState,
    Redrive, Redriven, Settled,
};

use super::{
    node::{Node, nothing_lost, outlast_lease},
    samples::{LONG, claims, complete, failure, failure_of, id, keyed, message, number, numbers, owner},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AbandonForgetsDelay, AckForgotten, AttemptAlwaysCounted, AttemptNeverCounted, ClaimForgetsAck,
        DropOwnerCheck, EditForgotten, FailForgetsLetter, ForgetFailures, HideLost, RedriveForgotten,
        RedriveKeepsPlace, TruncateEnvelope,
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_leave_the_outbox_when_acknowledged,
            "an acknowledged row is gone for good, and sealed"
        )
        .catching(&[AckForgotten, HideLost]),
        case!(
            should_acknowledge_first_when_a_claim_names_the_last_batch,
            "a claim acknowledges the last batch first, with every check"
        )
        .catching(&[ClaimForgetsAck, DropOwnerCheck]),
        case!(
            should_not_be_claimed_before_its_time_when_abandoned,
            "an abandoned row waits as long as asked, and keeps its failure"
        )
        .catching(&[AbandonForgetsDelay, ForgetFailures]),
        case!(
            should_count_the_attempt_as_asked_when_abandoned,
            "an abandoned attempt is consumed or given back, as asked"
        )
        .catching(&[AttemptAlwaysCounted, AttemptNeverCounted]),
        case!(
            should_become_a_dead_letter_when_failed,
            "a row that cannot be sent becomes one dead letter of the relay, whole"
        )
        .catching(&[FailForgetsLetter, ForgetFailures, TruncateEnvelope]),
        case!(
            should_go_back_with_a_fresh_place_when_redriven,
            "a dead letter of the relay goes back into the outbox, last of its key"
        )
        .catching(&[RedriveForgotten, RedriveKeepsPlace, EditForgotten]),
        case!(
            should_settle_each_row_once_when_batches_overlap_in_any_order,
            "of several that settle the same rows at once, in whatever order they name them, one settles each"
        )
        .catching(&[HideLost, AckForgotten]),
    ]
}

/// The numbers below `ROWS`, each once, in an order that `step` decides: `ROWS` is a prime number.
fn shuffled(rows: &[Claim], step: usize, most: usize) -> Vec<Claim> {
    let order = (0..rows.len()).map(|n| rows[(n * step + step) % rows.len()]);
    order.take(most).collect()
}

/// Those that are named and not lost.
fn settled(named: &[Claim], answer: &Settled) -> BTreeSet<Claim> {
    let named = named.iter().copied();
    named.filter(|claim| !answer.lost.contains(claim)).collect()
}

async fn should_settle_each_row_once_when_batches_overlap_in_any_order<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    const ROWS: u64 = 41;
    const NAMED: usize = 33;
    let nodes = futures::future::try_join_all((0..4).map(|_| Node::join(cx))).await?;
    for step in [1, 5, 12, 23, 40] {
        let batch: Vec<_> = (1..=ROWS).map(|n| message(step * 100 + n)).collect();
        nodes[0].outbox.append(&batch).await?;
        let step = usize::try_from(step).unwrap_or(1);
        let rows = claims(&nodes[0].claim(owner(1), 100).await?);
        ensure_eq!(rows.len() as u64, ROWS, "what is claimed");
        let [first, second, kept] = [step, step + 7, step + 17].map(|step| shuffled(&rows, step, NAMED));
        let how = Abandon::unused();
        let (acked, abandoned, renewed, reaped) = futures::join!(
            nodes[0].outbox.ack(owner(1), &first),
            nodes[1].outbox.abandon(owner(1), &second, &how),
            nodes[2].outbox.renew(owner(1), &kept, LONG),
            nodes[3].outbox.reap_expired(100),
        );
        ensure_eq!(reaped?, 0, "how many leases had ended");
        let renewed = renewed?;
        let (acked, abandoned) = (settled(&first, &acked?), settled(&second, &abandoned?));
        ensure!(
            acked.is_disjoint(&abandoned),
            "rows were settled twice: {:?}",
            acked.intersection(&abandoned).collect::<Vec<_>>()
        );
        for claim in first.iter().chain(&second) {
            ensure!(
                acked.contains(claim) || abandoned.contains(claim),
                "nobody could settle {claim:?}, which its owner held"
            );
        }
        for lost in &renewed.lost {
            ensure!(
                acked.contains(lost) || abandoned.contains(lost),
                "a renewal lost {lost:?}, which nobody had settled"
            );
        }
        // What was given back is ready, what nobody has named is held, and the rest has gone.
        let back = claims(&nodes[3].claim(owner(2), 100).await?);
        let ids =
            |claims: &mut dyn Iterator<Item = Claim>| claims.map(|claim| claim.id).collect::<BTreeSet<_>>();
        ensure_eq!(
            ids(&mut back.iter().copied()),
            ids(&mut abandoned.iter().copied()),
            "what is ready"
        );
        nodes[3].ack_all(owner(2), &back).await?;
        let held: Vec<_> = rows
            .iter()
            .copied()
            .filter(|claim| !acked.contains(claim) && !abandoned.contains(claim))
            .collect();
        nodes[0].ack_all(owner(1), &held).await?;
        ensure_eq!(
            nodes[0].outbox_queries.stats().await?.total(),
            0,
            "the rows that are left"
        );
    }
    Ok(())
}

async fn should_leave_the_outbox_when_acknowledged<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1), message(2)]).await?;
    let rows = claims(
        &node
            .outbox
            .claim(&ClaimOutbox::new(owner(1), 1, cx.lease()))
            .await?
            .rows,
    );
    ensure_eq!(
        node.outbox.ack(owner(1), &rows).await?,
        Settled::all(),
        "the acknowledgement"
    );

    ensure_eq!(
        node.outbox_queries.get(id(1)).await?,
        None,
        "the row after it was acknowledged"
    );
    ensure_eq!(
        node.outbox_queries.stats().await?.total(),
        1,
        "the rows that are left"
    );
    // A settled row is sealed: nothing finds it again, and time does not bring it back.
    let again = node.outbox.ack(owner(1), &rows).await?;
    ensure_eq!(again.lost, rows, "what a second acknowledgement did not find");
    let how = Abandon::unused();
    ensure_eq!(
        node.outbox.abandon(owner(1), &rows, &how).await?.lost,
        rows,
        "what an abandon did not find"
    );
    ensure_eq!(
        node.outbox
            .fail(owner(1), &rows, &failure("too late"))
            .await?
            .lost,
        rows,
        "what a failure did not find"
    );
    ensure_eq!(
        node.outbox.renew(owner(1), &rows, LONG).await?.lost,
        rows,
        "what a renewal did not find"
    );
    outlast_lease(cx).await;
    node.outbox.reap_expired(10).await?;
    ensure_eq!(
        numbers(&node.claim(owner(2), 10).await?),
        vec![2],
        "what is ready"
    );
    ensure!(
        node.letter_queries
            .list(&DeadLetterFilter::open(), None, 10)
            .await?
            .items
            .is_empty(),
        "a dead letter of a message that was sent"
    );
    Ok(())
}

async fn should_acknowledge_first_when_a_claim_names_the_last_batch<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox
        .append(&[keyed(1, "a"), keyed(2, "a"), message(3)])
        .await?;
    let head = claims(&node.claim(owner(1), 1).await?);
    let theirs = claims(&node.claim(owner(2), 1).await?);
    ensure_eq!(
        theirs.iter().map(|claim| number(claim.id)).collect::<Vec<_>>(),
        vec![3],
        "another's row"
    );

    let unknown = Claim::new(id(99), Epoch::new(1));
    let request = ClaimOutbox::new(owner(1), 10, LONG).with_ack(vec![head[0], theirs[0], unknown]);
    let claimed = node.outbox.claim(&request).await?;
    ensure_eq!(
        claimed.acked.lost,
        vec![theirs[0], unknown],
        "claims that could not be acknowledged"
    );
    ensure_eq!(
        numbers(&claimed.rows),
        vec![2],
        "what the acknowledgement made ready"
    );
    ensure_eq!(
        node.outbox_queries.get(id(1)).await?,
        None,
        "the row that was acknowledged"
    );
    node.ack_all(owner(2), &theirs).await
}

async fn should_not_be_claimed_before_its_time_when_abandoned<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1), message(2), message(3)]).await?;
    let rows = claims(&node.claim(owner(1), 3).await?);
    let why = failure("connection refused");
    let abandon = async |claims: &[Claim], how: Abandon| node.outbox.abandon(owner(1), claims, &how).await;
    ensure_eq!(
        abandon(&rows[..1], Abandon::failed(cx.lease(), why.clone())).await?,
        Settled::all(),
        "the first"
    );
    ensure_eq!(
        abandon(&rows[1..2], Abandon::failed(LONG, why.clone())).await?,
        Settled::all(),
        "the second"
    );
    ensure_eq!(
        abandon(&rows[2..], Abandon::unused()).await?,
        Settled::all(),
        "the third"
    );

    let entry = node.outbox_queries.get(id(1)).await?;
    let seen = entry.map(|entry| (entry.state, entry.owner, entry.attempts, entry.failures));
    ensure_eq!(
        seen,
        Some((OutboxState::Retrying, None, 1, vec![why])),
        "the row while it waits"
    );
    ensure_eq!(
        numbers(&node.claim(owner(2), 10).await?),
        vec![3],
        "what is ready at once"
    );
    outlast_lease(cx).await;
    ensure_eq!(
        numbers(&node.claim(owner(2), 10).await?),
        vec![1],
        "what is ready after its time"
    );
    Ok(())
}

async fn should_count_the_attempt_as_asked_when_abandoned<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1)]).await?;
    let mut consumed = 0;
    for attempt in [
        AttemptUse::Return,
        AttemptUse::Consume,
        AttemptUse::Consume,
        AttemptUse::Return,
        AttemptUse::Consume,
    ] {
        let rows = node.claim(owner(1), 1).await?;
        ensure_eq!(
            rows.iter().map(|row| row.attempts).collect::<Vec<_>>(),
            vec![consumed],
            "attempts"
        );
        let mut how = Abandon::unused();
        how.attempt = attempt;
        nothing_lost(&node.outbox.abandon(owner(1), &claims(&rows), &how).await?)?;
        consumed += u32::from(attempt == AttemptUse::Consume);
    }
    ensure_eq!(
        node.outbox_queries.get(id(1)).await?.map(|entry| entry.attempts),
        Some(consumed),
        "the attempts that the query shows"
    );
    Ok(())
}

async fn should_become_a_dead_letter_when_failed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[complete(1), message(2)]).await?;
    let rows = claims(&node.claim(owner(1), 1).await?);
    let (first, last) = (
        failure("refused once"),
        failure_of(FailureCause::Refused, "refused for good"),
    );
    nothing_lost(
        &node
            .outbox
            .abandon(
                owner(1),
                &rows,
                &Abandon::failed(std::time::Duration::ZERO, first.clone()),
            )
            .await?,
    )?;
    let rows = claims(&node.claim(owner(1), 1).await?);
    ensure_eq!(
        node.outbox.fail(owner(1), &rows, &last).await?,
        Settled::all(),
        "the failure"
    );

    ensure_eq!(
        node.outbox_queries.get(id(1)).await?,
        None,
        "the row after it failed for good"
    );
    let letters = node
        .letter_queries
        .list(&DeadLetterFilter::open(), None, 10)
        .await?
        .items;
    ensure_eq!(letters.len(), 1, "dead letters");
    let letter = &letters[0];
    ensure_eq!(letter.origin, Origin::Relay, "where it died");
    ensure_eq!(letter.message, complete(1), "the message as it was");
    ensure_eq!(
        letter.failures,
        vec![first, last.clone()],
        "every attempt's failure"
    );
    ensure!(letter.is_open(), "the dead letter is closed: {letter:?}");
    ensure_eq!((letter.redrives, letter.previous), (0, None), "its history");

    let again = node.outbox.fail(owner(1), &rows, &last).await?;
    ensure_eq!(again.lost, rows, "what failing it again did not find");
    let letters = node
        .letter_queries
        .list(&DeadLetterFilter::open(), None, 10)
        .await?
        .items;
    ensure_eq!(letters.len(), 1, "dead letters after failing it twice");
    ensure_eq!(
        numbers(&node.claim(owner(1), 10).await?),
        vec![2],
        "what is ready"
    );
    Ok(())
}

async fn should_go_back_with_a_fresh_place_when_redriven<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[keyed(1, "a"), keyed(2, "a")]).await?;
    let rows = node.claim(owner(1), 1).await?;
    nothing_lost(
        &node
            .outbox
            .fail(owner(1), &claims(&rows), &failure("too large"))
            .await?,
    )?;
    let letters = node
        .letter_queries
        .list(&DeadLetterFilter::open(), None, 10)
        .await?
        .items;
    ensure_eq!(letters.len(), 1, "dead letters");

    let redrive = Redrive::new(vec![letters[0].id], "ada").with_payload("smaller".into());
    ensure_eq!(
        node.letters.redrive(&redrive).await?,
        vec![Redriven::Now],
        "the redrive"
    );
    ensure_eq!(
        node.letters.redrive(&redrive).await?,
        vec![Redriven::Closed],
        "the redrive once more"
    );
    let rows = node.claim_runs(owner(1), 10).await?;
    ensure_eq!(numbers(&rows), vec![2, 1], "the key: what is redriven comes last");
    let mut edited = keyed(1, "a");
    edited.payload = "smaller".into();
    ensure_eq!(
        rows[1].message,
        edited,
        "the message with the payload of the redrive"
    );
    ensure_eq!(rows[1].attempts, 0, "the attempts of a redriven message");

    // It may die again, and then says what it came from.
    nothing_lost(
        &node
            .outbox
            .fail(owner(1), &claims(&rows)[1..], &failure("still too large"))
            .await?,
    )?;
    let second = node
        .letter_queries
        .list(&DeadLetterFilter::open(), None, 10)
        .await?
        .items;
    let seen: Vec<_> = second
        .iter()
        .map(|letter| (letter.redrives, letter.previous))
        .collect();
    ensure_eq!(
        seen,
        vec![(1, Some(letters[0].id))],
        "the dead letter of the redriven message"
    );
    ensure_eq!(
        node.letter_queries
            .get(letters[0].id)
            .await?
            .map(|letter| letter.message.payload),
        Some(keyed(1, "a").payload),
        "the payload that the first dead letter keeps"
    );
    Ok(())
}
