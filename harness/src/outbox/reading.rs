//! What an operator and an idle node see of the outbox.

use std::time::Duration;

use headless_abstractions::{Abandon, ClaimOutbox, Cursor, ErrorKind, OutboxFilter, OutboxState};

use super::{
    node::{Node, nothing_lost, outlast_lease},
    samples::{LONG, claims, failure, id, key, keyed, message, number, numbers, orders, owner, payments},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq, fail},
    cx::Cx,
    fixture::StoreFixture,
    mutation::Mutation::{
        CommitLosesAppend, DelayedIsReady, FilterIgnored, ForgetDelay, LeaseForever, PageByOffset,
        PageUnchecked, PulseIdle, PurgeUnfinished, WaitOutstays,
    },
};

pub(super) fn cases<F: StoreFixture>() -> Vec<Case<F>> {
    vec![
        case!(
            should_list_the_rows_that_match_when_filtered,
            "the outbox can be searched by topic, key and state, and counted"
        )
        .catching(&[FilterIgnored, ForgetDelay]),
        case!(
            should_tell_how_long_the_oldest_row_is_due_when_asked,
            "the age of the outbox is that of its oldest row that is due"
        )
        .catching(&[DelayedIsReady]),
        case!(
            should_show_each_row_once_when_rows_come_and_go_between_pages,
            "paging is stable under writes"
        )
        .catching(&[PageByOffset]),
        case!(
            should_refuse_a_page_when_its_limit_or_cursor_is_foreign,
            "a page has 1 to 1 000 rows and a cursor of its own store"
        )
        .catching(&[PageUnchecked]),
        case!(
            should_leave_unfinished_rows_when_purged,
            "a purge removes finished rows alone, in batches"
        )
        .catching(&[PurgeUnfinished]),
        case!(
            should_tell_when_work_is_due_when_pulsed,
            "the pulse tells when the outbox has work and a lease ends"
        )
        .catching(&[PulseIdle, ForgetDelay]),
        case!(should_reap_when_pulsed, "the pulse reaps leases that have ended")
            .catching(&[PulseIdle, LeaseForever]),
        case!(
            should_find_the_work_when_its_hint_is_lost,
            "a wait ends in time, and the pulse finds what no hint told"
        )
        .catching(&[WaitOutstays, PulseIdle, CommitLosesAppend]),
    ]
}

async fn should_list_the_rows_that_match_when_filtered<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let mut delayed = message(4);
    delayed.deliver_after = Some(LONG);
    let mut paid = keyed(5, "a");
    paid.topic = payments();
    node.outbox.append(&[message(1), message(2)]).await?;
    let rows = claims(&node.claim(owner(1), 2).await?);
    nothing_lost(
        &node
            .outbox
            .abandon(owner(1), &rows[1..], &Abandon::failed(LONG, failure("refused")))
            .await?,
    )?;
    node.outbox.append(&[keyed(3, "a"), delayed, paid]).await?;

    let list = async |filter: OutboxFilter| -> headless_abstractions::Result<Vec<u64>> {
        let page = node.outbox_queries.list(&filter, None, 100).await?;
        Ok(page.items.iter().map(|entry| number(entry.message.id)).collect())
    };
    let all = OutboxFilter::all;
    ensure_eq!(list(all()).await?.len(), 5, "all rows");
    ensure_eq!(
        list(all().with_state(OutboxState::Leased)).await?,
        vec![1],
        "leased rows"
    );
    ensure_eq!(
        list(all().with_state(OutboxState::Retrying)).await?,
        vec![2],
        "retrying rows"
    );
    ensure_eq!(
        list(all().with_state(OutboxState::Ready)).await?,
        vec![3, 5],
        "ready rows"
    );
    ensure_eq!(
        list(all().with_state(OutboxState::Delayed)).await?,
        vec![4],
        "delayed rows"
    );
    ensure_eq!(
        list(all().with_topic(payments())).await?,
        vec![5],
        "rows of one topic"
    );
    ensure_eq!(
        list(all().with_key(key("a"))).await?,
        vec![3, 5],
        "rows of one key"
    );
    ensure_eq!(
        list(all().with_key(key("a")).with_topic(orders())).await?,
        vec![3],
        "rows for which both conditions hold"
    );

    let stats = node.outbox_queries.stats().await?;
    let figures = (stats.delayed, stats.ready, stats.leased, stats.retrying);
    ensure_eq!(figures, (1, 2, 1, 1), "delayed, ready, leased, retrying");
    let leased = node.outbox_queries.get(id(1)).await?;
    ensure_eq!(
        leased.and_then(|entry| entry.owner),
        Some(owner(1)),
        "who holds the leased row"
    );
    ensure_eq!(
        node.outbox_queries.get(id(99)).await?,
        None,
        "a row that was never stored"
    );
    Ok(())
}

