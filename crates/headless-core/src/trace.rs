//! Spans: what is traced, under which names, and how the trace of a message goes on.
//!
//! Names and fields follow OpenTelemetry's semantic conventions for messaging spans, which are in development as of 2026.
//! Fields that they do not know begin with `headless.`; `otel.*` says name, kind and status to `tracing-opentelemetry`.
//! `docs/telemetry.md` has the table for people.

mod spans;

use std::fmt::Debug;

use headless_abstractions::TraceContext;
use tracing::Span;

pub use spans::{Called, SPANS, SpanSpec, TARGET, fail, process, publish, send, settle};

/// What ties spans to messages: it knows the ids of spans, which `tracing` itself does not.
///
/// None of its methods fails: a trace that cannot be followed is no reason to keep a message from its way.
pub trait Propagator: Debug + Send + Sync + 'static {
    /// The W3C context of this span, to travel with a message; `None` when it has none.
    fn context_of(&self, span: &Span) -> Option<TraceContext>;

    /// Makes a span that was made just now, and not entered yet, a child of this context.
    ///
    /// A context that is none by the standard leaves it the root of a trace of its own.
    fn set_parent(&self, span: &Span, context: &TraceContext);

    /// Links a span to this context, unless that is none by the standard.
    fn link(&self, span: &Span, context: &TraceContext);
}

/// Knows no ids: what a handler publishes then carries on the trace context of its own message, so that a trace goes
/// through services that export none.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NoPropagator;

impl Propagator for NoPropagator {
    fn context_of(&self, _: &Span) -> Option<TraceContext> {
        None
    }

    fn set_parent(&self, _: &Span, _: &TraceContext) {}

    fn link(&self, _: &Span, _: &TraceContext) {}
}
