//! What waits in the park, and what waits behind it.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use headless_abstractions::{InboxState, ParkLimits};
use headless_core::HandlerError;
use headless_messaging::PauseReason;
use tokio::sync::{Notify, Semaphore};

use super::{
    Both, STORED,
    event::{Elsewhere, Other, Work},
    in_each,
    log::Log,
    odd::SlowPark,
    process::{Process, group_of, quick, stop_all},
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq},
    cx::Cx,
    mutation::Mutation::{
        AttemptAlwaysCounted, ClaimIgnoresLease, ForgetFailures, ForgetKeyOrder, KeyFreeParks,
        ParkForgetsKey, ParkUnbounded, RunCutShort,
    },
    wait::{elapse, eventually, within},
};

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_hold_back_a_key_when_its_head_is_parked,
            "later messages of a parked key wait behind it in order, and other keys go on"
        )
        .described(Flag::ordering)
        .catching(&[ForgetKeyOrder, ParkForgetsKey]),
        case!(
            should_hold_back_a_key_when_another_member_takes_over,
            "whether a key is parked is known to a member that did not park it"
        )
        .described(Flag::ordering)
        .catching(&[ForgetKeyOrder, ParkForgetsKey]),
        case!(
            should_handle_what_waited_in_one_go_when_the_head_is_done,
            "what waits behind a head that succeeds is claimed with it, not one by one"
        )
        .described(Flag::ordering)
        .catching(&[RunCutShort]),
        case!(
            should_spend_no_attempt_on_what_waits_when_the_head_fails_again,
            "a head that parks again costs what waits behind it no round"
        )
        .described(Flag::ordering)
        .catching(&[AttemptAlwaysCounted]),
        case!(
            should_run_a_message_when_its_key_has_become_free_meanwhile,
            "a message that was to wait behind another is run when that one has gone"
        )
        .described(Flag::ordering)
        .catching(&[KeyFreeParks]),
        case!(
            should_hold_the_delivery_and_no_other_key_when_a_key_may_not_park_more,
            "a key at its bound keeps its deliveries, pauses nobody, and goes on in order when there is room"
        )
        .described(Flag::ordering)
        .catching(&[ParkUnbounded]),
        case!(
            should_pause_and_recover_when_a_group_may_not_park_more,
            "at the group's bound its subscription pauses, and goes on when the park has drained"
        )
        .catching(&[ParkUnbounded]),
        case!(
            should_park_without_an_attempt_when_no_handler_takes_the_type,
            "a message of an unknown type waits for a process that knows it, and loses no attempt"
        )
        .catching(&[AttemptAlwaysCounted, ForgetFailures]),
        case!(
            should_leave_a_parked_message_alone_when_its_topic_is_not_read_here,
            "a member that does not read a topic gives its parked messages back, at a measured pace"
        )
        .catching(&[AttemptAlwaysCounted, ClaimIgnoresLease]),
    ]
}

/// How often a process has looked into the park.
fn pickups<F: Both>(process: &Process<F>) -> u64 {
    let statuses = process.environment.background.statuses();
    statuses
        .iter()
        .filter(|(name, _)| name.contains("retry pickup"))
        .map(|(_, status)| status.runs)
        .sum()
}

/// A gate that a case opens.
fn gate() -> (Arc<AtomicBool>, Arc<AtomicBool>) {
    let open = Arc::new(AtomicBool::new(false));
    (open.clone(), open)
}

async fn should_hold_back_a_key_when_its_head_is_parked<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, wait) = (Log::new(cx), Duration::from_millis(800));
        let handler = log.handler_after::<F, _, _>(form, move |work, cx| async move {
            if work.n == 1 && cx.attempt().round == 1 {
                return Err(HandlerError::retry_after(wait, "not yet"));
            }
            Ok(())
        });
        let process = cx
            .process("one", form)
            .ordered(1)
            .with(cx.consumer(form).on(handler).ordered_by_key())
            .start()
            .await?;
        process.send(&cx.works(20, &["a", "b"])).await?;
        log.wait_for(cx, 10).await?;
        let done = log.done(cx).await?;
        ensure!(done.iter().all(|n| n % 2 == 0), "key a was overtaken: {done:?}");
        log.each_once(cx, 20).await?;
        log.in_key_order(cx).await?;
        process.settled(cx, &group_of(form)).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_hold_back_a_key_when_another_member_takes_over<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let wait = 3 * cx.lease();
        let consumer = || {
            let handler = log.handler_after::<F, _, _>(form, move |work, cx| async move {
                if work.n == 1 && cx.attempt().round == 1 {
                    return Err(HandlerError::retry_after(wait, "not yet"));
                }
                Ok(())
            });
            cx.consumer(form).on(handler).ordered_by_key()
        };
        let dies = cx
            .process("dies", form)
            .ordered(2)
            .with(consumer())
            .start()
            .await?;
        let messages = cx.works(12, &["a"]);
        dies.send(&messages[..6]).await?;
        books
            .becomes(cx, &group, messages[5].id, InboxState::Parked)
            .await?;
        dies.kill();
        let stays = cx
            .process("stays", form)
            .ordered(2)
            .with(consumer())
            .start()
            .await?;
        stays.send(&messages[6..]).await?;
        books
            .becomes(cx, &group, messages[11].id, InboxState::Parked)
            .await?;
        ensure_eq!(
            log.done(cx).await?,
            Vec::<u32>::new(),
            "effects before the head is due"
        );
        log.each_once(cx, 12).await?;
        log.in_key_order(cx).await?;
        stays.settled(cx, &group).await?;
        stays.stop(cx).await
    })
    .await
}

