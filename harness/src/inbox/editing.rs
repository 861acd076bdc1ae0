//! Editing dead letters, and what is kept of all that was done to one.

use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use headless_abstractions::{
    Appended, Change, Cursor, DeadId, DeadLetterChange, DeadLetterFilter, Edit, Edited, ErrorKind, Hold,
    Redrive, Redriven, Result, Store,
};
use uuid::Uuid;

use super::{
    dead_letters::{bury, open_letters},
    worker::{Worker, hold_of},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        DiscardForgotten, EditAlwaysDone, EditForgotten, EditUnbounded, EditUnseen, EditsUnrecorded,
        HistoryForgetsPayload, HistoryForgetsWho, PageByOffset, PageUnchecked, RedriveForgotten,
        RedriveUnchecked,
    },
    outbox::{
        node::{Node, nothing_lost},
        samples::{claims, complete, failure, message, owner},
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_leave_with_the_new_payload_and_keep_the_old_one_when_edited,
            "an edited dead letter is redriven with its new payload, and its history keeps the one before"
        )
        .catching(&[EditForgotten, EditsUnrecorded, HistoryForgetsWho]),
        case!(
            should_refuse_an_edit_when_the_dead_letter_is_closed_or_edited_since,
            "an edit is for an open dead letter, as it was seen, within its cap"
        )
        .catching(&[EditAlwaysDone, EditUnseen, EditUnbounded, EditForgotten]),
        case!(
            should_edit_once_when_many_edit_what_they_have_seen,
            "of concurrent edits of one state of a dead letter, one is done"
        )
        .catching(&[EditUnseen]),
        case!(
            should_refuse_to_redrive_what_was_edited_when_the_message_waits_in_the_outbox_again,
            "a redrive of what was edited is a conflict while it would leave without the edit"
        )
        .catching(&[EditForgotten]),
        case!(
            should_tell_who_did_what_when_asked_for_the_history,
            "the history of a dead letter says who did what, in order, and goes with it"
        )
        .catching(&[
            HistoryForgetsWho,
            HistoryForgetsPayload,
            EditsUnrecorded,
            RedriveForgotten,
            DiscardForgotten,
        ]),
        case!(
            should_refuse_when_an_edit_or_a_page_of_history_is_malformed,
            "an edit without a name, and a limit or cursor that is not one of the history, are invalid"
        )
        .catching(&[RedriveUnchecked, PageUnchecked, PageByOffset]),
    ]
}

const NOW: Duration = Duration::ZERO;

/// Every change of a dead letter.
async fn history<S: Store>(node: &Node<S>, id: DeadId) -> Result<Vec<DeadLetterChange>> {
    Ok(node.letter_queries.history(id, None, 1_000).await?.items)
}

/// Who did what, without when.
fn deeds(changes: &[DeadLetterChange]) -> Vec<(&str, Change)> {
    changes
        .iter()
        .map(|change| (&*change.by, change.what.clone()))
        .collect()
}

async fn should_leave_with_the_new_payload_and_keep_the_old_one_when_edited<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let before = bury(&worker, &complete(1)).await?;
    ensure_eq!(before.edits, 0, "how often it was edited, at first");
    let (first, second) = (Bytes::from_static(b"\0first\xff"), Bytes::from_static(b""));
    for (payload, by) in [(&first, "ada"), (&second, "bob")] {
        let edit = Edit::new(before.id, payload.clone(), by);
        ensure_eq!(node.letters.edit(&edit).await?, Edited::Now, "the edit by {by}");
    }

    let mut edited = complete(1);
    edited.payload = second.clone();
    let mut shown = before.clone();
    shown.message = edited.clone();
    shown.edits = 2;
    ensure_eq!(
        node.letter_queries.get(before.id).await?,
        Some(shown.clone()),
        "the dead letter, by its id"
    );
    ensure_eq!(
        open_letters(&node).await?,
        vec![shown],
        "the dead letter, in the list"
    );
    let changes = history(&node, before.id).await?;
    let kept = vec![
        (
            "ada",
            Change::Edited {
                before: before.message.payload.clone(),
            },
        ),
        ("bob", Change::Edited { before: first }),
    ];
    ensure_eq!(deeds(&changes), kept, "who replaced which payload");
    ensure!(
        before.buried_at <= changes[0].at && changes[0].at <= changes[1].at,
        "the times of its death and of its edits: {}, {changes:?}",
        before.buried_at
    );

    let redrive = Redrive::new(vec![before.id], "ada");
    ensure_eq!(
        node.letters.redrive(&redrive).await?,
        vec![Redriven::Now],
        "the redrive"
    );
    let rows = worker.claim(1).await?;
    ensure_eq!(rows.len(), 1, "what is due");
    ensure_eq!(rows[0].message, edited, "the message that was redriven");
    let hold = hold_of(worker.owner, &rows[0]);
    worker.bury(&edited, hold, vec![failure("broken still")]).await?;
    let again = open_letters(&node).await?;
    ensure_eq!(again.len(), 1, "open dead letters");
    ensure_eq!(
        (again[0].previous, again[0].edits),
        (Some(before.id), 0),
        "what the second dead letter comes from, and how often it was edited itself"
    );
    ensure!(
        history(&node, again[0].id).await?.is_empty(),
        "the second dead letter has the history of the first"
    );
    Ok(())
}