async fn should_tell_how_long_the_oldest_row_is_due_when_asked<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    ensure_eq!(
        node.outbox_queries.stats().await?.oldest,
        None,
        "the age of nothing"
    );
    let mut delayed = message(1);
    delayed.deliver_after = Some(LONG);
    node.outbox.append(&[delayed]).await?;
    ensure_eq!(
        node.outbox_queries.stats().await?.oldest,
        None,
        "the age where all is delayed"
    );
    node.outbox.append(&[message(2)]).await?;
    outlast_lease(cx).await;
    node.outbox.append(&[message(3)]).await?;
    let oldest = node.outbox_queries.stats().await?.oldest;
    ensure!(
        oldest.is_some_and(|age| age >= cx.lease() && age < LONG),
        "the oldest row has been due for a lease, not for {oldest:?}"
    );
    Ok(())
}

async fn should_show_each_row_once_when_rows_come_and_go_between_pages<F: StoreFixture>(
    cx: &Cx<F>,
) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox
        .append(&(1..=20).map(message).collect::<Vec<_>>())
        .await?;
    let all = OutboxFilter::all();
    let mut seen = Vec::new();
    let mut cursor: Option<Cursor> = None;
    for turn in 0..40_u64 {
        let page = node.outbox_queries.list(&all, cursor.as_ref(), 3).await?;
        ensure!(
            page.items.len() <= 3,
            "a page of {} rows where 3 were asked for",
            page.items.len()
        );
        seen.extend(page.items.iter().map(|entry| number(entry.message.id)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        // While the operator reads, the oldest row is sent and new ones come.
        let rows = node.claim(owner(1), 1).await?;
        node.ack_all(owner(1), &claims(&rows)).await?;
        if turn < 5 {
            node.outbox.append(&[message(100 + turn)]).await?;
        }
    }
    ensure!(cursor.is_none(), "the pages never end");
    let of_first: Vec<_> = seen.iter().copied().filter(|n| (8..=20).contains(n)).collect();
    ensure_eq!(
        of_first,
        (8..=20).collect::<Vec<_>>(),
        "the rows that were there throughout"
    );
    let mut once = seen.clone();
    once.sort_unstable();
    once.dedup();
    ensure_eq!(once.len(), seen.len(), "rows on more than one page: {seen:?}");
    Ok(())
}

async fn should_refuse_a_page_when_its_limit_or_cursor_is_foreign<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1), message(2)]).await?;
    let all = OutboxFilter::all();
    let foreign = Cursor::new("'; no cursor of this store");
    for (cursor, limit) in [(None, 0), (None, 1_001), (Some(&foreign), 1)] {
        match node.outbox_queries.list(&all, cursor, limit).await {
            Ok(page) => fail!("cursor {cursor:?} and limit {limit} were answered with {page:?}"),
            Err(error) => ensure_eq!(error.kind(), ErrorKind::Invalid, "the error for limit {limit}"),
        }
    }
    ensure_eq!(
        node.outbox_queries.list(&all, None, 1_000).await?.items.len(),
        2,
        "rows on the largest page"
    );
    Ok(())
}

async fn should_leave_unfinished_rows_when_purged<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox
        .append(&(1..=6).map(message).collect::<Vec<_>>())
        .await?;
    let rows = claims(&node.claim(owner(1), 4).await?);
    node.ack_all(owner(1), &rows[..3]).await?;
    ensure_eq!(
        node.outbox.purge(LONG, 100).await?,
        0,
        "rows purged that finished a moment ago"
    );
    outlast_lease(cx).await;

    // A store without history removes none, one with history what has finished: here three rows, in batches.
    let mut purged = 0;
    loop {
        let batch = node.outbox.purge(cx.lease(), 2).await?;
        ensure!(batch <= 2, "{batch} rows in a batch of 2");
        purged += batch;
        if batch == 0 {
            break;
        }
    }
    ensure!(
        purged == 0 || purged == 3,
        "{purged} rows were purged, of which 3 had finished"
    );
    ensure_eq!(
        node.outbox_queries.stats().await?.total(),
        3,
        "unfinished rows after the purge"
    );
    node.ack_all(owner(1), &rows[3..]).await?;
    ensure_eq!(
        numbers(&node.claim(owner(1), 10).await?),
        vec![5, 6],
        "what is ready after the purge"
    );
    Ok(())
}

