//! Watching a topic without taking anything from whoever reads it.

use std::{collections::VecDeque, fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use headless_abstractions::{
    Delivery, Error, ErrorKind, GroupName, GroupSpec, Message, Owner, Partition, Random, Redelivery, Result,
    Settlement, StartFrom, Subscriber, Subscription, TopicName, Topology, Transport,
};
use headless_core::Backoff;
use tokio::runtime::Handle;

/// How long one look for messages waits; also how often the group is held on to.
const WAIT: Duration = Duration::from_secs(2);
/// How long a message may be in the hands of a tail; it needs them only until they are acknowledged.
const VISIBILITY: Duration = Duration::from_secs(30);
/// The most messages that are taken at once.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(100).unwrap();
/// How long to wait before a look that has failed is tried again.
const BACKOFF: Backoff = Backoff::exponential(Duration::from_millis(200), Duration::from_secs(5));

/// A message as it goes by.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seen {
    /// The message.
    pub message: Message,
    /// Its partition, on an ordered topic.
    pub partition: Option<Partition>,
    /// Whether it may have been seen here before.
    pub again: bool,
    /// What was wrong with its envelope; the affected fields of `message` are then as if they had been absent.
    pub malformed: Option<Arc<Error>>,
}

/// A group that is removed with this, at the latest in the background when it is dropped.
struct Own {
    transport: Arc<dyn Transport>,
    name: GroupName,
    is_removed: bool,
}

impl Own {
    async fn remove(mut self) -> Result<()> {
        self.transport.remove_group(&self.name).await?;
        self.is_removed = true;
        Ok(())
    }

    /// After an opening that failed half-way: the group may be there or not.
    async fn remove_what_there_is(self) {
        let name = self.name.clone();
        match self.remove().await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(group = %name, %error, "the group of a tail could not be removed, and may keep messages");
            }
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if self.is_removed {
            return;
        }
        let (transport, name) = (self.transport.clone(), self.name.clone());
        runtime.spawn(async move {
            if let Err(error) = transport.remove_group(&name).await {
                tracing::warn!(group = %name, %error, "the group of a tail could not be removed, and may keep messages");
            }
        });
    }
}

/// Watches a topic: a group of its own sees every message, and takes none from any other group.
///
/// It is declared when the tail is opened and removed when it is closed, or in the background when it is dropped. Where
/// the transport has groups of one process (`per_instance_groups`) it is one, and ends with the process as well.
/// Elsewhere a process that is killed leaves its group behind, which then keeps what it has not seen:
/// [`group`](Self::group) names it, to be removed.
pub struct Tail {
    own: Own,
    random: Arc<dyn Random>,
    subscriber: Box<dyn Subscriber>,
    ready: VecDeque<Seen>,
}

impl Tail {
    /// Begins to watch. From [`StartFrom::Oldest`] it shows first what the transport still has.
    ///
    /// # Errors
    /// `NotFound` for a topic that was never declared; `Unsupported` for the oldest where nothing can be replayed; else
    /// what the transport answers.
    ///
    /// # Cancel safety
    /// Dropping the future removes the group in the background.
    pub async fn open(
        transport: Arc<dyn Transport>,
        random: Arc<dyn Random>,
        topic: TopicName,
        start: StartFrom,
    ) -> Result<Self> {
        let mut bits = [0; 16];
        random.fill(&mut bits);
        let member = Owner::from_bits(u128::from_le_bytes(bits));
        let mut name = [0; 8];
        random.fill(&mut name);
        let group = GroupName::parse(&format!("tail-{:016x}", u64::from_le_bytes(name)))?;
        let mut spec = GroupSpec::new(group.clone(), topic.clone()).with_start(start);
        if transport.info().capabilities.per_instance_groups {
            spec = spec.with_per_instance();
        }
        let own = Own {
            transport: transport.clone(),
            name: group.clone(),
            is_removed: false,
        };
        let subscription = Subscription::new(group, topic, member)
            .with_prefetch(AT_ONCE)
            .with_visibility(VISIBILITY);
        let subscribed = async {
            transport.declare(&Topology::new().with_group(spec)).await?;
            transport.subscribe(&subscription).await
        };
        match subscribed.await {
            Ok(subscriber) => Ok(Self {
                subscriber,
                own,
                random,
                ready: VecDeque::new(),
            }),
            Err(error) => {
                own.remove_what_there_is().await;
                Err(error)
            }
        }
    }

    /// The group that it watches with.
    #[must_use]
    pub const fn group(&self) -> &GroupName {
        &self.own.name
    }

    /// The next message, as soon as there is one. A transport that does not answer is asked again, for as long as it takes.
    /// A message may come again after such a time.
    ///
    /// # Errors
    /// `NotFound` when its group has ended: messages since then were not seen; else what the transport answers that does
    /// not pass by itself.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message; the next call has it.
    pub async fn next(&mut self) -> Result<Seen> {
        let mut failed = 0;
        loop {
            if let Some(seen) = self.ready.pop_front() {
                return Ok(seen);
            }
            match self.subscriber.receive(AT_ONCE.get(), WAIT).await {
                Ok(received) => {
                    failed = 0;
                    self.take(received.deliveries).await;
                }
                Err(error) if error.is_retryable() => {
                    tracing::debug!(group = %self.own.name, %error, "a look for messages failed; looking again");
                    tokio::time::sleep(BACKOFF.steady_delay(failed, &*self.random)).await;
                    failed = failed.saturating_add(1);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends the watch, and its group.
    ///
    /// # Errors
    /// What the transport answers; the group may then be left behind.
    pub async fn close(self) -> Result<()> {
        let closed = self.subscriber.close().await;
        self.own.remove().await?;
        closed
    }

    /// What is not acknowledged comes again, and is seen again: to be told so often is better than not at all.
    async fn take(&mut self, deliveries: Vec<Delivery>) {
        let tokens: Vec<_> = deliveries.iter().map(|one| Settlement::Ack(one.token)).collect();
        self.ready.extend(deliveries.into_iter().map(|delivery| Seen {
            again: delivery.redelivery != Redelivery::First,
            message: delivery.message,
            partition: delivery.partition,
            malformed: delivery.malformed.map(Arc::new),
        }));
        if tokens.is_empty() {
            return;
        }
        for settled in self.subscriber.settle(&tokens).await {
            if let Err(error) = settled {
                tracing::debug!(group = %self.own.name, %error, "a message could not be acknowledged; it comes again");
            }
        }
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("group", &self.own.name)
            .field("ready", &self.ready.len())
            .finish_non_exhaustive()
    }
}
