//! What an operator and an idle node see of the inbox, the park and the dead letters.

use std::time::Duration;

use headless_abstractions::{
    ClaimParked, Cursor, DeadLetter, DeadLetterFilter, ErrorKind, FailureCause, Hold, InboxFilter,
    InboxState, Marked, Origin, Page,
};

use super::worker::{Worker, hold_of};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::{Cx, group},
    fixture::StoreFixture,
    mutation::Mutation::{
        FailForgetsLetter, FilterIgnored, FollowersAreDue, PageByOffset, PageUnchecked, ParkForgetsDelay,
        PulseIdle,
    },
    outbox::{
        node::{Node, nothing_lost, outlast_lease},
        samples::{LONG, claims, failure, failure_of, id, keyed, message, number, owner, payments},
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_list_the_inbox_rows_that_match_when_filtered,
            "the inbox can be searched by group, topic and state, and counted"
        )
        .catching(&[FilterIgnored]),
        case!(
            should_tell_when_a_parked_row_is_due_when_shown,
            "a parked row shows when it is due, one behind another does not"
        )
        .catching(&[FollowersAreDue, ParkForgetsDelay]),
        case!(
            should_show_each_inbox_row_once_when_rows_come_and_go_between_pages,
            "paging the inbox is stable under writes"
        )
        .catching(&[PageByOffset]),
        case!(
            should_refuse_an_inbox_page_when_its_limit_or_cursor_is_foreign,
            "a page has 1 to 1 000 rows and a cursor of its own store"
        )
        .catching(&[PageUnchecked]),
        case!(
            should_find_dead_letters_when_filtered,
            "dead letters can be searched by origin, topic, cause, error and time, and counted"
        )
        .catching(&[FilterIgnored, FailForgetsLetter]),
        case!(
            should_show_each_dead_letter_once_when_paged,
            "paging dead letters is stable under writes, the oldest first"
        )
        .catching(&[PageByOffset]),
        case!(
            should_tell_when_the_park_is_due_when_pulsed,
            "the pulse tells when the park has work, and reaps it"
        )
        .catching(&[PulseIdle, ParkForgetsDelay]),
    ]
}

const NOW: Duration = Duration::ZERO;

async fn should_list_the_inbox_rows_that_match_when_filtered<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let billing = Worker::of(&node, "billing", owner(1));
    let shipping = Worker::of(&node, "shipping", owner(2));
    let mut paid = message(5);
    paid.topic = payments();
    billing.run(&message(1)).await?;
    billing.park(&message(2), Hold::Absent, LONG).await?;
    billing.mark(&message(3), Hold::Absent).await?;
    billing
        .bury(&message(4), Hold::Absent, vec![failure("broken")])
        .await?;
    billing.discard(&paid, Hold::Absent).await?;
    shipping.mark(&message(1), Hold::Absent).await?;

    let list = async |filter: InboxFilter| -> headless_abstractions::Result<Vec<u64>> {
        let page = node.inbox_queries.list(&filter, None, 100).await?;
        let mut found: Vec<_> = page.items.iter().map(|entry| number(entry.id)).collect();
        found.sort_unstable();
        Ok(found)
    };
    let all = InboxFilter::all;
    ensure_eq!(list(all()).await?, vec![1, 1, 2, 3, 4, 5], "all rows");
    ensure_eq!(
        list(all().with_group(group("shipping"))).await?,
        vec![1],
        "rows of one group"
    );
    ensure_eq!(
        list(all().with_topic(payments())).await?,
        vec![5],
        "rows of one topic"
    );
    for (n, state) in [
        (1, InboxState::Running),
        (2, InboxState::Parked),
        (4, InboxState::Dead),
        (5, InboxState::Discarded),
    ] {
        ensure_eq!(
            list(all().with_state(state)).await?,
            vec![n],
            "rows in state {state:?}"
        );
    }
    let both = all()
        .with_group(group("billing"))
        .with_state(InboxState::Processed);
    ensure_eq!(list(both).await?, vec![3], "rows for which both conditions hold");

    let stats = node.inbox_queries.stats(Some(&group("billing"))).await?;
    let figures = (
        stats.running,
        stats.parked,
        stats.processed,
        stats.dead,
        stats.discarded,
    );
    ensure_eq!(
        figures,
        (1, 1, 1, 1, 1),
        "running, parked, processed, dead, discarded in one group"
    );
    ensure_eq!(
        node.inbox_queries.stats(None).await?.processed,
        2,
        "processed in all groups"
    );
    let running = node.inbox_queries.get(&group("billing"), id(1)).await?;
    ensure_eq!(
        running.map(|entry| (entry.owner, entry.rounds)),
        Some((Some(owner(1)), 1)),
        "who runs a row, and its rounds"
    );
    Ok(())
}