async fn should_tell_when_work_is_due_when_pulsed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    let idle = node.pulse.pulse().await?;
    ensure_eq!(
        (idle.outbox, idle.parked, idle.expired_lease),
        (None, None, None),
        "the pulse of an empty store"
    );
    let mut delayed = message(1);
    delayed.deliver_after = Some(LONG);
    node.outbox.append(&[delayed]).await?;
    let next = node.pulse.pulse().await?.outbox;
    ensure!(
        next.is_some_and(|next| next > LONG - Duration::from_secs(60) && next <= LONG),
        "{next:?} until a row that was delayed by {LONG:?}"
    );

    node.outbox.append(&[message(2)]).await?;
    ensure_eq!(
        node.pulse.pulse().await?.outbox,
        Some(Duration::ZERO),
        "the time until a row that is ready"
    );
    node.outbox
        .claim(&ClaimOutbox::new(owner(1), 1, cx.lease()))
        .await?;
    let pulse = node.pulse.pulse().await?;
    ensure!(
        pulse.outbox.is_some_and(|next| next > cx.lease()),
        "leased rows count as ready: {pulse:?}"
    );
    ensure!(
        pulse.expired_lease.is_some_and(|next| next <= cx.lease()),
        "{:?} until a lease of {:?} ends",
        pulse.expired_lease,
        cx.lease()
    );
    Ok(())
}

async fn should_reap_when_pulsed<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let node = Node::join(cx).await?;
    node.outbox.append(&[message(1), message(2)]).await?;
    let dead = claims(
        &node
            .outbox
            .claim(&ClaimOutbox::new(owner(1), 1, cx.lease()))
            .await?
            .rows,
    );
    let live = claims(&node.claim(owner(2), 1).await?);
    outlast_lease(cx).await;
    let pulse = node.pulse.pulse().await?;
    ensure_eq!(
        pulse.outbox,
        Some(Duration::ZERO),
        "the time until the row that the pulse has reaped"
    );
    let late = node.outbox.ack(owner(1), &dead).await?;
    ensure_eq!(
        late.lost,
        dead,
        "what the reaped owner's acknowledgement did not find"
    );
    node.ack_all(owner(2), &live).await
}

async fn should_find_the_work_when_its_hint_is_lost<F: StoreFixture>(cx: &Cx<F>) -> CaseResult {
    let publisher = Node::join(cx).await?;
    let relay = Node::join(cx).await?;
    let wait = async |at_most| -> CaseResult {
        // Three times as long as promised: enough for a slow server, and an end where it would wait for ever.
        let bound = at_most * 3 + Duration::from_secs(5);
        match tokio::time::timeout(bound, relay.pulse.wait_ready(at_most)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => fail!("a wait of at most {at_most:?} did not return"),
        }
    };
    wait(cx.lease()).await?;
    // The hint may come or not; whichever it is, the pulse after it knows.
    let work = async {
        publisher.append_in_transaction(&[message(1)]).await?;
        CaseResult::Ok(())
    };
    futures::future::try_join(wait(cx.lease()), work).await?;
    ensure_eq!(
        relay.pulse.pulse().await?.outbox,
        Some(Duration::ZERO),
        "the time until what was committed"
    );

    // A hint that nobody waited for is lost, and its work is found all the same.
    publisher.append_in_transaction(&[message(2)]).await?;
    wait(cx.lease()).await?;
    ensure_eq!(
        numbers(&relay.claim(owner(1), 10).await?),
        vec![1, 2],
        "the work that the relay finds"
    );
    ensure_eq!(
        relay.pulse.pulse().await?.outbox,
        None,
        "the pulse when all is leased"
    );
    Ok(())
}
