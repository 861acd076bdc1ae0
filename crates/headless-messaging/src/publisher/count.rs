//! Counters by topic, for batches.

use std::collections::BTreeMap;

use headless_abstractions::TopicName;

/// Adds one for each of these to the counter of its topic.
pub(crate) fn count_by_topic<'a>(name: &'static str, topics: impl Iterator<Item = &'a TopicName>) {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for topic in topics {
        *counts.entry(topic.as_str()).or_default() += 1;
    }
    for (topic, count) in counts {
        metrics::counter!(name, "topic" => topic.to_owned()).increment(count);
    }
}

/// Adds one to the counter of a topic and a reason.
pub(crate) fn count_one(name: &'static str, topic: &TopicName, reason: &'static str) {
    metrics::counter!(name, "topic" => topic.as_str().to_owned(), "reason" => reason).increment(1);
}