async fn should_refuse_an_edit_when_the_dead_letter_is_closed_or_edited_since<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let redriven = bury(&worker, &message(1)).await?.id;
    let discarded = bury(&worker, &message(2)).await?.id;
    let open = bury(&worker, &message(3)).await?.id;
    node.letters.redrive(&Redrive::new(vec![redriven], "ada")).await?;
    node.letters.discard(&[discarded], "ada").await?;
    let unknown = DeadId::from_uuid(Uuid::from_u128(7));
    let payload = Bytes::from_static(b"edited");
    let edit = |id| Edit::new(id, payload.clone(), "bob");
    for (id, answer) in [
        (unknown, Edited::NotFound),
        (redriven, Edited::Closed),
        (discarded, Edited::Closed),
    ] {
        ensure_eq!(node.letters.edit(&edit(id)).await?, answer, "an edit of {id}");
    }
    for (edit, answer) in [
        (edit(open).with_seen(1), Edited::Changed),
        (edit(open).with_max_edits(0), Edited::CapReached),
        (edit(open).with_seen(0).with_max_edits(1), Edited::Now),
        (edit(open).with_seen(0), Edited::Changed),
        (edit(open).with_max_edits(1), Edited::CapReached),
        (edit(open).with_seen(1).with_max_edits(2), Edited::Now),
    ] {
        ensure_eq!(node.letters.edit(&edit).await?, answer, "{edit:?}");
    }
    let edits = node.letter_queries.get(open).await?.map(|letter| letter.edits);
    ensure_eq!(edits, Some(2), "how often it was edited");
    for id in [redriven, discarded] {
        let payload = node
            .letter_queries
            .get(id)
            .await?
            .map(|letter| letter.message.payload);
        ensure!(
            payload.as_deref() != Some(b"edited"),
            "an edit that was refused has changed {id}"
        );
        ensure_eq!(history(&node, id).await?.len(), 1, "changes of {id}");
    }
    Ok(())
}

async fn should_edit_once_when_many_edit_what_they_have_seen<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let nodes = try_join_all((0..6).map(|_| Node::join(cx))).await?;
    let letter = bury(&Worker::new(&nodes[0], owner(1)), &message(1)).await?.id;
    let edits = nodes
        .iter()
        .zip(["a", "b", "c", "d", "e", "f"])
        .map(|(node, by)| {
            let edit = Edit::new(letter, Bytes::from_static(by.as_bytes()), by).with_seen(0);
            async move { Ok::<_, headless_abstractions::Error>((by, node.letters.edit(&edit).await?)) }
        });
    let answers = try_join_all(edits).await?;
    let done: Vec<_> = answers
        .iter()
        .filter(|(_, answer)| *answer == Edited::Now)
        .collect();
    let changed = answers.iter().filter(|(_, answer)| *answer == Edited::Changed);
    ensure_eq!(
        (done.len(), changed.count()),
        (1, 5),
        "edits of six that were done, and that found it edited"
    );
    let shown = nodes[0]
        .letter_queries
        .get(letter)
        .await?
        .map(|letter| letter.message.payload);
    ensure_eq!(shown.as_deref(), Some(done[0].0.as_bytes()), "the payload");
    let changes = history(&nodes[0], letter).await?;
    ensure_eq!(
        deeds(&changes).into_iter().map(|(by, _)| by).collect::<Vec<_>>(),
        vec![done[0].0],
        "who edited it, as its history says"
    );
    Ok(())
}

async fn should_refuse_to_redrive_what_was_edited_when_the_message_waits_in_the_outbox_again<
    F: StoreFixture,
>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1)]).await?;
    let sent = claims(&node.claim(owner(1), 1).await?);
    nothing_lost(&node.outbox.fail(owner(1), &sent, &failure("refused")).await?)?;
    let Some(letter) = open_letters(&node).await?.pop() else {
        fail!("the message failed and has no dead letter");
    };
    let payload = Bytes::from_static(b"edited");
    let edit = Edit::new(letter.id, payload.clone(), "ada");
    ensure_eq!(node.letters.edit(&edit).await?, Edited::Now, "the edit");
    ensure_eq!(
        node.outbox.append(&[message(1)]).await?,
        vec![Appended::Stored],
        "its publishing again"
    );
    let redrive = Redrive::new(vec![letter.id], "ada");
    match node.letters.redrive(&redrive).await {
        Ok(answers) => fail!("a redrive that would leave without the edit was answered with {answers:?}"),
        Err(error) => ensure_eq!(error.kind(), ErrorKind::Conflict, "the error of the redrive"),
    }
    ensure_eq!(open_letters(&node).await?.len(), 1, "what is open still");
    ensure_eq!(
        history(&node, letter.id).await?.len(),
        1,
        "changes after a redrive that was refused"
    );

    let rows = node.claim(owner(1), 10).await?;
    node.ack_all(owner(1), &claims(&rows)).await?;
    ensure_eq!(
        node.letters.redrive(&redrive).await?,
        vec![Redriven::Now],
        "the redrive at last"
    );
    let rows = node.claim(owner(1), 10).await?;
    ensure_eq!(rows.len(), 1, "what is in the outbox");
    ensure_eq!(rows[0].message.payload, payload, "its payload");
    Ok(())
}

