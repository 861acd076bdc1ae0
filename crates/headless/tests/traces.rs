//! Traces by OpenTelemetry: from what publishes to what handles, through the outbox and the broker.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "traces/recorded.rs"]
mod recorded;

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use headless::{
    BatchContext, Consumer, Context, DeadLetterFilter, Environment, Event, HandlerError, HandlerResult,
    HeaderValue, Headless, Inbox, Memory, Ordered, PublishExt, Redrive, Retry, Runtime, SeededRandom,
    Spawner, SystemClock, TraceContext,
};
use opentelemetry::trace::{SpanId, SpanKind, Status};
use serde::{Deserialize, Serialize};
use tracing::Instrument;

use crate::recorded::Recorded;

const MINUTE: Duration = Duration::from_mins(1);

#[derive(Clone, Serialize, Deserialize)]
struct Placed {
    order: String,
}

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.order))
    }
}

#[derive(Serialize, Deserialize)]
struct Billed {
    order: String,
}

impl Event for Billed {
    const TOPIC: &'static str = "orders.billed";
}

fn placed() -> Placed {
    Placed {
        order: "1".to_owned(),
    }
}

async fn start(memory: &Memory, consumers: impl IntoIterator<Item = Consumer>) -> Runtime {
    let environment = Environment::new(
        Arc::new(SystemClock::new()),
        Arc::new(SeededRandom::new(1)),
        Spawner::current(),
        "node-1",
    );
    let builder = Headless::builder("orders")
        .store(memory)
        .transport(memory.clone())
        .topic::<Placed>(Ordered::partitions(4))
        .environment(environment)
        .opentelemetry();
    consumers
        .into_iter()
        .fold(builder, headless::Builder::consumer)
        .start()
        .await
        .unwrap()
}

/// A handler that fails this many times.
fn failing(times: u32) -> impl Fn(Placed, Context) -> futures::future::Ready<HandlerResult> {
    let calls = AtomicU32::new(0);
    move |_, _| {
        let failed = calls.fetch_add(1, Ordering::SeqCst) < times;
        futures::future::ready(match failed {
            true => Err(HandlerError::retry("not yet")),
            false => Ok(()),
        })
    }
}

