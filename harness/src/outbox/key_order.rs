//! The order of one key: by commit and append, through several relays, retries, delays and late committers.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::future::try_join_all;
use headless_abstractions::{Abandon, ClaimOutbox, InFlight, OwnedTx, StoreTx, UnitOfWorkStore};
use tokio::sync::Mutex;

use super::{
    OrderCheck,
    node::{Node, nothing_lost, outlast_lease},
    samples::{LONG, claims, failure, keyed, message, number, numbers, owner, payments},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AbandonForgetsDelay, AbandonToTail, ClaimIgnoresKeys, ClaimIgnoresLease, ClaimReversed,
        CommitLosesAppend, DelayKeepsPlace, ForgetDelay, HeadForRun, LeaseForever, PlaceAtCommit,
        RollbackCommits, RunForHead,
    },
    wait::elapse,
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_keep_the_order_of_append_when_in_one_transaction,
            "rows of a key leave in the order of append, within a transaction and across"
        )
        .catching(&[ClaimReversed]),
        case!(
            should_hand_out_heads_alone_when_one_per_key_is_asked,
            "one in flight per key: the head, and the next once it is settled"
        )
        .catching(&[RunForHead, ClaimIgnoresKeys]),
        case!(
            should_hand_out_a_run_without_a_gap_when_asked,
            "a run of a key is with one relay, from its head, without a gap"
        )
        .catching(&[HeadForRun, ClaimIgnoresKeys, ClaimReversed]),
        case!(
            should_block_its_key_alone_when_a_row_retries,
            "a retrying row blocks its own key and nothing else"
        )
        .catching(&[ClaimIgnoresKeys, AbandonForgetsDelay]),
        case!(
            should_keep_its_place_when_a_row_is_abandoned,
            "an abandoned row keeps its place in its key"
        )
        .catching(&[AbandonToTail]),
        case!(
            should_stop_a_run_before_a_gap_when_a_row_within_it_retries,
            "a run ends before a row that waits"
        )
        .catching(&[ClaimIgnoresKeys, AbandonForgetsDelay]),
        case!(
            should_take_a_fresh_place_when_a_delay_is_over,
            "a delayed row has no place in its key until it is due, then the latest"
        )
        .catching(&[DelayKeepsPlace, ForgetDelay]),
        case!(
            should_place_rows_by_their_append_when_a_transaction_commits_late,
            "a late committer gates nobody, and has the place of its append"
        )
        .catching(&[PlaceAtCommit, ClaimIgnoresKeys]),
        case!(
            should_keep_the_order_of_commits_when_several_relays_send,
            "several relays of different speed send each key in the order of its commits"
        )
        .catching(&[ClaimIgnoresKeys, ClaimReversed]),
        case!(
            should_keep_the_order_of_commits_when_publishers_dawdle_and_relays_die,
            "the order of commits holds under late commits, retries and dying relays; nothing is lost"
        )
        .catching(&[
            ClaimIgnoresKeys,
            ClaimReversed,
            AbandonToTail,
            ClaimIgnoresLease,
            CommitLosesAppend,
            RollbackCommits,
        ]),
        case!(
            should_hand_out_the_head_again_when_its_relay_died,
            "a dead relay's key goes on from its head, once its lease has ended"
        )
        .catching(&[LeaseForever]),
        case!(
            should_go_on_in_order_when_a_head_is_dead_lettered,
            "a key goes on when its head is dead-lettered"
        )
        .catching(&[ClaimReversed, AbandonToTail]),
    ]
}

async fn should_keep_the_order_of_append_when_in_one_transaction<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let mut tx = node.store.begin().await?;
    tx.append(&[keyed(5, "a"), keyed(9, "b"), keyed(4, "a")]).await?;
    tx.append(&[keyed(8, "b"), keyed(3, "a")]).await?;
    Box::new(tx).commit().await?;
    node.append_in_transaction(&[keyed(1, "a"), keyed(2, "b")])
        .await?;

    let rows = node.claim_runs(owner(1), 10).await?;
    let of = |wanted: &str| -> Vec<u64> {
        let rows: Vec<_> = rows
            .iter()
            .filter(|row| row.message.key.as_ref().is_some_and(|key| key.as_str() == wanted))
            .cloned()
            .collect();
        numbers(&rows)
    };
    ensure_eq!(of("a"), vec![5, 4, 3, 1], "the order of the first key");
    ensure_eq!(of("b"), vec![9, 8, 2], "the order of the second key");
    Ok(())
}

