//! What is stored, and when: with its transaction, once, and whole.

use headless_abstractions::{Appended, ErrorKind, OwnedTx, StoreTx, UnitOfWorkStore};

use super::{
    node::{Node, outlast_lease},
    samples::{complete, id, keyed, message, numbers, owner, sorted},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        AppendOutsideTransaction, CommitLosesAppend, RollbackCommits, StoreDuplicates, StoreIdPerHandle,
        SwallowCommitError, TruncateEnvelope,
    },
    wait::eventually,
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_store_everything_when_committed,
            "rows, effects and messages of a transaction appear with its commit, and not before"
        )
        .catching(&[CommitLosesAppend, AppendOutsideTransaction]),
        case!(
            should_store_nothing_when_rolled_back,
            "a rollback leaves neither messages nor the user's rows, and frees the ids"
        )
        .catching(&[RollbackCommits, AppendOutsideTransaction]),
        case!(
            should_store_nothing_when_the_transaction_is_dropped,
            "a dropped transaction is rolled back, soon"
        )
        .catching(&[AppendOutsideTransaction]),
        case!(
            should_store_nothing_when_the_node_dies_before_the_commit,
            "a crash before the commit leaves nothing"
        )
        .catching(&[AppendOutsideTransaction]),
        case!(
            should_refuse_the_commit_when_a_call_has_failed,
            "a failed call dooms the whole unit of work, the user's rows among it"
        )
        .catching(&[SwallowCommitError, AppendOutsideTransaction]),
        case!(
            should_store_once_when_an_id_repeats,
            "an id is stored once, within a batch, a transaction, and after"
        )
        .catching(&[StoreDuplicates]),
        case!(
            should_store_once_when_an_id_is_appended_concurrently,
            "of concurrent appends of one id, one stores it"
        )
        .catching(&[StoreDuplicates]),
        case!(
            should_keep_the_whole_message_when_claimed,
            "every field of a message survives the outbox"
        )
        .catching(&[TruncateEnvelope]),
        case!(
            should_name_one_store_when_asked_from_several_nodes,
            "handles on one store have one store id"
        )
        .catching(&[StoreIdPerHandle]),
    ]
}

async fn should_store_everything_when_committed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let elsewhere = Node::join(cx).await?;
    let mut tx = node.store.begin().await?;
    F::write_row(&mut tx, "order-1", "placed").await?;
    ensure_eq!(
        tx.append(&[message(1)]).await?,
        vec![Appended::Stored],
        "the first append"
    );
    F::write_row(&mut tx, "order-2", "placed").await?;
    ensure_eq!(
        tx.append(&[message(2), message(3)]).await?,
        vec![Appended::Stored; 2],
        "the second append"
    );

    ensure_eq!(
        elsewhere.outbox_queries.stats().await?.total(),
        0,
        "rows seen before the commit"
    );
    ensure!(
        elsewhere.claim(owner(1), 10).await?.is_empty(),
        "a claim took a row before the commit"
    );
    ensure!(
        cx.fixture().rows().await?.is_empty(),
        "the user's rows are seen before the commit"
    );

    Box::new(tx).commit().await?;
    ensure_eq!(
        numbers(&elsewhere.claim(owner(1), 10).await?),
        vec![1, 2, 3],
        "rows after the commit"
    );
    ensure_eq!(
        cx.fixture().rows().await?.len(),
        2,
        "the user's rows after the commit"
    );
    Ok(())
}

async fn should_store_nothing_when_rolled_back<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let mut tx = node.store.begin().await?;
    F::write_row(&mut tx, "order-1", "placed").await?;
    tx.append(&[message(1), keyed(2, "a")]).await?;
    Box::new(tx).rollback().await?;

    ensure!(
        node.claim(owner(1), 10).await?.is_empty(),
        "a claim took a row that was rolled back"
    );
    ensure_eq!(
        node.outbox_queries.stats().await?.total(),
        0,
        "rows after the rollback"
    );
    ensure!(
        cx.fixture().rows().await?.is_empty(),
        "the user's rows outlived the rollback"
    );
    ensure_eq!(
        node.outbox.append(&[message(1)]).await?,
        vec![Appended::Stored],
        "appending what was rolled back"
    );
    Ok(())
}

async fn should_store_nothing_when_the_transaction_is_dropped<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let mut tx = node.store.begin().await?;
    F::write_row(&mut tx, "order-1", "placed").await?;
    tx.append(&[message(1)]).await?;
    drop(tx);

    // The rollback happens soon: what it held, here the id, can then be stored by another.
    eventually(
        cx.patience(),
        "the dropped transaction is rolled back",
        async || {
            let mut tx = node.store.begin().await?;
            F::write_row(&mut tx, "order-1", "placed again").await?;
            ensure_eq!(
                tx.append(&[message(1)]).await?,
                vec![Appended::Stored],
                "the id of the dropped row"
            );
            Box::new(tx).commit().await?;
            Ok(Some(()))
        },
    )
    .await?;
    ensure_eq!(
        numbers(&node.claim(owner(1), 10).await?),
        vec![1],
        "rows of the second transaction alone"
    );
    ensure_eq!(
        cx.fixture().rows().await?,
        vec![("order-1".to_owned(), "placed again".to_owned())],
        "the user's rows of the second transaction alone"
    );
    Ok(())
}

