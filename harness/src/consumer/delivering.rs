//! From a transport to a handler, when all is well.

use std::time::Duration;

use headless_abstractions::{CorrelationId, ErrorKind, HeaderValue, InboxState, StartFrom, Tenant};
use headless_core::HandlerError;
use headless_messaging::Context;

use super::{
    Both, FORMS, STORED,
    event::{Elsewhere, Other, Work, keyed},
    in_each,
    log::Log,
    process::{LONG, group_of, refused, stop_all},
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq, instead},
    cx::{Cx, group},
    mutation::Mutation::{
        AttemptNeverCounted, BuryForgetsLetter, DropDelivery, DropEmptyHeader, DropEnvelope,
        DuplicateDelivery, ForgetType, IgnorePerInstance, IgnoreStartFrom, LoseAck, MixGroupRows, MixGroups,
    },
    wait::{elapse, eventually},
};

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_handle_each_message_once_when_all_is_well,
            "every message is handled once, and its delivery settled"
        )
        .catching(&[DropDelivery, LoseAck]),
        case!(
            should_hand_over_the_whole_message_when_it_is_handled,
            "a handler sees the message as it was published"
        )
        .catching(&[DropEnvelope, DropEmptyHeader]),
        case!(
            should_show_the_published_message_at_every_attempt_when_it_is_retried,
            "nothing that happens in one attempt, inline or parked, shows in the next"
        )
        .catching(&[DropEnvelope]),
        case!(
            should_give_each_group_everything_when_its_members_share,
            "each group handles every message once, whichever of its members does"
        )
        .catching(&[MixGroups, MixGroupRows]),
        case!(
            should_pick_the_handler_by_topic_and_type_when_there_are_several,
            "each message goes to the one handler of its topic and type"
        )
        .catching(&[ForgetType, DuplicateDelivery]),
        case!(
            should_name_its_cause_when_a_handler_publishes,
            "what a handler publishes carries on the conversation, and names the message that caused it"
        )
        .catching(&[DropEnvelope]),
        case!(
            should_drop_a_message_when_it_expires_before_its_handler,
            "a message that has expired when its turn comes is not handled, and counted"
        )
        .catching(&[DropEnvelope]),
        case!(
            should_run_on_threads_when_handlers_block,
            "a blocking handler may fail and panic like any other"
        )
        .catching(&[BuryForgetsLetter, AttemptNeverCounted]),
        case!(
            should_give_every_process_everything_when_the_group_is_its_own,
            "a group of one process gets all messages, and ends with it"
        )
        .requested(Flag::per_instance_groups, instead!(refuse_an_instance_group))
        .catching(&[IgnorePerInstance]),
        case!(
            should_handle_older_messages_when_a_new_group_starts_from_the_oldest,
            "a new group may begin with what was published before it"
        )
        .requested(Flag::replay_from_start, instead!(refuse_a_replay))
        .catching(&[IgnoreStartFrom]),
    ]
}

async fn should_handle_each_message_once_when_all_is_well<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        process.send(&cx.works(100, &["", "a", "b"])).await?;
        log.each_once(cx, 100).await?;
        process.settled(cx, &group_of(form)).await?;
        let stats = process.stats();
        ensure_eq!(
            (stats.received, stats.handled, stats.failed),
            (100, 100, 0),
            "received, handled, failed"
        );
        process.stop(cx).await
    })
    .await
}

async fn should_hand_over_the_whole_message_when_it_is_handled<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        let mut message = keyed(cx.work(1, "a"), "a");
        message.headers.insert("plain", "täxt")?;
        message.headers.insert("empty", "")?;
        message.tenant = Some(Tenant::parse("acme")?);
        message.causation_id = Some(cx.id());
        let traceparent = HeaderValue::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")?;
        message.trace = Some(headless_abstractions::TraceContext::new(traceparent, None));
        process.send(std::slice::from_ref(&message)).await?;
        log.wait_for(cx, 1).await?;
        ensure_eq!(log.calls()[0].message, message, "the handler's message");
        process.stop(cx).await
    })
    .await
}

