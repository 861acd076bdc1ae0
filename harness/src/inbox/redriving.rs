//! Redriving: a dead letter on its way again, when an operator says so.

use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use headless_abstractions::{
    Appended, DeadId, ErrorKind, Hold, InboxState, Marked, Redrive, Redriven, Store,
};
use uuid::Uuid;

use super::{
    dead_letters::{bury, open_letters},
    idempotency::asking,
    worker::{Worker, hold_of},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        DiscardForgotten, EditForgotten, RedriveAgain, RedriveForgotten, RedriveKeepsPlace,
        RedriveKeepsRounds, RedrivePublishes, RedriveUnbounded, RedriveUnchecked,
    },
    outbox::{
        node::{Node, nothing_lost, outlast_lease},
        samples::{claims, complete, failure, id, keyed, message, numbers, owner},
    },
};

const NOW: Duration = Duration::ZERO;

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_be_parked_afresh_in_its_group_alone_when_redriven,
            "a redriven message is parked in its group alone, last of its key, as a new one"
        )
        .catching(&[
            RedriveForgotten,
            RedrivePublishes,
            RedriveKeepsRounds,
            RedriveKeepsPlace,
        ]),
        case!(
            should_keep_the_link_when_redriven_with_another_payload,
            "an edited message keeps the link to what it was"
        )
        .catching(&[EditForgotten]),
        case!(
            should_refuse_another_payload_when_the_message_waits_in_the_outbox_again,
            "a redrive whose payload would not be sent is a conflict, and the dead letter stays open"
        )
        .catching(&[EditForgotten]),
        case!(
            should_answer_for_each_when_many_are_redriven,
            "each dead letter of a redrive has its own answer"
        )
        .catching(&[RedriveAgain, RedriveForgotten, DiscardForgotten]),
        case!(
            should_refuse_when_redriven_too_often_or_too_late,
            "a redrive keeps to its cap and its age"
        )
        .catching(&[RedriveUnbounded]),
        case!(
            should_redrive_once_when_many_ask_at_once,
            "of concurrent redrives of one dead letter, one is done"
        )
        .catching(&[RedriveAgain]),
        case!(
            should_refuse_when_the_request_is_malformed,
            "a redrive or discard without a name, or one payload for several, is invalid"
        )
        .catching(&[RedriveUnchecked]),
    ]
}

async fn redrive_one<S: Store>(node: &Node<S>, letter: DeadId) -> headless_abstractions::Result<Redriven> {
    Ok(node.letters.redrive(&Redrive::new(vec![letter], "ada")).await?[0])
}

async fn should_be_parked_afresh_in_its_group_alone_when_redriven<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let other = Worker::of(&node, "shipping", owner(1));
    other.mark(&keyed(1, "a"), Hold::Absent).await?;
    worker.park(&keyed(1, "a"), Hold::Absent, NOW).await?;
    let first = worker.claim(1).await?;
    worker
        .bury(
            &keyed(1, "a"),
            hold_of(worker.owner, &first[0]),
            vec![failure("broken")],
        )
        .await?;
    // Of its key, others have come since.
    worker.park(&keyed(2, "a"), Hold::Absent, NOW).await?;

    let letters = open_letters(&node).await?;
    ensure_eq!(
        redrive_one(&node, letters[0].id).await?,
        Redriven::Now,
        "the redrive"
    );
    ensure_eq!(worker.state(id(1)).await?, Some(InboxState::Parked), "the row");
    let closed = node.letter_queries.get(letters[0].id).await?;
    ensure_eq!(
        closed.and_then(|letter| letter.redriven).map(|(by, _)| by),
        Some("ada".to_owned()),
        "who redrove it, as the record says"
    );
    ensure!(
        open_letters(&node).await?.is_empty(),
        "a dead letter that was redriven is open still"
    );

    let rows = worker.claim(10).await?;
    ensure_eq!(
        numbers(&rows),
        vec![2, 1],
        "its key: the redriven one has the latest place"
    );
    ensure_eq!(rows[1].rounds, 1, "its rounds, counted from zero");
    ensure!(
        rows[1].claim.epoch > first[0].claim.epoch,
        "the epoch did not rise: {:?}",
        rows[1].claim
    );
    let late = hold_of(worker.owner, &first[0]);
    ensure_eq!(
        worker.mark(&keyed(1, "a"), late).await?,
        Marked::LeaseLost,
        "a mark from before it died"
    );

    ensure!(
        other.claim(10).await?.is_empty(),
        "another group was given the message again"
    );
    ensure_eq!(
        node.outbox_queries.stats().await?.total(),
        0,
        "messages that were published again"
    );
    Ok(())
}

