//! What the transport said about each message of a batch, and what becomes of its row.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as StdError,
    sync::PoisonError,
    time::Duration,
};

use chrono::{DateTime, Utc};
use headless_abstractions::{
    Abandon, Claim, Error, ErrorKind, Failure, FailureCause, Message, PartitionKey, Result, Sent, TopicName,
};
use headless_core::{Backoff, CrashPoint, metric};

use super::{Shared, note_lost};
use crate::publisher::{count_by_topic, count_one};

/// Before a message that met a transport in trouble is claimed again, by whichever relay. Short: a relay whose circuit
/// is open claims nothing, and another one's transport may be well.
const AFTER_TROUBLE: Backoff = Backoff::exponential(Duration::from_millis(500), Duration::from_millis(500));

/// A row and its message, once the transport has answered for it.
#[derive(Debug)]
struct Answered<'a> {
    claim: Claim,
    attempts: u32,
    message: &'a Message,
}

/// A batch, sorted by what is to become of its rows.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    pub(super) accepted: Vec<(Claim, &'a Message)>,
    pub(super) unrouted: Vec<(Claim, &'a Message)>,
    /// Refused for their own sake: an attempt is used.
    pub(super) refused: Vec<Refused<'a>>,
    /// Kept back by an earlier message of their key, with which they come again.
    kept_back: Vec<Claim>,
    /// The transport was not well: no message's fault.
    troubled: Vec<Claim>,
    /// The first of these troubles.
    pub(super) trouble: Option<Error>,
}

#[derive(Debug)]
pub(super) struct Refused<'a> {
    row: Answered<'a>,
    error: Error,
}

impl<'a> Batch<'a> {
    /// Sorts a batch by its answers. `tickets` are the claims and used attempts of `messages`.
    pub(super) fn judge(
        tickets: &[(Claim, u32)],
        messages: &'a [Message],
        answers: Vec<Result<Sent>>,
    ) -> Self {
        let mut batch = Self::default();
        let mut stopped: BTreeSet<(&TopicName, &PartitionKey)> = BTreeSet::new();
        let mut answers = answers.into_iter();
        for (&(claim, attempts), message) in tickets.iter().zip(messages) {
            let key = message.key.as_ref().map(|key| (&message.topic, key));
            let error = match answers.next() {
                Some(Ok(Sent::Accepted)) => {
                    batch.accepted.push((claim, message));
                    continue;
                }
                Some(Ok(Sent::Unrouted)) => {
                    batch.unrouted.push((claim, message));
                    continue;
                }
                Some(Err(error)) => error,
                None => Error::new(
                    ErrorKind::Internal,
                    "the transport did not answer for a message: a defect of the provider",
                ),
            };
            let follows = key.is_some_and(|key| stopped.contains(&key));
            stopped.extend(key);
            if error.kind() == ErrorKind::Conflict && follows {
                batch.kept_back.push(claim);
                continue;
            }
            count_one(metric::RELAY_FAILED, &message.topic, error.kind().as_str());
            if is_about_the_message(error.kind()) {
                let row = Answered {
                    claim,
                    attempts,
                    message,
                };
                batch.refused.push(Refused { row, error });
            } else {
                batch.troubled.push(claim);
                batch.trouble.get_or_insert(error);
            }
        }
        batch
    }

    /// The claims of what was sent.
    pub(super) fn sent(&self) -> impl Iterator<Item = Claim> {
        self.accepted
            .iter()
            .chain(&self.unrouted)
            .map(|(claim, _)| *claim)
    }

    pub(super) fn took_nothing(&self) -> bool {
        self.accepted.is_empty() && self.unrouted.is_empty()
    }

    pub(super) fn into_trouble(self) -> Option<Error> {
        self.trouble
    }

    /// Counts what was sent, and how long it took to get there.
    pub(super) fn count(&self, now: DateTime<Utc>) {
        let mut histograms: BTreeMap<&TopicName, metrics::Histogram> = BTreeMap::new();
        for (_, message) in self.accepted.iter().chain(&self.unrouted) {
            let topic = &message.topic;
            let histogram = histograms.entry(topic).or_insert_with(
                || metrics::histogram!(metric::RELAY_SECONDS, "topic" => topic.as_str().to_owned()),
            );
            // Of a publisher whose clock is ahead: at once, as far as can be known.
            let took = (now - message.occurred_at).to_std().unwrap_or_default();
            histogram.record(took.as_secs_f64());
        }
        count_by_topic(
            metric::RELAYED,
            self.accepted.iter().map(|(_, message)| &message.topic),
        );
        count_by_topic(
            metric::UNROUTED,
            self.unrouted.iter().map(|(_, message)| &message.topic),
        );
    }

