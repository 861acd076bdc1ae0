//! The outbox.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, Appended, Claim, ClaimOutbox, ClaimedOutbox, Error, ErrorKind, Failure, Message, MessageId,
    Origin, OutboxStore, Owner, Result, Settled,
};

use super::{Database, LockKey, State, TxId, dead_letters::set_redriven_from, require};
use crate::Memory;

/// A message that a transaction has appended and not committed yet.
pub(super) struct StagedMessage {
    number: u64,
    message: Message,
    appended_at: Duration,
}

#[async_trait]
impl OutboxStore for Memory {
    async fn append(&self, messages: &[Message]) -> Result<Vec<Appended>> {
        let database = &self.server.database;
        self.link.check("append").await?;
        database.check_messages(messages)?;
        self.when_free("append", |state, now, timed_out| {
            if messages
                .iter()
                .any(|message| state.locks.holder(&LockKey::Outbox(message.id)).is_some())
            {
                return timed_out.then(|| Err(contended()));
            }
            Some(
                state
                    .stage_messages(messages, now, None, &BTreeSet::new())
                    .map(|(staged, answers)| {
                        state.store_messages(staged);
                        answers
                    }),
            )
        })
        .await?
    }

    async fn claim(&self, request: &ClaimOutbox) -> Result<ClaimedOutbox> {
        self.link.check("claim").await?;
        require("claim", Some(request.limit), Some(request.lease))?;
        Ok(self.server.database.write(|state, now| {
            let acked = state.outbox.ack(request.owner, &request.ack);
            let stirred = state.outbox.stirred;
            let rows = state.outbox.claim(request, now, &mut state.sequence);
            // What time alone made ready needs no hint: waiters sleep until then themselves.
            state.outbox.stirred = stirred;
            ClaimedOutbox::new(rows, acked)
        }))
    }

    async fn ack(&self, owner: Owner, claims: &[Claim]) -> Result<Settled> {
        self.link.check("ack").await?;
        Ok(self
            .server
            .database
            .write(|state, _| state.outbox.ack(owner, claims)))
    }

    async fn abandon(&self, owner: Owner, claims: &[Claim], how: &Abandon) -> Result<Settled> {
        self.link.check("abandon").await?;
        Ok(self
            .server
            .database
            .write(|state, now| state.outbox.abandon(owner, claims, how, now)))
    }

    async fn fail(&self, owner: Owner, claims: &[Claim], failure: &Failure) -> Result<Settled> {
        self.link.check("fail").await?;
        let died_at = self.server.database.wall();
        Ok(self.server.database.write(|state, now| {
            let State {
                outbox, dead_letters, ..
            } = state;
            outbox.fail(owner, claims, failure, |row| {
                let letter = dead_letters.add(self.server.id, Origin::Relay, row.message, (now, died_at));
                letter.failures = row.failures;
                letter.rounds = row.attempts;
                set_redriven_from(letter, row.redriven);
            })
        }))
    }

    async fn renew(&self, owner: Owner, claims: &[Claim], lease: Duration) -> Result<Settled> {
        self.link.check("renew").await?;
        require("renew", None, Some(lease))?;
        Ok(self
            .server
            .database
            .write(|state, now| state.outbox.renew(owner, claims, now.saturating_add(lease))))
    }

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        self.link.check("reap_expired").await?;
        Ok(self
            .server
            .database
            .write(|state, now| state.outbox.reap_expired(limit, now)))
    }

    async fn release_owner(&self, owner: Owner) -> Result<u64> {
        self.link.check("release_owner").await?;
        Ok(self
            .server
            .database
            .write(|state, _| state.outbox.release_owner(owner)))
    }

    async fn purge(&self, _older_than: Duration, _limit: usize) -> Result<u64> {
        self.link.check("purge").await?;
        Ok(0)
    }
}

impl Database {
    /// Refuses what the outbox cannot hold.
    pub(super) fn check_messages(&self, messages: &[Message]) -> Result<()> {
        for message in messages {
            let wrong = if message.payload.len() > self.max_payload {
                Error::too_large("payload", message.payload.len(), self.max_payload)
            } else if message
                .deliver_after
                .is_some_and(|delay| delay > Message::MAX_DELAY)
            {
                Error::invalid("deliver_after is longer than a hundred years")
            } else {
                continue;
            };
            let resource = format!("message {}", message.id);
            return Err(wrong
                .with_operation("append")
                .with_provider("memory")
                .with_resource(resource));
        }
        Ok(())
    }
}

impl State {
    /// Numbers the messages that are new, now; `staged` are those that `tx` has staged before.
    pub(super) fn stage_messages(
        &mut self,
        messages: &[Message],
        now: Duration,
        tx: Option<TxId>,
        staged: &BTreeSet<MessageId>,
    ) -> Result<(Vec<StagedMessage>, Vec<Appended>)> {
        let mut in_batch = BTreeSet::new();
        let answers: Vec<Appended> = messages
            .iter()
            .map(|message| {
                let known = self.outbox.contains(message.id) || staged.contains(&message.id);
                if known || !in_batch.insert(message.id) {
                    Appended::Duplicate
                } else {
                    Appended::Stored
                }
            })
            .collect();
        if !self.outbox.has_room_for(in_batch.len()) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the outbox is full: let the relay drain it, or raise outbox_capacity",
            )
            .with_operation("append")
            .with_provider("memory"));
        }
        if let Some(tx) = tx {
            self.locks.take(tx, in_batch.iter().copied().map(LockKey::Outbox));
            self.locks.reserve(tx, in_batch.len());
            self.outbox.reserve(in_batch.len());
        }
        let new = messages
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| **answer == Appended::Stored);
        let sequence = &mut self.sequence;
        let rows = new
            .map(|(message, _)| StagedMessage {
                number: sequence.next(),
                message: message.clone(),
                appended_at: now,
            })
            .collect();
        Ok((rows, answers))
    }

    pub(super) fn store_messages(&mut self, staged: Vec<StagedMessage>) {
        for row in staged {
            self.outbox.insert(row.number, row.message, row.appended_at);
        }
    }
}

impl StagedMessage {
    pub(super) fn id(&self) -> MessageId {
        self.message.id
    }
}

/// Another transaction holds an id for longer than the lock time-out.
pub(super) fn contended() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "another transaction holds the id of a message: try again when it has ended",
    )
    .with_operation("append")
    .with_provider("memory")
}