async fn should_keep_the_link_when_redriven_with_another_payload<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let first = bury(&worker, &complete(1)).await?;
    let request = Redrive::new(vec![first.id], "ada").with_payload(Bytes::from_static(b"\0edited\xff"));
    ensure_eq!(
        node.letters.redrive(&request).await?,
        vec![Redriven::Now],
        "the redrive"
    );
    let rows = worker.claim(1).await?;
    ensure_eq!(rows.len(), 1, "what is due");
    let mut edited = complete(1);
    edited.payload = Bytes::from_static(b"\0edited\xff");
    ensure_eq!(
        rows[0].message,
        edited,
        "the message with the payload of the redrive"
    );

    let hold = hold_of(worker.owner, &rows[0]);
    worker.bury(&edited, hold, vec![failure("broken still")]).await?;
    let letters = open_letters(&node).await?;
    ensure_eq!(letters.len(), 1, "open dead letters");
    ensure!(
        letters[0].id != first.id,
        "the second death has the dead letter of the first"
    );
    ensure_eq!(letters[0].previous, Some(first.id), "what it was redriven from");
    ensure_eq!(letters[0].redrives, 1, "how often it was redriven");
    ensure_eq!(
        letters[0].message.payload,
        edited.payload,
        "the payload with which it died"
    );
    let kept = node
        .letter_queries
        .get(first.id)
        .await?
        .map(|letter| letter.message);
    ensure_eq!(
        kept,
        Some(complete(1)),
        "the message that the first dead letter keeps"
    );
    Ok(())
}

async fn should_refuse_another_payload_when_the_message_waits_in_the_outbox_again<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1)]).await?;
    let sent = claims(&node.claim(owner(1), 1).await?);
    nothing_lost(&node.outbox.fail(owner(1), &sent, &failure("refused")).await?)?;
    let letter = match open_letters(&node).await?.pop() {
        Some(letter) => letter.id,
        None => fail!("the message failed and has no dead letter"),
    };
    ensure_eq!(
        node.outbox.append(&[message(1)]).await?,
        vec![Appended::Stored],
        "its publishing again"
    );

    let payload = Bytes::from_static(b"edited");
    let request = Redrive::new(vec![letter], "ada").with_payload(payload.clone());
    let mut rows = Vec::new();
    for place in ["waits", "is with a relay"] {
        match node.letters.redrive(&request).await {
            Ok(answers) => fail!("a redrive while the message {place} was answered with {answers:?}"),
            Err(error) => ensure_eq!(error.kind(), ErrorKind::Conflict, "the error while it {place}"),
        }
        let open: Vec<_> = open_letters(&node)
            .await?
            .iter()
            .map(|letter| letter.id)
            .collect();
        ensure_eq!(open, vec![letter], "what is open while it {place}");
        rows.extend(node.claim(owner(1), 10).await?);
    }
    ensure_eq!(rows.len(), 1, "how often the message is in the outbox");
    ensure_eq!(
        rows[0].message,
        message(1),
        "the message as it was published again"
    );
    node.ack_all(owner(1), &claims(&rows)).await?;

    // Once that is gone, the edit is what is sent.
    ensure_eq!(
        node.letters.redrive(&request).await?,
        vec![Redriven::Now],
        "the redrive at last"
    );
    let rows = node.claim(owner(1), 10).await?;
    ensure_eq!(numbers(&rows), vec![1], "what is in the outbox");
    ensure_eq!(rows[0].message.payload, payload, "its payload");
    Ok(())
}

async fn should_answer_for_each_when_many_are_redriven<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let good = bury(&worker, &message(1)).await?.id;
    let before = bury(&worker, &message(2)).await?.id;
    let gone = bury(&worker, &message(3)).await?.id;
    let overtaken = bury(&worker, &asking(4)).await?.id;
    redrive_one(&node, before).await?;
    ensure_eq!(
        node.letters.discard(&[gone], "ada").await?,
        1,
        "dead letters that were closed"
    );
    worker.mark(&asking(5), Hold::Absent).await?;

    let unknown = DeadId::from_uuid(Uuid::from_u128(7));
    let ids = vec![unknown, before, gone, overtaken, good];
    ensure_eq!(
        node.letters.redrive(&Redrive::new(ids, "ada")).await?,
        vec![
            Redriven::NotFound,
            Redriven::Closed,
            Redriven::Closed,
            Redriven::Superseded,
            Redriven::Now
        ],
        "the answers in the order of the request"
    );
    for (n, state) in [
        (3, InboxState::Dead),
        (4, InboxState::Dead),
        (1, InboxState::Parked),
    ] {
        ensure_eq!(worker.state(id(n)).await?, Some(state), "the row of message {n}");
    }
    let open: Vec<_> = open_letters(&node)
        .await?
        .iter()
        .map(|letter| letter.id)
        .collect();
    ensure_eq!(open, vec![overtaken], "what is open still");
    Ok(())
}

