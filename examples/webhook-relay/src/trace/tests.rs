//! From HTTP to the handler, by OpenTelemetry's own exporter.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, http::header::CONTENT_TYPE};
use clap::Parser;
use headless::{Context, HandlerError, Runtime};
use hmac::{Hmac, KeyInit, Mac};
use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};
use sha2::Sha256;
use tower::ServiceExt;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::{
    args::Args,
    server::{Limits, Server},
    service,
    statistics::count,
    webhook::WebhookReceived,
};

const SECRET: &str = "It's a Secret to Everybody";
const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const BODY: &str = r#"{"repository": {"full_name": "octo/hello"}}"#;
const PATIENCE: Duration = Duration::from_secs(60);

/// The service in memory, with what it exports.
struct Traced {
    exporter: InMemorySpanExporter,
    _provider: SdkTracerProvider,
    _guard: DefaultGuard,
    runtime: Arc<Runtime>,
    router: Router,
}

impl Traced {
    /// One whose first attempt fails, if it is told so.
    async fn start(fails: bool) -> Self {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let subscriber = tracing_subscriber::registry().with(layer(&provider));
        let guard = tracing::subscriber::set_default(subscriber);
        let args = Args::parse_from(["webhook-relay", "--store", "memory:"]);
        let limits = Limits {
            body: 1_024,
            requests: 1,
            time: PATIENCE,
        };
        let fails = AtomicBool::new(fails);
        let handler = move |webhook: WebhookReceived, cx: Context| {
            let fails = fails.swap(false, Ordering::SeqCst);
            async move {
                if fails {
                    return Err(HandlerError::retry("not yet"));
                }
                count(webhook, cx).await
            }
        };
        let (runtime, storage) = service::start(&args, limits, handler).await.unwrap();
        let runtime = Arc::new(runtime);
        let server = Server {
            runtime: Arc::downgrade(&runtime),
            storage,
            secret: SECRET.parse().unwrap(),
        };
        Self {
            exporter,
            _provider: provider,
            _guard: guard,
            runtime,
            router: server.router(limits),
        }
    }

    /// Delivers a webhook with this `traceparent`, and waits until it is counted. The spans in the order of their start.
    async fn deliver(self, traceparent: Option<&str>) -> Vec<SpanData> {
        let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        let digits = mac.chain_update(BODY).finalize().into_bytes();
        let mut request = Request::post("/webhooks")
            .header(CONTENT_TYPE, "application/json")
            .header("x-github-event", "push")
            .header("x-github-delivery", "00000000-0000-4000-8000-000000000001")
            .header("x-hub-signature-256", format!("sha256={}", hex::encode(digits)));
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let request = request.body(Body::from(BODY)).unwrap();
        let response = self.router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        self.runtime.settled(PATIENCE).await.unwrap();
        let runtime = Arc::into_inner(self.runtime).unwrap();
        assert_eq!(runtime.consumers()[0].stats().handled, 1);
        runtime.shutdown(PATIENCE).await.unwrap();
        let mut spans = self.exporter.get_finished_spans().unwrap();
        spans.sort_by_key(|span| span.start_time);
        spans
    }
}

fn names(spans: &[SpanData]) -> Vec<&str> {
    spans.iter().map(|span| &*span.name).collect()
}

#[tokio::test]
async fn should_be_one_trace_from_the_callers_request_to_the_handler() {
    let spans = Traced::start(false).await.deliver(Some(CALLER)).await;
    assert_eq!(
        names(&spans),
        [
            "POST /webhooks",
            "publish github.webhooks",
            "process github.webhooks"
        ]
    );
    let mut parent = SpanId::from_hex("b7ad6b7169203331").unwrap();
    let trace = TraceId::from_hex("0af7651916cd43dd8448eb211c80319c").unwrap();
    for span in &spans {
        assert_eq!(span.span_context.trace_id(), trace, "{}", span.name);
        assert_eq!(span.parent_span_id, parent, "{}", span.name);
        assert!(span.links.is_empty(), "{}", span.name);
        parent = span.span_context.span_id();
    }
    assert_eq!(spans[0].span_kind, SpanKind::Server);
}

#[tokio::test]
async fn should_link_the_second_attempt_when_the_first_has_failed() {
    let spans = Traced::start(true).await.deliver(Some(CALLER)).await;
    let process = "process github.webhooks";
    assert_eq!(
        names(&spans),
        ["POST /webhooks", "publish github.webhooks", process, process]
    );
    let [_, published, first, second] = &spans[..] else {
        panic!("{spans:#?}");
    };
    assert_eq!(first.parent_span_id, published.span_context.span_id());
    assert_eq!(second.parent_span_id, SpanId::INVALID);
    assert_ne!(second.span_context.trace_id(), first.span_context.trace_id());
    let linked: Vec<_> = second.links.iter().map(|link| &link.span_context).collect();
    assert_eq!(linked.len(), 1);
    assert_eq!(linked[0].span_id(), published.span_context.span_id());
    assert_eq!(linked[0].trace_id(), published.span_context.trace_id());
}

#[tokio::test]
async fn should_begin_a_trace_when_the_caller_names_none() {
    for traceparent in [
        None,
        Some("nonsense"),
        Some("00-00000000000000000000000000000000-b7ad6b7169203331-01"),
    ] {
        let spans = Traced::start(false).await.deliver(traceparent).await;
        assert_eq!(spans[0].parent_span_id, SpanId::INVALID, "{traceparent:?}");
        assert_eq!(spans.len(), 3);
        let trace = spans[0].span_context.trace_id();
        assert!(spans.iter().all(|span| span.span_context.trace_id() == trace));
    }
}
