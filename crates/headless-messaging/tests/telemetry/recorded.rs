//! Everything that is emitted on one thread: the shape of every metric and of every span.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use headless_core::metric::MetricKind;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// What was emitted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Each metric that was touched, with its labels.
    metrics: BTreeSet<(String, &'static str, Vec<String>)>,
    /// The values of each label.
    values: BTreeMap<String, BTreeSet<String>>,
    /// Each kind of span, by target and name.
    spans: BTreeMap<(String, String), Shape>,
    /// Which span has which id.
    ids: BTreeMap<u64, (String, String)>,
}

/// What the spans of one name look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) level: Level,
    pub(crate) fields: Vec<&'static str>,
    /// Those that had a value, once at least, and the kinds that were named.
    pub(crate) filled: BTreeSet<&'static str>,
    pub(crate) kinds: BTreeSet<String>,
}

impl Recorded {
    pub(crate) fn metrics(&self) -> BTreeSet<(String, &'static str, Vec<String>)> {
        self.0.lock().unwrap().metrics.clone()
    }

    /// The values that this label has had.
    pub(crate) fn values(&self, label: &str) -> BTreeSet<String> {
        let inner = self.0.lock().unwrap();
        inner.values.get(label).cloned().unwrap_or_default()
    }

    /// The spans of our crates, by target and name.
    pub(crate) fn spans(&self) -> BTreeMap<(String, String), Shape> {
        let mut spans = self.0.lock().unwrap().spans.clone();
        spans.retain(|(target, _), _| target.starts_with("headless"));
        spans
    }

    fn touch(&self, key: &Key, kind: MetricKind) -> Touched {
        Touched {
            recorded: self.clone(),
            key: key.clone(),
            kind,
        }
    }
}

/// A series, to be recorded once it has a value: one that is only registered says nothing.
struct Touched {
    recorded: Recorded,
    key: Key,
    kind: MetricKind,
}

impl Touched {
    fn note(&self) {
        let mut inner = self.recorded.0.lock().unwrap();
        let labels: Vec<_> = self.key.labels().map(|label| label.key().to_owned()).collect();
        let name = self.key.name().to_owned();
        inner.metrics.insert((name, self.kind.as_str(), labels));
        for label in self.key.labels() {
            let values = inner.values.entry(label.key().to_owned()).or_default();
            values.insert(label.value().to_owned());
        }
    }
}

impl CounterFn for Touched {
    fn increment(&self, _: u64) {
        self.note();
    }

    fn absolute(&self, _: u64) {
        self.note();
    }
}

impl GaugeFn for Touched {
    fn increment(&self, _: f64) {
        self.note();
    }

    fn decrement(&self, _: f64) {
        self.note();
    }

    fn set(&self, _: f64) {
        self.note();
    }
}

impl HistogramFn for Touched {
    fn record(&self, value: f64) {
        assert!(value >= 0.0, "{}", self.key);
        self.note();
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(self.touch(key, MetricKind::Counter)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(self.touch(key, MetricKind::Gauge)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(self.touch(key, MetricKind::Histogram)))
    }
}

/// Listens to spans of every level.
pub(crate) struct Spans {
    recorded: Recorded,
    next: AtomicU64,
}

impl Spans {
    pub(crate) fn of(recorded: &Recorded) -> Self {
        Self {
            recorded: recorded.clone(),
            next: AtomicU64::new(1),
        }
    }

    fn fill(&self, key: &(String, String), record: impl FnOnce(&mut dyn Visit)) {
        let mut inner = self.recorded.0.lock().unwrap();
        if let Some(shape) = inner.spans.get_mut(key) {
            record(&mut Filled(shape));
        }
    }
}

struct Filled<'a>(&'a mut Shape);

impl Visit for Filled<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.filled.insert(field.name());
        if field.name() == "otel.kind" {
            self.0
                .kinds
                .insert(format!("{value:?}").trim_matches('"').to_owned());
        }
    }
}

impl Subscriber for Spans {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let metadata = span.metadata();
        let key = (metadata.target().to_owned(), metadata.name().to_owned());
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let shape = Shape {
            level: *metadata.level(),
            fields: metadata.fields().iter().map(|field| field.name()).collect(),
            filled: BTreeSet::new(),
            kinds: BTreeSet::new(),
        };
        {
            let mut inner = self.recorded.0.lock().unwrap();
            inner.ids.insert(id, key.clone());
            let first = inner.spans.entry(key.clone()).or_insert_with(|| shape.clone());
            assert_eq!(
                (first.level, &first.fields),
                (shape.level, &shape.fields),
                "{key:?}"
            );
        }
        self.fill(&key, |visit| span.record(visit));
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let key = self.recorded.0.lock().unwrap().ids[&id.into_u64()].clone();
        self.fill(&key, |visit| values.record(visit));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
