//! A unit of work that did not come about.

use std::{sync::atomic::Ordering, time::Duration};

use headless_abstractions::{FailureCause, InboxState};
use headless_core::{HandlerError, Verdict};
use headless_messaging::{Context, Inbox, Plan};

use super::{
    Both,
    event::Work,
    flaky::{FlakyStore, Flaws},
    log::Log,
    process::{group_of, quick},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    mutation::Mutation::{MarkForgotten, MarkOutsideTransaction, RollbackCommits},
};

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_begin_again_in_the_same_call_when_a_begin_has_failed,
            "a `begin` that failed, or was given up, leaves the call its one unit of work"
        )
        .catching(&[RollbackCommits, MarkOutsideTransaction]),
        case!(
            should_have_failed_when_a_handler_returns_ok_after_a_failed_begin,
            "`Ok` after a `begin` that failed is a failed attempt that says so: the message is not marked"
        )
        .catching(&[MarkForgotten]),
    ]
}

const FORM: Inbox = Inbox::Transactional;

/// A plan whose state has the store with these flaws, too.
fn flawed<F: Both>(flaws: Flaws) -> impl FnOnce(&mut Plan) {
    move |plan| {
        if let Some(store) = plan.state.get::<F::Store>() {
            let inner = (*store).clone();
            plan.state = plan.state.clone().with(FlakyStore { inner, flaws });
        }
    }
}

async fn should_begin_again_in_the_same_call_when_a_begin_has_failed<F: Both>(cx: &Cx<F>) -> CaseResult {
    let (log, flaws, books) = (Log::new(cx), Flaws::default(), cx.books().await?);
    let rows = log.clone();
    let handler = move |work: Work, cx: Context| {
        let log = rows.clone();
        async move {
            let patience = Duration::from_millis(100);
            let mut unit = loop {
                let begun = tokio::time::timeout(patience, cx.begin::<FlakyStore<F::Store>>()).await;
                match begun {
                    Ok(Ok(unit)) => break unit,
                    Ok(Err(error)) if error.verdict() == Verdict::Permanent => return Err(error),
                    _failed_in_passing => {}
                }
            };
            F::write_row(&mut unit.inner, &log.row(), &serde_json::to_string(&work)?).await?;
            unit.commit().await?;
            Ok(())
        }
    };
    let process = cx
        .process("one", FORM)
        .with(cx.consumer(FORM).on(handler))
        .changed(flawed::<F>(flaws.clone()))
        .start()
        .await?;
    let messages = cx.works(3, &[""]);
    for (message, flaw) in messages
        .iter()
        .zip([&flaws.begins, &flaws.marks, &flaws.silent_marks])
    {
        flaw.store(2, Ordering::Release);
        process.send(std::slice::from_ref(message)).await?;
        let entry = books
            .becomes(cx, &group_of(FORM), message.id, InboxState::Processed)
            .await?;
        ensure!(entry.rounds <= 1, "{} rounds for one call", entry.rounds);
        ensure_eq!(flaw.load(Ordering::Acquire), 0, "flaws that were not met");
    }
    log.each_once(cx, 3).await?;
    let stats = process.stats();
    ensure_eq!(
        (stats.handled, stats.failed, stats.duplicates),
        (3, 0, 0),
        "handled, failed, duplicates"
    );
    process.settled(cx, &group_of(FORM)).await?;
    process.stop(cx).await
}

async fn should_have_failed_when_a_handler_returns_ok_after_a_failed_begin<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    let (log, flaws, books) = (Log::new(cx), Flaws::default(), cx.books().await?);
    let rows = log.clone();
    let handler = move |work: Work, cx: Context| {
        let log = rows.clone();
        async move {
            // The mistake: what `begin` answers is not passed on.
            if let Ok(mut unit) = cx.begin::<FlakyStore<F::Store>>().await {
                F::write_row(&mut unit.inner, &log.row(), &serde_json::to_string(&work)?).await?;
                unit.commit().await?;
            }
            if cx.attempt().round == 3 {
                return Err(HandlerError::permanent("enough"));
            }
            Ok(())
        }
    };
    let process = cx
        .process("one", FORM)
        .with(cx.consumer(FORM).on(handler).retry(quick()))
        .changed(flawed::<F>(flaws.clone()))
        .start()
        .await?;
    flaws.begins.store(1, Ordering::Release);
    process.send(&cx.works(1, &[""])).await?;
    log.each_once(cx, 1).await?;
    let stats = process.stats();
    ensure_eq!((stats.handled, stats.failed), (1, 1), "handled, failed");

    flaws.marks.store(3, Ordering::Release);
    process.send(&[cx.work(2, "")]).await?;
    let letters = books.wait_for_letters(cx, 1).await?;
    let failures = &letters[0].failures;
    let causes: Vec<_> = failures.iter().map(|failure| failure.cause).collect();
    ensure_eq!(
        causes,
        [
            FailureCause::Uncommitted,
            FailureCause::Uncommitted,
            FailureCause::Permanent
        ],
        "causes"
    );
    ensure!(
        failures[0].message.contains("begin"),
        "the failure does not say what to do: {}",
        failures[0].message
    );
    log.each_once(cx, 1).await?;
    process.stop(cx).await
}
