//! An owner that renews some rows of a batch while it settles others of it, and while somebody else claims.

use std::collections::BTreeSet;

use futures::future::{join, try_join_all};
use headless_abstractions::{
    Abandon, Claim, ClaimOutbox, DeadLetterFilter, Error, Message, Owner, Result, Store,
};

use super::{
    node::{Node, nothing_lost, outlast_lease},
    samples::{LONG, claims, failure, keyed, message, number, numbers, owner, sorted},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{ClaimForgetsRenewal, ClaimIgnoresLease, RenewalHidesBatch},
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_lose_nothing_when_a_batch_is_renewed_and_settled_at_once,
            "an owner finds all that it holds, whatever it does with other rows of the batch at that moment"
        )
        .catching(&[RenewalHidesBatch, ClaimIgnoresLease]),
        case!(
            should_have_one_holder_when_renewed_while_others_claim_what_is_over,
            "of a late renewal and a claim of the same row one succeeds, and a late ack is no claim's row"
        )
        .catching(&[ClaimForgetsRenewal, ClaimIgnoresLease]),
    ]
}

/// How many rows a batch has.
const BATCH: u64 = 32;

/// The messages of one round: those with a key have it for themselves, so that any may be handed out.
fn batch(round: u64) -> Vec<Message> {
    (round * BATCH..(round + 1) * BATCH)
        .map(|n| {
            if n % 2 == 0 {
                message(n)
            } else {
                keyed(n, &format!("key {n}"))
            }
        })
        .collect()
}

/// Every fourth of these claims, beginning with this one, in calls of four.
fn share(claims: &[Claim], first: usize) -> Vec<Vec<Claim>> {
    let share: Vec<_> = claims.iter().skip(first).step_by(4).copied().collect();
    share.chunks(4).map(<[Claim]>::to_vec).collect()
}

fn ids(claims: &[Vec<Claim>]) -> BTreeSet<u64> {
    claims.iter().flatten().map(|claim| number(claim.id)).collect()
}

/// Claims this often for long, and answers with all that came.
async fn claim_often<S: Store>(node: &Node<S>, owner: Owner, times: usize) -> Result<Vec<Claim>> {
    let mut taken = Vec::new();
    for _ in 0..times {
        taken.extend(claims(&node.claim(owner, 8).await?));
    }
    Ok(taken)
}

/// Renews some rows of a batch that is over while it acknowledges others: what this owner holds, and what is done.
async fn settle_late<S: Store>(
    node: &Node<S>,
    owner: Owner,
    held: &[Claim],
) -> Result<(Vec<Claim>, Vec<Claim>)> {
    let (mut kept, mut done) = (share(held, 1).concat(), share(held, 2).concat());
    let (renewal, ack) = join(
        node.outbox.renew(owner, &kept, LONG),
        node.outbox.ack(owner, &done),
    )
    .await;
    let (lost, unacked) = (renewal?.lost, ack?.lost);
    kept.retain(|claim| !lost.contains(claim));
    done.retain(|claim| !unacked.contains(claim));
    Ok((kept, done))
}