async fn should_hand_out_heads_alone_when_one_per_key_is_asked<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let mut elsewhere = keyed(6, "a");
    elsewhere.topic = payments();
    node.outbox
        .append(&[
            keyed(1, "a"),
            keyed(2, "a"),
            keyed(3, "b"),
            keyed(4, "b"),
            message(5),
            elsewhere,
            message(7),
        ])
        .await?;
    let rows = node.claim(owner(1), 10).await?;
    ensure_eq!(
        numbers(&rows),
        vec![1, 3, 5, 6, 7],
        "the heads; a key of another topic is another key"
    );
    ensure!(
        node.claim(owner(1), 10).await?.is_empty(),
        "a row was handed out while the head is leased"
    );
    node.ack_all(owner(1), &claims(&rows)[..1]).await?;
    ensure_eq!(
        numbers(&node.claim(owner(2), 10).await?),
        vec![2],
        "what follows a head that was settled"
    );
    Ok(())
}

async fn should_hand_out_a_run_without_a_gap_when_asked<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox
        .append(&(1..=5).map(|n| keyed(n, "a")).collect::<Vec<_>>())
        .await?;
    let first = node.claim_runs(owner(1), 3).await?;
    ensure_eq!(numbers(&first), vec![1, 2, 3], "a run up to the limit");
    ensure!(
        node.claim_runs(owner(2), 10).await?.is_empty(),
        "a second relay was given a part of a key that the first one holds"
    );
    node.ack_all(owner(1), &claims(&first)[1..]).await?;
    ensure!(
        node.claim_runs(owner(2), 10).await?.is_empty(),
        "rows were handed out while an earlier one of their key is leased"
    );
    node.ack_all(owner(1), &claims(&first)[..1]).await?;
    ensure_eq!(
        numbers(&node.claim_runs(owner(2), 10).await?),
        vec![4, 5],
        "the rest of the key"
    );
    Ok(())
}

async fn should_block_its_key_alone_when_a_row_retries<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox
        .append(&[
            keyed(1, "a"),
            keyed(2, "a"),
            keyed(3, "b"),
            keyed(4, "b"),
            message(5),
        ])
        .await?;
    let rows = node.claim(owner(1), 1).await?;
    ensure_eq!(numbers(&rows), vec![1], "the head that fails");
    let how = Abandon::failed(cx.lease(), failure("refused"));
    ensure!(
        node.outbox
            .abandon(owner(1), &claims(&rows), &how)
            .await?
            .is_complete(),
        "the abandon was lost"
    );

    let rows = node.claim_runs(owner(2), 10).await?;
    ensure_eq!(numbers(&rows), vec![3, 4, 5], "what goes on while a row retries");
    node.ack_all(owner(2), &claims(&rows)).await?;
    outlast_lease(cx).await;
    ensure_eq!(
        numbers(&node.claim_runs(owner(2), 10).await?),
        vec![1, 2],
        "its key, in order, once it is due"
    );
    Ok(())
}

async fn should_keep_its_place_when_a_row_is_abandoned<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[keyed(1, "a"), keyed(2, "a")]).await?;
    let rows = node.claim(owner(1), 10).await?;
    ensure!(
        node.outbox
            .abandon(owner(1), &claims(&rows), &Abandon::unused())
            .await?
            .is_complete(),
        "the abandon was lost"
    );
    node.outbox.append(&[keyed(3, "a")]).await?;
    ensure_eq!(
        numbers(&node.claim_runs(owner(2), 10).await?),
        vec![1, 2, 3],
        "the key, in order"
    );
    Ok(())
}

