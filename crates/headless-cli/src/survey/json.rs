//! Services, nodes and groups as JSON.

use headless::{ControlEntry, InboxStats, NodeReport};
use serde_json::{Value, json};

use super::{Group, Node};

/// What was ever wanted of a subject; `null` where nothing was.
pub(crate) fn wanted(entry: Option<&ControlEntry>) -> Value {
    entry.map_or(Value::Null, |entry| {
        json!({
            "paused": entry.desired.paused,
            "concurrency": entry.desired.concurrency,
            "version": entry.version.get(),
            "by": &*entry.changed_by,
            "changed_seconds_ago": entry.changed.as_secs(),
        })
    })
}

/// A group over all live nodes.
pub(crate) fn group(group: &Group<'_>) -> Value {
    let topics = group.topics.iter().map(|(name, topic)| {
        json!({
            "topic": name,
            "wanted": wanted(topic.wanted),
            "paused": topic.paused,
            "circuits_open": topic.circuits_open,
        })
    });
    json!({
        "group": group.name,
        "wanted": wanted(group.wanted),
        "nodes": group.nodes,
        "in_flight": group.in_flight,
        "handled": group.handled,
        "failed": group.failed,
        "lag": group.lag,
        "concurrency": group.concurrency,
        "topics": topics.collect::<Vec<_>>(),
    })
}

/// A node, with what it says of itself; `"report": null` where that cannot be read.
pub(crate) fn node(node: &Node) -> Value {
    let entry = &node.entry;
    json!({
        "node": entry.to_string(),
        "label": &*entry.node,
        "incarnation": entry.incarnation.get(),
        "state": entry.state.as_str(),
        "registered_seconds_ago": entry.registered.as_secs(),
        "silent_seconds": entry.silent.as_secs(),
        "report": node.report.as_ref().map(report),
    })
}

fn report(report: &NodeReport) -> Value {
    json!(report)
}

/// The figures of an inbox.
pub(crate) fn inbox(stats: &InboxStats) -> Value {
    json!({
        "running": stats.running,
        "parked": stats.parked,
        "processed": stats.processed,
        "dead": stats.dead,
        "discarded": stats.discarded,
    })
}
