//! What a transport can do beyond what each of them must.

use std::num::NonZeroUsize;

/// Whether a transport can keep the order of a key among several members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderingGuarantee {
    /// It cannot: declaring an ordered topic is refused with `Unsupported`.
    #[default]
    None,
    /// Messages of one key are delivered in the order in which they were accepted, with several members and through
    /// a take-over: first occurrences in order, repeats possible.
    PerKey,
}

/// What a transport can do beyond what each of them must.
///
/// A flag that can be *requested* (a delay, a replay) is refused with `Unsupported`, before any side effect, when it
/// is off. A flag that only *describes* is reported as absent. Each field names the conformance case that proves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportCapabilities {
    /// A confirmed message survives this process and the server's restart.
    /// Describes; case `should_keep_a_confirmed_message_when_the_server_restarts`.
    pub durable: bool,
    /// Whether topics can be ordered.
    /// Requested by declaring one; case `should_keep_key_order_when_a_member_dies_with_a_full_prefetch`.
    pub ordering: OrderingGuarantee,
    /// Within one `send`, a message is never accepted before an earlier one of its topic and key: after a failure
    /// the later ones of that key are not sent and answer `Conflict`, and one `send` at a time keeps this across calls.
    /// Describes: without it core has one message of a key in flight.
    /// Case `should_stop_a_key_at_its_first_failure_when_a_batch_is_sent`.
    pub accepts_by_prefix: bool,
    /// A delivery can be given back with `Requeue`.
    /// Requested by settling so; case `should_deliver_again_when_requeued`.
    pub requeue: bool,
    /// A requeue can name a time before which the message does not come back.
    /// Requested; case `should_wait_when_requeued_with_a_delay`.
    pub requeue_delay: bool,
    /// A message can be sent with `deliver_after`.
    /// Requested; case `should_not_deliver_before_its_time_when_delayed`.
    pub delayed_send: bool,
    /// A redelivery says how many deliveries came before it.
    /// Describes: off, it is `Unknown`; case `should_count_deliveries_when_redelivered`.
    pub delivery_count: bool,
    /// A settlement by a member that no longer holds the delivery is a strict no-op and answers `LeaseLost`.
    /// Describes; case `should_change_nothing_when_settled_after_redelivery_elsewhere`.
    pub fenced_settlement: bool,
    /// A delivery can be kept past its visibility time with `extend`.
    /// Requested; case `should_keep_a_delivery_when_extended`.
    pub extend: bool,
    /// The transport drops messages whose `expires_at` has passed, by its own clock.
    /// Describes: core drops them in any case, later; case `should_drop_a_message_when_expired`.
    pub expiry: bool,
    /// A new group can begin with the oldest message that is still there.
    /// Requested; case `should_replay_old_messages_when_a_group_starts_from_the_oldest`.
    pub replay_from_start: bool,
    /// Ready messages of an unordered topic are delivered by priority.
    /// Requested by sending a priority above 0; case `should_deliver_by_priority_when_several_are_ready`.
    pub priority: bool,
    /// A group can belong to one process and end with it.
    /// Requested; case `should_end_a_group_with_its_instance_when_it_closes`.
    pub per_instance_groups: bool,
    /// The ids that foreign messages are given are the same at each delivery.
    /// Describes; case `should_derive_a_stable_id_when_the_producer_is_foreign`.
    pub stable_foreign_ids: bool,
    /// The order of a topic, and its count of partitions, can be changed once nothing of it is on the transport.
    /// Requested by `repartition`; case `should_keep_key_order_when_repartitioned_under_load`.
    pub repartition: bool,
    /// The largest payload in bytes. A larger one is refused with `TooLarge`, before any I/O.
    /// Case `should_refuse_a_payload_when_over_the_limit`.
    pub max_payload: Option<NonZeroUsize>,
}

macro_rules! with_flag {
    ($($with:ident $field:ident)*) => {$(
        #[doc = concat!("Turns [`", stringify!($field), "`](Self::", stringify!($field), ") on or off.")]
        #[must_use]
        pub const fn $with(mut self, on: bool) -> Self {
            self.$field = on;
            self
        }
    )*};
}

impl TransportCapabilities {
    /// Nothing beyond what every transport must do.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            durable: false,
            ordering: OrderingGuarantee::None,
            accepts_by_prefix: false,
            requeue: false,
            requeue_delay: false,
            delayed_send: false,
            delivery_count: false,
            fenced_settlement: false,
            extend: false,
            expiry: false,
            replay_from_start: false,
            priority: false,
            per_instance_groups: false,
            stable_foreign_ids: false,
            repartition: false,
            max_payload: None,
        }
    }

    with_flag! {
        with_durable durable
        with_accepts_by_prefix accepts_by_prefix
        with_requeue requeue
        with_requeue_delay requeue_delay
        with_delayed_send delayed_send
        with_delivery_count delivery_count
        with_fenced_settlement fenced_settlement
        with_extend extend
        with_expiry expiry
        with_replay_from_start replay_from_start
        with_priority priority
        with_per_instance_groups per_instance_groups
        with_stable_foreign_ids stable_foreign_ids
        with_repartition repartition
    }

    /// With this ordering guarantee.
    #[must_use]
    pub const fn with_ordering(mut self, ordering: OrderingGuarantee) -> Self {
        self.ordering = ordering;
        self
    }

    /// With this payload limit in bytes.
    #[must_use]
    pub const fn with_max_payload(mut self, bytes: NonZeroUsize) -> Self {
        self.max_payload = Some(bytes);
        self
    }
}