async fn should_show_the_published_message_at_every_attempt_when_it_is_retried<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&STORED, async |form| {
        let log = Log::new(cx);
        let handler = log.handler_after::<F, _, _>(form, |_, cx| async move {
            // A handler may do what it likes with its copy.
            let mut copy = cx.message().clone();
            copy.headers.insert("tried", "yes")?;
            if cx.attempt().round < 2 || cx.attempt().inline < 2 {
                return Err(HandlerError::retry("not yet"));
            }
            Ok(())
        });
        let retry = super::process::quick().inline(1);
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(handler).retry(retry))
            .start()
            .await?;
        let mut message = cx.work(1, "a");
        message.headers.insert("source", "case")?;
        message.tenant = Some(Tenant::parse("acme")?);
        process.send(std::slice::from_ref(&message)).await?;
        log.each_once(cx, 1).await?;
        let calls = log.calls();
        ensure_eq!(calls.len(), 4, "attempts");
        for call in calls {
            ensure_eq!(call.message, message, "the message at attempt {:?}", call.attempt);
        }
        process.stop(cx).await
    })
    .await
}

async fn should_give_each_group_everything_when_its_members_share<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let names = ["audit", "search"].map(|name| format!("{name}-{form:?}").to_lowercase());
        let logs = [Log::new(cx), Log::new(cx)];
        let mut processes = Vec::new();
        for label in ["one", "two"] {
            let mut setup = cx.process(label, form);
            for (name, log) in names.iter().zip(&logs) {
                setup = setup.with(cx.consumer_of(name, form).on(log.handler::<F>(form)));
            }
            processes.push(setup.start().await?);
        }
        processes[0].send(&cx.works(60, &[""])).await?;
        for log in &logs {
            log.each_once(cx, 60).await?;
        }
        stop_all(cx, processes).await
    })
    .await
}

async fn should_pick_the_handler_by_topic_and_type_when_there_are_several<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (works, others, elsewhere) = (Log::new(cx), Log::new(cx), Log::new(cx));
        let of_others = others.handler::<F>(form);
        let of_elsewhere = elsewhere.handler::<F>(form);
        let plain = |n| Work {
            n,
            key: String::new(),
        };
        let consumer = cx
            .consumer(form)
            .on(works.handler::<F>(form))
            .on(move |other: Other, cx| of_others(plain(other.n), cx))
            .on(move |event: Elsewhere, cx| of_elsewhere(plain(event.n), cx));
        let process = cx.process("one", form).with(consumer).start().await?;
        for n in 1..=20 {
            let messages = [cx.work(n, ""), cx.event(&Other { n }), cx.event(&Elsewhere { n })];
            process.send(&messages).await?;
        }
        for log in [&works, &others, &elsewhere] {
            log.each_once(cx, 20).await?;
        }
        process.stop(cx).await
    })
    .await
}

async fn should_name_its_cause_when_a_handler_publishes<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, caused) = (Log::new(cx), Log::new(cx));
        let handler = log.handler_after::<F, _, _>(form, |work, cx| async move {
            cx.publisher().publish(&Elsewhere { n: work.n }).await?;
            Ok(())
        });
        let of_elsewhere = caused.handler::<F>(form);
        let consumer = cx.consumer(form).on(handler).on(move |event: Elsewhere, cx| {
            let work = Work {
                n: event.n,
                key: String::new(),
            };
            of_elsewhere(work, cx)
        });
        let process = cx.process("one", form).with(consumer).start().await?;
        let mut message = cx.work(1, "");
        message.correlation_id = Some(CorrelationId::parse("conversation")?);
        message.tenant = Some(Tenant::parse("acme")?);
        process.send(std::slice::from_ref(&message)).await?;
        caused.each_once(cx, 1).await?;
        let effect = &caused.calls()[0].message;
        ensure_eq!(effect.causation_id, Some(message.id), "the cause");
        ensure_eq!(effect.correlation_id, message.correlation_id, "the conversation");
        ensure_eq!(effect.tenant, message.tenant, "the tenant");
        process.stop(cx).await
    })
    .await
}

async fn should_drop_a_message_when_it_expires_before_its_handler<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let handler = log.handler_after::<F, _, _>(form, |work, _| async move {
            if work.n == 1 {
                elapse(Duration::from_secs(1)).await;
            }
            Ok(())
        });
        let consumer = cx.consumer(form).on(handler).concurrency(1).visibility(LONG);
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&[cx.work(1, "")]).await?;
        log.wait_for_calls(cx, 1).await?;
        let mut short = cx.work(2, "");
        short.expires_at = Some(cx.now() + Duration::from_millis(300));
        let mut long = cx.work(3, "");
        long.expires_at = Some(cx.now() + LONG);
        process.send(&[short, long]).await?;
        eventually(cx.patience(), "three deliveries", async || {
            Ok((process.stats().received == 3).then_some(()))
        })
        .await?;
        log.wait_for(cx, 2).await?;
        process.settled(cx, &group_of(form)).await?;
        ensure_eq!(log.done(cx).await?, [1, 3], "effects");
        ensure_eq!(
            (log.calls_of(2).len(), process.stats().expired),
            (0, 1),
            "calls and expired"
        );
        process.stop(cx).await
    })
    .await
}

