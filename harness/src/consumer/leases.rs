//! Handlers that take long, and holds that are lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use headless_core::HandlerError;
use headless_messaging::Inbox;

use super::{
    Both, FORMS, STORED, in_each,
    log::Log,
    process::{group_of, stop_all},
};
use crate::{
    case::{Case, CaseResult, Flag, case, ensure, ensure_eq},
    cx::Cx,
    mutation::Mutation::{
        AckOnReceive, DropDelivery, DuplicateDelivery, HoldLapsesAtWork, IgnoreExtend, RenewForgotten,
    },
    wait::{elapse, eventually},
};

pub(super) fn cases<F: Both>() -> Vec<Case<F>> {
    vec![
        case!(
            should_keep_a_message_when_its_handler_takes_longer_than_the_lease,
            "a long handler keeps its delivery: no other member is given it"
        )
        .described(Flag::extend)
        .catching(&[IgnoreExtend]),
        case!(
            should_keep_an_ordered_message_when_its_handler_takes_longer_than_the_lease,
            "a long handler keeps its partition: no other member is given its messages"
        )
        .described(Flag::ordering)
        .catching(&[HoldLapsesAtWork, DuplicateDelivery]),
        case!(
            should_renew_the_hold_when_a_retry_takes_longer_than_the_lease,
            "a parked message stays with the member that has claimed it for as long as its handler runs"
        )
        .catching(&[RenewForgotten]),
        case!(
            should_end_the_handler_when_its_hold_is_lost,
            "a handler whose hold cannot be renewed is ended before another member may take its message over"
        )
        .catching(&[AckOnReceive]),
        case!(
            should_grant_more_time_when_a_handler_asks_for_it,
            "a handler that extends its time is not ended before that, and is afterwards"
        )
        // The time is core's own: a driver can lose or double the message, and no more.
        .catching(&[DropDelivery, DuplicateDelivery]),
    ]
}

async fn long_handlers<F: Both>(cx: &Cx<F>, form: Inbox, partitions: Option<u16>) -> CaseResult {
    let (log, long) = (Log::new(cx), 3 * cx.lease());
    let mut processes = Vec::new();
    for label in ["one", "two"] {
        let handler = log.handler_after::<F, _, _>(form, move |_, _| async move {
            elapse(long).await;
            Ok(())
        });
        let consumer = cx.consumer(form).on(handler).timeout(2 * long);
        let setup = cx.process(label, form);
        let setup = match partitions {
            Some(partitions) => setup.ordered(partitions).with(consumer.ordered_by_key()),
            None => setup.with(consumer),
        };
        processes.push(setup.start().await?);
    }
    // Partitions are where they stay.
    elapse(2 * cx.lease()).await;
    let messages = cx.works(4, &["a", "b", "c", "d"]);
    // The first alone: the member that has nothing to do is the one that would take it.
    processes[0].send(&messages[..1]).await?;
    log.wait_for(cx, 1).await?;
    processes[0].send(&messages[1..]).await?;
    log.each_once(cx, 4).await?;
    processes[0].settled(cx, &group_of(form)).await?;
    ensure_eq!(log.calls().len(), 4, "calls");
    stop_all(cx, processes).await
}

async fn should_keep_a_message_when_its_handler_takes_longer_than_the_lease<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&FORMS, async |form| long_handlers(cx, form, None).await).await
}

async fn should_keep_an_ordered_message_when_its_handler_takes_longer_than_the_lease<F: Both>(
    cx: &Cx<F>,
) -> CaseResult {
    in_each(&FORMS, async |form| long_handlers(cx, form, Some(4)).await).await
}

async fn should_renew_the_hold_when_a_retry_takes_longer_than_the_lease<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&STORED, async |form| {
        let (log, long) = (Log::new(cx), 3 * cx.lease());
        let mut processes = Vec::new();
        for label in ["one", "two"] {
            let handler = log.handler_after::<F, _, _>(form, move |_, cx| async move {
                if cx.attempt().round == 1 {
                    return Err(HandlerError::retry_after(Duration::ZERO, "not yet"));
                }
                elapse(long).await;
                Ok(())
            });
            let consumer = cx.consumer(form).on(handler).timeout(2 * long);
            processes.push(cx.process(label, form).with(consumer).start().await?);
        }
        processes[0].send(&cx.works(4, &[""])).await?;
        log.each_once(cx, 4).await?;
        processes[0].settled(cx, &group_of(form)).await?;
        ensure_eq!(log.calls().len(), 8, "calls");
        stop_all(cx, processes).await
    })
    .await
}

async fn should_end_the_handler_when_its_hold_is_lost<F: Both>(cx: &Cx<F>) -> CaseResult {
    /// Counts a call that is ended from outside.
    struct Ended(Arc<AtomicU32>);
    impl Drop for Ended {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }
    let form = Inbox::Around;
    let (log, ended) = (Log::new(cx), Arc::new(AtomicU32::new(0)));
    let (count, long) = (ended.clone(), 20 * cx.lease());
    let handler = log.handler_after::<F, _, _>(form, move |_, _| {
        let ended = Ended(count.clone());
        async move {
            let _ended = ended;
            elapse(long).await;
            Ok(())
        }
    });
    let frozen = cx
        .process("frozen", form)
        .with(cx.consumer(form).on(handler).timeout(2 * long))
        .start()
        .await?;
    frozen.send(&[cx.work(1, "")]).await?;
    log.wait_for_calls(cx, 1).await?;
    // From now on its store does not answer; its transport does.
    frozen.store.kill();
    let watch = crate::wait::Stopwatch::start();
    eventually(cx.patience(), "the end of the handler", async || {
        Ok((ended.load(Ordering::Acquire) == 1).then_some(()))
    })
    .await?;
    let took = watch.elapsed();
    ensure!(
        took <= cx.lease(),
        "the handler was ended after {took:?}, the lease is {:?}",
        cx.lease()
    );
    ensure_eq!(log.done(cx).await?, Vec::<u32>::new(), "effects");
    frozen.kill();
    let healthy = cx
        .process("healthy", form)
        .with(cx.consumer(form).on(log.handler::<F>(form)))
        .start()
        .await?;
    log.each_once(cx, 1).await?;
    healthy.settled(cx, &group_of(form)).await?;
    healthy.stop(cx).await
}

async fn should_grant_more_time_when_a_handler_asks_for_it<F: Both>(cx: &Cx<F>) -> CaseResult {
    in_each(&FORMS, async |form| {
        let log = Log::new(cx);
        let handler = log.handler_after::<F, _, _>(form, |work, cx| async move {
            if cx.attempt().inline > 1 {
                return Ok(());
            }
            cx.extend(Duration::from_millis(700));
            let time = if work.n == 1 { 500 } else { 2_000 };
            elapse(Duration::from_millis(time)).await;
            Ok(())
        });
        let retry = super::process::quick().inline(1);
        let consumer = cx
            .consumer(form)
            .on(handler)
            .timeout(Duration::from_millis(200))
            .retry(retry);
        let process = cx.process("one", form).with(consumer).start().await?;
        process.send(&cx.works(2, &[""])).await?;
        log.each_once(cx, 2).await?;
        ensure_eq!(
            (log.calls_of(1).len(), log.calls_of(2).len()),
            (1, 2),
            "calls of each"
        );
        process.stop(cx).await
    })
    .await
}