async fn should_lose_nothing_when_a_batch_is_renewed_and_settled_at_once<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    const ROUNDS: u64 = 12;
    let (node, other) = (Node::join(cx).await?, Node::join(cx).await?);
    let (mine, theirs) = (owner(1), owner(2));
    let (how, why) = (Abandon::unused(), failure("refused"));
    let mut dead = BTreeSet::new();
    for round in 0..ROUNDS {
        node.outbox.append(&batch(round)).await?;
        let held = claims(&node.claim(mine, BATCH as usize).await?);
        ensure_eq!(held.len() as u64, BATCH, "how many rows are in the batch");
        let [renewed, acked, given_back, failed] = [0, 1, 2, 3].map(|first| share(&held, first));

        // As core does: all is renewed that was unsettled a moment ago, in several calls.
        let named: Vec<_> = renewed
            .iter()
            .cloned()
            .chain(held.chunks(8).map(<[Claim]>::to_vec))
            .collect();
        let renewals = try_join_all(named.iter().map(|some| node.outbox.renew(mine, some, LONG)));
        let settlements = async {
            let acks = try_join_all(acked.iter().map(|some| node.outbox.ack(mine, some)));
            let abandons = try_join_all(
                given_back
                    .iter()
                    .map(|some| node.outbox.abandon(mine, some, &how)),
            );
            let failures = try_join_all(failed.iter().map(|some| node.outbox.fail(mine, some, &why)));
            let (acks, (abandons, failures)) = join(acks, join(abandons, failures)).await;
            Ok::<_, Error>([acks?, abandons?, failures?].concat())
        };
        let (settled, taken) = join(join(renewals, settlements), claim_often(&other, theirs, 4)).await;
        for answer in settled.1? {
            nothing_lost(&answer)?;
        }
        for answer in settled.0? {
            let lost: Vec<_> = answer.lost.iter().map(|claim| number(claim.id)).collect();
            ensure!(
                ids(&renewed).is_disjoint(&lost.iter().copied().collect()),
                "renewals lost {lost:?}"
            );
        }

        // What was given back is free, and nothing else is.
        let mut taken = taken?;
        taken.extend(claims(&other.claim(theirs, BATCH as usize).await?));
        let mut free: Vec<_> = taken.iter().map(|claim| number(claim.id)).collect();
        free.sort_unstable();
        ensure_eq!(
            free,
            Vec::from_iter(ids(&given_back)),
            "what another owner was given"
        );
        other.ack_all(theirs, &taken).await?;
        node.ack_all(mine, &renewed.concat()).await?;
        dead.extend(ids(&failed));
    }
    ensure_eq!(
        numbers(&node.claim(mine, 10).await?),
        Vec::<u64>::new(),
        "what is left"
    );
    let letters = node
        .letter_queries
        .list(&DeadLetterFilter::open(), None, 1_000)
        .await?;
    let buried: BTreeSet<_> = letters
        .items
        .iter()
        .map(|letter| number(letter.message.id))
        .collect();
    ensure_eq!(buried, dead, "what has a dead letter");
    Ok(())
}

async fn should_have_one_holder_when_renewed_while_others_claim_what_is_over<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    const ROUNDS: u64 = 4;
    const ROWS: u64 = 256;
    let node = Node::join(cx).await?;
    let others = [Node::join(cx).await?, Node::join(cx).await?];
    let (mine, theirs) = (owner(1), [owner(2), owner(3)]);
    for round in 0..ROUNDS {
        let first = round * ROWS;
        node.outbox
            .append(&(first..first + ROWS).map(message).collect::<Vec<_>>())
            .await?;
        // Many small batches: a claim that meets them is at it for a while.
        let mut batches = Vec::new();
        for _ in 0..ROWS / 4 {
            let request = ClaimOutbox::new(mine, 4, cx.lease());
            batches.push(claims(&node.outbox.claim(&request).await?.rows));
        }
        outlast_lease(cx).await;

        let late = try_join_all(batches.iter().map(|held| settle_late(&node, mine, held)));
        let claiming = try_join_all([0, 1].map(|n| claim_often(&others[n], theirs[n], 8)));
        // Whoever is asked first may be served first: each side is, in turn.
        let (late, taken) = if round % 2 == 0 {
            let (taken, late) = join(claiming, late).await;
            (late?, taken?)
        } else {
            let (late, taken) = join(late, claiming).await;
            (late?, taken?)
        };

        let (kept, done): (Vec<_>, Vec<_>) = late.into_iter().unzip();
        let mut seen = BTreeSet::new();
        for claim in kept.iter().chain(&done).chain(&taken).flatten() {
            let n = number(claim.id);
            ensure!(
                seen.insert(n),
                "message {n} was settled or is held, and is held by another"
            );
        }
        node.ack_all(mine, &kept.concat()).await?;
        for n in [0, 1] {
            others[n].ack_all(theirs[n], &taken[n]).await?;
        }
        // What nobody had taken is free, and nothing is gone.
        let rest = node.claim(owner(4), 1_000).await?;
        let missing = (first..first + ROWS).filter(|n| !seen.contains(n));
        ensure_eq!(sorted(&rest), missing.collect::<Vec<_>>(), "what is left");
        node.ack_all(owner(4), &claims(&rest)).await?;
    }
    Ok(())
}
