//! One trace from a request to the handler of its message.

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode},
    middleware::Next,
    response::Response,
};
use headless::{HeaderValue, OpenTelemetry, TraceContext, trace::Propagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Instrument, Subscriber, field::Empty};
use tracing_subscriber::{Layer, filter::LevelFilter, registry::LookupSpan};

#[cfg(test)]
mod tests;

/// Gives spans their ids, and to the exporters of this provider what is recorded. Without an exporter the trace of a
/// request goes on with its message all the same; `docs/telemetry.md` says how to add one.
pub(crate) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let tracer = provider.tracer("webhook-relay");
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_filter(LevelFilter::INFO)
}

/// Answers a webhook within a span of its own: a child of the caller's, where the request names one.
pub(crate) async fn request(request: Request, next: Next) -> Response {
    let span = tracing::info_span!(
        "request",
        otel.name = "POST /webhooks",
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = "POST",
        http.route = "/webhooks",
        http.response.status_code = Empty,
    );
    if let Some(caller) = caller(request.headers()) {
        OpenTelemetry.set_parent(&span, &caller);
    }
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status >= StatusCode::INTERNAL_SERVER_ERROR {
        span.record("otel.status_code", "ERROR");
    }
    response
}

/// The trace context that a request carries. What is none is ignored.
fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let header = |name| HeaderValue::parse(headers.get(name)?.to_str().ok()?).ok();
    Some(TraceContext::new(header("traceparent")?, header("tracestate")))
}
