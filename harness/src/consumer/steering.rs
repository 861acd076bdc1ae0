//! Pausing and resuming by hand.

use std::sync::atomic::Ordering;

use headless_messaging::PauseReason;

use super::{Both, FORMS, in_each, log::Log, odd::Faults, process::group_of};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    mutation::Mutation::{PauseDrops, PauseIgnored},
    wait::{elapse, eventually},
};

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_handle_nothing_when_paused_and_everything_once_when_resumed,
            "a pause stops intake at once and loses nothing"
        )
        .catching(&[PauseDrops, PauseIgnored]),
        case!(
            should_stay_paused_when_started_so,
            "a consumer that starts paused takes nothing before it is resumed"
        )
        .catching(&[PauseDrops, PauseIgnored]),
        case!(
            should_report_and_try_again_when_a_resume_fails,
            "a subscription that cannot be resumed is shown as paused, and goes on once it can"
        )
        .catching(&[PauseDrops]),
    ]
}

async fn should_handle_nothing_when_paused_and_everything_once_when_resumed<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        process.send(&cx.works(5, &[""])).await?;
        log.wait_for(cx, 5).await?;
        process.settled(cx, &group_of(form)).await?;
        for round in 1..=3 {
            process.consumer().pause();
            process.pausing(cx, PauseReason::Operator, true).await?;
            // The subscriber is told in its turn.
            elapse(cx.quiet() / 2).await;
            let received = process.stats().received;
            let more: Vec<_> = (1..=5).map(|n| cx.work(5 * round + n, "")).collect();
            process.send(&more).await?;
            log.no_more_calls(cx, cx.quiet()).await?;
            ensure_eq!(process.stats().received, received, "received while paused");
            process.consumer().resume();
            log.wait_for(cx, 5 * (round as usize + 1)).await?;
        }
        log.each_once(cx, 20).await?;
        process.settled(cx, &group_of(form)).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_stay_paused_when_started_so<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let consumer = cx.consumer(form).on(log.handler::<F>(form)).start_paused();
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(5, &[""])).await?;
        log.no_more_calls(cx, 2 * cx.quiet()).await?;
        ensure_eq!(
            (log.calls().len(), process.stats().received),
            (0, 0),
            "calls and deliveries while paused"
        );
        process.consumer().resume();
        log.each_once(cx, 5).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_report_and_try_again_when_a_resume_fails<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, faults) = (Log::new(cx), Faults::default());
        faults.resumes.store(2, Ordering::Release);
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)).start_paused())
            .with_faults(faults.clone())
            .start()
            .await?;
        process.send(&cx.works(5, &[""])).await?;
        elapse(cx.quiet()).await;
        process.consumer().resume();
        process.pausing(cx, PauseReason::Circuit, true).await?;
        ensure!(
            process.consumer().subscriptions()[0].circuit_open,
            "a failed resume is not shown"
        );
        log.each_once(cx, 5).await?;
        eventually(cx.patience(), "an open circuit closes", async || {
            Ok((!process.consumer().subscriptions()[0].circuit_open).then_some(()))
        })
        .await?;
        ensure_eq!(faults.resumes.load(Ordering::Acquire), 0, "failing resumes left");
        process.stop(cx).await
    })
    .await
}
