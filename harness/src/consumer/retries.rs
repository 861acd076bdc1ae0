//! How often, when, and by whom a failed message is tried again.

use std::time::Duration;

use headless_abstractions::{FailureCause, InboxState, Subscription};
use headless_core::{HandlerError, HandlerResult};
use headless_messaging::{Context, Inbox};

use super::{
    Both, FORMS, STORED,
    event::{Work, work_topic},
    in_each,
    log::Log,
    process::{group_of, quick, stop_all},
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq},
    cx::{Cx, group},
    mutation::Mutation::{
        BuryForgetsLetter, DropEnvelope, DuplicateDelivery, ForgetDeliveryCount, ForgetFailures,
        ForgetRounds, IgnoreRequeueDelay, LoseAck, ParkForgetsDelay, TerminalMovable,
    },
    wait::{elapse, eventually},
};

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_try_inline_then_parked_then_bury_when_a_handler_always_fails,
            "a message has its inline attempts in each of its rounds, and then dies with every failure"
        )
        .catching(&[ForgetRounds, ForgetFailures, BuryForgetsLetter]),
        case!(
            should_go_on_when_handlers_fail_panic_and_time_out,
            "an error, a panic and a time-out are failed attempts, each with its cause, and stop nothing else"
        )
        .catching(&[DuplicateDelivery, LoseAck]),
        case!(
            should_bury_at_once_when_a_failure_is_permanent,
            "what can never succeed is not tried again"
        )
        .catching(&[BuryForgetsLetter]),
        case!(
            should_drop_a_message_when_its_handler_discards_it,
            "a discarded message is gone, is no dead letter, and does not come back"
        )
        .catching(&[LoseAck, TerminalMovable]),
        case!(
            should_wait_as_long_as_asked_when_a_handler_says_when,
            "a retry that names a time does not come before it"
        )
        .catching(&[ParkForgetsDelay]),
        case!(
            should_keep_one_cadence_when_several_nodes_retry,
            "three nodes do not retry three times as often"
        )
        .catching(&[ParkForgetsDelay, ForgetRounds]),
        case!(
            should_send_to_the_dead_topic_when_there_is_no_store,
            "without a store an ordered message is tried inline, then goes to the dead topic, and its key goes on"
        )
        .described(Flag::ordering)
        .catching(&[DropEnvelope]),
        case!(
            should_let_the_transport_wait_when_there_is_no_store,
            "without a store an unordered message is requeued with a delay, as often as the rounds allow"
        )
        .described(Flag::requeue_delay)
        .described(Flag::delivery_count)
        .catching(&[IgnoreRequeueDelay, ForgetDeliveryCount]),
    ]
}

async fn should_try_inline_then_parked_then_bury_when_a_handler_always_fails<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books) = (Log::new(cx), cx.books().await?);
        let before = books.letters().await?.len();
        let handler = log.handler_after::<F, _, _>(form, |work, _| async move {
            if work.n == 1 {
                return Err(HandlerError::retry("always"));
            }
            Ok(())
        });
        let consumer = cx.consumer(form).on(handler).retry(quick().inline(1));
        let process = cx.process("one", form).with(consumer).start().await?;
        let messages = cx.works(20, &[""]);
        process.send(&messages).await?;
        log.wait_for(cx, 19).await?;
        let letters = books.wait_for_letters(cx, before + 1).await?;
        let Some(letter) = letters
            .into_iter()
            .find(|letter| letter.message.id == messages[0].id)
        else {
            crate::case::fail!("the message has no dead letter");
        };
        ensure_eq!(letter.message, messages[0], "the message in its dead letter");
        ensure_eq!(letter.rounds, 3, "rounds");
        let causes: Vec<_> = letter
            .failures
            .iter()
            .map(|failure| (failure.cause, &*failure.message, &*failure.node))
            .collect();
        ensure_eq!(
            causes,
            vec![(FailureCause::Error, "always", "one"); 6],
            "failures"
        );
        let calls = log.calls_of(1);
        let attempts: Vec<_> = calls
            .iter()
            .map(|call| (call.attempt.round, call.attempt.inline))
            .collect();
        ensure_eq!(
            attempts,
            [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)],
            "attempts"
        );
        let known: Vec<_> = calls.iter().map(|call| call.failures.len()).collect();
        ensure_eq!(known, [0, 1, 2, 3, 4, 5], "failures that the handler was shown");
        process.settled(cx, &group_of(form)).await?;
        ensure_eq!(process.stats().dead, 1, "dead");
        process.stop(cx).await
    })
    .await
}