async fn should_tell_when_a_parked_row_is_due_when_shown<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    worker.park(&keyed(1, "a"), Hold::Absent, LONG).await?;
    worker.park_behind(&keyed(2, "a"), Hold::Absent).await?;
    worker.park(&message(3), Hold::Absent, NOW).await?;
    let due = async |n| -> headless_abstractions::Result<Option<Duration>> {
        Ok(node
            .inbox_queries
            .get(&worker.group, id(n))
            .await?
            .and_then(|entry| entry.due_in))
    };
    let head = due(1).await?;
    let bounds = LONG - Duration::from_secs(60)..=LONG;
    ensure!(
        head.is_some_and(|left| bounds.contains(&left)),
        "{head:?} until a row parked for {LONG:?}"
    );
    ensure_eq!(
        due(2).await?,
        None,
        "the time until a row that waits behind another"
    );
    ensure_eq!(due(3).await?, Some(NOW), "the time until a row that is due");
    Ok(())
}

async fn should_show_each_inbox_row_once_when_rows_come_and_go_between_pages<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let mark = async |n| worker.mark(&message(n), Hold::Absent).await;
    for n in 1..=8 {
        mark(n).await?;
    }
    outlast_lease(cx).await;
    for n in 9..=20 {
        mark(n).await?;
    }
    let mut seen = Vec::new();
    let mut cursor: Option<Cursor> = None;
    for turn in 0..40_u64 {
        let page = node
            .inbox_queries
            .list(&InboxFilter::all(), cursor.as_ref(), 3)
            .await?;
        ensure!(
            page.items.len() <= 3,
            "a page of {} rows where 3 were asked for",
            page.items.len()
        );
        seen.extend(page.items.iter().map(|entry| number(entry.id)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        // While the operator reads, the oldest rows are purged and new ones come.
        node.inbox.purge(cx.lease(), 2).await?;
        if turn < 5 {
            mark(100 + turn).await?;
        }
    }
    ensure!(cursor.is_none(), "the pages never end");
    let mut throughout: Vec<_> = seen.iter().copied().filter(|n| (9..=20).contains(n)).collect();
    throughout.sort_unstable();
    ensure_eq!(
        throughout,
        (9..=20).collect::<Vec<_>>(),
        "the rows that were there throughout"
    );
    let mut once = seen.clone();
    once.sort_unstable();
    once.dedup();
    ensure_eq!(once.len(), seen.len(), "rows on more than one page: {seen:?}");
    Ok(())
}

async fn should_refuse_an_inbox_page_when_its_limit_or_cursor_is_foreign<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    Worker::new(&node, owner(1))
        .mark(&message(1), Hold::Absent)
        .await?;
    let foreign = Cursor::new("'; no cursor of this store");
    for (cursor, limit) in [(None, 0), (None, 1_001), (Some(&foreign), 1)] {
        let rows = node.inbox_queries.list(&InboxFilter::all(), cursor, limit).await;
        let letters = node
            .letter_queries
            .list(&DeadLetterFilter::open(), cursor, limit)
            .await;
        for answer in [rows.map(|_| ()), letters.map(|_| ())] {
            match answer {
                Ok(()) => fail!("cursor {cursor:?} and limit {limit} were answered with a page"),
                Err(error) => ensure_eq!(error.kind(), ErrorKind::Invalid, "the error for limit {limit}"),
            }
        }
    }
    let most = node.inbox_queries.list(&InboxFilter::all(), None, 1_000).await?;
    ensure_eq!(most.items.len(), 1, "rows on the largest page");
    Ok(())
}