async fn should_stop_a_run_before_a_gap_when_a_row_within_it_retries<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox
        .append(&(1..=3).map(|n| keyed(n, "a")).collect::<Vec<_>>())
        .await?;
    let rows = node.claim_runs(owner(1), 10).await?;
    ensure_eq!(numbers(&rows), vec![1, 2, 3], "the run");
    let rows = claims(&rows);
    // The second row must wait; the first and the third go back at once.
    nothing_lost(
        &node
            .outbox
            .abandon(owner(1), &rows[1..2], &Abandon::unused().with_after(cx.lease()))
            .await?,
    )?;
    nothing_lost(
        &node
            .outbox
            .abandon(owner(1), &[rows[0], rows[2]], &Abandon::unused())
            .await?,
    )?;

    let head = node.claim_runs(owner(2), 10).await?;
    ensure_eq!(numbers(&head), vec![1], "the run up to the row that waits");
    node.ack_all(owner(2), &claims(&head)).await?;
    ensure!(
        node.claim_runs(owner(2), 10).await?.is_empty(),
        "a row overtook an earlier one that waits"
    );
    outlast_lease(cx).await;
    ensure_eq!(
        numbers(&node.claim_runs(owner(2), 10).await?),
        vec![2, 3],
        "the rest of the key"
    );
    Ok(())
}

async fn should_take_a_fresh_place_when_a_delay_is_over<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let mut delayed = keyed(1, "a");
    delayed.deliver_after = Some(cx.lease());
    node.outbox.append(&[delayed]).await?;
    node.outbox.append(&[keyed(2, "a")]).await?;

    let rows = node.claim_runs(owner(1), 10).await?;
    ensure_eq!(numbers(&rows), vec![2], "a row whose key has a delayed one");
    outlast_lease(cx).await;
    ensure!(
        node.claim_runs(owner(2), 10).await?.is_empty(),
        "a row that became due overtook one of its key that is leased"
    );
    nothing_lost(
        &node
            .outbox
            .abandon(owner(1), &claims(&rows), &Abandon::unused())
            .await?,
    )?;
    ensure_eq!(
        numbers(&node.claim_runs(owner(2), 10).await?),
        vec![2, 1],
        "the key once the delay is over"
    );
    Ok(())
}

async fn should_place_rows_by_their_append_when_a_transaction_commits_late<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let slow = Node::join(cx).await?;
    let fast = Node::join(cx).await?;
    let mut late = slow.store.begin().await?;
    late.append(&[keyed(1, "a"), message(2)]).await?;
    fast.append_in_transaction(&[keyed(3, "a"), message(4)]).await?;

    let rows = fast.claim_runs(owner(1), 10).await?;
    ensure_eq!(
        numbers(&rows),
        vec![3, 4],
        "what is committed does not wait for an open transaction"
    );
    Box::new(late).commit().await?;
    ensure_eq!(
        numbers(&fast.claim_runs(owner(2), 10).await?),
        vec![2],
        "while a row of its key is with another relay, a late committer waits"
    );
    nothing_lost(
        &fast
            .outbox
            .abandon(owner(1), &claims(&rows)[..1], &Abandon::unused())
            .await?,
    )?;
    ensure_eq!(
        numbers(&fast.claim_runs(owner(2), 10).await?),
        vec![1, 3],
        "a late committer has the place of its append"
    );
    Ok(())
}

