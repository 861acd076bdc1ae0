//! Transports that fail for a while.

use std::sync::atomic::Ordering;

use headless_messaging::Inbox;

use super::{
    Both, FORMS, in_each,
    log::Log,
    odd::Faults,
    process::{LONG, group_of},
};
use crate::{
    case::{Case, CaseResult, case, ensure_eq},
    cx::Cx,
    mutation::Mutation::{CloseKeepsDeliveries, DropDelivery, DuplicateDelivery, LoseAck, MarkForgotten},
    wait::eventually,
};

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_go_on_when_receiving_fails_for_a_while,
            "a failed receive is repeated, and nothing is missed or doubled"
        )
        .catching(&[DropDelivery, DuplicateDelivery]),
        case!(
            should_subscribe_again_when_a_subscription_breaks,
            "a subscription that is gone is followed by another, and no message is lost"
        )
        .catching(&[CloseKeepsDeliveries, MarkForgotten]),
        case!(
            should_settle_in_the_end_when_settling_fails_for_a_while,
            "what was handled is settled once the broker answers, without being delivered again"
        )
        .catching(&[LoseAck]),
    ]
}

async fn should_go_on_when_receiving_fails_for_a_while<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, faults) = (Log::new(cx), Faults::default());
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)).visibility(LONG))
            .with_faults(faults.clone())
            .start()
            .await?;
        for round in 0..3 {
            faults.receives.store(3, Ordering::Release);
            let messages: Vec<_> = (1..=10).map(|n| cx.work(10 * round + n, "")).collect();
            process.send(&messages).await?;
            log.wait_for(cx, 10 * (round as usize + 1)).await?;
        }
        log.each_once(cx, 30).await?;
        eventually(cx.patience(), "every failure was met", async || {
            Ok((faults.receives.load(Ordering::Acquire) == 0).then_some(()))
        })
        .await?;
        process.settled(cx, &group_of(form)).await?;
        process.stop(cx).await
    })
    .await
}

/// Waits until the works `1..=count` have had their effect, each at least once.
async fn done<F: Both>(cx: &Cx<F>, log: &Log, count: u32) -> CaseResult {
    eventually(
        cx.patience(),
        &format!("the effects of {count} works"),
        async || {
            let done = log.done(cx).await?;
            Ok((1..=count).all(|n| done.contains(&n)).then_some(()))
        },
    )
    .await
}

async fn should_subscribe_again_when_a_subscription_breaks<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, faults) = (Log::new(cx), Faults::default());
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)).visibility(LONG))
            .with_faults(faults.clone())
            .start()
            .await?;
        for round in 0..3 {
            process.send(&[cx.work(10 * round + 1, "")]).await?;
            done(cx, &log, 10 * round + 1).await?;
            process.settled(cx, &group_of(form)).await?;
            // The next receive breaks: the one that is under way ends with this message.
            faults.broken_receives.store(1, Ordering::Release);
            let messages: Vec<_> = (2..=10).map(|n| cx.work(10 * round + n, "")).collect();
            process.send(&messages).await?;
            done(cx, &log, 10 * (round + 1)).await?;
        }
        if form == Inbox::Off {
            // At least once: what was handled and not settled before the break is handled again.
            done(cx, &log, 30).await?;
        } else {
            log.each_once(cx, 30).await?;
        }
        ensure_eq!(faults.broken_receives.load(Ordering::Acquire), 0, "breaks left");
        process.settled(cx, &group_of(form)).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_settle_in_the_end_when_settling_fails_for_a_while<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, faults) = (Log::new(cx), Faults::default());
        faults.settles.store(4, Ordering::Release);
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)).visibility(LONG))
            .with_faults(faults.clone())
            .start()
            .await?;
        process.send(&cx.works(10, &[""])).await?;
        log.each_once(cx, 10).await?;
        process.settled(cx, &group_of(form)).await?;
        ensure_eq!(
            faults.settles.load(Ordering::Acquire),
            0,
            "failing settlements left"
        );
        ensure_eq!(
            (process.stats().received, log.calls().len()),
            (10, 10),
            "deliveries and calls"
        );
        process.stop(cx).await
    })
    .await
}
