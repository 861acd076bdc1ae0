//! Handlers of several messages at once.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headless_abstractions::{FailureCause, InboxState};
use headless_core::HandlerError;
use headless_messaging::{BatchContext, Inbox};

use super::{Both, FORMS, STORED, event::Work, in_each, log::Log, process::group_of};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq},
    cx::Cx,
    mutation::Mutation::{
        BuryForgetsLetter, DropDelivery, DuplicateDelivery, ForgetKeyOrder, MarkForgotten, ReorderDeliveries,
        SkipDedupe,
    },
    wait::elapse,
};

const WAIT: Duration = Duration::from_millis(50);

/// The batches that handlers were given.
type Batches = Arc<Mutex<Vec<Vec<u32>>>>;

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_hand_over_everything_in_order_when_handled_in_batches,
            "batches are never empty nor over their size, hold everything once, and keep the order of keys"
        )
        .described(Flag::ordering)
        .catching(&[ReorderDeliveries, DropDelivery]),
        case!(
            should_hand_over_what_there_is_when_a_batch_does_not_fill_in_time,
            "a batch that is not full is handed over once its time is up"
        )
        // The time is core's own: a driver can lose or double what was gathered, and no more.
        .catching(&[DropDelivery, DuplicateDelivery]),
        case!(
            should_leave_out_what_was_handled_when_a_batch_holds_it_again,
            "repeats within a batch and of earlier messages are left out, and the rest is handled"
        )
        .catching(&[SkipDedupe]),
        case!(
            should_run_messages_alone_when_their_batch_fails,
            "one bad message costs its batch a call, and nobody else an attempt"
        )
        .catching(&[BuryForgetsLetter]),
        case!(
            should_keep_key_order_when_a_failed_batch_is_run_alone,
            "what follows a failed message of its key waits behind it"
        )
        .described(Flag::ordering)
        .catching(&[ForgetKeyOrder]),
        case!(
            should_mark_the_whole_batch_when_it_begins,
            "one unit of work carries the marks of all messages of the batch, or none"
        )
        .catching(&[MarkForgotten]),
    ]
}

/// A handler of batches that notes them and makes their effects, unless `fails` says otherwise.
fn noting<F: Both>(
    log: &Log,
    batches: &Batches,
    form: Inbox,
    fails: fn(&[Work]) -> bool,
) -> impl Fn(Vec<Work>, BatchContext) -> futures::future::BoxFuture<'static, headless_core::HandlerResult>
+ Send
+ Sync
+ use<F> {
    let (log, batches) = (log.clone(), batches.clone());
    move |works, cx| {
        let (log, batches) = (log.clone(), batches.clone());
        Box::pin(async move {
            lock(&batches).push(works.iter().map(|work| work.n).collect());
            if fails(&works) {
                return Err(HandlerError::retry("a bad batch"));
            }
            log.batch_effect::<F>(form, &works, &cx).await
        })
    }
}

fn lock(batches: &Batches) -> std::sync::MutexGuard<'_, Vec<Vec<u32>>> {
    batches.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn should_hand_over_everything_in_order_when_handled_in_batches<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, batches) = (Log::new(cx), Batches::default());
        let consumer = cx
            .consumer(form)
            .batch(7, WAIT, noting::<F>(&log, &batches, form, |_| false))
            .ordered_by_key();
        let process = cx.process("one", form).ordered(3).with(consumer).start().await?;
        process.send(&cx.works(100, &["a", "b", "c", "d"])).await?;
        log.each_once(cx, 100).await?;
        log.in_key_order(cx).await?;
        let sizes: Vec<usize> = lock(&batches).iter().map(Vec::len).collect();
        ensure!(
            sizes.iter().all(|size| (1..=7).contains(size)),
            "batches of at most 7: {sizes:?}"
        );
        ensure!(sizes.contains(&7), "no batch was full: {sizes:?}");
        process.settled(cx, &group_of(form)).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_hand_over_what_there_is_when_a_batch_does_not_fill_in_time<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, batches) = (Log::new(cx), Batches::default());
        let consumer = cx
            .consumer(form)
            .batch(100, WAIT, noting::<F>(&log, &batches, form, |_| false));
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(3, &[""])).await?;
        log.each_once(cx, 3).await?;
        ensure_eq!(lock(&batches).len(), 1, "batches");
        process.stop(cx).await
    })
    .await
}