async fn bill(placed: Placed, cx: Context) -> HandlerResult {
    let mut work = cx.begin::<Memory>().await?;
    let message = Billed { order: placed.order };
    let published = work.publish(&message).instrument(tracing::info_span!("billing"));
    published.await?;
    work.commit().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn should_go_on_from_the_request_to_the_last_handler_in_one_trace() {
    let (recorded, _guard) = Recorded::install();
    let memory = Memory::new();
    let runtime = start(
        &memory,
        [
            Consumer::group("billing").on(bill),
            Consumer::group("post").on(|_: Billed, _: Context| async { Ok(()) }),
        ],
    )
    .await;
    let publish = async {
        let mut work = runtime.begin::<Memory>().await.unwrap();
        work.publish(&placed()).await.unwrap();
        work.commit().await.unwrap();
    };
    publish.instrument(tracing::info_span!("request")).await;
    runtime.settled(MINUTE).await.unwrap();
    runtime.shutdown(MINUTE).await.unwrap();

    let request = recorded.one("request");
    let published = recorded.one("publish orders.placed");
    let processed = recorded.one("process orders.placed");
    let billing = recorded.one("billing");
    let published_on = recorded.one("publish orders.billed");
    let processed_on = recorded.one("process orders.billed");
    let chain = [
        request.clone(),
        published.clone(),
        processed.clone(),
        billing,
        published_on,
        processed_on,
    ];
    for pair in chain.windows(2) {
        assert_eq!(pair[1].parent_span_id, pair[0].span_context.span_id());
        assert_eq!(pair[1].span_context.trace_id(), request.span_context.trace_id());
        assert!(pair[1].links.is_empty(), "{:?}", pair[1]);
    }
    assert_eq!(published.span_kind, SpanKind::Producer);
    assert_eq!(processed.span_kind, SpanKind::Consumer);
    assert_eq!(processed.status, Status::Unset);

    // What the relay does is told apart: a batch has messages of many traces.
    let sent = recorded.one("send orders.placed");
    assert_eq!(sent.span_kind, SpanKind::Client);
    assert_eq!(sent.parent_span_id, SpanId::INVALID);
    assert_eq!(recorded.links(&sent), [published.span_context.span_id()]);
}

#[tokio::test(start_paused = true)]
async fn should_link_later_attempts_to_the_message_and_not_make_them_children() {
    let (recorded, _guard) = Recorded::install();
    let memory = Memory::new();
    // Twice inline and once from the park, before it goes well there.
    let consumer = Consumer::group("billing")
        .on(failing(3))
        .retry(Retry::default().inline(1));
    let runtime = start(&memory, [consumer]).await;
    runtime.publisher().publish(&placed()).await.unwrap();
    runtime.settled(MINUTE).await.unwrap();
    runtime.shutdown(MINUTE).await.unwrap();

    let published = recorded.one("publish orders.placed");
    let attempts = recorded.all("process orders.placed");
    let counted: Vec<_> = attempts
        .iter()
        .map(|span| {
            (
                Recorded::attribute(span, "headless.round"),
                Recorded::attribute(span, "headless.inline_attempt"),
                Recorded::attribute(span, "error.type"),
            )
        })
        .collect();
    let attempt = |round: &str, inline: &str, error: Option<&str>| {
        (
            Some(round.to_owned()),
            Some(inline.to_owned()),
            error.map(ToOwned::to_owned),
        )
    };
    assert_eq!(
        counted,
        [
            attempt("1", "1", Some("error")),
            attempt("1", "2", Some("error")),
            attempt("2", "1", Some("error")),
            attempt("2", "2", None),
        ]
    );
    let (first, later) = attempts.split_first().unwrap();
    assert_eq!(first.parent_span_id, published.span_context.span_id());
    assert!(first.links.is_empty());
    assert!(matches!(first.status, Status::Error { .. }));
    let mut traces = vec![first.span_context.trace_id()];
    for attempt in later {
        assert_eq!(attempt.parent_span_id, SpanId::INVALID);
        assert_eq!(recorded.links(attempt), [published.span_context.span_id()]);
        assert!(
            !traces.contains(&attempt.span_context.trace_id()),
            "a trace of its own"
        );
        traces.push(attempt.span_context.trace_id());
    }
}

#[tokio::test(start_paused = true)]
async fn should_link_the_attempt_of_a_redelivery() {
    let (recorded, _guard) = Recorded::install();
    let memory = Memory::new();
    let calls = AtomicU32::new(0);
    // Without a store nothing counts rounds: that it is not the first attempt is known of the delivery alone.
    let consumer = Consumer::group("post")
        .on(move |_: Billed, _: Context| {
            let failed = calls.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                match failed {
                    true => Err(HandlerError::retry("not yet")),
                    false => Ok(()),
                }
            }
        })
        .inbox(Inbox::Off)
        .retry(Retry::default().inline(0));
    let runtime = start(&memory, [consumer]).await;
    let billed = Billed {
        order: "1".to_owned(),
    };
    runtime.publisher().publish(&billed).await.unwrap();
    runtime.settled(MINUTE).await.unwrap();
    runtime.shutdown(MINUTE).await.unwrap();

    let published = recorded.one("publish orders.billed");
    let attempts = recorded.all("process orders.billed");
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].parent_span_id, published.span_context.span_id());
    assert_eq!(attempts[1].parent_span_id, SpanId::INVALID);
    assert_eq!(recorded.links(&attempts[1]), [published.span_context.span_id()]);
}