async fn should_handle_what_waited_in_one_go_when_the_head_is_done<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let wait = Duration::from_millis(500);
        let handler = log.handler_after::<F, _, _>(form, move |work, cx| async move {
            if work.n == 1 && cx.attempt().round == 1 {
                return Err(HandlerError::retry_after(wait, "not yet"));
            }
            Ok(())
        });
        let consumer = cx.consumer(form).on(handler).ordered_by_key().concurrency(32);
        let process = cx.process("one", form).ordered(1).with(consumer).start().await?;
        let messages = cx.works(30, &["a"]);
        process.send(&messages).await?;
        books
            .becomes(cx, &group, messages[29].id, InboxState::Parked)
            .await?;
        log.each_once(cx, 30).await?;
        log.in_key_order(cx).await?;
        let looks = pickups(&process);
        ensure!(looks < 20, "{looks} claims for 30 messages of one key");
        process.stop(cx).await
    })
    .await
}

async fn should_spend_no_attempt_on_what_waits_when_the_head_fails_again<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, wait) = (Log::new(cx), Duration::from_millis(100));
        let handler = log.handler_after::<F, _, _>(form, move |work, cx| async move {
            if work.n == 1 && cx.attempt().round < 5 {
                return Err(HandlerError::retry_after(wait, "not yet"));
            }
            Ok(())
        });
        let consumer = cx
            .consumer(form)
            .on(handler)
            .ordered_by_key()
            .retry(quick().rounds(6));
        let process = cx.process("one", form).ordered(1).with(consumer).start().await?;
        process.send(&cx.works(5, &["a"])).await?;
        log.each_once(cx, 5).await?;
        log.in_key_order(cx).await?;
        for n in 2..=5 {
            // A first delivery may have called the handler before the mark was found to be behind.
            let last = log.calls_of(n).pop();
            ensure_eq!(
                last.map(|call| call.attempt.round),
                Some(1),
                "the round of message {n}"
            );
        }
        process.stop(cx).await
    })
    .await
}

async fn should_run_a_message_when_its_key_has_become_free_meanwhile<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let wait = Duration::from_millis(300);
        let handler = log.handler_after::<F, _, _>(form, move |work, cx| async move {
            if work.n == 1 && cx.attempt().round == 1 {
                return Err(HandlerError::retry_after(wait, "not yet"));
            }
            Ok(())
        });
        let (asked, leave) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let (asked_too, leave_too) = (asked.clone(), leave.clone());
        let process = cx
            .process("one", form)
            .ordered(1)
            .with(cx.consumer(form).on(handler).ordered_by_key())
            .changed(move |plan| {
                if let Some(inbox) = plan.store.as_mut().and_then(|store| store.inbox.as_mut()) {
                    inbox.parked = Arc::new(SlowPark {
                        inner: inbox.parked.clone(),
                        asked: asked_too,
                        leave: leave_too,
                    });
                }
            })
            .start()
            .await?;
        let messages = cx.works(2, &["a"]);
        process.send(&messages).await?;
        within(
            cx.patience(),
            "the second message wants to wait",
            asked.notified(),
        )
        .await?;
        books
            .becomes(cx, &group, messages[0].id, InboxState::Processed)
            .await?;
        leave.add_permits(1);
        log.each_once(cx, 2).await?;
        log.in_key_order(cx).await?;
        ensure_eq!(process.stats().parked, 1, "messages parked");
        process.stop(cx).await
    })
    .await
}

