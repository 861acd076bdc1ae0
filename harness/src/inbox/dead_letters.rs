//! Dead letters: what is kept of a message that died, and the ways out that an operator has.

use std::time::Duration;

use headless_abstractions::{
    Admission, DeadId, DeadLetter, DeadLetterFilter, FailureCause, Hold, InboxState, Marked, Message, Origin,
    Store,
};
use uuid::Uuid;

use super::worker::{Worker, hold_of};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        BuryForgetsLetter, DiscardForgotten, ForgetFailures, IgnoreBatchLimit, PurgeIgnoresAge,
        TerminalMovable, TruncateEnvelope,
    },
    outbox::{
        node::{Node, outlast_lease},
        samples::{LONG, complete, failure, failure_of, id, message, owner},
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_keep_everything_of_a_message_when_it_dies,
            "a dead letter keeps message, failures and rounds"
        )
        .catching(&[
            BuryForgetsLetter,
            ForgetFailures,
            TruncateEnvelope,
            TerminalMovable,
        ]),
        case!(
            should_leave_one_dead_letter_when_buried_again,
            "a death leaves one dead letter"
        )
        .catching(&[BuryForgetsLetter, TerminalMovable]),
        case!(
            should_stay_as_a_record_when_discarded,
            "a discarded dead letter stays as a record of who discarded it"
        )
        .catching(&[DiscardForgotten]),
        case!(
            should_go_with_their_rows_when_dead_letters_are_purged,
            "a purge removes old dead letters with their rows, in batches"
        )
        .catching(&[PurgeIgnoresAge, IgnoreBatchLimit]),
    ]
}

const NOW: Duration = Duration::ZERO;

/// The open dead letters, the oldest first.
pub(super) async fn open_letters<S: Store>(node: &Node<S>) -> headless_abstractions::Result<Vec<DeadLetter>> {
    Ok(node
        .letter_queries
        .list(&DeadLetterFilter::open(), None, 100)
        .await?
        .items)
}

/// Buries a message that nobody has met before, and answers with its dead letter.
pub(super) async fn bury<S: Store>(worker: &Worker<'_, S>, message: &Message) -> CaseResult<DeadLetter> {
    let buried = worker
        .bury(message, Hold::Absent, vec![failure("broken")])
        .await?;
    ensure_eq!(buried, Marked::Now, "the burial of {}", message.id);
    let letters = open_letters(worker.node).await?;
    match letters.into_iter().find(|letter| letter.message.id == message.id) {
        Some(letter) => Ok(letter),
        None => fail!("message {} was buried and has no dead letter", message.id),
    }
}

async fn should_keep_everything_of_a_message_when_it_dies<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    worker.park(&complete(1), Hold::Absent, NOW).await?;
    let rows = worker.claim(1).await?;
    let last = [
        failure("inline again"),
        failure_of(FailureCause::Permanent, "no such customer: Zoë"),
    ];
    let buried = worker
        .bury(&complete(1), hold_of(worker.owner, &rows[0]), last.to_vec())
        .await?;
    ensure_eq!(buried, Marked::Now, "the burial");

    let letters = open_letters(&node).await?;
    ensure_eq!(letters.len(), 1, "dead letters");
    let letter = &letters[0];
    ensure_eq!(
        letter.origin,
        Origin::Group(worker.group.clone()),
        "where it died"
    );
    ensure_eq!(letter.message, complete(1), "the message, its headers among it");
    let mut failures = vec![failure("failed")];
    failures.extend(last);
    ensure_eq!(
        letter.failures,
        failures,
        "every attempt's failure: cause, text, node and time"
    );
    ensure_eq!(letter.rounds, 2, "how many rounds it had had");
    ensure_eq!((letter.redrives, letter.previous), (0, None), "its history");
    ensure!(letter.is_open(), "the dead letter is closed: {letter:?}");
    ensure_eq!(
        node.letter_queries.get(letter.id).await?.as_ref(),
        Some(letter),
        "the same, asked for by id"
    );

    ensure_eq!(worker.state(id(1)).await?, Some(InboxState::Dead), "the row");
    let settled = Admission::Settled(InboxState::Dead);
    ensure_eq!(
        worker.admit(&complete(1)).await?,
        settled,
        "its delivery, should it come again"
    );
    ensure!(worker.claim(10).await?.is_empty(), "a dead message was claimed");
    Ok(())
}