async fn should_leave_out_what_was_handled_when_a_batch_holds_it_again<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, batches) = (Log::new(cx), Batches::default());
        let consumer = cx
            .consumer(form)
            .batch(10, WAIT, noting::<F>(&log, &batches, form, |_| false));
        let process = cx.process("one", form).with(consumer).start().await?;
        let messages = cx.works(6, &[""]);
        process.send(&messages[..2]).await?;
        log.wait_for(cx, 2).await?;
        lock(&batches).clear();
        // The first two again, one of the others twice.
        let again = [&messages[..], &messages[3..4]].concat();
        process.send(&again).await?;
        log.each_once(cx, 6).await?;
        process.settled(cx, &group_of(form)).await?;
        for batch in lock(&batches).iter() {
            let mut distinct = batch.clone();
            distinct.sort_unstable();
            distinct.dedup();
            ensure!(
                distinct.len() == batch.len() && !batch.is_empty(),
                "a batch repeats itself: {batch:?}"
            );
        }
        ensure_eq!(process.stats().duplicates, 3, "duplicates");
        process.stop(cx).await
    })
    .await
}

async fn should_run_messages_alone_when_their_batch_fails<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, batches, books) = (Log::new(cx), Batches::default(), cx.books().await?);
        let before = books.letters().await?.len();
        let bad = |works: &[Work]| works.iter().any(|work| work.n == 4);
        let consumer = cx
            .consumer(form)
            .batch(8, WAIT, noting::<F>(&log, &batches, form, bad));
        let process = cx.process("one", form).with(consumer).start().await?;
        let messages = cx.works(8, &[""]);
        process.send(&messages).await?;
        log.wait_for(cx, 7).await?;
        let letters = books.wait_for_letters(cx, before + 1).await?;
        let letter = letters.iter().find(|letter| letter.message.id == messages[3].id);
        let causes: Vec<_> = letter
            .iter()
            .flat_map(|letter| &letter.failures)
            .map(|failure| failure.cause)
            .collect();
        ensure_eq!(
            causes,
            vec![FailureCause::Error; 3],
            "the rounds of the bad message"
        );
        let mut done = log.done(cx).await?;
        done.sort_unstable();
        ensure_eq!(done, vec![1, 2, 3, 5, 6, 7, 8], "effects");
        for (n, message) in messages.iter().enumerate() {
            let Some(entry) = books.entry(&group_of(form), message.id).await? else {
                crate::case::fail!("message {} has no row", n + 1);
            };
            let expected = if n == 3 {
                InboxState::Dead
            } else {
                InboxState::Processed
            };
            ensure_eq!(entry.state, expected, "the state of message {}", n + 1);
        }
        process.settled(cx, &group_of(form)).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_keep_key_order_when_a_failed_batch_is_run_alone<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, batches) = (Log::new(cx), Batches::default());
        // The second message of key a works when it is alone, and late.
        let fails = |works: &[Work]| works.len() > 1 && works.iter().any(|work| work.n == 3);
        let failing = noting::<F>(&log, &batches, form, fails);
        let late = Arc::new(Mutex::new(0_u32));
        let handler = move |works: Vec<Work>, cx: BatchContext| {
            let alone = works.len() == 1 && works[0].n == 3;
            let times = {
                let mut late = late.lock().unwrap_or_else(PoisonError::into_inner);
                *late += u32::from(alone);
                *late
            };
            let call = failing(works, cx);
            Box::pin(async move {
                if alone && times == 1 {
                    return Err(HandlerError::retry_after(Duration::from_millis(500), "not yet"));
                }
                call.await
            })
        };
        let consumer = cx.consumer(form).batch(10, WAIT, handler).ordered_by_key();
        let process = cx.process("one", form).ordered(2).with(consumer).start().await?;
        process.send(&cx.works(10, &["a", "b"])).await?;
        log.each_once(cx, 10).await?;
        log.in_key_order(cx).await?;
        process.settled(cx, &group_of(form)).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_mark_the_whole_batch_when_it_begins<F: Both>(cx: &Cx<F>) -> CaseResult {
    let form = Inbox::Transactional;
    let (log, batches, books) = (Log::new(cx), Batches::default(), cx.books().await?);
    let consumer = cx
        .consumer(form)
        .batch(5, WAIT, noting::<F>(&log, &batches, form, |_| false));
    let process = cx.process("one", form).with(consumer).start().await?;
    let messages = cx.works(5, &[""]);
    process.send(&messages).await?;
    log.each_once(cx, 5).await?;
    process.settled(cx, &group_of(form)).await?;
    for message in &messages {
        let state = books
            .entry(&group_of(form), message.id)
            .await?
            .map(|entry| entry.state);
        ensure_eq!(
            state,
            Some(InboxState::Processed),
            "the state of a message of the batch"
        );
    }
    // Each of them is known from then on.
    process.send(&messages).await?;
    elapse(cx.quiet()).await;
    log.each_once(cx, 5).await?;
    process.stop(cx).await
}