async fn should_hold_the_delivery_and_no_other_key_when_a_key_may_not_park_more<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();
    const MANY: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let (open, shared) = gate();
        let handler = log.handler_after::<F, _, _>(form, move |work, _| {
            let open = shared.load(Ordering::Acquire);
            async move {
                if work.n == 1 && !open {
                    return Err(HandlerError::retry_after(Duration::from_millis(300), "not yet"));
                }
                Ok(())
            }
        });
        let consumer = cx
            .consumer(form)
            .on(handler)
            .ordered_by_key()
            .retry(quick().rounds(1_000))
            .park_limits(ParkLimits::new(TWO, MANY));
        let process = cx.process("one", form).ordered(1).with(consumer).start().await?;
        process.send(&cx.works(6, &["a"])).await?;
        eventually(cx.patience(), "two parked", async || {
            let stats = books.stats(&group).await?;
            Ok((stats.parked + stats.running >= 2).then_some(()))
        })
        .await?;
        // Another key of the same partition, before and after the bound was hit.
        for round in 0..3 {
            let others: Vec<_> = (0..5).map(|n| cx.work(100 + 5 * round + n, "b")).collect();
            process.send(&others).await?;
            log.wait_for(cx, 5 * (round as usize + 1)).await?;
            elapse(Duration::from_millis(600)).await;
        }
        let stats = books.stats(&group).await?;
        ensure!(stats.parked + stats.running <= 2, "{stats:?} with a bound of 2");
        let paused = process.consumer().subscriptions()[0].paused.clone();
        ensure!(paused.is_empty(), "one key's bound has paused all: {paused:?}");
        open.store(true, Ordering::Release);
        log.wait_for(cx, 15 + 6).await?;
        log.in_key_order(cx).await?;
        process.settled(cx, &group).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_pause_and_recover_when_a_group_may_not_park_more<F: Both>(cx: &Cx<F>) -> CaseResult {
    const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let (open, shared) = gate();
        let handler = log.handler_after::<F, _, _>(form, move |_, _| {
            let open = shared.load(Ordering::Acquire);
            async move {
                if !open {
                    return Err(HandlerError::retry_after(Duration::from_millis(500), "not yet"));
                }
                Ok(())
            }
        });
        let consumer = cx
            .consumer(form)
            .on(handler)
            .concurrency(1)
            .retry(quick().rounds(1_000))
            .park_limits(ParkLimits::new(THREE, THREE));
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(12, &[""])).await?;
        process.pausing(cx, PauseReason::Backlog, true).await?;
        elapse(2 * cx.quiet()).await;
        let stats = books.stats(&group).await?;
        ensure!(stats.parked + stats.running <= 4, "{stats:?} with a bound of 3");
        open.store(true, Ordering::Release);
        log.each_once(cx, 12).await?;
        process.pausing(cx, PauseReason::Backlog, false).await?;
        process.settled(cx, &group).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_park_without_an_attempt_when_no_handler_takes_the_type<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let consumer = || {
            cx.consumer(form)
                .on(log.handler::<F>(form))
                .unknown_type_delay(Duration::from_millis(200))
                .retry(
                    // Any attempt that counted would be the last.
                    quick().rounds(1),
                )
        };
        let old = cx.process("old", form).with(consumer()).start().await?;
        let message = cx.event(&Other { n: 7 });
        old.send(std::slice::from_ref(&message)).await?;
        let entry = books.becomes(cx, &group, message.id, InboxState::Parked).await?;
        ensure_eq!(entry.rounds, 0, "rounds");
        old.settled(cx, &group).await?;
        // Several looks later it is still there, with one note and no round.
        elapse(Duration::from_secs(2)).await;
        let entry = books.becomes(cx, &group, message.id, InboxState::Parked).await?;
        ensure_eq!(
            (entry.rounds, entry.failures.len()),
            (0, 1),
            "rounds and notes after some time"
        );
        old.stop(cx).await?;
        let of_others = log.handler::<F>(form);
        let consumer = consumer().on(move |other: Other, cx| {
            of_others(
                Work {
                    n: other.n,
                    key: String::new(),
                },
                cx,
            )
        });
        let new = cx.process("new", form).with(consumer).start().await?;
        log.wait_for(cx, 1).await?;
        ensure_eq!(log.done(cx).await?, [7], "effects");
        ensure_eq!(log.calls()[0].attempt.round, 1, "the round");
        new.stop(cx).await
    })
    .await
}

async fn should_leave_a_parked_message_alone_when_its_topic_is_not_read_here<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let of_elsewhere = log.handler_after::<F, _, _>(form, |_, cx| async move {
            if cx.attempt().round == 1 {
                return Err(HandlerError::retry_after(Duration::from_millis(300), "not yet"));
            }
            Ok(())
        });
        let consumer = cx.consumer(form).on(move |event: Elsewhere, cx| {
            of_elsewhere(
                Work {
                    n: event.n,
                    key: String::new(),
                },
                cx,
            )
        });
        let reads = cx.process("reads", form).with(consumer).start().await?;
        let messages: Vec<_> = (1..=40).map(|n| cx.event(&Elsewhere { n })).collect();
        reads.send(&messages).await?;
        eventually(cx.patience(), "forty parked", async || {
            Ok((books.stats(&group).await?.parked == 40).then_some(()))
        })
        .await?;
        reads.kill();
        let other = Log::new(cx);
        let does_not = cx
            .process("does not", form)
            .with(cx.consumer(form).on(other.handler::<F>(form)))
            .start()
            .await?;
        elapse(2 * cx.quiet()).await;
        let looks = pickups(&does_not);
        ensure!(looks < 100, "{looks} claims of what is not read here");
        for message in &messages {
            let entry = books.entry(&group, message.id).await?;
            let rounds = entry.map(|entry| entry.rounds);
            ensure_eq!(rounds, Some(1), "the rounds of what was left alone");
        }
        let of_elsewhere = log.handler::<F>(form);
        let consumer = cx.consumer(form).on(move |event: Elsewhere, cx| {
            of_elsewhere(
                Work {
                    n: event.n,
                    key: String::new(),
                },
                cx,
            )
        });
        let again = cx.process("reads again", form).with(consumer).start().await?;
        log.each_once(cx, 40).await?;
        stop_all(cx, [does_not, again]).await
    })
    .await
}
