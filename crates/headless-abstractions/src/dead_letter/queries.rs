//! Reading dead letters.

use std::{cmp::Reverse, collections::BTreeMap, fmt::Debug, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::DeadLetterFilter;
use crate::{Cursor, DeadId, DeadLetter, DeadLetterChange, FailureCause, Origin, Page, Result, TopicName};

/// How many open dead letters share origin, topic and cause.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterStats {
    /// Their origin.
    pub origin: Origin,
    /// Their topic.
    pub topic: TopicName,
    /// The cause of their last failure.
    pub cause: FailureCause,
    /// How many there are.
    pub count: u64,
    /// How long ago the oldest of them died.
    pub oldest: Duration,
}

impl DeadLetterStats {
    /// These figures.
    #[must_use]
    pub const fn new(
        origin: Origin,
        topic: TopicName,
        cause: FailureCause,
        count: u64,
        oldest: Duration,
    ) -> Self {
        Self {
            origin,
            topic,
            cause,
            count,
            oldest,
        }
    }
}

/// How many dead letters share origin, topic, cause and the shape of their error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterTally {
    /// Their origin.
    pub origin: Origin,
    /// Their topic.
    pub topic: TopicName,
    /// The cause of their last failure.
    pub cause: FailureCause,
    /// The [shape](crate::Failure::shape) of their last failure's message.
    pub error: String,
    /// How many there are.
    pub count: u64,
    /// When the first of them died.
    pub first: DateTime<Utc>,
    /// When the last of them died.
    pub last: DateTime<Utc>,
    /// The last of them, to be looked at.
    pub sample: DeadId,
}

impl DeadLetterTally {
    /// The tally of this one, which died at this moment, alone.
    #[must_use]
    pub const fn new(
        origin: Origin,
        topic: TopicName,
        cause: FailureCause,
        error: String,
        sample: DeadId,
        died: DateTime<Utc>,
    ) -> Self {
        Self {
            origin,
            topic,
            cause,
            error,
            count: 1,
            first: died,
            last: died,
            sample,
        }
    }

    fn of(letter: &DeadLetter) -> Option<Self> {
        let failure = letter.failures.last()?;
        let (origin, topic) = (letter.origin.clone(), letter.message.topic.clone());
        Some(Self::new(
            origin,
            topic,
            failure.cause,
            failure.shape(),
            letter.id,
            letter.buried_at,
        ))
    }

    /// Tallies these, which are in the order in which they died: the most frequent first, of equals that which died
    /// first; at most `limit`. For stores that keep their rows in this process.
    pub fn tally<'a>(letters: impl IntoIterator<Item = &'a DeadLetter>, limit: usize) -> Vec<Self> {
        let mut tallies = Vec::new();
        let mut places = BTreeMap::new();
        for one in letters.into_iter().filter_map(Self::of) {
            let key = (
                one.origin.clone(),
                one.topic.clone(),
                one.cause,
                one.error.clone(),
            );
            let place = *places.entry(key).or_insert(tallies.len());
            match tallies.get_mut(place) {
                None => tallies.push(one),
                Some(Self {
                    count, last, sample, ..
                }) => {
                    *count += 1;
                    *last = one.last;
                    *sample = one.sample;
                }
            }
        }
        // It is stable: of equals the one that was met first stays before the other.
        tallies.sort_by_key(|tally| Reverse(tally.count));
        tallies.truncate(limit);
        tallies
    }
}

/// Reading dead letters.
#[async_trait]
pub trait DeadLetterQueries: Debug + Send + Sync + 'static {
    /// Dead letters that match, the oldest first, at most `limit` (1 to 1 000).
    ///
    /// # Errors
    /// `Invalid` for a limit out of range or a foreign cursor; `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn list(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetter>>;

    /// This dead letter.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn get(&self, id: DeadId) -> Result<Option<DeadLetter>>;

    /// The open ones, grouped by origin, topic and cause.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn stats(&self) -> Result<Vec<DeadLetterStats>>;

    /// Counts those that match by origin, topic, cause and the [shape](crate::Failure::shape) of their last failure's message: the
    /// most frequent first, of equals that of which one died first; at most `limit` (1 to 1 000).
    ///
    /// # Errors
    /// `Invalid` for a limit out of range; `Unavailable`, `Timeout`, `Denied`, `Closed`.
    async fn tally(&self, filter: &DeadLetterFilter, limit: usize) -> Result<Vec<DeadLetterTally>>;

    /// What was done to this dead letter, the first change first, at most `limit` (1 to 1 000); nothing for one that is
    /// not there. It goes with its dead letter when that is purged.
    ///
    /// # Errors
    /// `Invalid` for a limit out of range or a cursor of another list or dead letter; `Unavailable`, `Timeout`, `Denied`,
    /// `Closed`.
    async fn history(
        &self,
        id: DeadId,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<DeadLetterChange>>;
}
