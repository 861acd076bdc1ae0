//! The settings of a group as they are in effect.

use std::{num::NonZeroUsize, time::Duration};

use headless_abstractions::{ParkLimits, StartFrom};
use headless_core::Retry;

use crate::{CircuitBreaker, Consumer, Inbox, consumer::group::Group};

/// The settings of a group as they are in effect; the methods of [`Consumer`] say what each is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerSettings {
    /// The form of the inbox.
    pub inbox: Inbox,
    /// Whether it keeps the order of keys.
    pub ordered: bool,
    /// The most handler calls at once when it started.
    pub concurrency: usize,
    /// The most unsettled deliveries.
    pub prefetch: NonZeroUsize,
    /// The longest time of a call.
    pub timeout: Duration,
    /// How long a message is held in the store without renewal.
    pub lease: Duration,
    /// How long the transport leaves a delivery with a member.
    pub visibility: Duration,
    /// The retry policy.
    pub retry: Retry,
    /// When calls are held back.
    pub circuit_breaker: CircuitBreaker,
    /// How the park is used; `None` where the group uses no store.
    pub park: Option<ParkSettings>,
    /// How long a message of an unknown type is parked.
    pub unknown_type_delay: Duration,
    /// Where the group begins when it does not exist yet.
    pub start_from: StartFrom,
    /// Whether every process has a group of its own.
    pub per_instance: bool,
}

/// How a group uses the park.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkSettings {
    /// How often it was to be polled.
    pub poll: Duration,
    /// How often it is polled: more rarely where the store has a pulse, which looks instead.
    pub effective_poll: Duration,
    /// Its bounds.
    pub limits: ParkLimits,
}

impl ConsumerSettings {
    /// Those of a consumer that was given nothing, over a store with the form `inbox`.
    #[must_use]
    pub fn of_default(inbox: Inbox) -> Self {
        let settings = Consumer::group("default").settings;
        Self::of(&settings, inbox, Some(settings.park_poll))
    }

    pub(super) fn in_effect(group: &Group) -> Self {
        Self::of(&group.settings, group.form, group.pickup_poll)
    }

    fn of(settings: &super::Settings, inbox: Inbox, effective_poll: Option<Duration>) -> Self {
        Self {
            inbox,
            ordered: settings.ordered,
            concurrency: settings.concurrency,
            prefetch: settings.effective_prefetch(),
            timeout: settings.timeout,
            lease: settings.lease,
            visibility: settings.visibility,
            retry: settings.retry,
            circuit_breaker: settings.breaker,
            park: effective_poll.map(|effective_poll| ParkSettings {
                poll: settings.park_poll,
                effective_poll,
                limits: settings.park_limits,
            }),
            unknown_type_delay: settings.unknown_type_delay,
            start_from: settings.start,
            per_instance: settings.per_instance,
        }
    }
}
