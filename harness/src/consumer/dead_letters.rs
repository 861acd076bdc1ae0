//! Messages that cannot be handled, and what an operator does about them.

use headless_abstractions::{FailureCause, InboxState};
use headless_core::HandlerError;

use super::{
    Both, STORED, in_each,
    log::Log,
    odd::Faults,
    process::{group_of, quick, stop_all},
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure_eq},
    cx::Cx,
    mutation::Mutation::{BuryForgetsLetter, RedriveForgotten, RedrivePublishes, TerminalMovable},
};

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_bury_once_when_a_payload_is_undecodable,
            "an undecodable message is dead-lettered once, without a call, also across a restart"
        )
        .catching(&[BuryForgetsLetter, TerminalMovable]),
        case!(
            should_bury_when_an_envelope_is_malformed,
            "a message whose envelope was malformed never reaches a handler, whatever it has to wait for"
        )
        .described(Flag::ordering)
        .catching(&[BuryForgetsLetter]),
        case!(
            should_handle_a_dead_letter_when_it_is_redriven,
            "a redriven message runs again in its own group alone, with all its rounds"
        )
        .catching(&[RedriveForgotten, RedrivePublishes]),
    ]
}

async fn should_bury_once_when_a_payload_is_undecodable<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let before = books.letters().await?.len();
        let mut message = cx.work(1, "");
        message.payload = "{ this is no JSON".into();
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        process.send(std::slice::from_ref(&message)).await?;
        books.becomes(cx, &group, message.id, InboxState::Dead).await?;
        process.settled(cx, &group).await?;
        process.kill();

        let again = cx
            .process("two", form)
            .with(cx.consumer(form).on(log.handler::<F>(form)))
            .start()
            .await?;
        again.send(&[message.clone(), cx.work(1, "")]).await?;
        log.each_once(cx, 1).await?;
        again.settled(cx, &group).await?;
        let letters = books.wait_for_letters(cx, before + 1).await?;
        let letter = letters.iter().find(|letter| letter.message.id == message.id);
        let causes: Vec<_> = letter
            .iter()
            .flat_map(|letter| &letter.failures)
            .map(|failure| failure.cause)
            .collect();
        ensure_eq!(causes, [FailureCause::Undecodable], "causes");
        ensure_eq!(again.stats().duplicates, 1, "duplicates");
        again.stop(cx).await
    })
    .await
}

async fn should_bury_when_an_envelope_is_malformed<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, group) = (Log::new(cx), cx.books().await?, group_of(form));
        let before = books.letters().await?.len();
        let handler = log.handler_after::<F, _, _>(form, move |_, cx| async move {
            if cx.attempt().round == 1 {
                return Err(HandlerError::retry_after(
                    std::time::Duration::from_millis(400),
                    "not yet",
                ));
            }
            Ok(())
        });
        let consumer = cx.consumer(form).on(handler).ordered_by_key();
        let sane = cx.process("sane", form).ordered(1).with(consumer).start().await?;
        let head = cx.work(1, "a");
        sane.send(std::slice::from_ref(&head)).await?;
        books.becomes(cx, &group, head.id, InboxState::Parked).await?;
        sane.stop(cx).await?;

        // Its key is parked, so that the malformed message has to wait before it can be buried.
        let consumer = cx.consumer(form).on(log.handler::<F>(form)).ordered_by_key();
        let process = cx
            .process("one", form)
            .ordered(1)
            .with(consumer)
            .with_faults(Faults {
                malformed: true,
                ..Faults::default()
            })
            .start()
            .await?;
        let malformed = cx.work(2, "a");
        process.send(std::slice::from_ref(&malformed)).await?;
        books.becomes(cx, &group, malformed.id, InboxState::Dead).await?;
        let letters = books.wait_for_letters(cx, before + 1).await?;
        let letter = letters.iter().find(|letter| letter.message.id == malformed.id);
        let cause = letter
            .and_then(|letter| letter.failures.last())
            .map(|failure| failure.cause);
        ensure_eq!(cause, Some(FailureCause::Undecodable), "the cause");
        log.each_once(cx, 1).await?;
        ensure_eq!(log.calls_of(2).len(), 0, "calls with the malformed message");
        process.settled(cx, &group).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_handle_a_dead_letter_when_it_is_redriven<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, other, books, group) = (Log::new(cx), Log::new(cx), cx.books().await?, group_of(form));
        let handler = log.handler_after::<F, _, _>(form, |_, _| async { Err(HandlerError::retry("broken")) });
        let bystander = format!("audit-{form:?}").to_lowercase();
        let broken = cx
            .process("broken", form)
            .with(cx.consumer(form).on(handler).retry(quick().rounds(2)))
            .with(cx.consumer_of(&bystander, form).on(other.handler::<F>(form)))
            .start()
            .await?;
        let message = cx.work(1, "");
        broken.send(std::slice::from_ref(&message)).await?;
        books.becomes(cx, &group, message.id, InboxState::Dead).await?;
        broken.stop(cx).await?;

        let handler = log.handler_after::<F, _, _>(form, |_, cx| async move {
            if cx.attempt().round == 1 {
                return Err(HandlerError::retry("not yet"));
            }
            Ok(())
        });
        let mended = cx
            .process("mended", form)
            .with(cx.consumer(form).on(handler).retry(quick().rounds(2)))
            .with(cx.consumer_of(&bystander, form).on(other.handler::<F>(form)))
            .start()
            .await?;
        let letters = books.letters().await?;
        let Some(letter) = letters.iter().find(|letter| letter.message.id == message.id) else {
            crate::case::fail!("the message has no dead letter");
        };
        books.redrive(letter).await?;
        log.each_once(cx, 1).await?;
        other.each_once(cx, 1).await?;
        books
            .becomes(cx, &group, message.id, InboxState::Processed)
            .await?;
        let rounds: Vec<_> = log.calls().iter().map(|call| call.attempt.round).collect();
        ensure_eq!(rounds, [1, 2, 1, 2], "rounds, before and after the redrive");
        ensure_eq!(other.calls().len(), 1, "calls of the other group");
        stop_all(cx, [mended]).await
    })
    .await
}
