//! Traces that go on from process to process by OpenTelemetry.

use std::str::FromStr;

use headless_abstractions::{HeaderValue, TraceContext};
use headless_core::trace::Propagator;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Knows the ids of spans from the layer of `tracing-opentelemetry`. Where that layer is not installed, or does not see a
/// span, nothing is known of it.
///
/// [`Builder::opentelemetry`](crate::Builder::opentelemetry) gives it to a runtime. By itself it makes a span the child
/// of a context that came with a request:
///
/// ```
/// use headless::{HeaderValue, OpenTelemetry, TraceContext, trace::Propagator};
///
/// # fn main() -> headless::Result<()> {
/// let span = tracing::info_span!("request");
/// let traceparent = HeaderValue::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")?;
/// OpenTelemetry.set_parent(&span, &TraceContext::new(traceparent, None));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "it has no state and no settings")]
pub struct OpenTelemetry;

impl Propagator for OpenTelemetry {
    fn context_of(&self, span: &Span) -> Option<TraceContext> {
        let context = span.context();
        let span = context.span();
        let ids = span.span_context();
        if !ids.is_valid() {
            return None;
        }
        let (trace, parent) = (ids.trace_id(), ids.span_id());
        let flags = (ids.trace_flags() & TraceFlags::SAMPLED).to_u8();
        let traceparent = HeaderValue::parse(&format!("00-{trace}-{parent}-{flags:02x}")).ok()?;
        let state = ids.trace_state().header();
        let tracestate = match state.is_empty() {
            true => None,
            false => HeaderValue::parse(&state).ok(),
        };
        Some(TraceContext::new(traceparent, tracestate))
    }

    fn set_parent(&self, span: &Span, context: &TraceContext) {
        if let Some(parent) = remote(context) {
            // Without the layer nobody records the span: there is nothing to be the parent of.
            let _unrecorded = span
                .set_parent(Context::new().with_remote_span_context(parent))
                .err();
        }
    }

    fn link(&self, span: &Span, context: &TraceContext) {
        if let Some(linked) = remote(context) {
            span.add_link(linked);
        }
    }
}

/// The span of another process that a context names. A state that is none goes without saying: the standard has it
/// dropped, and the ids kept.
fn remote(context: &TraceContext) -> Option<SpanContext> {
    let ids = context.ids()?;
    let state = context.tracestate.as_ref();
    let state = state.and_then(|state| TraceState::from_str(state.as_str()).ok());
    let flags = match ids.is_sampled {
        true => TraceFlags::SAMPLED,
        false => TraceFlags::default(),
    };
    Some(SpanContext::new(
        TraceId::from(ids.trace),
        SpanId::from(ids.parent),
        flags,
        true,
        state.unwrap_or_default(),
    ))
}
