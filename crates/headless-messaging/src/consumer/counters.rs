//! What a group has done in this process, in figures.

use std::sync::atomic::{AtomicU64, Ordering};

use headless_abstractions::{GroupName, TopicName};
use headless_core::metric;

/// What a group has done in this process since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Deliveries received.
    pub received: u64,
    /// Of these, how many may have been made before.
    pub redelivered: u64,
    /// Messages handled with success.
    pub handled: u64,
    /// Messages that the inbox recognised as handled before.
    pub duplicates: u64,
    /// Failed attempts.
    pub failed: u64,
    /// Attempts after the first, inline and parked.
    pub retried: u64,
    /// Times that a message was parked.
    pub parked: u64,
    /// Messages dead-lettered.
    pub dead: u64,
    /// Messages discarded by their handler.
    pub discarded: u64,
    /// Messages dropped because they had expired.
    pub expired: u64,
    /// Tasks of its own that panicked: a defect, of ours or of a driver.
    pub panicked: u64,
}

macro_rules! counters {
    ($($field:ident => $metric:ident),* $(,)? ; by reason $($caused:ident => $of:ident),* $(,)?) => {
        /// The counters behind [`ConsumerStats`]; each also counts its metric.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($field: AtomicU64,)*
            $($caused: AtomicU64,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> ConsumerStats {
                ConsumerStats {
                    $($field: self.$field.load(Ordering::Relaxed),)*
                    $($caused: self.$caused.load(Ordering::Relaxed),)*
                }
            }

            $(
                pub(crate) fn $field(&self, group: &GroupName, topic: &TopicName, count: u64) {
                    if count > 0 {
                        self.$field.fetch_add(count, Ordering::Relaxed);
                        let labels = [("group", group.to_string()), ("topic", topic.to_string())];
                        metrics::counter!(metric::$metric, &labels).increment(count);
                    }
                }
            )*

            $(
                /// Counts one, for this reason.
                pub(crate) fn $caused(&self, group: &GroupName, topic: &TopicName, reason: &'static str) {
                    self.$caused.fetch_add(1, Ordering::Relaxed);
                    let (group, topic) = (group.to_string(), topic.to_string());
                    metrics::counter!(metric::$of, "group" => group, "topic" => topic, "reason" => reason)
                        .increment(1);
                }
            )*
        }
    };
}

counters! {
    received => RECEIVED,
    redelivered => REDELIVERED,
    handled => HANDLED,
    duplicates => DUPLICATE,
    retried => RETRIED,
    discarded => DISCARDED,
    expired => EXPIRED,
    panicked => PANICKED;
    by reason
    failed => FAILED,
    parked => PARKED,
    dead => DEAD,
}
