//! A consumer: the handlers of a group and how they are run.

use std::{future::Future, num::NonZeroUsize, time::Duration};

use headless_abstractions::{ParkLimits, StartFrom};
use headless_core::{Event, HandlerResult, Retry};

use crate::{BatchContext, Context, handler::Handler};

mod attempt;
mod batch;
mod breaker;
mod call;
mod configured;
mod counters;
mod deadline;
mod effective;
mod group;
mod handle;
mod item;
mod lanes;
mod park_pickup;
mod pauses;
mod permits;
mod process;
mod queued;
mod settle;
mod subscription;
mod topic;
mod watch;
mod without_store;

pub use breaker::CircuitBreaker;
pub use configured::GroupSetting;
use configured::Places;
pub use counters::ConsumerStats;
pub(crate) use deadline::Deadline;
pub use effective::{ConsumerSettings, ParkSettings};
pub(crate) use group::{Group, GroupParts};
pub use handle::{ConsumerHandle, SubscriptionStatus};
pub(crate) use park_pickup::pick_up;
pub use pauses::PauseReason;
pub(crate) use subscription::SubscriptionTask;

/// How a consumer makes effects happen once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inbox {
    /// Nothing is written before a first delivery; [`Context::begin`] makes the processed mark in the handler's own
    /// transaction. Effects in that transaction happen once, in the order of the key. A handler that does not call
    /// `begin` is marked afterwards: at least once. The default when the store has a unit of work.
    Transactional,
    /// The message is admitted before the handler and marked after it: at least once, never by two members at a time.
    Around,
    /// No record is kept and the consumer does not use the store: at least once, retries inline or by the transport,
    /// dead letters on `<topic>.dead`, where the group `dead-letters` keeps them until somebody reads them.
    Off,
}

/// The handlers of a group and how they are run.
///
/// ```
/// # use headless_messaging::{Consumer, Context};
/// # use headless_core::{Event, HandlerResult};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct OrderPlaced;
/// # impl Event for OrderPlaced { const TOPIC: &'static str = "orders.placed"; }
/// async fn bill(order: OrderPlaced, cx: Context) -> HandlerResult {
///     Ok(())
/// }
///
/// let consumer = Consumer::group("billing").on(bill).concurrency(8);
/// ```
#[derive(Clone, Debug)]
pub struct Consumer {
    pub(crate) group: String,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) settings: Settings,
}

/// The most handler calls at once: far more than any process runs, and what an operator may want at most.
pub(crate) const MOST_CONCURRENCY: usize = 100_000;

/// How a group's handlers are run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) concurrency: usize,
    pub(crate) ordered: bool,
    pub(crate) inbox: Option<Inbox>,
    pub(crate) retry: Retry,
    pub(crate) timeout: Duration,
    pub(crate) lease: Duration,
    pub(crate) visibility: Duration,
    pub(crate) prefetch: Option<NonZeroUsize>,
    pub(crate) breaker: CircuitBreaker,
    pub(crate) park_limits: ParkLimits,
    pub(crate) park_poll: Duration,
    pub(crate) unknown_type_delay: Duration,
    pub(crate) start: StartFrom,
    pub(crate) per_instance: bool,
    pub(crate) start_paused: bool,
    pub(crate) places: Places,
}

impl Consumer {
    /// A consumer of this group without handlers. The name is checked at start-up.
    #[must_use]
    pub fn group(name: impl Into<String>) -> Self {
        let settings = Settings {
            concurrency: 16,
            ordered: false,
            inbox: None,
            retry: Retry::default(),
            timeout: Duration::from_secs(30),
            lease: Duration::from_secs(30),
            visibility: Duration::from_secs(30),
            prefetch: None,
            breaker: CircuitBreaker::default(),
            park_limits: ParkLimits::default(),
            park_poll: Duration::from_secs(1),
            unknown_type_delay: Duration::from_mins(1),
            start: StartFrom::Now,
            per_instance: false,
            start_paused: false,
            places: Places::default(),
        };
        Self {
            group: name.into(),
            handlers: Vec::new(),
            settings,
        }
    }

