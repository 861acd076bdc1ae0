//! The names of every metric, in one table. Labels are `topic`, `group`, `task` and `reason` where they apply.

macro_rules! metrics_table {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*

        /// Every name, in the order of the table.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

metrics_table! {
    /// Counter: messages accepted by `publish`, by topic. Those of a unit of work count once its commit has answered:
    /// of a commit whose outcome stays unknown, none.
    PUBLISHED = "headless_published_total";
    /// Counter: messages that no group takes, by topic.
    UNROUTED = "headless_unrouted_total";
    /// Counter: messages dropped because they had expired, by topic.
    EXPIRED = "headless_expired_total";
    /// Counter: messages sent by the relay, by topic.
    RELAYED = "headless_relayed_total";
    /// Counter: attempts of the relay that failed, by topic and reason.
    RELAY_FAILED = "headless_relay_failed_total";
    /// Counter: deliveries received, by group and topic.
    RECEIVED = "headless_received_total";
    /// Counter: deliveries received that may have been made before, by group and topic.
    REDELIVERED = "headless_redelivered_total";
    /// Counter: messages handled with success, by group and topic.
    HANDLED = "headless_handled_total";
    /// Counter: messages that the inbox recognised as handled before, by group and topic.
    DUPLICATE = "headless_duplicate_total";
    /// Counter: failed attempts, by group, topic and reason.
    FAILED = "headless_failed_total";
    /// Counter: attempts after the first, inline and parked, by group and topic.
    RETRIED = "headless_retried_total";
    /// Counter: messages parked, by group, topic and reason.
    PARKED = "headless_parked_total";
    /// Counter: messages dead-lettered, by group, topic and reason.
    DEAD = "headless_dead_total";
    /// Counter: messages discarded by their handler, by group and topic.
    DISCARDED = "headless_discarded_total";
    /// Counter: handlers past their time-out that do not yield, by group and topic.
    STUCK = "headless_stuck_handlers_total";
    /// Counter: tasks of a consumer that panicked, by a defect of ours or of a driver; by group and topic.
    PANICKED = "headless_panicked_total";
    /// Gauge: 1 while the circuit of a group and topic is open.
    CIRCUIT_OPEN = "headless_circuit_open";
    /// Counter: times that a bound was hit, by reason: the bound's name.
    BOUND_HIT = "headless_bound_hit_total";
    /// Histogram: seconds from a handler's start to its end, by group and topic.
    HANDLER_SECONDS = "headless_handler_seconds";
    /// Counter: failed runs of a background task, by task.
    TASK_FAILED = "headless_task_failed_total";
    /// Counter: times that the store had given this node up.
    NODE_LOST = "headless_node_lost_total";
    /// Counter: what this node noticed of nodes, by reason: `joined` and `left` of itself, `suspected`, `recovered` and `died`
    /// of others.
    NODE_CHANGED = "headless_node_changed_total";
}
