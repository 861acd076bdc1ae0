//! The unit of work of a handler: effect, mark and messages, all or nothing.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use headless_abstractions::{FailureCause, InboxState};
use headless_core::{HandlerError, HandlerResult};
use headless_messaging::{Context, Inbox, Plan, PublishExt};

use super::{
    Both,
    event::{Elsewhere, Work},
    log::Log,
    odd::{Pace, SlowStore},
    process::{group_of, quick, stop_all},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    mutation::Mutation::{
        AckOnReceive, AppendOutsideTransaction, BuryForgetsLetter, CommitLosesAppend, DropDelivery,
        DuplicateDelivery, MarkForgotten, MarkOutsideTransaction, RollbackCommits,
    },
    wait::{Stopwatch, elapse, eventually},
};

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_leave_nothing_behind_when_a_handler_fails_in_its_unit_of_work,
            "what a failed handler wrote, published and marked is undone; the next attempt does all of it once"
        )
        .catching(&[RollbackCommits, MarkOutsideTransaction, AppendOutsideTransaction, CommitLosesAppend]),
        case!(
            should_have_failed_when_a_handler_returns_ok_without_a_commit,
            "`Ok` with an open unit of work is a failed attempt that says so, and leaves nothing behind"
        )
        .catching(&[RollbackCommits]),
        case!(
            should_refuse_a_second_unit_of_work_when_one_was_begun,
            "a second `begin` in one call is an error, and nothing of the call remains"
        )
        .catching(&[BuryForgetsLetter, RollbackCommits]),
        case!(
            should_refuse_a_unit_of_work_when_the_form_has_none,
            "`begin` under another form of the inbox is an error that names the form"
        )
        .catching(&[BuryForgetsLetter]),
        case!(
            should_pause_and_keep_every_message_when_the_store_is_not_registered,
            "a mistake of configuration pauses the consumer and is shown; nothing is dead-lettered or lost"
        )
        .catching(&[AckOnReceive]),
        case!(
            should_have_succeeded_when_a_handler_fails_after_its_commit,
            "an error, a panic or a time-out after the commit is a success: it is not done again"
        )
        .catching(&[MarkForgotten, DropDelivery]),
        case!(
            should_ask_the_store_when_the_outcome_of_a_commit_is_unknown,
            "a commit whose answer was lost, or that was cut by the time-out, is looked up: a success is not repeated"
        )
        .catching(&[MarkForgotten, DuplicateDelivery]),
        case!(
            should_await_the_rollback_when_a_handler_drops_its_unit_of_work,
            "a message is not tried again before the transaction of the attempt before has ended"
        )
        .catching(&[RollbackCommits]),
        case!(
            should_mark_afterwards_when_a_handler_begins_no_unit_of_work,
            "a handler that succeeds without a unit of work is marked when it has returned"
        )
        .catching(&[MarkForgotten]),
    ]
}

const FORM: Inbox = Inbox::Transactional;

async fn should_leave_nothing_behind_when_a_handler_fails_in_its_unit_of_work<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    let (log, published, books) = (Log::new(cx), Log::new(cx), cx.books().await?);
    let rows = log.clone();
    let handler = move |work: Work, cx: Context| {
        let log = rows.clone();
        let call: BoxFuture<'static, HandlerResult> = Box::pin(async move {
            let mut unit = cx.begin::<F::Store>().await?;
            let text = serde_json::to_string(&work)?;
            F::write_row(&mut unit, &log.row(), &text).await?;
            unit.publish(&Elsewhere { n: work.n }).await?;
            if cx.attempt().round == 1 {
                match work.n % 4 {
                    0 => return Err(HandlerError::retry("failed in the middle")),
                    1 => std::panic::resume_unwind(Box::new("a panic")),
                    2 => std::future::pending().await,
                    _ => unit.rollback().await?,
                }
                return Err(HandlerError::retry("rolled back"));
            }
            unit.commit().await?;
            Ok(())
        });
        call
    };
    let of_published = published.handler::<F>(FORM);
    let reader = cx.consumer_of("reader", FORM).on(move |event: Elsewhere, cx| {
        of_published(
            Work {
                n: event.n,
                key: String::new(),
            },
            cx,
        )
    });
    let process = cx
        .process("one", FORM)
        .with(cx.consumer(FORM).on(handler).timeout(Duration::from_millis(200)))
        .with(reader)
        .start()
        .await?;
    let messages = cx.works(8, &[""]);
    process.send(&messages).await?;
    log.each_once(cx, 8).await?;
    published.each_once(cx, 8).await?;
    ensure_eq!(published.calls().len(), 8, "messages published by handlers");
    ensure_eq!(process.stats().failed, 8, "failed attempts");
    for message in &messages {
        let entry = books
            .becomes(cx, &group_of(FORM), message.id, InboxState::Processed)
            .await?;
        ensure_eq!(entry.rounds, 2, "rounds");
    }
    process.settled(cx, &group_of(FORM)).await?;
    process.stop(cx).await
}