#[tokio::test(start_paused = true)]
async fn should_link_the_redelivery_of_a_message_that_makes_a_batch_of_its_own() {
    let (recorded, _guard) = Recorded::install();
    let memory = Memory::new();
    let calls = AtomicU32::new(0);
    // Fails as a batch and alone, and goes well when it is delivered again, in a batch.
    let handler = move |_: Vec<Billed>, _: BatchContext| {
        let failed = calls.fetch_add(1, Ordering::SeqCst) < 2;
        async move {
            match failed {
                true => Err(HandlerError::retry("not yet")),
                false => Ok(()),
            }
        }
    };
    let consumer = Consumer::group("post")
        .batch(10, Duration::from_secs(1), handler)
        .inbox(Inbox::Off)
        .retry(Retry::default().inline(0));
    let runtime = start(&memory, [consumer]).await;
    let billed = Billed {
        order: "1".to_owned(),
    };
    runtime.publisher().publish(&billed).await.unwrap();
    runtime.settled(MINUTE).await.unwrap();
    runtime.shutdown(MINUTE).await.unwrap();

    let published = recorded.one("publish orders.billed").span_context.span_id();
    let parents: Vec<_> = recorded
        .all("process orders.billed")
        .iter()
        .map(|span| (span.parent_span_id, recorded.links(span)))
        .collect();
    let child = (published, Vec::new());
    let linked = (SpanId::INVALID, vec![published]);
    assert_eq!(parents, [child.clone(), child, linked]);
}

#[tokio::test(start_paused = true)]
async fn should_link_the_attempts_of_what_an_operator_redrives() {
    let (recorded, _guard) = Recorded::install();
    let memory = Memory::new();
    let calls = AtomicU32::new(0);
    let handler = move |_: Placed, _: Context| {
        let failed = calls.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            match failed {
                true => Err(HandlerError::permanent("not like this")),
                false => Ok(()),
            }
        }
    };
    let runtime = start(&memory, [Consumer::group("billing").on(handler)]).await;
    runtime.publisher().publish(&placed()).await.unwrap();
    runtime.settled(MINUTE).await.unwrap();
    let letters = runtime.dead_letters().unwrap();
    let page = letters.list(&DeadLetterFilter::open(), None, 10).await.unwrap();
    letters
        .redrive(&Redrive::new(vec![page.items[0].id], "an operator"))
        .await
        .unwrap();
    runtime.settled(MINUTE).await.unwrap();
    runtime.shutdown(MINUTE).await.unwrap();

    let published = recorded.one("publish orders.placed").span_context.span_id();
    let attempts = recorded.all("process orders.placed");
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].parent_span_id, published);
    // It is in round 1 again, and was tried before.
    let round = Recorded::attribute(&attempts[1], "headless.round");
    assert_eq!(round.as_deref(), Some("1"));
    assert_eq!(attempts[1].parent_span_id, SpanId::INVALID);
    assert_eq!(recorded.links(&attempts[1]), [published]);
}

#[tokio::test(start_paused = true)]
async fn should_carry_on_the_current_span_when_the_publishing_one_is_not_exported() {
    let (recorded, _guard) = Recorded::install_but(|target| target != headless::trace::TARGET);
    let memory = Memory::new();
    let (seen, mut came) = tokio::sync::mpsc::unbounded_channel();
    let report = move |_: Placed, cx: Context| {
        seen.send(cx.message().trace.clone()).unwrap();
        async { Ok(()) }
    };
    let runtime = start(&memory, [Consumer::group("billing").on(report)]).await;
    let publish = async { runtime.publisher().publish(&placed()).await.unwrap() };
    publish.instrument(tracing::info_span!("request")).await;
    let carried = came.recv().await.unwrap().unwrap().ids().unwrap();
    runtime.shutdown(MINUTE).await.unwrap();

    let request = recorded.one("request").span_context;
    assert_eq!(carried.parent, u64::from_be_bytes(request.span_id().to_bytes()));
    assert_eq!(carried.trace, u128::from_be_bytes(request.trace_id().to_bytes()));
    assert!(recorded.all("publish orders.placed").is_empty());
}