async fn should_leave_one_dead_letter_when_buried_again<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let hold = worker.run(&message(1)).await?;
    for expected in [
        Marked::Now,
        Marked::Already(InboxState::Dead),
        Marked::Already(InboxState::Dead),
    ] {
        let buried = worker.bury(&message(1), hold, vec![failure("broken")]).await?;
        ensure_eq!(buried, expected, "the answer to a burial");
    }
    ensure_eq!(
        open_letters(&node).await?.len(),
        1,
        "dead letters of a message that was buried three times"
    );
    // What died in two groups leaves a dead letter in each.
    bury(&Worker::of(&node, "shipping", owner(1)), &message(1)).await?;
    ensure_eq!(
        open_letters(&node).await?.len(),
        2,
        "dead letters of a message that died in two groups"
    );
    // What is done is not buried.
    worker.mark(&message(2), Hold::Absent).await?;
    let refused = worker
        .bury(&message(2), Hold::Absent, vec![failure("broken")])
        .await?;
    ensure_eq!(
        refused,
        Marked::Already(InboxState::Processed),
        "the burial of what is done"
    );
    ensure_eq!(
        open_letters(&node).await?.len(),
        2,
        "dead letters after a burial that was refused"
    );
    Ok(())
}

async fn should_stay_as_a_record_when_discarded<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let letters = [
        bury(&worker, &message(1)).await?.id,
        bury(&worker, &message(2)).await?.id,
    ];
    let unknown = DeadId::from_uuid(Uuid::from_u128(7));
    ensure_eq!(
        node.letters.discard(&[letters[0], unknown], "ada").await?,
        1,
        "letters that were open"
    );
    ensure_eq!(
        node.letters.discard(&letters, "bob").await?,
        1,
        "letters that were open still"
    );
    ensure_eq!(
        node.letters.discard(&letters, "eve").await?,
        0,
        "letters that were open at last"
    );

    ensure!(
        open_letters(&node).await?.is_empty(),
        "a discarded dead letter is open"
    );
    for (letter, by) in letters.into_iter().zip(["ada", "bob"]) {
        let record = node
            .letter_queries
            .get(letter)
            .await?
            .and_then(|letter| letter.discarded);
        ensure_eq!(
            record.map(|(by, _)| by),
            Some(by.to_owned()),
            "who discarded it, as the record says"
        );
    }
    let with_closed = DeadLetterFilter::open().with_closed();
    let all = node.letter_queries.list(&with_closed, None, 10).await?.items;
    ensure_eq!(all.len(), 2, "dead letters, closed ones among them");
    ensure_eq!(
        worker.admit(&message(1)).await?,
        Admission::Settled(InboxState::Dead),
        "its delivery"
    );
    Ok(())
}

async fn should_go_with_their_rows_when_dead_letters_are_purged<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    for n in 1..=3 {
        bury(&worker, &message(n)).await?;
    }
    let discarded = bury(&worker, &message(4)).await?.id;
    node.letters.discard(&[discarded], "ada").await?;
    outlast_lease(cx).await;
    let young = bury(&worker, &message(5)).await?.id;

    ensure_eq!(
        node.letters.purge(LONG, 100).await?,
        0,
        "dead letters of an age that none has"
    );
    ensure_eq!(
        node.letters.purge(cx.lease(), 3).await?,
        3,
        "dead letters purged up to the limit"
    );
    ensure_eq!(
        node.letters.purge(cx.lease(), 3).await?,
        1,
        "dead letters purged after that"
    );
    ensure_eq!(
        node.letters.purge(cx.lease(), 3).await?,
        0,
        "dead letters purged at last"
    );
    let all = node
        .letter_queries
        .list(&DeadLetterFilter::open().with_closed(), None, 10)
        .await?
        .items;
    ensure_eq!(
        all.iter().map(|letter| letter.id).collect::<Vec<_>>(),
        vec![young],
        "what is left"
    );
    for n in 1..=4 {
        ensure_eq!(worker.state(id(n)).await?, None, "the row of message {n}");
    }
    ensure_eq!(
        worker.state(id(5)).await?,
        Some(InboxState::Dead),
        "the row of what is left"
    );
    Ok(())
}