async fn should_keep_the_order_of_commits_when_several_relays_send<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    const KEYS: u64 = 3;
    const ROUNDS: u64 = 20;
    const RELAYS: usize = 4;
    let publishers = try_join_all((0..2).map(|_| Node::join(cx))).await?;
    let relays = try_join_all((0..RELAYS).map(|_| Node::join(cx))).await?;
    let sent = Mutex::new(BTreeMap::<u64, Vec<u64>>::new());
    let done = AtomicU64::new(0);

    let publish = async {
        for round in 0..ROUNDS {
            for lane in 0..KEYS {
                // Publishers alternate, each commit before the next append: so the order is that of the numbers.
                let publisher = &publishers[usize::from((round + lane) % 2 == 0)];
                publisher
                    .append_in_transaction(&[keyed(round * KEYS + lane, &lane.to_string())])
                    .await?;
            }
            // An idle session with an uncommitted row must gate nobody.
            if round == ROUNDS / 2 {
                let mut idle = publishers[0].store.begin().await?;
                idle.append(&[keyed(1_000_000, "idle")]).await?;
                elapse(Duration::from_millis(20)).await;
                Box::new(idle).rollback().await?;
            }
        }
        CaseResult::Ok(())
    };
    let send = relays.iter().enumerate().map(|(index, node)| {
        let (sent, done) = (&sent, &done);
        async move {
            let me = owner(index as u128);
            let in_flight = if index % 2 == 0 {
                InFlight::RunPerKey
            } else {
                InFlight::OnePerKey
            };
            let request = ClaimOutbox::new(me, 12 - 2 * index, LONG).with_in_flight(in_flight);
            let mut turns = index;
            while done.load(Ordering::SeqCst) < KEYS * ROUNDS {
                turns += 1;
                ensure!(turns < 5_000, "the relays do not come to an end");
                let rows = node.outbox.claim(&request).await?.rows;
                // Relays of changing speed: an order that holds only for the quickest shows.
                elapse(Duration::from_millis(1 + (7 * turns % 11) as u64)).await;
                for (position, row) in rows.iter().enumerate() {
                    if (turns + position).is_multiple_of(5) {
                        // The batch fails from here on: everything that was not sent goes back, in place.
                        let rest = claims(&rows[position..]);
                        nothing_lost(&node.outbox.abandon(me, &rest, &Abandon::unused()).await?)?;
                        break;
                    }
                    elapse(Duration::from_millis(1)).await;
                    let n = number(row.claim.id);
                    sent.lock().await.entry(n % KEYS).or_default().push(n);
                    node.ack_all(me, &[row.claim]).await?;
                    done.fetch_add(1, Ordering::SeqCst);
                }
            }
            CaseResult::Ok(())
        }
    });
    futures::future::try_join(publish, try_join_all(send)).await?;

    for (lane, order) in sent.into_inner() {
        let expected: Vec<_> = (0..ROUNDS).map(|round| round * KEYS + lane).collect();
        ensure_eq!(order, expected, "what was sent of key {lane}");
    }
    Ok(())
}

async fn should_keep_the_order_of_commits_when_publishers_dawdle_and_relays_die<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    // Long enough to see that it works. A store that skips what it takes to be over is to be tried for minutes.
    let report = OrderCheck::lasting(Duration::from_secs(4))
        .run(cx.fixture())
        .await?;
    ensure!(report.is_sound(), "{report}");
    ensure!(
        report.sent > 200,
        "hardly anything was sent, which shows nothing: {report}"
    );
    Ok(())
}

async fn should_hand_out_the_head_again_when_its_relay_died<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let victim = Node::join(cx).await?;
    let survivor = Node::join(cx).await?;
    survivor
        .outbox
        .append(&(1..=4).map(|n| keyed(n, "a")).collect::<Vec<_>>())
        .await?;
    let request = ClaimOutbox::new(owner(1), 2, cx.lease()).with_in_flight(InFlight::RunPerKey);
    ensure_eq!(
        numbers(&victim.outbox.claim(&request).await?.rows),
        vec![1, 2],
        "what the victim holds"
    );
    victim.kill();

    outlast_lease(cx).await;
    ensure_eq!(
        numbers(&survivor.claim_runs(owner(2), 10).await?),
        vec![1, 2, 3, 4],
        "the key from its head, once the dead relay's lease has ended"
    );
    Ok(())
}

async fn should_go_on_in_order_when_a_head_is_dead_lettered<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox
        .append(&[keyed(1, "a"), keyed(2, "a"), keyed(3, "a")])
        .await?;
    let head = node.claim(owner(1), 10).await?;
    let settled = node
        .outbox
        .fail(owner(1), &claims(&head), &failure("too large"))
        .await?;
    ensure!(settled.is_complete(), "the failure was lost");
    let next = node.claim(owner(1), 10).await?;
    ensure_eq!(
        numbers(&next),
        vec![2],
        "what follows a head that failed for good"
    );
    nothing_lost(
        &node
            .outbox
            .abandon(owner(1), &claims(&next), &Abandon::unused())
            .await?,
    )?;
    ensure_eq!(
        numbers(&node.claim_runs(owner(1), 10).await?),
        vec![2, 3],
        "the rest of the key"
    );
    Ok(())
}
