//! Which topics and groups there are. AMQP can make and delete, and tells nobody what there is; so it is written down in a
//! stream whose last record holds the whole. Readers take nothing away and do not wait for each other.
//!
//! Whoever changes it holds an exclusive queue as a lock. The lock goes with the connection that holds it, and what is
//! written goes over the same connection: who has lost the one cannot do the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::StreamExt;
use headless_abstractions::{Error, ErrorKind, GroupName, Partitions, Result, TopicName, TopicOrder};
use lapin::{
    BasicProperties, Consumer,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    channel::Chan,
    connection::Live,
    error::{NAME, fault, overdue},
};

/// The version of the record that this library writes.
const VERSION: u32 = 1;
/// How often the lock is asked for while another has it.
const LOCK_AGAIN: Duration = Duration::from_millis(20);
/// How long a stream that has a record may take to show it before it is looked at more closely.
const SHOWN: Duration = Duration::from_secs(1);
/// The stream is cut into segments of this many bytes, and old ones are dropped beyond ten of them.
const SEGMENT: i32 = 4_000_000;

/// The topics and groups of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    version: u32,
    topics: BTreeMap<String, KnownTopic>,
    /// The topics of each group.
    groups: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownTopic {
    /// How many partitions it has, if it is ordered.
    partitions: Option<u16>,
    pub(crate) required: bool,
}

impl KnownTopic {
    pub(crate) fn new(order: TopicOrder, required: bool) -> Self {
        Self {
            partitions: order.partitions().map(Partitions::get),
            required,
        }
    }

    pub(crate) fn order(self) -> Result<TopicOrder> {
        self.partitions.map_or(Ok(TopicOrder::Unordered), |count| {
            Ok(TopicOrder::Partitioned(Partitions::new(count)?))
        })
    }
}

impl Known {
    pub(crate) fn topic(&self, name: &TopicName) -> Option<KnownTopic> {
        self.topics.get(name.as_str()).copied()
    }

    /// Adds a topic, or what it is now required to have.
    pub(crate) fn add_topic(&mut self, name: &TopicName, topic: KnownTopic) {
        let known = self.topics.entry(name.as_str().to_owned()).or_insert(topic);
        known.required |= topic.required;
    }

    pub(crate) fn add_group(&mut self, group: &GroupName, topic: &TopicName) {
        let topics = self.groups.entry(group.as_str().to_owned()).or_default();
        topics.insert(topic.as_str().to_owned());
    }

    pub(crate) fn remove_group(&mut self, group: &GroupName) {
        self.groups.remove(group.as_str());
    }

    pub(crate) fn is_attended(&self, topic: &TopicName) -> bool {
        self.groups.values().any(|topics| topics.contains(topic.as_str()))
    }

    /// The topics of a group with their orders; `None` when there is no such group.
    pub(crate) fn topics_of(&self, group: &GroupName) -> Option<Result<Vec<(TopicName, TopicOrder)>>> {
        let topics = self.groups.get(group.as_str())?;
        Some(
            topics
                .iter()
                .map(|name| {
                    let topic = self
                        .topics
                        .get(name)
                        .ok_or_else(|| damaged("a group's topic is missing"))?;
                    Ok((TopicName::parse_stored(name)?, topic.order()?))
                })
                .collect(),
        )
    }

    pub(crate) fn topic_names(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    pub(crate) fn group_names(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    fn parse(record: &[u8]) -> Result<Self> {
        let known: Self = serde_json::from_slice(record)
            .map_err(|error| damaged("the registry's last record is not ours").with_source(error))?;
        if known.version > VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the registry was written by a newer version of this library (its version is {}, known is {VERSION}): \
                     update this process",
                    known.version
                ),
            )
            .with_provider(NAME));
        }
        Ok(known)
    }
}

/// How a record begins that only shows where the stream ends.
const MARK: &[u8] = b"{\"mark\"";

/// What this handle knows of the registry.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    cached: RwLock<Arc<Known>>,
    /// The server's lock is one of the connection: among the tasks of this handle this one decides.
    ours: tokio::sync::Mutex<()>,
}

