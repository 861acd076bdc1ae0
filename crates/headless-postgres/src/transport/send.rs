//! Sending.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use headless_abstractions::{Error, ErrorKind, Message, PartitionKey, Result, Sent, TopicName};
use sqlx::Row;
use tokio::{sync::SemaphorePermit, time::timeout};
use uuid::Uuid;

use super::{
    closed,
    declare::{about, unknown_topic},
    topics::Topic,
};
use crate::{
    error::{NAME, fault},
    postgres::Shared,
    row::{Columns, unless_empty},
    span::micros,
    wake::Signal,
};

/// The most bytes of payload in one statement, about; a message alone may be larger.
const STATEMENT_BYTES: usize = 16 * 1024 * 1024;

/// The most messages in one statement.
const STATEMENT_MESSAGES: usize = 5_000;

/// What the server raises when a part is no more: nothing of the statement has happened.
const GONE: &str = "HL003";

/// How often a send is planned anew because topics were given another order under its hands.
const PLANS: usize = 5;

/// A key of a topic.
type Key<'a> = (&'a TopicName, &'a PartitionKey);

/// Which part of an unordered topic a send writes to: always the same one, unless other sends are under way.
#[derive(Debug)]
pub(super) struct Spread {
    first: usize,
    under_way: AtomicUsize,
}

impl Spread {
    pub(super) fn new() -> Self {
        // Processes differ.
        let first = usize::from(Uuid::new_v4().as_bytes()[0]);
        Self {
            first,
            under_way: AtomicUsize::new(0),
        }
    }

    fn begin(&self) -> Place<'_> {
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        Place {
            number: self.first.wrapping_add(before),
            spread: self,
        }
    }
}

/// The place of one send.
struct Place<'a> {
    number: usize,
    spread: &'a Spread,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.spread.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) async fn send(shared: &Shared, batch: &[Message]) -> Vec<Result<Sent>> {
    if batch.is_empty() {
        return Vec::new();
    }
    // Closing waits for it: see `Shared::guarded`.
    let _under_way = shared.transport.tasks.token();
    let mut sending = Sending {
        shared,
        answers: batch.iter().map(|_| None).collect(),
        batch,
        stopped: BTreeSet::new(),
    };
    if let Err(error) = sending.run().await {
        sending.fail_the_rest(&error);
    }
    let answers = sending.answers.into_iter();
    let missing = || Error::new(ErrorKind::Internal, "the message was not looked at");
    answers
        .map(|answer| {
            let answer = answer.unwrap_or_else(|| Err(missing()));
            answer.map_err(|error| error.with_operation("send").with_provider(NAME))
        })
        .collect()
}

/// One batch on its way.
struct Sending<'a> {
    shared: &'a Shared,
    batch: &'a [Message],
    answers: Vec<Option<Result<Sent>>>,
    /// The keys of which something was refused: nothing that follows of them is accepted.
    stopped: BTreeSet<Key<'a>>,
}

/// A message that is to be sent.
struct Planned<'a> {
    index: usize,
    message: &'a Message,
    topic: i32,
    part: i32,
}

impl<'a> Sending<'a> {
    async fn run(&mut self) -> Result<()> {
        let shared = self.shared;
        shared.transport.check_open("send")?;
        let max_payload = shared.config.max_payload.get();
        for (index, message) in self.batch.iter().enumerate() {
            let bytes = message.payload.len();
            if bytes > max_payload {
                self.answers[index] = Some(Err(about(&message.topic)(Error::too_large(
                    "payload",
                    bytes,
                    max_payload,
                ))));
            }
        }
        for _ in 0..PLANS {
            if self.send_planned().await? {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("topics were given another order {PLANS} times meanwhile; send again"),
        ))
    }