async fn should_tell_who_did_what_when_asked_for_the_history<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let before = message(1).payload;
    let redriven = bury(&worker, &message(1)).await?.id;
    let discarded = bury(&worker, &message(2)).await?.id;
    let with = Bytes::from_static(b"at last");
    for (payload, by) in [("one", "ada"), ("two", "bob")] {
        let edit = Edit::new(redriven, Bytes::from_static(payload.as_bytes()), by);
        node.letters.edit(&edit).await?;
    }
    let redrive = Redrive::new(vec![redriven], "eve").with_payload(with.clone());
    ensure_eq!(
        node.letters.redrive(&redrive).await?,
        vec![Redriven::Now],
        "the redrive"
    );
    node.letters.discard(&[discarded, redriven], "dan").await?;

    let mut changes = Vec::new();
    let mut cursor: Option<Cursor> = None;
    for _ in 0..4 {
        let page = node.letter_queries.history(redriven, cursor.as_ref(), 2).await?;
        ensure!(
            page.items.len() <= 2,
            "a page of {} changes of 2",
            page.items.len()
        );
        changes.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    ensure!(cursor.is_none(), "the pages never end");
    let one = Bytes::from_static(b"one");
    ensure_eq!(
        deeds(&changes),
        vec![
            ("ada", Change::Edited { before }),
            ("bob", Change::Edited { before: one }),
            ("eve", Change::Redriven { with: Some(with) }),
        ],
        "who did what to one that was edited and redriven"
    );
    ensure_eq!(
        deeds(&history(&node, discarded).await?),
        vec![("dan", Change::Discarded)],
        "who did what to one that was discarded"
    );
    let closed = node
        .letter_queries
        .get(redriven)
        .await?
        .and_then(|letter| letter.redriven);
    ensure_eq!(
        closed,
        changes.last().map(|change| (change.by.clone(), change.at)),
        "who redrove it and when, as the dead letter says"
    );

    node.letters.purge(NOW, 100).await?;
    for id in [redriven, discarded, DeadId::from_uuid(Uuid::from_u128(7))] {
        ensure!(
            history(&node, id).await?.is_empty(),
            "dead letter {id} is not there and has a history"
        );
    }
    Ok(())
}

async fn should_refuse_when_an_edit_or_a_page_of_history_is_malformed<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let letters = [
        bury(&worker, &message(1)).await?.id,
        bury(&worker, &message(2)).await?.id,
    ];
    let long = "a".repeat(201);
    for by in ["", &long] {
        match node.letters.edit(&Edit::new(letters[0], Bytes::new(), by)).await {
            Ok(answer) => fail!("an edit by {} bytes was answered with {answer:?}", by.len()),
            Err(error) => ensure_eq!(error.kind(), ErrorKind::Invalid, "the error of the edit"),
        }
    }
    let by = "a".repeat(200);
    for payload in ["one", "two"] {
        let edit = Edit::new(letters[0], Bytes::from_static(payload.as_bytes()), by.clone());
        ensure_eq!(
            node.letters.edit(&edit).await?,
            Edited::Now,
            "an edit by 200 bytes"
        );
    }
    worker.mark(&message(3), Hold::Absent).await?;
    let page = node.letter_queries.history(letters[0], None, 1).await?;
    ensure!(page.next.is_some(), "two changes are on a page of one");
    let foreign = Cursor::new("'; no cursor of this store");
    let list = node
        .letter_queries
        .list(&DeadLetterFilter::open(), None, 1)
        .await?;
    for (of, cursor, limit) in [
        (letters[0], None, 0),
        (letters[0], None, 1_001),
        (letters[0], Some(&foreign), 1),
        (letters[0], list.next.as_ref(), 1),
        (letters[1], page.next.as_ref(), 1),
    ] {
        match node.letter_queries.history(of, cursor, limit).await {
            Ok(_) => fail!("cursor {cursor:?} and limit {limit} were answered with a page"),
            Err(error) => ensure_eq!(error.kind(), ErrorKind::Invalid, "the error for limit {limit}"),
        }
    }
    let rest = node
        .letter_queries
        .history(letters[0], page.next.as_ref(), 1_000)
        .await?;
    ensure_eq!(rest.items.len(), 1, "changes on the second page");
    Ok(())
}