impl Registry {
    /// What was last seen.
    pub(crate) fn cached(&self) -> Arc<Known> {
        self.cached.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn forget(&self) {
        self.cache(Arc::default());
    }

    fn cache(&self, known: Arc<Known>) {
        *self.cached.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// What is there now.
    pub(crate) async fn read(
        &self,
        live: &Live,
        stream: ShortString,
        at_most: Duration,
    ) -> Result<Arc<Known>> {
        let read = async {
            let Some(mut last) = Reader::of(live, stream).await? else {
                return Ok(Arc::default());
            };
            // A mark is followed by the record.
            let known = loop {
                let record = last.next().await?;
                if !record.starts_with(MARK) {
                    break Known::parse(&record)?;
                }
            };
            last.end().await;
            Ok(Arc::new(known))
        };
        let known = timeout(at_most, read)
            .await
            .map_err(|_elapsed| overdue("read the registry", "call_timeout"))??;
        self.cache(known.clone());
        Ok(known)
    }

    /// Takes the lock to change it. End with [`Edit::end`].
    pub(crate) async fn edit<'a>(
        &'a self,
        live: &'a Live,
        stream: ShortString,
        lock: ShortString,
    ) -> Result<Edit<'a>> {
        let ours = self.ours.lock().await;
        let channel = take_lock(live, lock.clone()).await?;
        let mut edit = Edit {
            registry: self,
            live,
            stream: stream.clone(),
            lock: Some((channel, lock)),
            known: Known::default(),
            is_written: false,
            _ours: ours,
        };
        match read_for_change(live, stream).await {
            Ok((known, is_written)) => {
                edit.known = known;
                edit.is_written = is_written;
                Ok(edit)
            }
            Err(error) => {
                // What went wrong first is what is told.
                let _released = edit.end().await;
                Err(error)
            }
        }
    }
}

/// The registry in the hands of who may change it.
pub(crate) struct Edit<'a> {
    registry: &'a Registry,
    live: &'a Live,
    stream: ShortString,
    lock: Option<(Chan, ShortString)>,
    known: Known,
    is_written: bool,
    _ours: tokio::sync::MutexGuard<'a, ()>,
}

impl Edit<'_> {
    pub(crate) const fn known(&self) -> &Known {
        &self.known
    }

    /// Makes this the last record, unless it is.
    pub(crate) async fn write(&mut self, known: Known) -> Result<()> {
        if known != self.known || !self.is_written {
            write(self.live, self.stream.clone(), &known).await?;
            self.is_written = true;
        }
        self.known = known;
        self.registry.cache(Arc::new(self.known.clone()));
        Ok(())
    }

    /// Lets others change it.
    pub(crate) async fn end(mut self) -> Result<()> {
        let Some((channel, lock)) = self.lock.take() else {
            return Ok(());
        };
        let released = channel.queue_delete(lock, QueueDeleteOptions::default()).await;
        released.map(drop).map_err(fault)
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        // Given up half-way. Without a runtime the lock goes with the connection.
        if let Some((channel, lock)) = self.lock.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                let released = channel.queue_delete(lock, QueueDeleteOptions::default()).await;
                if let Err(error) = released {
                    tracing::debug!(%error, "the registry's lock goes with its connection");
                }
            });
        }
    }
}