async fn should_go_on_when_handlers_fail_panic_and_time_out<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let handler = log.handler_after::<F, _, _>(form, |work, cx| async move {
            if cx.attempt().round > 1 || cx.attempt().inline > 1 {
                return Ok(());
            }
            match work.n {
                1 => Err(HandlerError::retry("an error")),
                2 => a_panic(),
                3 => std::future::pending().await,
                _ => Ok(()),
            }
        });
        let consumer = cx
            .consumer(form)
            .on(handler)
            .retry(quick().inline(1))
            .timeout(Duration::from_millis(200))
            .concurrency(1);
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(10, &[""])).await?;
        log.each_once(cx, 10).await?;
        for (n, cause) in [
            (1, FailureCause::Error),
            (2, FailureCause::Panic),
            (3, FailureCause::Timeout),
        ] {
            let calls = log.calls_of(n);
            let Some(second) = calls.get(1) else {
                crate::case::fail!("message {n} was not tried again");
            };
            let causes: Vec<_> = second.failures.iter().map(|failure| failure.cause).collect();
            ensure_eq!(causes, [cause], "what the second attempt at message {n} is shown");
        }
        process.settled(cx, &group_of(form)).await?;
        ensure_eq!(process.stats().failed, 3, "failed attempts");
        process.stop(cx).await
    })
    .await
}

fn a_panic() -> HandlerResult {
    // A resumed panic says nothing on stderr, where it would look like a failure of the case.
    std::panic::resume_unwind(Box::new("a panic"))
}

async fn should_bury_at_once_when_a_failure_is_permanent<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books) = (Log::new(cx), cx.books().await?);
        let before = books.letters().await?.len();
        let handler =
            log.handler_after::<F, _, _>(form, |_, _| async { Err(HandlerError::permanent("never")) });
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(handler).retry(quick().inline(3)))
            .start()
            .await?;
        let message = cx.work(1, "");
        process.send(std::slice::from_ref(&message)).await?;
        let letters = books.wait_for_letters(cx, before + 1).await?;
        let letter = letters.iter().find(|letter| letter.message.id == message.id);
        let causes: Vec<_> = letter
            .iter()
            .flat_map(|letter| &letter.failures)
            .map(|failure| failure.cause)
            .collect();
        ensure_eq!(causes, [FailureCause::Permanent], "causes");
        process.settled(cx, &group_of(form)).await?;
        ensure_eq!(log.calls().len(), 1, "calls");
        process.stop(cx).await
    })
    .await
}

async fn should_drop_a_message_when_its_handler_discards_it<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let before = books.letters().await?.len();
        let handler =
            log.handler_after::<F, _, _>(form, |_, _| async { Err(HandlerError::discard("of no use")) });
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(handler))
            .start()
            .await?;
        let message = cx.work(1, "");
        process.send(std::slice::from_ref(&message)).await?;
        log.wait_for_calls(cx, 1).await?;
        process.settled(cx, &group).await?;
        ensure_eq!(process.stats().discarded, 1, "discarded");
        if form != Inbox::Off {
            books
                .becomes(cx, &group, message.id, InboxState::Discarded)
                .await?;
            process.send(std::slice::from_ref(&message)).await?;
            eventually(cx.patience(), "a duplicate", async || {
                Ok((process.stats().duplicates == 1).then_some(()))
            })
            .await?;
        }
        if form == Inbox::Around {
            ensure_eq!(log.calls().len(), 1, "calls");
        }
        process.settled(cx, &group).await?;
        ensure_eq!(books.letters().await?.len(), before, "dead letters");
        ensure_eq!(process.stats().discarded, 1, "discarded in the end");
        process.stop(cx).await
    })
    .await
}

async fn should_wait_as_long_as_asked_when_a_handler_says_when<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, asked) = (Log::new(cx), Duration::from_millis(700));
        let handler = log.handler_after::<F, _, _>(form, move |_, cx| async move {
            if cx.attempt().round == 1 {
                return Err(HandlerError::retry_after(asked, "not yet"));
            }
            Ok(())
        });
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(handler).retry(quick().inline(2)))
            .start()
            .await?;
        process.send(&[cx.work(1, "")]).await?;
        log.each_once(cx, 1).await?;
        let calls = log.calls();
        ensure_eq!(calls.len(), 2, "calls");
        let waited = calls[1].at - calls[0].at;
        ensure!(
            waited >= asked,
            "the retry came after {waited:?}, asked were {asked:?}"
        );
        process.stop(cx).await
    })
    .await
}

