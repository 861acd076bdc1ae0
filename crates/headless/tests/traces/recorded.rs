//! What OpenTelemetry's own exporter was given.

use opentelemetry::trace::{SpanId, TracerProvider as _};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::{
    Layer,
    filter::filter_fn,
    layer::{Identity, SubscriberExt},
};

/// The spans of the thread that [`Recorded::install`] was called on, once they have ended.
pub(crate) struct Recorded {
    exporter: InMemorySpanExporter,
    _provider: SdkTracerProvider,
}

impl Recorded {
    pub(crate) fn install() -> (Self, DefaultGuard) {
        Self::install_but(|_| true)
    }

    /// Only the spans of targets that `is_exported` names; something else sees all of them.
    pub(crate) fn install_but(is_exported: fn(&str) -> bool) -> (Self, DefaultGuard) {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let layer = layer.with_filter(filter_fn(move |metadata| is_exported(metadata.target())));
        let subscriber = tracing_subscriber::registry().with(layer).with(Identity::new());
        let guard = tracing::subscriber::set_default(subscriber);
        let recorded = Self {
            exporter,
            _provider: provider,
        };
        (recorded, guard)
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
