//! When members die and join.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use headless_abstractions::InboxState;
use headless_core::HandlerError;
use headless_messaging::{BatchContext, Inbox};

use super::{Both, FORMS, STORED, event::Work, in_each, log::Log, process::group_of};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq},
    cx::Cx,
    fixture::TransportFixture,
    mutation::Mutation::{AckOnReceive, DropDelivery, ForgetKeyOrder, ForgetRounds, ReorderDeliveries},
    wait::{elapse, eventually},
};

const A_MOMENT: Duration = Duration::from_millis(20);
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_keep_key_order_when_a_member_dies_with_a_full_prefetch,
            "what a dead member held is handled by another, before what follows of its keys"
        )
        .described(Flag::ordering)
        .catching(&[ReorderDeliveries, AckOnReceive]),
        case!(
            should_keep_key_order_when_members_join_under_load,
            "partitions move to members that join without a message being lost, doubled or overtaken"
        )
        .described(Flag::ordering)
        .catching(&[ReorderDeliveries, DropDelivery]),
        case!(
            should_keep_key_order_when_a_batch_is_taken_over_and_its_head_fails,
            "what a dead member had begun of a key waits behind its head when that is parked by another"
        )
        .described(Flag::ordering)
        .catching(&[ForgetKeyOrder]),
        case!(
            should_handle_a_message_again_when_its_process_dies_in_the_handler,
            "a process that dies in a handler leaves no effect of it behind and loses no message"
        )
        .catching(&[AckOnReceive]),
        case!(
            should_bury_a_message_unrun_when_it_has_killed_a_process_at_each_round,
            "a message that never answers is dead-lettered at the limit, without being run again"
        )
        .catching(&[ForgetRounds]),
    ]
}

async fn should_keep_key_order_when_a_member_dies_with_a_full_prefetch<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let consumer = || {
            let handler = log.handler_after::<F, _, _>(form, |_, _| async {
                elapse(A_MOMENT).await;
                Ok(())
            });
            cx.consumer(form).on(handler).concurrency(3).ordered_by_key()
        };
        let dies = cx
            .process("dies", form)
            .ordered(4)
            .with(consumer())
            .start()
            .await?;
        dies.send(&cx.works(100, &KEYS)).await?;
        log.wait_for(cx, 20).await?;
        let stays = cx
            .process("stays", form)
            .ordered(4)
            .with(consumer())
            .start()
            .await?;
        dies.kill();
        if form == Inbox::Off {
            // At least once: what had its effect and was not settled is done again.
            eventually(cx.patience(), "every effect", async || {
                let done = log.done(cx).await?;
                Ok((1..=100).all(|n| done.contains(&n)).then_some(()))
            })
            .await?;
        } else if form == Inbox::Around {
            // As without a store, for the few whose mark was not made.
            eventually(cx.patience(), "every effect", async || {
                let done = log.done(cx).await?;
                Ok((1..=100).all(|n| done.contains(&n)).then_some(()))
            })
            .await?;
        } else {
            log.each_once(cx, 100).await?;
        }
        log.in_key_order(cx).await?;
        stays.settled(cx, &group_of(form)).await?;
        stays.stop(cx).await
    })
    .await
}

async fn should_keep_key_order_when_members_join_under_load<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let log = Log::new(cx);
        let consumer = || {
            let handler = log.handler_after::<F, _, _>(form, |_, _| async {
                elapse(A_MOMENT).await;
                Ok(())
            });
            cx.consumer(form).on(handler).concurrency(3).ordered_by_key()
        };
        let mut processes = vec![
            cx.process("one", form)
                .ordered(8)
                .with(consumer())
                .start()
                .await?,
        ];
        let messages = cx.works(240, &KEYS);
        for (label, batch) in ["two", "three"].into_iter().zip(messages.chunks(120)) {
            processes[0].send(batch).await?;
            let so_far = log.done(cx).await?.len();
            log.wait_for(cx, so_far + 20).await?;
            processes.push(
                cx.process(label, form)
                    .ordered(8)
                    .with(consumer())
                    .start()
                    .await?,
            );
        }
        log.each_once(cx, 240).await?;
        log.in_key_order(cx).await?;
        processes[0].settled(cx, &group_of(form)).await?;
        super::process::stop_all(cx, processes).await
    })
    .await
}