async fn should_store_nothing_when_the_node_dies_before_the_commit<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let victim = Node::join(cx).await?;
    let survivor = Node::join(cx).await?;
    let mut tx = victim.store.begin().await?;
    F::write_row(&mut tx, "order-1", "placed").await?;
    tx.append(&[message(1), message(2)]).await?;
    victim.kill();

    outlast_lease(cx).await;
    ensure!(
        survivor.claim(owner(1), 10).await?.is_empty(),
        "a claim took a row of the dead transaction"
    );
    ensure!(
        cx.fixture().rows().await?.is_empty(),
        "the user's rows of the dead transaction are seen"
    );
    drop(tx);
    Ok(())
}

async fn should_refuse_the_commit_when_a_call_has_failed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let mut tx = node.store.begin().await?;
    tx.append(&[message(1)]).await?;
    F::write_row(&mut tx, "order-1", "placed").await?;
    ensure!(
        F::write_row(&mut tx, "", "a row that breaks a rule of its table")
            .await
            .is_err(),
        "the user's table took a row with an empty key"
    );
    let Err(refused) = Box::new(tx).commit().await else {
        fail!("a doomed transaction was committed");
    };
    ensure_eq!(refused.kind(), ErrorKind::Conflict, "the error of the commit");

    ensure!(
        node.claim(owner(1), 10).await?.is_empty(),
        "a message of the doomed transaction was stored"
    );
    ensure!(
        cx.fixture().rows().await?.is_empty(),
        "a row of the doomed transaction was stored"
    );
    Ok(())
}

async fn should_store_once_when_an_id_repeats<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let elsewhere = Node::join(cx).await?;
    let other_payload = {
        let mut other = message(1);
        other.payload = "another payload".into();
        other
    };
    ensure_eq!(
        node.outbox.append(&[message(1), message(2), message(1)]).await?,
        vec![Appended::Stored, Appended::Stored, Appended::Duplicate],
        "an id twice in one batch"
    );
    ensure_eq!(
        elsewhere
            .outbox
            .append(&[other_payload.clone(), message(3)])
            .await?,
        vec![Appended::Duplicate, Appended::Stored],
        "an id that is stored already"
    );
    let mut tx = node.store.begin().await?;
    ensure_eq!(
        tx.append(&[message(4)]).await?,
        vec![Appended::Stored],
        "a new id in a transaction"
    );
    ensure_eq!(
        tx.append(&[message(4), other_payload]).await?,
        vec![Appended::Duplicate; 2],
        "ids that the transaction or the store has"
    );
    Box::new(tx).commit().await?;

    let rows = node.claim(owner(1), 10).await?;
    ensure_eq!(numbers(&rows), vec![1, 2, 3, 4], "the rows that are stored");
    ensure_eq!(rows[0].message, message(1), "the message that came first");
    ensure_eq!(
        node.outbox.append(&[message(1)]).await?,
        vec![Appended::Duplicate],
        "an id that is leased"
    );
    Ok(())
}

async fn should_store_once_when_an_id_is_appended_concurrently<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let nodes = futures::future::try_join_all((0..8).map(|_| Node::join(cx))).await?;
    let batch: Vec<_> = (1..=5).map(message).collect();
    let answers = futures::future::try_join_all(nodes.iter().map(|node| node.outbox.append(&batch))).await?;
    for position in 0..batch.len() {
        let stored = answers
            .iter()
            .filter(|answer| answer[position] == Appended::Stored)
            .count();
        ensure_eq!(stored, 1, "how many calls stored message {}", position + 1);
    }
    ensure_eq!(
        sorted(&nodes[0].claim(owner(1), 100).await?),
        vec![1, 2, 3, 4, 5],
        "the rows that are stored"
    );
    Ok(())
}

async fn should_keep_the_whole_message_when_claimed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let mut empty = keyed(2, "Kunde/ä'\"\\%");
    empty.payload = bytes::Bytes::new();
    node.outbox.append(&[complete(1), empty.clone()]).await?;

    let entry = node.outbox_queries.get(id(1)).await?;
    ensure_eq!(
        entry.map(|entry| entry.message),
        Some(complete(1)),
        "the message as the query shows it"
    );
    let rows = node.claim_runs(owner(1), 10).await?;
    ensure_eq!(numbers(&rows), vec![1, 2], "the rows that are claimed");
    ensure_eq!(rows[0].message, complete(1), "a message with every field");
    ensure_eq!(rows[1].message, empty, "a message with hardly a field");
    Ok(())
}

async fn should_name_one_store_when_asked_from_several_nodes<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    use headless_abstractions::Store;

    let node = Node::join(cx).await?;
    let elsewhere = Node::join(cx).await?;
    ensure_eq!(
        node.store.store_id(),
        elsewhere.store.store_id(),
        "the store's id on two nodes"
    );
    ensure_eq!(
        node.store.parts().info.id,
        node.store.store_id(),
        "the id among the store's facts"
    );
    ensure_eq!(
        node.store.parts().inbox.map(|inbox| inbox.store_id),
        Some(node.store.store_id()),
        "the id of the store that the inbox is in"
    );
    Ok(())
}