async fn should_run_on_threads_when_handlers_block<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (books, group) = (cx.books().await?, group_of(form));
        let handler = |work: Work, cx: Context| {
            match (work.n, cx.attempt().round) {
                (1, 1) => return Err(HandlerError::retry("an error")),
                (2, 1) => std::panic::resume_unwind(Box::new("a panic")),
                (3, _) => return Err(HandlerError::permanent("never")),
                _ => {}
            }
            Ok(())
        };
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).blocking(handler))
            .start()
            .await?;
        let messages = cx.works(6, &[""]);
        process.send(&messages).await?;
        for (n, message) in messages.iter().enumerate() {
            let expected = if n == 2 {
                InboxState::Dead
            } else {
                InboxState::Processed
            };
            books.becomes(cx, &group, message.id, expected).await?;
        }
        ensure_eq!(
            (process.stats().handled, process.stats().failed),
            (5, 3),
            "handled and failed"
        );
        process.settled(cx, &group).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_give_every_process_everything_when_the_group_is_its_own<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let logs = [Log::new(cx), Log::new(cx)];
        let mut processes = Vec::new();
        for (label, log) in ["one", "two"].into_iter().zip(&logs) {
            let consumer = cx.consumer(form).on(log.handler::<F>(form)).per_instance();
            processes.push(cx.process(label, form).with(consumer).start().await?);
        }
        processes[0].send(&cx.works(20, &[""])).await?;
        for log in &logs {
            log.each_once(cx, 20).await?;
        }
        let names: Vec<_> = processes
            .iter()
            .map(|process| process.consumer().group().clone())
            .collect();
        ensure!(names[0] != names[1], "two processes share the group {}", names[0]);
        stop_all(cx, processes).await?;
        let look = crate::fixture::TransportFixture::node(cx.fixture()).await?;
        for name in names {
            eventually(cx.patience(), "the end of a process's group", async || {
                Ok(look
                    .driver
                    .lag(&name)
                    .await
                    .err()
                    .filter(|error| error.kind() == ErrorKind::NotFound))
            })
            .await?;
        }
        Ok(())
    })
    .await
}

async fn refuse_an_instance_group<F: Both>(cx: &Cx<F>) -> CaseResult {
    let form = FORMS[0];
    let consumer = cx
        .consumer(form)
        .on(Log::new(cx).handler::<F>(form))
        .per_instance();
    refused(cx.process("one", form).with(consumer), "per_instance_groups").await
}

async fn should_handle_older_messages_when_a_new_group_starts_from_the_oldest<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&FORMS, async |form| {
        let early = Log::new(cx);
        let first = cx
            .process("one", form)
            .with(
                cx.consumer_of(&format!("early-{form:?}").to_lowercase(), form)
                    .on(early.handler::<F>(form)),
            )
            .start()
            .await?;
        // What an earlier form has left would be replayed too.
        let base = 1_000 * FORMS.iter().position(|other| *other == form).unwrap_or_default() as u32;
        let messages: Vec<_> = (1..=10).map(|n| cx.work(base + n, "")).collect();
        first.send(&messages).await?;
        early.wait_for(cx, 10).await?;
        let late = Log::new(cx);
        let name = format!("late-{form:?}").to_lowercase();
        let consumer = cx
            .consumer_of(&name, form)
            .on(late.handler::<F>(form))
            .start_from(StartFrom::Oldest);
        let second = cx.process("two", form).with(consumer).start().await?;
        eventually(cx.patience(), "the older messages", async || {
            let done = late.done(cx).await?;
            Ok((1..=10).all(|n| done.contains(&(base + n))).then_some(()))
        })
        .await?;
        second.settled(cx, &group(&name)).await?;
        stop_all(cx, [first, second]).await
    })
    .await
}

async fn refuse_a_replay<F: Both>(cx: &Cx<F>) -> CaseResult {
    let form = FORMS[0];
    let consumer = cx
        .consumer(form)
        .on(Log::new(cx).handler::<F>(form))
        .start_from(StartFrom::Oldest);
    refused(cx.process("one", form).with(consumer), "replay_from_start").await
}
