//! Every metric: its name, kind, labels and meaning, in one table. `docs/telemetry.md` has the table for people.
//!
//! Each series of a metric has exactly the labels that the table names. Groups, tasks, operations and reasons are bounded
//! by what is configured and by the code. Topics are where a group reads them; of what is published and relayed they are
//! whatever was published to, declared or not, since a process need not declare the topics that it publishes to or relays.

use metrics::Unit;

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// It only rises.
    Counter,
    /// It is what it is now.
    Gauge,
    /// Values, by how often they came.
    Histogram,
}

impl MetricKind {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A row of the table of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricSpec {
    /// Its name.
    pub name: &'static str,
    /// What kind of metric it is.
    pub kind: MetricKind,
    /// The labels of each of its series.
    pub labels: &'static [&'static str],
    /// What it says.
    pub meaning: &'static str,
}

impl MetricSpec {
    /// What it is measured in.
    #[must_use]
    pub fn unit(&self) -> Unit {
        match self.name.ends_with("_seconds") {
            true => Unit::Seconds,
            false => Unit::Count,
        }
    }
}

macro_rules! metrics_table {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $kind:ident, [$($label:literal),*];)*) => {
        $($(#[doc = $doc])+ pub const $name: &str = $text;)*

        /// Every metric, in the order of the table.
        pub const ALL: &[MetricSpec] = &[$(MetricSpec {
            name: $text,
            kind: MetricKind::$kind,
            labels: &[$($label),*],
            meaning: concat!($($doc),+),
        }),*];
    };
}

metrics_table! {
    /// Messages accepted by `publish`. Those of a unit of work count once its commit has answered: of a commit whose outcome stays unknown, none.
    PUBLISHED = "headless_published_total", Counter, ["topic"];
    /// Messages that no group takes.
    UNROUTED = "headless_unrouted_total", Counter, ["topic"];
    /// Seconds that a call of `publish` took, whatever became of it; within a unit of work without its commit.
    PUBLISH_SECONDS = "headless_publish_seconds", Histogram, ["topic"];
    /// Messages sent by the relay.
    RELAYED = "headless_relayed_total", Counter, ["topic"];
    /// Seconds from when a message was published, by its publisher's clock and with its delay, until the broker took it from a relay.
    RELAY_SECONDS = "headless_relay_seconds", Histogram, ["topic"];
    /// Messages that the relay dropped because they had expired.
    RELAY_EXPIRED = "headless_relay_expired_total", Counter, ["topic"];
    /// Attempts of the relay that failed; the reason is the error's kind.
    RELAY_FAILED = "headless_relay_failed_total", Counter, ["topic", "reason"];
    /// Messages that the relay dead-lettered; the reason is the cause of the last failure.
    RELAY_DEAD = "headless_relay_dead_total", Counter, ["topic", "reason"];
    /// Messages in the outbox, by their state: `delayed`, `ready`, `leased` or `retrying`. The same from every process that relays.
    OUTBOX_MESSAGES = "headless_outbox_messages", Gauge, ["state"];
    /// Seconds that the oldest message of the outbox has been due, by the store's clock; 0 when none is.
    OUTBOX_OLDEST = "headless_outbox_oldest_seconds", Gauge, [];
    /// Deliveries received.
    RECEIVED = "headless_received_total", Counter, ["group", "topic"];
    /// Deliveries received that may have been made before.
    REDELIVERED = "headless_redelivered_total", Counter, ["group", "topic"];
    /// Messages handled with success.
    HANDLED = "headless_handled_total", Counter, ["group", "topic"];
    /// Messages that the inbox recognised as handled before.
    DUPLICATE = "headless_duplicate_total", Counter, ["group", "topic"];
    /// Messages dropped before a handler because they had expired.
    EXPIRED = "headless_expired_total", Counter, ["group", "topic"];
    /// Failed attempts; the reason is the failure's cause.
    FAILED = "headless_failed_total", Counter, ["group", "topic", "reason"];
    /// Attempts after the first, inline and parked.
    RETRIED = "headless_retried_total", Counter, ["group", "topic"];
    /// Messages parked: for a `retry`, `behind` an earlier one of their key, or for an `unknown_type`.
    PARKED = "headless_parked_total", Counter, ["group", "topic", "reason"];
    /// Messages dead-lettered by a group; the reason is the cause of the last failure.
    DEAD = "headless_dead_total", Counter, ["group", "topic", "reason"];
    /// Dead letters that nobody has redriven or discarded. The group is empty for those of the relay. The same from every process that relays.
    DEAD_LETTERS = "headless_dead_letters", Gauge, ["group", "topic"];
    /// Seconds since the oldest of them died, by the store's clock; 0 when there is none.
    DEAD_LETTERS_OLDEST = "headless_dead_letters_oldest_seconds", Gauge, ["group", "topic"];
    /// Messages discarded by their handler.
    DISCARDED = "headless_discarded_total", Counter, ["group", "topic"];
    /// Seconds from a handler's start to its end.
    HANDLER_SECONDS = "headless_handler_seconds", Histogram, ["group", "topic"];
    /// Handlers past their time-out that do not yield.
    STUCK = "headless_stuck_handlers_total", Counter, ["group", "topic"];
    /// Tasks of a consumer that panicked, by a defect of ours or of a driver.
    PANICKED = "headless_panicked_total", Counter, ["group", "topic"];
    /// 1 while the circuit of a group and topic is open in this process.
    CIRCUIT_OPEN = "headless_circuit_open", Gauge, ["group", "topic"];
    /// Times that a bound was hit; the reason is the bound's name.
    BOUND_HIT = "headless_bound_hit_total", Counter, ["group", "reason"];
    /// Seconds that a call of the store took, whatever it answered.
    STORE_SECONDS = "headless_store_seconds", Histogram, ["operation"];
    /// Calls of the store that failed; the reason is the error's kind.
    STORE_FAILED = "headless_store_failed_total", Counter, ["operation", "reason"];
    /// Failed runs of a background task.
    TASK_FAILED = "headless_task_failed_total", Counter, ["task"];
    /// Times that the store had given this node up.
    NODE_LOST = "headless_node_lost_total", Counter, [];
    /// What this node noticed of nodes: `joined` and `left` of itself, `suspected`, `recovered` and `died` of others.
    NODE_CHANGED = "headless_node_changed_total", Counter, ["reason"];
}

/// Tells the recorder that is installed what each metric is, for its descriptions. Repeating it changes nothing.
pub fn describe() {
    for metric in ALL {
        let (name, unit, meaning) = (metric.name, metric.unit(), metric.meaning.trim());
        match metric.kind {
            MetricKind::Counter => {
                metrics::describe_counter!(name, unit, meaning);
            }
            MetricKind::Gauge => {
                metrics::describe_gauge!(name, unit, meaning);
            }
            MetricKind::Histogram => {
                metrics::describe_histogram!(name, unit, meaning);
            }
        }
    }
}

#[cfg(test)]
mod in_use;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn should_list_every_metric_in_the_documentation() {
        let documented: Vec<&str> = include_str!("../../../docs/telemetry.md")
            .lines()
            .filter(|line| line.starts_with("| `headless_"))
            .collect();
        let rows: Vec<String> = ALL
            .iter()
            .map(|metric| {
                let unit = match metric.unit() {
                    Unit::Seconds => "seconds",
                    _ => "count",
                };
                let (name, kind, labels) = (metric.name, metric.kind.as_str(), metric.labels.join(", "));
                let meaning = metric.meaning.trim();
                format!("| `{name}` | {kind} | {unit} | {labels} | {meaning} |")
            })
            .collect();
        assert_eq!(
            documented,
            rows,
            "docs/telemetry.md should have these rows:\n{}",
            rows.join("\n")
        );
    }

    #[test]
    fn should_name_each_metric_once_and_as_prometheus_asks() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            let ends = metric.name.ends_with("_total");
            assert_eq!(ends, metric.kind == MetricKind::Counter, "{}", metric.name);
        }
    }
}
