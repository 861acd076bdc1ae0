//! Draining, and starting again.

use std::{sync::atomic::Ordering, time::Duration};

use headless_messaging::Inbox;

use super::{
    Both, FORMS, STORED, in_each,
    log::Log,
    odd::Faults,
    process::{LONG, group_of},
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq},
    cx::Cx,
    mutation::Mutation::{
        AckOnReceive, ClaimIgnoresLease, CloseKeepsDeliveries, CloseLingers, DeclareEmptiesGroups,
        DropDelivery, ForgetRenewal, LoseAck, MarkForgotten, PulseIdle, ReleaseKeepsHold,
    },
    wait::{Stopwatch, elapse, eventually},
};

const A_MOMENT: Duration = Duration::from_millis(20);

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_wait_for_handlers_when_stopped_and_leave_the_rest_to_others,
            "a stop lets what runs come to its end, starts nothing more, and gives back at once what is left"
        )
        .catching(&[CloseKeepsDeliveries]),
        case!(
            should_end_handlers_when_the_deadline_of_a_stop_passes,
            "a handler past the deadline is ended without an effect, and its message is handled elsewhere, soon"
        )
        .catching(&[CloseKeepsDeliveries, AckOnReceive]),
        case!(
            should_give_back_holds_when_the_deadline_of_a_stop_passes,
            "what was held in the store is free again when a stop has returned"
        )
        .catching(&[ReleaseKeepsHold]),
        case!(
            should_stay_in_its_partitions_when_a_stop_takes_longer_than_the_visibility,
            "while a long handler is awaited, no other member is given its message"
        )
        .described(Flag::ordering)
        .catching(&[ForgetRenewal]),
        case!(
            should_handle_what_came_meanwhile_when_started_again,
            "what is published between a stop and the next start is handled then"
        )
        .catching(&[DeclareEmptiesGroups, DropDelivery]),
        case!(
            should_stop_soon_when_idle,
            "an idle process stops without waiting for anything"
        )
        .catching(&[CloseLingers]),
        case!(
            should_neither_lose_nor_double_when_stopped_under_load,
            "a process that leaves under load leaves nothing undone and nothing done twice"
        )
        .catching(&[LoseAck]),
        case!(
            should_settle_what_has_ended_when_another_handler_overruns_the_deadline,
            "a handler that has succeeded is settled, whatever its neighbours do"
        )
        .catching(&[LoseAck]),
        case!(
            should_stop_in_time_when_the_broker_settles_nothing,
            "a broker that does not answer keeps no process from stopping"
        )
        .catching(&[CloseKeepsDeliveries, MarkForgotten]),
        case!(
            should_end_its_tasks_when_dropped_without_a_stop,
            "a process that is dropped gives back its deliveries as a crash would"
        )
        .catching(&[ClaimIgnoresLease, PulseIdle]),
    ]
}

async fn should_wait_for_handlers_when_stopped_and_leave_the_rest_to_others<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let handler = log.handler_after::<F, _, _>(form, |_, _| async {
            elapse(Duration::from_millis(500)).await;
            Ok(())
        });
        let consumer = cx
            .consumer(form)
            .on(handler)
            .concurrency(3)
            .visibility(Duration::from_mins(5));
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(10, &[""])).await?;
        log.wait_for_calls(cx, 3).await?;
        process.stop(cx).await?;
        ensure_eq!(
            (log.calls().len(), log.done(cx).await?.len()),
            (3, 3),
            "calls and effects after the stop"
        );
        let next = cx
            .process("two", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        log.each_once(cx, 10).await?;
        next.settled(cx, &group_of(form)).await?;
        next.stop(cx).await
    })
    .await
}

async fn should_end_handlers_when_the_deadline_of_a_stop_passes<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let hangs = log.handler_after::<F, _, _>(form, |_, _| std::future::pending());
        let long = Duration::from_mins(5);
        let consumer = cx
            .consumer(form)
            .on(hangs)
            .timeout(long)
            .visibility(long)
            .lease(long);
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(3, &[""])).await?;
        log.wait_for_calls(cx, 3).await?;
        let watch = Stopwatch::start();
        process.stop_within(Duration::from_millis(300)).await?;
        let took = watch.elapsed();
        ensure!(took < Duration::from_secs(3), "the stop took {took:?}");
        ensure_eq!(
            log.done(cx).await?,
            Vec::<u32>::new(),
            "effects of handlers that were ended"
        );
        let next = cx
            .process("two", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        log.each_once(cx, 3).await?;
        next.settled(cx, &group_of(form)).await?;
        next.stop(cx).await
    })
    .await
}

