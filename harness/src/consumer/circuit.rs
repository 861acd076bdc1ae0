//! When what a handler depends on is down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use headless_core::{Backoff, HandlerError, HandlerResult};
use headless_messaging::{BatchContext, CircuitBreaker, PauseReason};

use super::{
    Both, FORMS, STORED,
    event::{Elsewhere, Other, Work},
    in_each,
    log::Log,
    process::{LONG, group_of, quick},
};
use crate::{
    case::{Case, CaseResult, case, ensure, ensure_eq},
    cx::Cx,
    mutation::Mutation::{
        AttemptNeverCounted, ClaimIgnoresLease, DropDelivery, DuplicateDelivery, ExceptIgnored, PulseIdle,
    },
    wait::{elapse, eventually},
};

const OPEN_FOR: Duration = Duration::from_secs(1);

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_stop_trying_and_recover_when_handlers_keep_failing,
            "after enough failures the circuit opens, probes now and then, and closes at the first success"
        )
        // The circuit is core's own: a driver can lose or double what waits for it, and no more.
        .catching(&[DropDelivery, DuplicateDelivery]),
        case!(
            should_consume_no_attempts_when_the_circuit_is_open,
            "messages that wait for the circuit keep their rounds, and none dies of a long outage"
        )
        .catching(&[ClaimIgnoresLease, PulseIdle]),
        case!(
            should_leave_the_park_alone_when_the_circuit_of_its_topic_is_open,
            "parked messages of a topic whose circuit is open are not claimed, those of another are"
        )
        .catching(&[ExceptIgnored]),
        case!(
            should_claim_little_when_a_probe_is_out,
            "while the circuit waits for its probe, the park is not drawn into memory"
        )
        .catching(&[ClaimIgnoresLease, AttemptNeverCounted]),
        case!(
            should_recover_when_batches_and_single_messages_wait_for_one_circuit,
            "a circuit that several kinds of calls wait for closes, with one handler at a time"
        )
        // As above: what is judged is core's own.
        .catching(&[DropDelivery, DuplicateDelivery]),
    ]
}

fn breaker(failures: u32) -> CircuitBreaker {
    CircuitBreaker::after(failures).open_for(Backoff::exponential(OPEN_FOR, OPEN_FOR))
}

/// A dependency that is down until the case says otherwise.
#[derive(Clone, Debug, Default)]
struct Dependency(Arc<AtomicBool>);

impl Dependency {
    fn recovers(&self) {
        self.0.store(true, Ordering::Release);
    }

    async fn ask(&self) -> HandlerResult {
        if self.0.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(HandlerError::retry("the dependency is down"))
    }
}

async fn should_stop_trying_and_recover_when_handlers_keep_failing<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, dependency) = (Log::new(cx), Dependency::default());
        let down = dependency.clone();
        let handler = log.handler_after::<F, _, _>(form, move |_, _| {
            let down = down.clone();
            async move { down.ask().await }
        });
        let consumer = cx
            .consumer(form)
            .on(handler)
            .visibility(LONG)
            .concurrency(1)
            .retry(quick().inline(100))
            .circuit_breaker(breaker(3));
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(20, &[""])).await?;
        process.pausing(cx, PauseReason::Circuit, true).await?;
        ensure!(
            process.consumer().subscriptions()[0].circuit_open,
            "paused by a closed circuit"
        );
        ensure_eq!(log.calls().len(), 3, "calls until the circuit opened");
        elapse(5 * OPEN_FOR).await;
        let probes = log.calls().len() - 3;
        ensure!(
            (2..=11).contains(&probes),
            "{probes} probes in {:?}",
            5 * OPEN_FOR
        );
        dependency.recovers();
        log.each_once(cx, 20).await?;
        process.pausing(cx, PauseReason::Circuit, false).await?;
        ensure!(
            !process.consumer().subscriptions()[0].circuit_open,
            "open after a success"
        );
        process.settled(cx, &group_of(form)).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_consume_no_attempts_when_the_circuit_is_open<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, books, dependency) = (Log::new(cx), cx.books().await?, Dependency::default());
        let before = books.letters().await?.len();
        let down = dependency.clone();
        let handler = log.handler_after::<F, _, _>(form, move |_, _| {
            let down = down.clone();
            async move { down.ask().await }
        });
        let consumer = cx
            .consumer(form)
            .on(handler)
            .concurrency(4)
            .retry(quick().rounds(50))
            .circuit_breaker(breaker(5));
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(30, &[""])).await?;
        process.pausing(cx, PauseReason::Circuit, true).await?;
        elapse(6 * OPEN_FOR).await;
        // Each probe is an attempt of one message; the others wait.
        let calls = log.calls().len();
        ensure!(
            calls <= 5 + 4 + 13,
            "{calls} calls in {:?} of an outage",
            6 * OPEN_FOR
        );
        dependency.recovers();
        log.each_once(cx, 30).await?;
        ensure_eq!(books.letters().await?.len(), before, "dead letters");
        process.settled(cx, &group_of(form)).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_leave_the_park_alone_when_the_circuit_of_its_topic_is_open<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, fine, books) = (Log::new(cx), Log::new(cx), cx.books().await?);
        // Each of them fails once before any of them is due again.
        let handler = log.handler_after::<F, _, _>(form, |_, _| async {
            Err(HandlerError::retry_after(
                Duration::from_millis(500),
                "the dependency is down",
            ))
        });
        let of_elsewhere = fine.handler_after::<F, _, _>(form, |_, cx| async move {
            if cx.attempt().round == 1 {
                return Err(HandlerError::retry_after(Duration::from_millis(100), "not yet"));
            }
            Ok(())
        });
        let long = Backoff::exponential(Duration::from_mins(10), Duration::from_mins(10));
        let consumer = cx
            .consumer(form)
            .on(handler)
            .on(move |event: Elsewhere, cx| {
                of_elsewhere(
                    Work {
                        n: event.n,
                        key: String::new(),
                    },
                    cx,
                )
            })
            .retry(quick().rounds(50))
            .concurrency(4)
            .circuit_breaker(CircuitBreaker::after(4).open_for(long));
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(4, &[""])).await?;
        process.pausing(cx, PauseReason::Circuit, true).await?;
        eventually(cx.patience(), "four parked", async || {
            Ok((books.stats(&group_of(form)).await?.parked == 4).then_some(()))
        })
        .await?;
        let calls = log.calls().len();
        process
            .send(&[cx.event(&Elsewhere { n: 1 }), cx.event(&Elsewhere { n: 2 })])
            .await?;
        fine.each_once(cx, 2).await?;
        let stats = books.stats(&group_of(form)).await?;
        ensure_eq!(
            (stats.parked, stats.running),
            (4, 0),
            "parked and running of the topic that is down"
        );
        ensure_eq!(log.calls().len(), calls, "calls while the circuit was open");
        process.stop(cx).await
    })
    .await
}

