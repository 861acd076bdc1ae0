//! How many handlers run at once, and what is serial.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    Both, FORMS, in_each,
    log::Log,
    process::{LONG, group_of},
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq},
    cx::Cx,
    mutation::Mutation::{
        BlockWhileUnsettled, DropDelivery, DuplicateDelivery, IgnorePrefetch, ReorderDeliveries,
        SettleBehindReceive,
    },
    wait::{elapse, eventually},
};

const A_MOMENT: Duration = Duration::from_millis(20);

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_keep_key_order_and_run_keys_at_once_when_ordered_by_key,
            "a key's messages are handled one after the other in their order, while other keys' run"
        )
        .described(Flag::ordering)
        .catching(&[ReorderDeliveries]),
        case!(
            should_not_stop_other_keys_when_one_is_slow,
            "a key whose handler does not end keeps no other key waiting, of the same partition either"
        )
        .described(Flag::ordering)
        .catching(&[BlockWhileUnsettled]),
        case!(
            should_keep_to_the_concurrency_when_it_is_changed_live,
            "raised or lowered, the number of handlers that run at once follows, and none is ended for it"
        )
        // The number is core's own: a driver can lose or double what runs, and no more.
        .catching(&[DropDelivery, DuplicateDelivery]),
        case!(
            should_stop_pulling_when_handlers_are_slow_and_go_on_when_they_are_not,
            "a process holds no more than its prefetch, and takes more as it settles"
        )
        .catching(&[IgnorePrefetch]),
        case!(
            should_let_a_quick_topic_go_on_when_another_of_the_group_has_much_to_do,
            "the topics of a group take turns"
        )
        .catching(&[BlockWhileUnsettled, SettleBehindReceive]),
    ]
}

async fn should_keep_key_order_and_run_keys_at_once_when_ordered_by_key<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let handler = log.handler_after::<F, _, _>(form, |_, _| async {
            elapse(A_MOMENT).await;
            Ok(())
        });
        let consumer = cx.consumer(form).on(handler).concurrency(8).ordered_by_key();
        let process = cx.process("one", form).ordered(4).with(consumer).start().await?;
        let keys: Vec<String> = (0..10).map(|n| format!("key-{n}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        process.send(&cx.works(100, &keys)).await?;
        log.each_once(cx, 100).await?;
        log.in_key_order(cx).await?;
        let (at_once, of_a_key) = log.most_at_once();
        ensure_eq!(of_a_key, 1, "handlers of one key at once");
        ensure!(
            (4..=8).contains(&at_once),
            "{at_once} handlers at once, allowed are 8"
        );
        process.stop(cx).await
    })
    .await
}

async fn should_not_stop_other_keys_when_one_is_slow<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let (log, open) = (Log::new(cx), Arc::new(AtomicBool::new(false)));
        let gate = open.clone();
        let handler = log.handler_after::<F, _, _>(form, move |work, _| {
            let gate = gate.clone();
            async move {
                while work.key == "slow" && !gate.load(Ordering::Acquire) {
                    elapse(A_MOMENT).await;
                }
                Ok(())
            }
        });
        let consumer = cx.consumer(form).on(handler).concurrency(4).ordered_by_key();
        let process = cx.process("one", form).ordered(1).with(consumer).start().await?;
        process.send(&[cx.work(1, "slow"), cx.work(2, "slow")]).await?;
        log.wait_for_calls(cx, 1).await?;
        let others: Vec<_> = (3..=40)
            .map(|n| cx.work(n, ["a", "b", "c"][n as usize % 3]))
            .collect();
        process.send(&others).await?;
        log.wait_for(cx, 38).await?;
        ensure_eq!(
            log.calls_of(2).len(),
            0,
            "calls of the second message of the slow key"
        );
        open.store(true, Ordering::Release);
        log.each_once(cx, 40).await?;
        log.in_key_order(cx).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_keep_to_the_concurrency_when_it_is_changed_live<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let handler = log.handler_after::<F, _, _>(form, |_, _| async {
            elapse(A_MOMENT).await;
            Ok(())
        });
        let process = cx
            .process("one", form)
            .with(cx.consumer(form).on(handler).concurrency(2))
            .start()
            .await?;
        process.send(&cx.works(300, &[""])).await?;
        for limit in [2, 6, 1, 4] {
            process.consumer().set_concurrency(limit);
            ensure_eq!(process.consumer().concurrency(), limit, "the limit");
            eventually(
                cx.patience(),
                "the end of what ran at the time of the change",
                async || Ok((log.at_once() as usize <= limit).then_some(())),
            )
            .await?;
            log.measure_anew();
            let so_far = log.calls().len();
            eventually(
                cx.patience(),
                "more calls, as many at once as may be",
                async || {
                    let (calls, at_once) = (log.calls().len() - so_far, log.most_at_once().0 as usize);
                    Ok((calls >= 20 && at_once >= limit).then_some(()))
                },
            )
            .await?;
            ensure_eq!(log.most_at_once().0 as usize, limit, "handlers at once");
        }
        process.consumer().set_concurrency(16);
        log.each_once(cx, 300).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_stop_pulling_when_handlers_are_slow_and_go_on_when_they_are_not<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    const PREFETCH: NonZeroUsize = NonZeroUsize::new(5).unwrap();
    in_each(&FORMS, async |form| {
        let (log, open) = (Log::new(cx), Arc::new(AtomicBool::new(false)));
        let gate = open.clone();
        let handler = log.handler_after::<F, _, _>(form, move |_, _| {
            let gate = gate.clone();
            async move {
                while !gate.load(Ordering::Acquire) {
                    elapse(A_MOMENT).await;
                }
                Ok(())
            }
        });
        let consumer = cx.consumer(form).on(handler).concurrency(2).prefetch(PREFETCH);
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(50, &[""])).await?;
        log.wait_for_calls(cx, 2).await?;
        elapse(cx.quiet()).await;
        ensure_eq!(process.stats().received, 5, "received while handlers are stuck");
        open.store(true, Ordering::Release);
        log.each_once(cx, 50).await?;
        process.settled(cx, &group_of(form)).await?;
        process.stop(cx).await
    })
    .await
}

async fn should_let_a_quick_topic_go_on_when_another_of_the_group_has_much_to_do<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    use super::event::{Elsewhere, Work};
    in_each(&FORMS, async |form| {
        let (busy, quick) = (Log::new(cx), Log::new(cx));
        let slow = busy.handler_after::<F, _, _>(form, |_, _| async {
            elapse(A_MOMENT).await;
            Ok(())
        });
        let of_quick = quick.handler::<F>(form);
        let consumer = cx
            .consumer(form)
            .on(slow)
            .on(move |event: Elsewhere, cx| {
                of_quick(
                    Work {
                        n: event.n,
                        key: String::new(),
                    },
                    cx,
                )
            })
            .concurrency(1)
            .visibility(LONG);
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(200, &[""])).await?;
        busy.wait_for_calls(cx, 1).await?;
        process.send(&[cx.event(&Elsewhere { n: 1 })]).await?;
        quick.each_once(cx, 1).await?;
        let done = busy.done(cx).await?.len();
        ensure!(done < 150, "the other topic waited for {done} of 200 messages");
        busy.each_once(cx, 200).await?;
        process.stop(cx).await
    })
    .await
}