async fn should_give_back_holds_when_the_deadline_of_a_stop_passes<F: Both>(cx: &Cx<F>) -> CaseResult {
    let (form, log, books) = (Inbox::Around, Log::new(cx), cx.books().await?);
    let hangs = log.handler_after::<F, _, _>(form, |_, _| std::future::pending());
    let long = Duration::from_mins(5);
    let consumer = cx
        .consumer(form)
        .on(hangs)
        .timeout(long)
        .visibility(long)
        .lease(long);
    let process = cx.process("one", form).with(consumer).start().await?;
    let message = cx.work(1, "");
    process.send(std::slice::from_ref(&message)).await?;
    log.wait_for_calls(cx, 1).await?;
    let held = books
        .entry(&group_of(form), message.id)
        .await?
        .and_then(|entry| entry.owner);
    ensure_eq!(
        held,
        Some(process.environment.owner),
        "the holder while the handler runs"
    );
    process.stop_within(Duration::from_millis(100)).await?;
    let held = books
        .entry(&group_of(form), message.id)
        .await?
        .and_then(|entry| entry.owner);
    ensure_eq!(held, None, "the holder after the stop");
    let next = cx
        .process("two", form)
        .with(cx.consumer(form).on(log.handler::<F>(form)))
        .start()
        .await?;
    log.each_once(cx, 1).await?;
    let rounds: Vec<_> = log.calls().iter().map(|call| call.attempt.round).collect();
    ensure_eq!(rounds, [1, 2], "rounds: what a deadline ends was an attempt");
    next.stop(cx).await
}

async fn should_stay_in_its_partitions_when_a_stop_takes_longer_than_the_visibility<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, long) = (Log::new(cx), 3 * cx.lease());
        let consumer = || {
            let handler = log.handler_after::<F, _, _>(form, move |_, _| async move {
                elapse(long).await;
                Ok(())
            });
            cx.consumer(form).on(handler).timeout(2 * long).ordered_by_key()
        };
        let stops = cx
            .process("stops", form)
            .ordered(8)
            .with(consumer())
            .start()
            .await?;
        let stays = cx
            .process("stays", form)
            .ordered(8)
            .with(consumer())
            .start()
            .await?;
        // Partitions are where they stay.
        elapse(2 * cx.lease()).await;
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
        stops.send(&cx.works(12, &keys)).await?;
        log.wait_for_calls(cx, 12).await?;
        ensure!(
            stops.stats().received > 0,
            "the process that stops was given nothing"
        );
        stops.stop(cx).await?;
        log.each_once(cx, 12).await?;
        stays.settled(cx, &group_of(form)).await?;
        ensure_eq!(log.calls().len(), 12, "calls");
        stays.stop(cx).await
    })
    .await
}

async fn should_handle_what_came_meanwhile_when_started_again<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let sender = cx.process("sender", form).start().await?;
        let messages = cx.works(30, &[""]);
        for (round, batch) in messages.chunks(10).enumerate() {
            let process = cx
                .process("one", form)
                .with(cx.consumer(form).on(log.handler::<F>(form)))
                .start()
                .await?;
            sender.send(&batch[..5]).await?;
            log.wait_for(cx, 10 * round + 5).await?;
            process.settled(cx, &group_of(form)).await?;
            process.stop(cx).await?;
            sender.send(&batch[5..]).await?;
            let again = cx
                .process("one", form)
                .with(cx.consumer(form).on(log.handler::<F>(form)))
                .start()
                .await?;
            log.wait_for(cx, 10 * (round + 1)).await?;
            again.settled(cx, &group_of(form)).await?;
            again.stop(cx).await?;
        }
        log.each_once(cx, 30).await?;
        sender.stop(cx).await
    })
    .await
}