/// Waits for the lock, and answers the channel that it was got on.
async fn take_lock(live: &Live, lock: ShortString) -> Result<Chan> {
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    loop {
        let channel = live.channel().await?;
        let taken = channel
            .queue_declare(lock.clone(), options, FieldTable::default())
            .await
            .map_err(fault);
        match taken {
            Ok(_) => return Ok(channel),
            // The one conflict that passes: another connection has it.
            Err(error) if error.kind() == ErrorKind::Conflict && error.is_retryable() => {
                sleep(LOCK_AGAIN).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What is there, under the lock, and whether it stands in the last record.
async fn read_for_change(live: &Live, stream: ShortString) -> Result<(Known, bool)> {
    let Some(mut last) = Reader::of(live, stream.clone()).await? else {
        make(live, stream.clone()).await?;
        // So that readers find something.
        write(live, stream, &Known::default()).await?;
        return Ok((Known::default(), true));
    };
    match timeout(SHOWN, last.next()).await {
        Ok(record) => {
            let record = record?;
            if !record.starts_with(MARK) {
                last.end().await;
                return Ok((Known::parse(&record)?, true));
            }
        }
        Err(_slow_or_empty) => {}
    }
    last.end().await;
    // A writer died half-way, or the server is slow. Nobody else writes now: what stands before a mark of ours is all.
    let mark = format!("{{\"mark\":\"{}\"}}", Uuid::new_v4());
    publish(live, stream.clone(), mark.as_bytes()).await?;
    let mut all = Reader::from(live, stream, "first")
        .await?
        .ok_or_else(|| damaged("the registry went while it was read"))?;
    let mut known = Known::default();
    loop {
        let record = all.next().await?;
        if record == mark.as_bytes() {
            break;
        }
        if !record.starts_with(MARK) {
            known = Known::parse(&record)?;
        }
    }
    all.end().await;
    Ok((known, false))
}

async fn make(live: &Live, stream: ShortString) -> Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
    arguments.insert(
        "x-stream-max-segment-size-bytes".into(),
        AMQPValue::LongInt(SEGMENT),
    );
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongInt(10 * SEGMENT));
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let channel = live.channel().await?;
    channel
        .queue_declare(stream, options, arguments)
        .await
        .map_err(fault)?;
    Ok(())
}

async fn write(live: &Live, stream: ShortString, known: &Known) -> Result<()> {
    let mut known = known.clone();
    known.version = VERSION;
    let record = serde_json::to_vec(&known)
        .map_err(|error| damaged("the registry cannot be written").with_source(error))?;
    publish(live, stream, &record).await
}

async fn publish(live: &Live, stream: ShortString, record: &[u8]) -> Result<()> {
    let channel = live.publisher().await?;
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let confirm = channel
        .basic_publish(
            "".into(),
            stream,
            options,
            record,
            BasicProperties::default().with_delivery_mode(2),
        )
        .await
        .map_err(fault)?
        .await
        .map_err(fault)?;
    let is_kept = confirm.is_ack() && confirm.take_message().is_none();
    live.give_back(channel);
    if !is_kept {
        return Err(
            Error::new(ErrorKind::Unavailable, "the registry did not take its record").with_provider(NAME),
        );
    }
    Ok(())
}

/// A reader of a stream.
struct Reader {
    channel: Chan,
    records: Consumer,
}

impl Reader {
    /// `None` when there is no stream.
    async fn of(live: &Live, stream: ShortString) -> Result<Option<Self>> {
        Self::from(live, stream, "last").await
    }

    async fn from(live: &Live, stream: ShortString, offset: &str) -> Result<Option<Self>> {
        let channel = live.channel().await?;
        // Without this the server hands out nothing of a stream.
        channel
            .basic_qos(10, BasicQosOptions::default())
            .await
            .map_err(fault)?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), AMQPValue::LongString(offset.into()));
        let consumed = channel
            .consume(stream, BasicConsumeOptions::default(), arguments)
            .await;
        match consumed {
            Ok(records) => Ok(Some(Self { channel, records })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn next(&mut self) -> Result<Vec<u8>> {
        let next = self.records.next().await;
        let delivery = next
            .ok_or_else(|| {
                Error::new(ErrorKind::Unavailable, "the registry went while it was read").with_provider(NAME)
            })?
            .map_err(fault)?;
        // Credit for the next one; a stream keeps what is acknowledged.
        delivery
            .acker
            .ack(BasicAckOptions::default())
            .await
            .map_err(fault)?;
        Ok(delivery.data)
    }

    async fn end(self) {
        self.channel.end().await;
    }
}

fn damaged(what: &'static str) -> Error {
    Error::new(ErrorKind::Internal, what).with_provider(NAME)
}