async fn should_find_dead_letters_when_filtered<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let billing = Worker::of(&node, "billing", owner(1));
    let shipping = Worker::of(&node, "shipping", owner(1));
    let mut paid = message(3);
    paid.topic = payments();
    billing
        .bury(&message(1), Hold::Absent, vec![failure("connection refused")])
        .await?;
    let both = vec![
        failure("connection refused"),
        failure_of(FailureCause::Permanent, "no such customer"),
    ];
    billing.bury(&message(2), Hold::Absent, both).await?;
    outlast_lease(cx).await;
    shipping
        .bury(
            &paid,
            Hold::Absent,
            vec![failure_of(FailureCause::Timeout, "100%_done")],
        )
        .await?;
    node.outbox.append(&[message(4)]).await?;
    let rows = claims(&node.claim(owner(1), 1).await?);
    nothing_lost(
        &node
            .outbox
            .fail(owner(1), &rows, &failure_of(FailureCause::Refused, "too large"))
            .await?,
    )?;

    let list = async |filter: DeadLetterFilter| -> headless_abstractions::Result<Vec<u64>> {
        let page: Page<DeadLetter> = node.letter_queries.list(&filter, None, 100).await?;
        Ok(page
            .items
            .iter()
            .map(|letter| number(letter.message.id))
            .collect())
    };
    let open = DeadLetterFilter::open;
    ensure_eq!(list(open()).await?, vec![1, 2, 3, 4], "all, the oldest first");
    let of_billing = Origin::Group(group("billing"));
    ensure_eq!(
        list(open().with_origin(of_billing)).await?,
        vec![1, 2],
        "those of one group"
    );
    ensure_eq!(
        list(open().with_origin(Origin::Relay)).await?,
        vec![4],
        "those of the relay"
    );
    ensure_eq!(
        list(open().with_topic(payments())).await?,
        vec![3],
        "those of one topic"
    );
    ensure_eq!(
        list(open().with_cause(FailureCause::Error)).await?,
        vec![1],
        "those of one cause"
    );
    let refused = open().with_error_containing("refused");
    ensure_eq!(
        list(refused).await?,
        vec![1],
        "those whose last error contains a text"
    );
    let literal = open().with_error_containing("%_");
    ensure_eq!(
        list(literal).await?,
        vec![3],
        "those whose last error contains what is a pattern elsewhere"
    );

    let third = node.letter_queries.list(&open(), None, 3).await?.items.pop();
    let Some(moment) = third.map(|letter| letter.buried_at) else {
        fail!("there is no third dead letter");
    };
    ensure_eq!(
        list(open().with_span(None, Some(moment))).await?,
        vec![1, 2],
        "those before a moment"
    );
    ensure_eq!(
        list(open().with_span(Some(moment), None)).await?,
        vec![3, 4],
        "those since that moment"
    );

    let stats = node.letter_queries.stats().await?;
    ensure_eq!(stats.len(), 4, "figures, by origin, topic and cause");
    let permanent = stats.iter().find(|stats| stats.cause == FailureCause::Permanent);
    ensure!(
        permanent.is_some_and(|stats| stats.count == 1 && stats.oldest >= cx.lease()),
        "the figures of what died first: {permanent:?}"
    );
    Ok(())
}

async fn should_show_each_dead_letter_once_when_paged<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::new(&node, owner(1));
    let bury = async |n| {
        worker
            .bury(&message(n), Hold::Absent, vec![failure("broken")])
            .await
    };
    for n in 1..=14 {
        ensure_eq!(bury(n).await?, Marked::Now, "burying {n}");
    }
    let mut seen = Vec::new();
    let mut cursor: Option<Cursor> = None;
    for turn in 0..40_u64 {
        let page = node
            .letter_queries
            .list(&DeadLetterFilter::open(), cursor.as_ref(), 3)
            .await?;
        ensure!(
            page.items.len() <= 3,
            "a page of {} letters where 3 were asked for",
            page.items.len()
        );
        seen.extend(page.items.iter().map(|letter| number(letter.message.id)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        // While the operator reads, what was read is discarded and more die.
        if let Some(read) = page.items.first() {
            node.letters.discard(&[read.id], "ada").await?;
        }
        if turn < 4 {
            bury(100 + turn).await?;
        }
    }
    ensure!(cursor.is_none(), "the pages never end");
    ensure_eq!(
        seen.iter().copied().take(14).collect::<Vec<_>>(),
        (1..=14).collect::<Vec<_>>(),
        "in order, once"
    );
    Ok(())
}

async fn should_tell_when_the_park_is_due_when_pulsed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let worker = Worker::of(&node, "billing", owner(1));
    let other = Worker::of(&node, "shipping", owner(1));
    ensure_eq!(
        node.pulse.pulse().await?.parked,
        None,
        "the pulse of an empty park"
    );
    worker.park(&keyed(1, "a"), Hold::Absent, LONG).await?;
    worker.park_behind(&keyed(2, "a"), Hold::Absent).await?;
    let next = node.pulse.pulse().await?.parked;
    let bounds = LONG - Duration::from_secs(60)..=LONG;
    ensure!(
        next.is_some_and(|next| bounds.contains(&next)),
        "{next:?} until a head parked for {LONG:?}"
    );

    other.park(&message(3), Hold::Absent, NOW).await?;
    ensure_eq!(
        node.pulse.pulse().await?.parked,
        Some(NOW),
        "the time until a row that is due in any group"
    );
    let request = ClaimParked::new(other.owner, other.group.clone(), 1, cx.lease());
    let rows = node.parked.claim(&request).await?;
    let pulse = node.pulse.pulse().await?;
    ensure!(
        pulse.parked.is_some_and(|next| !next.is_zero()),
        "a row that is leased counts as due: {pulse:?}"
    );
    let end = pulse.expired_lease;
    ensure!(
        end.is_some_and(|end| end <= cx.lease()),
        "{end:?} until a lease of {:?} ends",
        cx.lease()
    );

    // The pulse after the end of the lease has reaped it.
    outlast_lease(cx).await;
    ensure_eq!(
        node.pulse.pulse().await?.parked,
        Some(NOW),
        "the time until the row that was reaped"
    );
    let late = other.mark(&message(3), hold_of(other.owner, &rows[0])).await?;
    ensure_eq!(late, Marked::LeaseLost, "a mark of the owner that was reaped");
    Ok(())
}