async fn should_keep_one_cadence_when_several_nodes_retry<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, spacing) = (Log::new(cx), cx.books().await?, Duration::from_millis(400));
        let before = books.letters().await?.len();
        let mut processes = Vec::new();
        for label in ["one", "two", "three"] {
            let handler = log.handler_after::<F, _, _>(form, move |_, _| async move {
                Err(HandlerError::retry_after(spacing, "not yet"))
            });
            let consumer = cx.consumer(form).on(handler).retry(quick().rounds(5));
            processes.push(cx.process(label, form).with(consumer).start().await?);
        }
        processes[0].send(&[cx.work(1, "")]).await?;
        books.wait_for_letters(cx, before + 1).await?;
        let calls = log.calls();
        let rounds: Vec<_> = calls.iter().map(|call| call.attempt.round).collect();
        ensure_eq!(rounds, [1, 2, 3, 4, 5], "rounds");
        for pair in calls.windows(2) {
            let waited = pair[1].at - pair[0].at;
            ensure!(
                waited >= spacing,
                "round {} came after {waited:?}",
                pair[1].attempt.round
            );
        }
        stop_all(cx, processes).await
    })
    .await
}

async fn should_send_to_the_dead_topic_when_there_is_no_store<F: Both>(cx: &Cx<F>) -> CaseResult {
    let (form, log) = (Inbox::Off, Log::new(cx));
    let handler = log.handler_after::<F, _, _>(form, |work, _| async move {
        if work.n == 2 {
            return Err(HandlerError::retry("always"));
        }
        Ok(())
    });
    let consumer = cx
        .consumer(form)
        .on(handler)
        .ordered_by_key()
        .retry(quick().inline(2));
    let process = cx.process("one", form).ordered(2).with(consumer).start().await?;
    let dead = work_topic().dead();
    let undertaker = headless_abstractions::GroupSpec::new(group("undertaker"), dead.clone());
    let topology = headless_abstractions::Topology::new().with_group(undertaker);
    process.driver().declare(&topology).await?;
    let mut messages = cx.works(4, &["a"]);
    messages[1].tenant = Some(headless_abstractions::Tenant::parse("acme")?);
    process.send(&messages).await?;
    log.wait_for(cx, 3).await?;
    process.settled(cx, &group_of(form)).await?;
    let attempts: Vec<_> = log
        .calls()
        .iter()
        .map(|call| (call.work.n, call.attempt.inline))
        .collect();
    ensure_eq!(
        attempts,
        [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1), (4, 1)],
        "calls"
    );

    let member = process
        .driver()
        .subscribe(&Subscription::new(group("undertaker"), dead, cx.owner()))
        .await?;
    let letter = eventually(cx.patience(), "the dead letter", async || {
        Ok(member
            .receive(10, Duration::from_millis(50))
            .await?
            .deliveries
            .pop())
    })
    .await?;
    ensure_eq!(
        (letter.message.id, &letter.message.payload),
        (messages[1].id, &messages[1].payload),
        "its message"
    );
    ensure_eq!(letter.message.tenant, messages[1].tenant, "its tenant");
    for (name, value) in [
        ("dead-cause", "error"),
        ("dead-error", "always"),
        ("dead-topic", "work"),
        ("dead-group", "billing-off"),
    ] {
        let found = letter.message.headers.get(name);
        ensure_eq!(found, Some(value), "header {name}");
    }
    member.close().await?;
    process.stop(cx).await
}

async fn should_let_the_transport_wait_when_there_is_no_store<F: Both>(cx: &Cx<F>) -> CaseResult {
    let (form, log, spacing) = (Inbox::Off, Log::new(cx), Duration::from_millis(400));
    let handler = log.handler_after::<F, _, _>(form, move |_: Work, _: Context| async move {
        Err(HandlerError::retry_after(spacing, "not yet"))
    });
    let process = cx
        .process("one", form)
        .with(cx.consumer(form).on(handler))
        .start()
        .await?;
    process.send(&[cx.work(1, "")]).await?;
    log.wait_for_calls(cx, 3).await?;
    process.settled(cx, &group_of(form)).await?;
    elapse(2 * spacing).await;
    let calls = log.calls();
    ensure_eq!(calls.len(), 3, "calls");
    for pair in calls.windows(2) {
        let waited = pair[1].at - pair[0].at;
        ensure!(waited >= spacing, "the retry came after {waited:?}");
    }
    ensure_eq!(process.stats().dead, 1, "dead");
    process.stop(cx).await
}