async fn should_refuse_when_redriven_too_often_or_too_late<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let mut letter = bury(&worker, &message(1)).await?;
    for redrives in 1..=2 {
        ensure_eq!(
            redrive_one(&node, letter.id).await?,
            Redriven::Now,
            "redrive {redrives}"
        );
        let rows = worker.claim(1).await?;
        ensure_eq!(rows.len(), 1, "what is due after redrive {redrives}");
        worker
            .bury(
                &message(1),
                hold_of(worker.owner, &rows[0]),
                vec![failure("broken")],
            )
            .await?;
        letter = match open_letters(&node).await?.pop() {
            Some(letter) => letter,
            None => fail!("the message died and has no dead letter"),
        };
        ensure_eq!(letter.redrives, redrives, "how often it was redriven");
    }
    let capped = Redrive::new(vec![letter.id], "ada").with_max_redrives(2);
    ensure_eq!(
        node.letters.redrive(&capped).await?,
        vec![Redriven::CapReached],
        "a third redrive of two"
    );

    outlast_lease(cx).await;
    let aged = Redrive::new(vec![letter.id], "ada").with_max_age(Some(cx.lease()));
    ensure_eq!(
        node.letters.redrive(&aged).await?,
        vec![Redriven::TooOld],
        "a redrive of what died too long ago"
    );
    ensure_eq!(
        worker.state(id(1)).await?,
        Some(InboxState::Dead),
        "the row after it was refused"
    );
    let forced = Redrive::new(vec![letter.id], "ada").with_max_age(None);
    ensure_eq!(
        node.letters.redrive(&forced).await?,
        vec![Redriven::Now],
        "a redrive of any age"
    );
    Ok(())
}

async fn should_redrive_once_when_many_ask_at_once<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let nodes = try_join_all((0..6).map(|_| Node::join(cx))).await?;
    let letter = bury(&Worker::new(&nodes[0], owner(1)), &message(1)).await?.id;
    let answers = try_join_all(nodes.iter().map(|node| redrive_one(node, letter))).await?;
    let now = answers.iter().filter(|answer| **answer == Redriven::Now).count();
    let closed = answers
        .iter()
        .filter(|answer| **answer == Redriven::Closed)
        .count();
    ensure_eq!(
        (now, closed),
        (1, 5),
        "calls of six that redrove it, and that found it closed"
    );
    Ok(())
}

async fn should_refuse_when_the_request_is_malformed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let ids = vec![
        bury(&worker, &message(1)).await?.id,
        bury(&worker, &message(2)).await?.id,
    ];
    let payload = Bytes::from_static(b"edited");
    let long = "a".repeat(201);
    for (request, wrong) in [
        (Redrive::new(ids.clone(), ""), "nobody asks"),
        (
            Redrive::new(ids.clone(), long.clone()),
            "who asks is over 200 bytes",
        ),
        (
            Redrive::new(ids.clone(), "ada").with_payload(payload.clone()),
            "one payload is for two",
        ),
        (
            Redrive::new(Vec::new(), "ada").with_payload(payload),
            "one payload is for none",
        ),
    ] {
        match node.letters.redrive(&request).await {
            Ok(answers) => fail!("a redrive where {wrong} was answered with {answers:?}"),
            Err(error) => ensure_eq!(error.kind(), ErrorKind::Invalid, "the error where {wrong}"),
        }
    }
    for by in ["", long.as_str()] {
        match node.letters.discard(&ids, by).await {
            Ok(count) => fail!("a discard by {} bytes was answered with {count}", by.len()),
            Err(error) => ensure_eq!(error.kind(), ErrorKind::Invalid, "the error of the discard"),
        }
    }
    ensure_eq!(open_letters(&node).await?.len(), 2, "what is open still");
    let longest = Redrive::new(ids, "a".repeat(200));
    ensure_eq!(
        node.letters.redrive(&longest).await?,
        vec![Redriven::Now; 2],
        "a redrive by 200 bytes"
    );
    Ok(())
}
