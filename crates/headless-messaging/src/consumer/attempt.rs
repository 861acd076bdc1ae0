//! One call of a handler, and how it ended.

use std::{future::poll_fn, panic::AssertUnwindSafe, pin::pin, sync::Arc, task::Poll};

use futures::FutureExt;
use headless_abstractions::{Failure, FailureCause, Marked, Redelivery};
use headless_core::{HandlerResult, Verdict, WorkProgress, metric, panic_message, trace};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::{
    consumer::group::Group,
    context::{CallContext, Refusal},
    handler::Call,
};

/// How a call ended, once its transaction, if it had one, has ended too.
#[derive(Debug)]
pub(crate) enum CallEnd {
    /// Its unit of work was committed.
    Committed,
    /// It succeeded and began no unit of work: what it did is to be marked.
    Succeeded,
    /// Its marks were refused: nothing was done.
    Refused(Vec<Marked>),
    /// It cannot work as it is configured.
    Misconfigured(String),
    /// It asked for the message to be dropped, saying why.
    Discarded(String),
    /// It failed.
    Failed(Failed),
    /// Nothing was called: the message expired while it waited for its turn.
    Expired,
    /// It was ended because the hold on its message was lost.
    LeaseLost,
    /// It was ended by the deadline of a shutdown.
    ShutDown,
}

/// A failed call.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) verdict: Verdict,
    /// Whether its unit of work may have been committed all the same: the store knows.
    pub(crate) maybe_committed: bool,
}

enum Ended {
    Returned(HandlerResult),
    Panicked(String),
    TimedOut,
    LeaseLost,
    ShutDown,
}

/// Makes a call and awaits its end, the rollback of an unfinished unit of work included. The handler runs within the
/// call's span.
///
/// A `blocking` call is not dropped when it has to end: it is asked to, and awaited, since it goes on in any case.
pub(crate) async fn make_call(
    group: &Group,
    call: Call,
    cx: &Arc<CallContext>,
    lost: &CancellationToken,
    blocking: bool,
) -> CallEnd {
    let span = span_of(group, cx);
    let end = make_call_in(&span, group, call, cx, lost, blocking).await;
    match &end {
        CallEnd::Failed(failed) => trace::fail(&span, failed.failure.cause.as_str()),
        CallEnd::Misconfigured(_) => trace::fail(&span, "misconfigured"),
        CallEnd::LeaseLost => trace::fail(&span, "lease_lost"),
        CallEnd::ShutDown => trace::fail(&span, "shut_down"),
        CallEnd::Committed
        | CallEnd::Succeeded
        | CallEnd::Refused(_)
        | CallEnd::Discarded(_)
        | CallEnd::Expired => {}
    }
    end
}

/// The span of a call. The first attempt is the first of its round where no round came before, of a delivery that is
/// known to be the first. A message that was redelivered has been tried, as far as anyone knows; one that comes from the
/// park may have been in its first round too, since a round that was cut short is given back.
fn span_of(group: &Group, cx: &CallContext) -> Span {
    let called = trace::Called {
        system: group.publisher.outgoing().system(),
        group: &group.name,
        messages: &cx.messages,
        round: cx.attempt.round,
        inline: cx.attempt.inline,
        is_first: cx.attempt.round == 1 && cx.attempt.inline == 1 && cx.redelivery == Redelivery::First,
    };
    trace::process(&*group.environment.propagator, called)
}