    /// Gives back or ends the rows that were not sent.
    pub(super) async fn settle(&self, shared: &Shared) -> Result<()> {
        // Rows kept back are ready at once, and wait for their key's head all the same.
        give_back(shared, &self.kept_back, Duration::ZERO).await?;
        let wait = AFTER_TROUBLE.steady_delay(0, &*shared.environment.random);
        give_back(shared, &self.troubled, wait).await?;
        self.settle_refused(shared).await
    }

    async fn settle_refused(&self, shared: &Shared) -> Result<()> {
        let now = shared.environment.clock.now();
        for ((attempt, text), rows) in self.refusals() {
            let failure = Failure::new(FailureCause::Refused, text, &*shared.environment.node, now);
            let claims: Vec<_> = rows.iter().map(|row| row.claim).collect();
            if attempt < shared.config.attempts {
                give_back_failed(shared, &claims, attempt, failure).await?;
            } else {
                end(shared, &rows, &claims, &failure).await?;
            }
        }
        Ok(())
    }

    /// Rows refused with the same words at the same attempt are settled together.
    fn refusals(&self) -> BTreeMap<(u32, String), Vec<&Answered<'a>>> {
        let mut refusals: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for Refused { row, error } in &self.refused {
            let attempt = row.attempts.saturating_add(1);
            refusals
                .entry((attempt, with_causes(error)))
                .or_default()
                .push(row);
        }
        refusals
    }
}

/// Whether an error is the message's own: no other time and no other message would change it soon.
const fn is_about_the_message(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TooLarge
            | ErrorKind::Invalid
            | ErrorKind::Denied
            | ErrorKind::NotFound
            | ErrorKind::Unsupported
    )
}

/// Gives rows back with their attempt.
pub(super) async fn give_back(shared: &Shared, claims: &[Claim], after: Duration) -> Result<()> {
    if claims.is_empty() {
        return Ok(());
    }
    let how = Abandon::unused().with_after(after);
    CrashPoint::RelayReturning.reach()?;
    let abandon = shared.outbox.abandon(shared.environment.owner, claims, &how);
    let settled = shared.store_call("outbox.abandon", abandon).await?;
    CrashPoint::RelayReturned.reach()?;
    note_lost("give back", &settled);
    Ok(())
}

async fn give_back_failed(shared: &Shared, claims: &[Claim], attempt: u32, failure: Failure) -> Result<()> {
    let after = shared
        .config
        .backoff
        .steady_delay(attempt - 1, &*shared.environment.random);
    let how = Abandon::failed(after, failure);
    CrashPoint::RelayRecording.reach()?;
    let abandon = shared.outbox.abandon(shared.environment.owner, claims, &how);
    let settled = shared.store_call("outbox.abandon", abandon).await?;
    CrashPoint::RelayRecorded.reach()?;
    note_lost("give back", &settled);
    Ok(())
}

/// Makes dead letters of rows that have had their last attempt.
async fn end(shared: &Shared, rows: &[&Answered<'_>], claims: &[Claim], failure: &Failure) -> Result<()> {
    CrashPoint::RelayBurying.reach()?;
    let fail = shared.outbox.fail(shared.environment.owner, claims, failure);
    let settled = shared.store_call("outbox.fail", fail).await?;
    CrashPoint::RelayBuried.reach()?;
    let mut dead = 0;
    for row in rows.iter().filter(|row| !settled.lost.contains(&row.claim)) {
        dead += 1;
        count_one(metric::RELAY_DEAD, &row.message.topic, failure.cause.as_str());
        tracing::error!(id = %row.message.id, topic = %row.message.topic, reason = failure.message, "dead-lettered by the relay");
    }
    shared.status.lock().unwrap_or_else(PoisonError::into_inner).dead += dead;
    note_lost("dead-letter", &settled);
    Ok(())
}

/// The error and its causes in one line, for whoever reads the dead letter.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