    /// With a handler; the event's type is read from its parameter.
    #[must_use]
    pub fn on<M, F, Fut>(mut self, handler: F) -> Self
    where
        M: Event,
        F: Fn(M, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult> + Send + 'static,
    {
        self.handlers.push(Handler::single(handler));
        self
    }

    /// With a handler that computes: it runs on a thread for blocking work, and its time-out only asks it to end (see
    /// [`Context::cancelled`]).
    #[must_use]
    pub fn blocking<M, F>(mut self, handler: F) -> Self
    where
        M: Event,
        F: Fn(M, Context) -> HandlerResult + Send + Sync + 'static,
    {
        self.handlers.push(Handler::blocking(handler));
        self
    }

    /// With a handler that takes up to `most` events at once, called when it has them or `wait` after the first. A
    /// failed batch is run again event by event.
    #[must_use]
    pub fn batch<M, F, Fut>(mut self, most: usize, wait: Duration, handler: F) -> Self
    where
        M: Event,
        F: Fn(Vec<M>, BatchContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult> + Send + 'static,
    {
        self.handlers.push(Handler::batch(most, wait, handler));
        self
    }

    /// At most this many handler calls at once in this process. Default 16; at least 1 and at most 100 000.
    #[must_use]
    pub fn concurrency(mut self, most: usize) -> Self {
        self.settings.places.note_code("concurrency");
        self.settings.concurrency = most;
        self
    }

    /// Serial within a key, parallel across keys; needs a topic that is declared ordered. An ordered topic read
    /// without this keeps no order.
    #[must_use]
    pub const fn ordered_by_key(mut self) -> Self {
        self.settings.ordered = true;
        self
    }

    /// With this form of the inbox. Default [`Inbox::Transactional`] with a store, [`Inbox::Off`] without.
    #[must_use]
    pub const fn inbox(mut self, form: Inbox) -> Self {
        self.settings.inbox = Some(form);
        self
    }

    /// With this retry policy.
    #[must_use]
    pub const fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = retry;
        self
    }

    /// A call that takes longer has failed. Default 30 s; at least 1 ms.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.places.note_code("timeout");
        self.settings.timeout = timeout;
        self
    }

    /// How long a message is held in the store without renewal, which happens at a third of it. Default 30 s; at
    /// least 100 ms.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.places.note_code("lease");
        self.settings.lease = lease;
        self
    }

    /// How long the transport leaves a delivery, or a partition, with this process without hearing of it. Default 30 s;
    /// at least 100 ms.
    #[must_use]
    pub fn visibility(mut self, visibility: Duration) -> Self {
        self.settings.places.note_code("visibility");
        self.settings.visibility = visibility;
        self
    }

    /// The most unsettled deliveries: of each partition of an ordered topic, and of each unordered topic. Default
    /// twice the concurrency and at least 100.
    #[must_use]
    pub fn prefetch(mut self, most: NonZeroUsize) -> Self {
        self.settings.places.note_code("prefetch");
        self.settings.prefetch = Some(most);
        self
    }

    /// With this circuit breaker.
    #[must_use]
    pub const fn circuit_breaker(mut self, breaker: CircuitBreaker) -> Self {
        self.settings.breaker = breaker;
        self
    }

    /// With these bounds on what is parked.
    #[must_use]
    pub const fn park_limits(mut self, limits: ParkLimits) -> Self {
        self.settings.park_limits = limits;
        self
    }

    /// How often the park is polled where the store has no pulse, which wakes the pickup otherwise. Default 1 s; at least
    /// 1 ms.
    #[must_use]
    pub const fn park_poll(mut self, interval: Duration) -> Self {
        self.settings.park_poll = interval;
        self
    }

    /// How long a message of a type that no handler takes is parked, until a process that knows it is there. No
    /// attempt is consumed. Default 1 min.
    #[must_use]
    pub const fn unknown_type_delay(mut self, delay: Duration) -> Self {
        self.settings.unknown_type_delay = delay;
        self
    }

    /// Where the group begins when it does not exist yet. Default: now.
    #[must_use]
    pub const fn start_from(mut self, start: StartFrom) -> Self {
        self.settings.start = start;
        self
    }

    /// A group of this process alone, ended with it: every process gets every message.
    #[must_use]
    pub const fn per_instance(mut self) -> Self {
        self.settings.per_instance = true;
        self
    }

    /// Paused from the start, until [`ConsumerHandle::resume`].
    #[must_use]
    pub const fn start_paused(mut self) -> Self {
        self.settings.start_paused = true;
        self
    }

    /// The group's name, as given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.group
    }
}

impl Settings {
    pub(crate) fn effective_prefetch(&self) -> NonZeroUsize {
        const LEAST: NonZeroUsize = NonZeroUsize::new(100).unwrap();
        self.prefetch.unwrap_or_else(|| {
            NonZeroUsize::new(self.concurrency.saturating_mul(2)).map_or(LEAST, |twice| twice.max(LEAST))
        })
    }

    /// What is wrong with the settings, each with the field and its limit.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        // Far beyond any use, and far below what arithmetic on times can hold.
        let most = Duration::from_hours(365 * 24);
        let mut least = |field: &str, value: Duration, least: Duration| {
            let place = self.places.of(field);
            if value < least {
                problems.push(format!("{field} is {value:?}{place}, the least is {least:?}"));
            } else if value > most {
                problems.push(format!("{field} is {value:?}{place}, the most is {most:?}"));
            }
        };
        least("timeout", self.timeout, Duration::from_millis(1));
        least("lease", self.lease, Duration::from_millis(100));
        least("visibility", self.visibility, Duration::from_millis(100));
        least("park_poll", self.park_poll, Duration::from_millis(1));
        least("unknown_type_delay", self.unknown_type_delay, Duration::ZERO);
        if self.concurrency == 0 {
            let place = self.places.of("concurrency");
            problems.push(format!("concurrency is 0{place}, the least is 1"));
        } else if self.concurrency > MOST_CONCURRENCY {
            let (most, place) = (self.concurrency, self.places.of("concurrency"));
            problems.push(format!(
                "concurrency is {most}{place}, the most is {MOST_CONCURRENCY}"
            ));
        }
        problems
    }
}