async fn should_have_failed_when_a_handler_returns_ok_without_a_commit<F: Both>(cx: &Cx<F>) -> CaseResult {
    let (log, books) = (Log::new(cx), cx.books().await?);
    let rows = log.clone();
    let handler = move |work: Work, cx: Context| {
        let log = rows.clone();
        async move {
            let mut unit = cx.begin::<F::Store>().await?;
            F::write_row(&mut unit, &log.row(), &serde_json::to_string(&work)?).await?;
            Ok(())
        }
    };
    let process = cx
        .process("one", FORM)
        .with(cx.consumer(FORM).on(handler))
        .start()
        .await?;
    process.send(&cx.works(1, &[""])).await?;
    let letters = books.wait_for_letters(cx, 1).await?;
    let causes: Vec<_> = letters[0].failures.iter().map(|failure| failure.cause).collect();
    ensure_eq!(causes, [FailureCause::Uncommitted; 3], "causes");
    ensure!(
        letters[0].failures[0].message.contains("commit"),
        "the failure does not say what to do: {}",
        letters[0].failures[0].message
    );
    ensure_eq!(log.done(cx).await?, Vec::<u32>::new(), "effects");
    process.stop(cx).await
}

async fn should_refuse_a_second_unit_of_work_when_one_was_begun<F: Both>(cx: &Cx<F>) -> CaseResult {
    let (log, books) = (Log::new(cx), cx.books().await?);
    let rows = log.clone();
    let handler = move |work: Work, cx: Context| {
        let log = rows.clone();
        async move {
            let mut unit = cx.begin::<F::Store>().await?;
            F::write_row(&mut unit, &log.row(), &serde_json::to_string(&work)?).await?;
            let _second = cx.begin::<F::Store>().await?;
            unit.commit().await?;
            Ok(())
        }
    };
    let process = cx
        .process("one", FORM)
        .with(cx.consumer(FORM).on(handler))
        .start()
        .await?;
    process.send(&cx.works(1, &[""])).await?;
    let letters = books.wait_for_letters(cx, 1).await?;
    let causes: Vec<_> = letters[0].failures.iter().map(|failure| failure.cause).collect();
    ensure_eq!(causes, [FailureCause::Permanent], "causes");
    let said = &letters[0].failures[0].message;
    ensure_eq!(process.stats().failed, 1, "failed attempts");
    ensure!(
        said.contains("second unit of work"),
        "the failure does not say what is wrong: {said}"
    );
    ensure_eq!(log.done(cx).await?, Vec::<u32>::new(), "effects");
    process.stop(cx).await
}

async fn should_refuse_a_unit_of_work_when_the_form_has_none<F: Both>(cx: &Cx<F>) -> CaseResult {
    let (form, books) = (Inbox::Around, cx.books().await?);
    let handler = move |_: Work, cx: Context| async move {
        cx.begin::<F::Store>().await?.commit().await?;
        Ok(())
    };
    let process = cx
        .process("one", form)
        .with(cx.consumer(form).on(handler))
        .start()
        .await?;
    process.send(&cx.works(1, &[""])).await?;
    let letters = books.wait_for_letters(cx, 1).await?;
    let said = &letters[0].failures[0].message;
    ensure!(
        said.contains("Inbox::Transactional") && said.contains("Around"),
        "it does not name the form: {said}"
    );
    process.stop(cx).await
}