async fn make_call_in(
    span: &Span,
    group: &Group,
    call: Call,
    cx: &Arc<CallContext>,
    lost: &CancellationToken,
    blocking: bool,
) -> CallEnd {
    let topic = cx.messages[0].topic.clone();
    let started = group.environment.clock.monotonic();
    let guard = group.watch.call(topic.clone(), cx.deadline.clone());
    let ended = {
        let mut call = pin!(AssertUnwindSafe(call.instrument(span.clone())).catch_unwind());
        let told = tokio::select! {
            biased;
            returned = &mut call => Err(returned),
            () = guard.timed_out().cancelled() => Ok(Ended::TimedOut),
            () = lost_undone(cx, lost) => Ok(Ended::LeaseLost),
            () = group.cancelled.cancelled() => Ok(Ended::ShutDown),
        };
        match told {
            Err(Ok(result)) => Ended::Returned(result),
            Err(Err(panic)) => Ended::Panicked(panic_message(&*panic).to_owned()),
            Ok(told) => {
                cx.cancelled.cancel();
                if blocking {
                    let _returned_late = call.await;
                }
                told
            }
        }
    };
    drop(guard);
    let labels = [("group", group.name.to_string()), ("topic", topic.to_string())];
    let seconds = group
        .environment
        .clock
        .monotonic()
        .saturating_sub(started)
        .as_secs_f64();
    metrics::histogram!(metric::HANDLER_SECONDS, &labels).record(seconds);
    if let Some(tx) = cx.slot.take_dropped()
        && let Err(error) = tx.rollback().await
    {
        tracing::warn!(group = %group.name, id = %cx.messages[0].id, %error, "a rollback failed; the store ends the transaction itself");
    }
    classify(group, cx, ended)
}

/// Returns when the hold is lost while the call has committed nothing. What is committed needs it no more, and what the handler
/// does after that it does to its end; of what is being committed, the store says. Polled beside the call, which says by its
/// steps how far it is.
async fn lost_undone(cx: &CallContext, lost: &CancellationToken) {
    lost.cancelled().await;
    poll_fn(|_| match cx.slot.progress() {
        WorkProgress::Committing | WorkProgress::Committed => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
}

fn classify(group: &Group, cx: &CallContext, ended: Ended) -> CallEnd {
    let progress = cx.slot.progress();
    match cx.take_refusal() {
        Some(Refusal::Marks(marked)) => return CallEnd::Refused(marked),
        Some(Refusal::Misconfigured(why)) => return CallEnd::Misconfigured(why),
        None => {}
    }
    if progress == WorkProgress::Committed {
        if let Ended::Returned(Err(error)) = &ended {
            tracing::warn!(group = %group.name, id = %cx.messages[0].id, %error, "a handler failed after it had committed: that counts as success");
        }
        return CallEnd::Committed;
    }
    let maybe_committed = matches!(
        progress,
        WorkProgress::Committing
            | WorkProgress::CommitFailed {
                outcome_unknown: true
            }
    );
    let failed = |cause, message: String, verdict| {
        let failure = Failure::new(
            cause,
            message,
            &*group.environment.node,
            group.environment.clock.now(),
        );
        CallEnd::Failed(Failed {
            failure,
            verdict,
            maybe_committed,
        })
    };
    match ended {
        Ended::Returned(Ok(())) if progress == WorkProgress::Unused => CallEnd::Succeeded,
        Ended::Returned(Ok(())) => {
            let message = if progress == WorkProgress::NotBegun {
                "the handler returned Ok though its begin failed: pass the error of begin on, or begin again"
            } else {
                "the handler returned Ok with its unit of work begun and not committed: commit it, or fail"
            };
            failed(FailureCause::Uncommitted, message.to_owned(), Verdict::Retry)
        }
        Ended::Returned(Err(error)) => match error.verdict() {
            Verdict::Discard if !maybe_committed => CallEnd::Discarded(error.to_string()),
            Verdict::Permanent => failed(FailureCause::Permanent, error.to_string(), Verdict::Permanent),
            verdict => failed(FailureCause::Error, error.to_string(), verdict),
        },
        Ended::Panicked(message) => failed(FailureCause::Panic, message, Verdict::Retry),
        Ended::TimedOut => {
            let message = "the handler took longer than its time-out and was ended".to_owned();
            failed(FailureCause::Timeout, message, Verdict::Retry)
        }
        Ended::LeaseLost => CallEnd::LeaseLost,
        Ended::ShutDown => CallEnd::ShutDown,
    }
}
