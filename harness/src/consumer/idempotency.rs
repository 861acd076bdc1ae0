//! One effect for one id, and for one business operation.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use headless_abstractions::InboxState;
use headless_core::HandlerError;
use headless_messaging::Inbox;

use super::{
    Both, STORED,
    event::standing_for,
    in_each,
    log::Log,
    process::{LONG, group_of, quick, stop_all},
};
use crate::{
    case::{Case, CaseResult, case, ensure_eq},
    cx::Cx,
    mutation::Mutation::{
        ForgetIdempotencyKey, MarkForgotten, OperationOutlivesEnd, ParkFreesOperation, SkipDedupe,
    },
    wait::{elapse, eventually},
};

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_have_one_effect_when_an_id_comes_often,
            "a storm of one id, at several members at once, has one effect"
        )
        .catching(&[SkipDedupe, MarkForgotten]),
        case!(
            should_take_it_for_a_duplicate_when_its_operation_was_processed,
            "a message whose idempotency key another has processed is settled without an effect"
        )
        .catching(&[ForgetIdempotencyKey]),
        case!(
            should_wait_and_not_run_when_its_operation_is_parked_and_succeeds,
            "while another message of its operation is parked a message waits, and is its duplicate in the end"
        )
        .catching(&[ParkFreesOperation, ForgetIdempotencyKey]),
        case!(
            should_have_one_effect_when_an_operation_comes_twice_at_once,
            "two messages of one operation that are in work at once have one effect"
        )
        .catching(&[ForgetIdempotencyKey]),
        case!(
            should_run_when_its_operation_has_died,
            "an operation whose first message died is done by the next one"
        )
        .catching(&[OperationOutlivesEnd]),
    ]
}

async fn should_have_one_effect_when_an_id_comes_often<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let log = Log::new(cx);
        let mut processes = Vec::new();
        for label in ["one", "two"] {
            let handler = log.handler_after::<F, _, _>(form, |_, _| async {
                elapse(Duration::from_millis(30)).await;
                Ok(())
            });
            processes.push(
                cx.process(label, form)
                    .with(cx.consumer(form).visibility(LONG).on(handler))
                    .start()
                    .await?,
            );
        }
        let message = cx.work(1, "");
        for _ in 0..5 {
            processes[0].send(&vec![message.clone(); 10]).await?;
        }
        log.each_once(cx, 1).await?;
        processes[0].settled(cx, &group_of(form)).await?;
        if form == Inbox::Around {
            ensure_eq!(log.calls().len(), 1, "calls");
        }
        let duplicates: u64 = processes.iter().map(|process| process.stats().duplicates).sum();
        ensure_eq!(duplicates, 49, "duplicates");
        ensure_eq!(
            processes
                .iter()
                .map(|process| process.stats().failed)
                .sum::<u64>(),
            0,
            "failed attempts"
        );
        stop_all(cx, processes).await
    })
    .await
}

async fn should_take_it_for_a_duplicate_when_its_operation_was_processed<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let log = Log::new(cx);
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        process.send(&[standing_for(cx.work(1, ""), "payment-1")]).await?;
        log.wait_for(cx, 1).await?;
        process.settled(cx, &group_of(form)).await?;
        process
            .send(&[
                standing_for(cx.work(1, ""), "payment-1"),
                standing_for(cx.work(2, ""), "payment-2"),
            ])
            .await?;
        log.each_once(cx, 2).await?;
        process.settled(cx, &group_of(form)).await?;
        ensure_eq!(process.stats().duplicates, 1, "duplicates");
        process.stop(cx).await
    })
    .await
}

async fn should_wait_and_not_run_when_its_operation_is_parked_and_succeeds<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let open = Arc::new(AtomicBool::new(false));
        let gate = open.clone();
        let handler = log.handler_after::<F, _, _>(form, move |_, _| {
            let open = gate.load(Ordering::Acquire);
            async move {
                if !open {
                    return Err(HandlerError::retry_after(Duration::from_millis(200), "not yet"));
                }
                Ok(())
            }
        });
        let consumer = cx.consumer(form).on(handler).retry(quick().rounds(1_000));
        let process = cx.process("one", form).with(consumer).start().await?;
        let first = standing_for(cx.work(1, ""), "payment");
        let second = standing_for(cx.work(2, ""), "payment");
        process.send(std::slice::from_ref(&first)).await?;
        books.becomes(cx, &group, first.id, InboxState::Parked).await?;
        process.send(std::slice::from_ref(&second)).await?;
        books.becomes(cx, &group, second.id, InboxState::Parked).await?;
        open.store(true, Ordering::Release);
        books.becomes(cx, &group, first.id, InboxState::Processed).await?;
        books
            .becomes(cx, &group, second.id, InboxState::Processed)
            .await?;
        log.each_once(cx, 1).await?;
        process.settled(cx, &group).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_have_one_effect_when_an_operation_comes_twice_at_once<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let handler = log.handler_after::<F, _, _>(form, |_, _| async {
            elapse(Duration::from_millis(300)).await;
            Ok(())
        });
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(handler))
            .start()
            .await?;
        let messages = [1, 2, 3].map(|n| standing_for(cx.work(n, ""), "payment"));
        process.send(&messages).await?;
        log.wait_for(cx, 1).await?;
        process.settled(cx, &group).await?;
        eventually(cx.patience(), "nothing waits", async || {
            let stats = books.stats(&group).await?;
            Ok((stats.parked + stats.running == 0).then_some(()))
        })
        .await?;
        ensure_eq!(log.done(cx).await?.len(), 1, "effects");
        process.stop(cx).await
    })
    .await
}

async fn should_run_when_its_operation_has_died<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let handler = log.handler_after::<F, _, _>(form, |work, _| async move {
            if work.n == 99 {
                return Err(HandlerError::permanent("never"));
            }
            Ok(())
        });
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(handler))
            .start()
            .await?;
        let first = standing_for(cx.work(99, ""), "payment");
        process.send(std::slice::from_ref(&first)).await?;
        books.becomes(cx, &group, first.id, InboxState::Dead).await?;
        process.send(&[standing_for(cx.work(1, ""), "payment")]).await?;
        log.each_once(cx, 1).await?;
        process.settled(cx, &group).await?;
        process.stop(cx).await
    })
    .await
}