    /// Plans and sends what has no answer yet. Says no where a part that was planned with is no more: what has no answer
    /// was not sent then.
    async fn send_planned(&mut self) -> Result<bool> {
        let shared = self.shared;
        let names = self.batch.iter().map(|message| &message.topic);
        let mut topics = shared.call("send", shared.topics(names.clone())).await?;
        if self.forget_what_refuses(&topics) {
            topics = shared.call("send", shared.topics(names)).await?;
        }
        let place = shared.transport.spread.begin();
        let planned = self.plan(&topics, place.number);
        // What was refused so far has kept back what follows it, and nothing before it.
        self.stopped.clear();
        for part in chunks(&planned) {
            // An earlier statement may have been refused for a topic.
            let part: Vec<&Planned<'_>> = part.iter().filter(|planned| !self.is_stopped(planned)).collect();
            if !part.is_empty() && !self.send_part(&part).await? {
                for planned in part {
                    shared.transport.topics.forget(planned.topic);
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Forgets the topics whose order would have a message refused, and says whether there are any: what is known of them may be
    /// old, and a refusal must not be.
    fn forget_what_refuses(&self, topics: &BTreeMap<&TopicName, Arc<Topic>>) -> bool {
        let unanswered = self
            .batch
            .iter()
            .zip(&self.answers)
            .filter(|(_, answer)| answer.is_none());
        let refusing: BTreeSet<i32> = unanswered
            .filter_map(|(message, _)| topics.get(&message.topic).map(|topic| (message, topic)))
            .filter(|(message, topic)| topic.part_of(message, 0).is_err())
            .map(|(_, topic)| topic.id)
            .collect();
        for topic in &refusing {
            self.shared.transport.topics.forget(*topic);
        }
        !refusing.is_empty()
    }

    /// Decides for each message where it goes, or refuses it.
    fn plan(&mut self, topics: &BTreeMap<&TopicName, Arc<Topic>>, spread: usize) -> Vec<Planned<'a>> {
        let mut planned = Vec::with_capacity(self.batch.len());
        for (index, message) in self.batch.iter().enumerate() {
            let answer = match (&self.answers[index], topics.get(&message.topic)) {
                (Some(Ok(_)), _) => continue,
                (Some(_), _) => None,
                (None, None) => Some(unknown_topic(message.topic.as_str())),
                (None, Some(topic)) => match topic.part_of(message, spread) {
                    Err(error) => Some(about(&message.topic)(error)),
                    Ok(part) => {
                        let next = Planned {
                            index,
                            message,
                            topic: topic.id,
                            part,
                        };
                        if !self.is_stopped(&next) {
                            planned.push(next);
                        }
                        continue;
                    }
                },
            };
            if let Some(error) = answer {
                self.answers[index] = Some(Err(error));
            }
            self.stopped.extend(key_of(message));
        }
        planned
    }

    /// Whether an earlier message of the key was refused; this one is too then.
    fn is_stopped(&mut self, planned: &Planned<'a>) -> bool {
        let stopped = key_of(planned.message).is_some_and(|key| self.stopped.contains(&key));
        if stopped {
            let conflict = Error::new(
                ErrorKind::Conflict,
                "an earlier message of this key was not accepted",
            );
            self.answers[planned.index] = Some(Err(about(&planned.message.topic)(conflict)));
        }
        stopped
    }

    /// Sends these in one transaction; says no where nothing of it was done, since a part is no more.
    async fn send_part(&mut self, planned: &[&Planned<'a>]) -> Result<bool> {
        let shared = self.shared;
        let rows = Rows::of(planned, shared.config.max_payload.get())?;
        let refused = shared
            .call("send", async {
                let _turn = shared.turn().await?;
                let mut session = shared.session().await?;
                let refused = sqlx::query(shared.transport.statements.send.get())
                    .bind(&rows.topics)
                    .bind(&rows.parts)
                    .bind(&rows.counts)
                    .bind(&rows.uneven)
                    .bind(&rows.part)
                    .bind(&rows.which)
                    .bind(&rows.rank)
                    .bind(&rows.delay)
                    .bind(&rows.columns.ids)
                    .bind(unless_empty(&rows.columns.keys))
                    .bind(&rows.columns.occurred_at)
                    .bind(unless_empty(&rows.columns.content_types))
                    .bind(&rows.columns.headers)
                    .bind(&rows.columns.payloads)
                    .bind(unless_empty(&rows.expires_at))
                    .fetch_all(&mut *session)
                    .await;
                let refused = match refused {
                    Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(GONE) => {
                        return Ok(None);
                    }
                    refused => refused.map_err(fault)?,
                };
                session.finish(&shared.statements).await?;
                Ok(Some(refused))
            })
            .await?;
        let Some(refused) = refused else {
            return Ok(false);
        };
        let mut exceptions = BTreeMap::new();
        for row in &refused {
            let topic: i32 = row.try_get("topic").map_err(fault)?;
            let answer: i16 = row.try_get("answer").map_err(fault)?;
            exceptions.insert(topic, answer);
        }
        if exceptions.len() < rows.topics.len() {
            shared.wake.notify(Signal::Transport);
        }
        for planned in planned {
            let answer = match exceptions.get(&planned.topic) {
                None => Ok(Sent::Accepted),
                Some(1) => Ok(Sent::Unrouted),
                Some(2) => Err(Error::new(
                    ErrorKind::NotFound,
                    "the topic is required and no group takes it; declare one first",
                )),
                Some(_) => {
                    shared.transport.topics.forget(planned.topic);
                    Err(unknown_topic(planned.message.topic.as_str()))
                }
            };
            if answer.is_err() {
                if self.is_stopped(planned) {
                    continue;
                }
                self.stopped.extend(key_of(planned.message));
            }
            self.answers[planned.index] = Some(answer.map_err(about(&planned.message.topic)));
        }
        Ok(true)
    }

    /// Answers for every message that has no answer yet.
    fn fail_the_rest(&mut self, error: &Error) {
        for answer in &mut self.answers {
            if answer.is_none() {
                *answer = Some(Err(copy_of(error)));
            }
        }
    }
}

impl Shared {
    /// Waits until a connection may be used for sending.
    async fn turn(&self) -> Result<SemaphorePermit<'_>> {
        let turn = timeout(self.config.acquire_timeout, self.transport.sends.acquire()).await;
        turn.map_err(|_elapsed| {
            Error::new(
                ErrorKind::Unavailable,
                "as many sends as there may be at once were under way for longer than acquire_timeout: raise \
                 control_connections, or commit sooner where send_foreign is used",
            )
        })?
        .map_err(|_never| closed("send"))
    }
}

/// The same error for another message of the batch. Its cause stays with the first.
fn copy_of(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message().to_owned()).with_advice(error.advice());
    if error.is_outcome_unknown() {
        copy = copy.with_outcome_unknown();
    }
    copy
}

fn key_of(message: &Message) -> Option<Key<'_>> {
    message.key.as_ref().map(|key| (&message.topic, key))
}

/// These messages in statements of a bounded size.
fn chunks<'p, 'a>(mut planned: &'p [Planned<'a>]) -> Vec<&'p [Planned<'a>]> {
    let mut chunks = Vec::new();
    while !planned.is_empty() {
        let mut bytes = 0;
        let fits = planned
            .iter()
            .take(STATEMENT_MESSAGES)
            .take_while(|planned| {
                let first = bytes == 0;
                bytes += planned.message.payload.len() + 1;
                first || bytes <= STATEMENT_BYTES
            })
            .count();
        let (chunk, rest) = planned.split_at(fits);
        chunks.push(chunk);
        planned = rest;
    }
    chunks
}