#[tokio::test(start_paused = true)]
async fn should_link_a_batch_to_each_of_its_messages() {
    let (recorded, _guard) = Recorded::install();
    let memory = Memory::new();
    let handler = |_: Vec<Placed>, _: BatchContext| async { Ok(()) };
    let consumer = Consumer::group("billing").batch(10, Duration::from_secs(1), handler);
    let runtime = start(&memory, [consumer]).await;
    for _ in 0..3 {
        runtime.publisher().publish(&placed()).await.unwrap();
    }
    runtime.settled(MINUTE).await.unwrap();
    runtime.shutdown(MINUTE).await.unwrap();

    let published: Vec<_> = recorded
        .all("publish orders.placed")
        .iter()
        .map(|span| span.span_context.span_id())
        .collect();
    let batch = recorded.one("process orders.placed");
    assert_eq!(batch.parent_span_id, SpanId::INVALID);
    assert_eq!(recorded.links(&batch), published);
    let count = Recorded::attribute(&batch, "messaging.batch.message_count");
    assert_eq!(count.as_deref(), Some("3"));
    assert_eq!(
        Recorded::attribute(&batch, "headless.round"),
        None,
        "each has its own"
    );
}

#[tokio::test(start_paused = true)]
async fn should_keep_the_context_that_a_message_was_given() {
    let (recorded, _guard) = Recorded::install();
    let memory = Memory::new();
    let runtime = start(&memory, [Consumer::group("billing").on(failing(0))]).await;
    let given = TraceContext::new(
        HeaderValue::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap(),
        Some(HeaderValue::parse("vendor=value").unwrap()),
    );
    let message = runtime.publisher().message(Placed::TOPIC, &placed());
    message.key("1").trace(given).send().await.unwrap();
    runtime.settled(MINUTE).await.unwrap();
    runtime.shutdown(MINUTE).await.unwrap();

    let given = SpanId::from_hex("b7ad6b7169203331").unwrap();
    let published = recorded.one("publish orders.placed");
    assert_eq!(recorded.links(&published), [given]);
    let processed = recorded.one("process orders.placed");
    assert_eq!(processed.parent_span_id, given);
    assert_eq!(processed.span_context.trace_state().header(), "vendor=value");
}

#[tokio::test(start_paused = true)]
async fn should_begin_a_trace_of_its_own_when_the_context_is_none() {
    let (recorded, _guard) = Recorded::install();
    let memory = Memory::new();
    let runtime = start(&memory, [Consumer::group("billing").on(failing(0))]).await;
    let wrong = [
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "nonsense",
    ];
    for traceparent in wrong {
        let context = TraceContext::new(HeaderValue::parse(traceparent).unwrap(), None);
        let message = runtime.publisher().message(Placed::TOPIC, &placed());
        message.key("1").trace(context).send().await.unwrap();
    }
    runtime.settled(MINUTE).await.unwrap();
    let stats = runtime.consumers()[0].stats();
    assert_eq!((stats.handled, stats.dead), (2, 0));
    runtime.shutdown(MINUTE).await.unwrap();
    for span in recorded.all("process orders.placed") {
        assert_eq!(span.parent_span_id, SpanId::INVALID);
        assert!(span.links.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn should_go_through_a_service_that_exports_nothing() {
    let _alone = recorded::alone();
    // No layer: nobody knows the ids of spans.
    let memory = Memory::new();
    let (seen, mut came) = tokio::sync::mpsc::unbounded_channel();
    let report = move |_: Billed, cx: Context| {
        seen.send(cx.message().trace.clone()).unwrap();
        async { Ok(()) }
    };
    let runtime = start(
        &memory,
        [
            Consumer::group("billing").on(bill),
            Consumer::group("post").on(report),
        ],
    )
    .await;
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (traceparent, arrives) in [(given, true), ("nonsense", false)] {
        let given = TraceContext::new(HeaderValue::parse(traceparent).unwrap(), None);
        let message = runtime.publisher().message(Placed::TOPIC, &placed());
        message.key("1").trace(given.clone()).send().await.unwrap();
        let carried = came.recv().await.unwrap();
        assert_eq!(carried, arrives.then_some(given));
    }
    runtime.shutdown(MINUTE).await.unwrap();
}