async fn should_stop_soon_when_idle<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        process.send(&cx.works(3, &[""])).await?;
        log.each_once(cx, 3).await?;
        process.settled(cx, &group_of(form)).await?;
        let watch = Stopwatch::start();
        process.stop(cx).await?;
        let took = watch.elapsed();
        ensure!(
            took < Duration::from_secs(1),
            "an idle process took {took:?} to stop"
        );
        Ok(())
    })
    .await
}

async fn should_neither_lose_nor_double_when_stopped_under_load<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let consumer = || {
            let handler = log.handler_after::<F, _, _>(form, |_, _| async {
                elapse(A_MOMENT).await;
                Ok(())
            });
            cx.consumer(form).on(handler).concurrency(4)
        };
        let sender = cx.process("sender", form).start().await?;
        let stays = cx.process("stays", form).with(consumer()).start().await?;
        let messages = cx.works(300, &[""]);
        for batch in messages.chunks(100) {
            let leaves = cx.process("leaves", form).with(consumer()).start().await?;
            sender.send(batch).await?;
            let so_far = log.done(cx).await?.len();
            log.wait_for(cx, so_far + 30).await?;
            leaves.stop(cx).await?;
        }
        log.each_once(cx, 300).await?;
        ensure_eq!(log.calls().len(), 300, "calls");
        stays.settled(cx, &group_of(form)).await?;
        stays.stop(cx).await?;
        sender.stop(cx).await
    })
    .await
}

async fn should_settle_what_has_ended_when_another_handler_overruns_the_deadline<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let handler = log.handler_after::<F, _, _>(form, |work, _| async move {
            if work.n == 1 {
                return std::future::pending().await;
            }
            // They end after the stop has begun, before its deadline.
            elapse(Duration::from_millis(300)).await;
            Ok(())
        });
        let consumer = cx.consumer(form).on(handler).timeout(Duration::from_mins(5));
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(6, &[""])).await?;
        log.wait_for_calls(cx, 6).await?;
        process.stop_within(Duration::from_secs(1)).await?;
        ensure_eq!(
            log.done(cx).await?.len(),
            5,
            "effects of handlers that ended in time"
        );
        let next = cx
            .process("two", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        log.each_once(cx, 6).await?;
        next.settled(cx, &group_of(form)).await?;
        ensure_eq!(next.stats().received, 1, "deliveries after the stop");
        next.stop(cx).await
    })
    .await
}

async fn should_stop_in_time_when_the_broker_settles_nothing<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, faults) = (Log::new(cx), Faults::default());
        faults.settles.store(u32::MAX, Ordering::Release);
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)).visibility(LONG))
            .with_faults(faults)
            .start()
            .await?;
        process.send(&cx.works(3, &[""])).await?;
        log.each_once(cx, 3).await?;
        let watch = Stopwatch::start();
        process.stop_within(Duration::from_millis(500)).await?;
        let took = watch.elapsed();
        ensure!(took < Duration::from_secs(3), "the stop took {took:?}");
        // What could not be settled comes back, and is recognised where there is a record.
        let next = cx
            .process("two", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        next.settled(cx, &group_of(form)).await?;
        if form != Inbox::Off {
            log.each_once(cx, 3).await?;
        }
        next.stop(cx).await
    })
    .await
}

async fn should_end_its_tasks_when_dropped_without_a_stop<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let log = Log::new(cx);
        let hangs = log.handler_after::<F, _, _>(form, |_, cx| async move {
            if cx.attempt().round == 1 {
                return Err(headless_core::HandlerError::retry_after(
                    Duration::ZERO,
                    "not yet",
                ));
            }
            std::future::pending().await
        });
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(hangs))
            .start()
            .await?;
        process.send(&cx.works(3, &[""])).await?;
        // Each was called, parked, and called again.
        log.wait_for_calls(cx, 6).await?;
        drop(process);
        let next = cx
            .process("two", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        eventually(cx.patience(), "the effects", async || {
            Ok((log.done(cx).await?.len() == 3).then_some(()))
        })
        .await?;
        log.each_once(cx, 3).await?;
        next.settled(cx, &group_of(form)).await?;
        next.stop(cx).await
    })
    .await
}
