//! What OpenTelemetry's own exporter was given.

use std::sync::{Mutex, MutexGuard, PoisonError};

use opentelemetry::trace::{SpanId, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::{
    Layer,
    filter::filter_fn,
    layer::{Identity, SubscriberExt},
};

/// Whether anybody wants a span is found out once for its place in the code, from the thread that comes there first: where
/// there is one subscriber, a thread without it decides for all. So tests that come to the same places take turns.
static ALONE: Mutex<()> = Mutex::new(());

/// Records until it is dropped.
pub(crate) struct Recording {
    _subscriber: DefaultGuard,
    _alone: Alone,
}

/// The spans of the thread that [`Recorded::install`] was called on, once they have ended.
pub(crate) struct Recorded {
    exporter: InMemorySpanExporter,
    _provider: SdkTracerProvider,
}

/// Has the places of spans for itself until this is dropped, and records nothing.
pub(crate) struct Alone(#[expect(dead_code, reason = "held until it is dropped")] MutexGuard<'static, ()>);

pub(crate) fn alone() -> Alone {
    // A test that has failed has left nothing behind that matters here.
    Alone(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Recorded {
    pub(crate) fn install() -> (Self, Recording) {
        Self::install_but(|_| true)
    }

    /// Only the spans of targets that `is_exported` names; something else sees all of them.
    pub(crate) fn install_but(is_exported: fn(&str) -> bool) -> (Self, Recording) {
        let alone = alone();
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let layer = layer.with_filter(filter_fn(move |metadata| is_exported(metadata.target())));
        let subscriber = tracing_subscriber::registry().with(layer).with(Identity::new());
        let recording = Recording {
            _subscriber: tracing::subscriber::set_default(subscriber),
            _alone: alone,
        };
        let recorded = Self {
            exporter,
            _provider: provider,
        };
        (recorded, recording)
    }

    /// Those of this name, in the order of their start.
    pub(crate) fn all(&self, name: &str) -> Vec<SpanData> {
        let mut spans = self.exporter.get_finished_spans().unwrap();
        spans.retain(|span| span.name == name);
        spans.sort_by_key(|span| span.start_time);
        spans
    }

    /// The only one of this name.
    pub(crate) fn one(&self, name: &str) -> SpanData {
        let mut spans = self.all(name);
        assert_eq!(spans.len(), 1, "{name}: {spans:#?}");
        spans.remove(0)
    }

    /// To which spans this one is linked.
    pub(crate) fn links(&self, span: &SpanData) -> Vec<SpanId> {
        span.links
            .iter()
            .map(|link| link.span_context.span_id())
            .collect()
    }

    pub(crate) fn attribute(span: &SpanData, key: &str) -> Option<String> {
        let mut attributes = span.attributes.iter();
        let found = attributes.find(|attribute| attribute.key.as_str() == key)?;
        Some(found.value.as_str().into_owned())
    }
}