async fn should_claim_little_when_a_probe_is_out<F: Both>(cx: &Cx<F>) -> CaseResult {
    // All first rounds are over before a second one begins, so that what runs is what was claimed from the park.
    const PARKED_FOR: Duration = Duration::from_secs(2);
    in_each(&STORED, async |form| {
        let (log, books, dependency) = (Log::new(cx), cx.books().await?, Dependency::default());
        let down = dependency.clone();
        let handler = log.handler_after::<F, _, _>(form, move |_, cx| {
            let down = down.clone();
            async move {
                if cx.attempt().round == 1 {
                    return Err(HandlerError::retry_after(PARKED_FOR, "not yet"));
                }
                // A dependency that is down may take its time to say so.
                let answer = down.ask().await;
                if answer.is_err() {
                    elapse(2 * OPEN_FOR).await;
                }
                answer
            }
        });
        let consumer = cx
            .consumer(form)
            .on(handler)
            .concurrency(4)
            .retry(quick().rounds(1_000))
            .circuit_breaker(breaker(60));
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(60, &[""])).await?;
        process.pausing(cx, PauseReason::Circuit, true).await?;
        let mut most = 0;
        for _ in 0..40 + PARKED_FOR.div_duration_f64(OPEN_FOR / 10) as u32 {
            most = most.max(books.stats(&group_of(form)).await?.running);
            elapse(OPEN_FOR / 10).await;
        }
        ensure!(
            most <= 8,
            "{most} of 60 parked messages were claimed, with a concurrency of 4"
        );
        dependency.recovers();
        log.each_once(cx, 60).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_recover_when_batches_and_single_messages_wait_for_one_circuit<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, batches, dependency) = (Log::new(cx), Log::new(cx), Dependency::default());
        let down = dependency.clone();
        let handler = log.handler_after::<F, _, _>(form, move |_, _| {
            let down = down.clone();
            async move { down.ask().await }
        });
        let (effects, down) = (batches.clone(), dependency.clone());
        let batch = move |others: Vec<Other>, cx: BatchContext| {
            let (log, down) = (effects.clone(), down.clone());
            async move {
                down.ask().await?;
                let works: Vec<_> = others
                    .iter()
                    .map(|other| Work {
                        n: other.n,
                        key: String::new(),
                    })
                    .collect();
                log.batch_effect::<F>(form, &works, &cx).await
            }
        };
        let consumer = cx
            .consumer(form)
            .on(handler)
            .batch(3, Duration::from_millis(10), batch)
            .visibility(LONG)
            .concurrency(1)
            .retry(quick().inline(100))
            .circuit_breaker(breaker(2));
        let process = cx.process("one", form).with(consumer).start().await?;
        for n in 1..=6 {
            process.send(&[cx.work(n, ""), cx.event(&Other { n })]).await?;
        }
        process.pausing(cx, PauseReason::Circuit, true).await?;
        elapse(3 * OPEN_FOR).await;
        dependency.recovers();
        log.each_once(cx, 6).await?;
        batches.each_once(cx, 6).await?;
        process.settled(cx, &group_of(form)).await?;
        process.stop(cx).await
    })
    .await
}