/// Messages as the server's function takes them.
struct Rows<'a> {
    /// The topics, each once.
    topics: Vec<i32>,
    /// The parts that something goes to now, each once and in order, and how many messages.
    parts: Vec<i32>,
    counts: Vec<i64>,
    uneven: Vec<bool>,
    /// Of each message its part, the number of that in `parts` counted from 1, its rank there, and its delay.
    part: Vec<i32>,
    which: Vec<Option<i32>>,
    rank: Vec<Option<i64>>,
    delay: Option<Vec<Option<i64>>>,
    columns: Columns<'a>,
    expires_at: Vec<Option<DateTime<Utc>>>,
}

impl<'a> Rows<'a> {
    fn of(planned: &[&Planned<'a>], max_payload: usize) -> Result<Self> {
        let delays: Vec<Option<i64>> = planned.iter().map(|planned| delay(planned.message)).collect();
        let mut counts: BTreeMap<i32, (i64, bool)> = BTreeMap::new();
        let mut rank = Vec::with_capacity(planned.len());
        for (planned, delay) in planned.iter().zip(&delays) {
            rank.push(delay.is_none().then(|| {
                let (count, uneven) = counts.entry(planned.part).or_default();
                *count += 1;
                *uneven |= planned.message.expires_at.is_some();
                *count - 1
            }));
        }
        let numbers: BTreeMap<i32, i32> = counts.keys().copied().zip(1..).collect();
        let topics: BTreeSet<i32> = planned.iter().map(|planned| planned.topic).collect();
        Ok(Self {
            topics: topics.into_iter().collect(),
            parts: counts.keys().copied().collect(),
            counts: counts.values().map(|(count, _)| *count).collect(),
            uneven: counts.values().map(|(_, uneven)| *uneven).collect(),
            part: planned.iter().map(|planned| planned.part).collect(),
            which: planned
                .iter()
                .zip(&delays)
                .map(|(planned, delay)| match delay {
                    None => numbers.get(&planned.part).copied(),
                    Some(_) => None,
                })
                .collect(),
            rank,
            delay: delays.iter().any(Option::is_some).then_some(delays),
            columns: Columns::of(planned.iter().map(|planned| planned.message), max_payload)?,
            expires_at: planned.iter().map(|planned| planned.message.expires_at).collect(),
        })
    }
}

/// How long this message is to wait, in microseconds; `None` for not at all.
fn delay(message: &Message) -> Option<i64> {
    message
        .deliver_after
        .filter(|delay| *delay > Duration::ZERO)
        .map(micros)
}