async fn should_pause_and_keep_every_message_when_the_store_is_not_registered<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(FORM));
    let process = cx
        .process("wrong", FORM)
        .with(cx.consumer(FORM).on(log.handler::<F>(FORM)).concurrency(2))
        .changed(|plan| plan.state = headless_core::State::new())
        .start()
        .await?;
    process.send(&cx.works(10, &[""])).await?;
    process
        .pausing(cx, headless_messaging::PauseReason::Configuration, true)
        .await?;
    elapse(cx.quiet()).await;
    let problem = process.consumer().subscriptions()[0]
        .problem
        .clone()
        .unwrap_or_default();
    ensure!(
        problem.contains(".store("),
        "the problem does not say what to do: {problem:?}"
    );
    ensure!(
        log.calls().len() <= 2,
        "{} calls before the pause",
        log.calls().len()
    );
    ensure_eq!(books.letters().await?.len(), 0, "dead letters");
    process.stop(cx).await?;
    let mended = cx
        .process("mended", FORM)
        .with(cx.consumer(FORM).on(log.handler::<F>(FORM)))
        .start()
        .await?;
    log.each_once(cx, 10).await?;
    mended.settled(cx, &group).await?;
    mended.stop(cx).await
}

async fn should_have_succeeded_when_a_handler_fails_after_its_commit<F: Both>(cx: &Cx<F>) -> CaseResult {
    let log = Log::new(cx);
    let effects = log.handler::<F>(FORM);
    let handler = move |work: Work, cx: Context| {
        let effect = effects(work.clone(), cx);
        async move {
            effect.await?;
            match work.n {
                1 => Err(HandlerError::retry("too late")),
                2 => std::panic::resume_unwind(Box::new("a panic, too late")),
                3 => std::future::pending().await,
                4 => Err(HandlerError::permanent("too late")),
                _ => Err(HandlerError::discard("too late")),
            }
        }
    };
    let consumer = cx
        .consumer(FORM)
        .on(handler)
        // Long enough for a commit on a machine that is busy.
        .timeout(Duration::from_secs(1))
        .retry(quick().inline(2));
    let process = cx.process("one", FORM).with(consumer).start().await?;
    let messages = cx.works(5, &[""]);
    process.send(&messages).await?;
    log.each_once(cx, 5).await?;
    process.settled(cx, &group_of(FORM)).await?;
    let stats = process.stats();
    ensure_eq!(
        (stats.handled, stats.failed, stats.discarded),
        (5, 0, 0),
        "handled, failed, discarded"
    );
    ensure_eq!(log.calls().len(), 5, "calls");
    // The store knows it too.
    process.send(&messages).await?;
    process.settled(cx, &group_of(FORM)).await?;
    log.each_once(cx, 5).await?;
    process.stop(cx).await
}

/// A plan whose state has the store with this pace, too.
fn slowed<F: Both>(pace: Pace) -> impl FnOnce(&mut Plan) {
    move |plan| {
        if let Some(store) = plan.state.get::<F::Store>() {
            let inner = (*store).clone();
            plan.state = plan.state.clone().with(SlowStore { inner, pace });
        }
    }
}

async fn should_ask_the_store_when_the_outcome_of_a_commit_is_unknown<F: Both>(cx: &Cx<F>) -> CaseResult {
    let answers_late = Pace {
        commit: Duration::from_secs(2),
        ..Pace::default()
    };
    let answer_lost = Pace {
        loses_answers: true,
        ..Pace::default()
    };
    for (n, pace) in [(1, answers_late), (2, answer_lost)] {
        let log = Log::new(cx);
        let rows = log.clone();
        let handler = move |work: Work, cx: Context| {
            let log = rows.clone();
            async move {
                let mut unit = cx.begin::<SlowStore<F::Store>>().await?;
                F::write_row(&mut unit.inner, &log.row(), &serde_json::to_string(&work)?).await?;
                unit.commit().await?;
                Ok(())
            }
        };
        let consumer = cx
            .consumer(FORM)
            .on(handler)
            .timeout(Duration::from_millis(200))
            .retry(quick().inline(2));
        let process = cx
            .process("one", FORM)
            .with(consumer)
            .changed(slowed::<F>(pace))
            .start()
            .await?;
        process.send(&[cx.work(1, "")]).await?;
        log.each_once(cx, 1).await?;
        process.settled(cx, &group_of(FORM)).await?;
        let stats = process.stats();
        ensure_eq!(
            (stats.handled, stats.duplicates),
            (1, 0),
            "handled, duplicates with pace {n}"
        );
        process.stop(cx).await?;
    }
    Ok(())
}