async fn should_keep_key_order_when_a_batch_is_taken_over_and_its_head_fails<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&STORED, async |form| {
        let log = Log::new(cx);
        let began = Arc::new(AtomicU32::new(0));
        let count = began.clone();
        let hangs = move |works: Vec<Work>, cx: BatchContext| {
            let (count, begins) = (count.clone(), form == Inbox::Transactional);
            async move {
                let _unit = if begins {
                    Some(cx.begin::<F::Store>().await?)
                } else {
                    None
                };
                count.fetch_add(u32::try_from(works.len()).unwrap_or(u32::MAX), Ordering::AcqRel);
                std::future::pending().await
            }
        };
        let consumer = cx.consumer(form).batch(5, A_MOMENT, hangs).ordered_by_key();
        let dies = cx.process("dies", form).ordered(1).with(consumer).start().await?;
        dies.send(&cx.works(5, &["a"])).await?;
        eventually(cx.patience(), "a batch of five", async || {
            Ok((began.load(Ordering::Acquire) == 5).then_some(()))
        })
        .await?;
        dies.kill();
        let handler = log.handler_after::<F, _, _>(form, move |work, cx| {
            let first = work.n == 1 && cx.failures().is_empty();
            async move {
                if first {
                    return Err(HandlerError::retry_after(Duration::from_millis(500), "not yet"));
                }
                Ok(())
            }
        });
        let consumer = cx.consumer(form).on(handler).ordered_by_key();
        let stays = cx
            .process("stays", form)
            .ordered(1)
            .with(consumer)
            .start()
            .await?;
        log.each_once(cx, 5).await?;
        log.in_key_order(cx).await?;
        stays.settled(cx, &group_of(form)).await?;
        stays.stop(cx).await
    })
    .await
}

async fn should_handle_a_message_again_when_its_process_dies_in_the_handler<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let hangs = log.handler_after::<F, _, _>(form, |_, _| std::future::pending());
        let dies = cx
            .process("dies", form)
            .with(cx.consumer(form).on(hangs))
            .start()
            .await?;
        dies.send(&cx.works(5, &[""])).await?;
        log.wait_for_calls(cx, 5).await?;
        dies.kill();
        let stays = cx
            .process("stays", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        log.each_once(cx, 5).await?;
        stays.settled(cx, &group_of(form)).await?;
        stays.stop(cx).await
    })
    .await
}

async fn should_bury_a_message_unrun_when_it_has_killed_a_process_at_each_round<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let before = books.letters().await?.len();
        let poison = cx.work(1, "");
        let retry = super::process::quick().rounds(2);
        let look = TransportFixture::node(cx.fixture()).await?;
        let tells_first = look.driver.info().capabilities.delivery_count;
        // A first delivery is not counted where nothing is written before the handler.
        let deaths = if form == Inbox::Transactional && tells_first {
            3
        } else {
            2
        };
        for death in 1..=deaths {
            let hangs = log.handler_after::<F, _, _>(form, |_, _| std::future::pending());
            let dies = cx
                .process("dies", form)
                .with(cx.consumer(form).on(hangs).retry(retry))
                .start()
                .await?;
            if death == 1 {
                dies.send(std::slice::from_ref(&poison)).await?;
            }
            log.wait_for_calls(cx, death).await?;
            dies.kill();
        }
        let handler =
            log.handler_after::<F, _, _>(form, |_, _| async { Err(HandlerError::retry("it was run")) });
        let stays = cx
            .process("stays", form)
            .with(cx.consumer(form).on(handler).retry(retry))
            .start()
            .await?;
        let entry = books.becomes(cx, &group, poison.id, InboxState::Dead).await?;
        ensure_eq!(log.calls().len(), deaths, "calls");
        let letters = books.wait_for_letters(cx, before + 1).await?;
        let last = letters
            .last()
            .and_then(|letter| letter.failures.last())
            .map(|failure| failure.cause);
        ensure_eq!(
            last,
            Some(headless_abstractions::FailureCause::RoundsExhausted),
            "the cause"
        );
        ensure!(entry.rounds >= 2, "only {} rounds were counted", entry.rounds);
        stays.settled(cx, &group).await?;
        stays.stop(cx).await
    })
    .await
}