async fn should_await_the_rollback_when_a_handler_drops_its_unit_of_work<F: Both>(cx: &Cx<F>) -> CaseResult {
    let (log, slow) = (Log::new(cx), Duration::from_millis(1_500));
    let began = Arc::new(Mutex::new(Vec::new()));
    let (rows, times, watch) = (log.clone(), began.clone(), Stopwatch::start());
    let handler = move |work: Work, cx: Context| {
        let (log, times) = (rows.clone(), times.clone());
        async move {
            times
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(watch.elapsed());
            let mut unit = cx.begin::<SlowStore<F::Store>>().await?;
            F::write_row(&mut unit.inner, &log.row(), &serde_json::to_string(&work)?).await?;
            match (cx.attempt().round, cx.attempt().inline) {
                (1, 1) => return Err(HandlerError::retry("the unit of work is dropped")),
                (1, 2) => std::panic::resume_unwind(Box::new("a panic")),
                (1, _) => std::future::pending().await,
                _ => {}
            }
            unit.commit().await?;
            Ok(())
        }
    };
    let consumer = cx
        .consumer(FORM)
        .on(handler)
        // Shorter than the rollback, and long enough for a transaction to begin on a machine that is busy.
        .timeout(Duration::from_millis(500))
        .retry(quick().inline(2));
    let pace = Pace {
        rollback: slow,
        ..Pace::default()
    };
    let process = cx
        .process("one", FORM)
        .with(consumer)
        .changed(slowed::<F>(pace))
        .start()
        .await?;
    process.send(&[cx.work(1, "")]).await?;
    log.each_once(cx, 1).await?;
    let began = began.lock().unwrap_or_else(PoisonError::into_inner).clone();
    ensure_eq!(began.len(), 4, "attempts");
    for pair in began.windows(2) {
        let between = pair[1] - pair[0];
        ensure!(
            between >= slow,
            "an attempt began {between:?} after the one before, whose rollback takes {slow:?}"
        );
    }
    process.settled(cx, &group_of(FORM)).await?;
    process.stop(cx).await
}

async fn should_mark_afterwards_when_a_handler_begins_no_unit_of_work<F: Both>(cx: &Cx<F>) -> CaseResult {
    let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(FORM));
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    // The effect of another form: none in the store.
    let handler = log.handler_after::<F, _, _>(Inbox::Around, move |_, _| {
        let gate = gate.clone();
        async move {
            while !gate.load(Ordering::Acquire) {
                elapse(Duration::from_millis(20)).await;
            }
            Ok(())
        }
    });
    let process = cx
        .process("one", FORM)
        .with(cx.consumer(FORM).on(handler))
        .start()
        .await?;
    let message = cx.work(1, "");
    process.send(std::slice::from_ref(&message)).await?;
    log.wait_for_calls(cx, 1).await?;
    // A transport that cannot tell first deliveries has each of them admitted.
    if process.driver().info().capabilities.delivery_count {
        let early = books.entry(&group, message.id).await?;
        ensure!(
            early.is_none(),
            "a first delivery was written down before its handler ended: {early:?}"
        );
    }
    open.store(true, Ordering::Release);
    books
        .becomes(cx, &group, message.id, InboxState::Processed)
        .await?;
    process.send(std::slice::from_ref(&message)).await?;
    eventually(cx.patience(), "the second delivery", async || {
        Ok((process.stats().received == 2).then_some(()))
    })
    .await?;
    process.settled(cx, &group).await?;
    ensure_eq!(process.stats().handled, 1, "handled");
    stop_all(cx, [process]).await
}
