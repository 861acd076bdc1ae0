//! Dead letters: burying, redriving, discarding.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use headless_abstractions::{
    Bury, DeadId, DeadLetter, DeadLetterStore, Edit, Edited, Error, ErrorKind, Failure, Marked, Message,
    Origin, Redrive, Redriven, Result, StoreId,
};

use super::{
    State, View,
    inbox::{MarkedHere, key_of},
    inbox_table::{Phase, Reserved},
};
use crate::Memory;

/// The longest name of who redrives or discards, in bytes.
const MAX_BY: usize = 200;

#[async_trait]
impl DeadLetterStore for Memory {
    async fn bury(&self, burials: &[Bury]) -> Result<Vec<Marked>> {
        self.link.check("bury").await?;
        if burials.iter().any(|burial| burial.failures.is_empty()) {
            return Err(refused(
                "bury",
                Error::invalid("a burial has no failure: name at least one as its cause"),
            ));
        }
        let step = self.step();
        Ok(self.server.database.write(|state, now| {
            burials
                .iter()
                .map(|burial| state.bury(burial, &step, now))
                .collect()
        }))
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        self.link.check("redrive").await?;
        check_by("redrive", &request.by)?;
        if let Some(payload) = &request.payload {
            if request.ids.len() != 1 {
                return Err(refused(
                    "redrive",
                    Error::invalid("payload is given for other than exactly one id"),
                ));
            }
            self.check_payload("redrive", payload)?;
        }
        let step = self.step();
        self.server.database.write(|state, now| {
            request
                .ids
                .iter()
                .map(|id| state.redrive(*id, request, &step, now))
                .collect()
        })
    }

    async fn edit(&self, request: &Edit) -> Result<Edited> {
        self.link.check("edit").await?;
        check_by("edit", &request.by)?;
        self.check_payload("edit", &request.payload)?;
        let step = self.step();
        Ok(self.server.database.write(|state, _| {
            let Some(record) = state.dead_letters.get_mut(step.store, request.id) else {
                return Edited::NotFound;
            };
            let edits = record.letter.edits;
            if !record.letter.is_open() {
                Edited::Closed
            } else if request.seen.is_some_and(|seen| seen != edits) {
                Edited::Changed
            } else if edits >= request.max_edits {
                Edited::CapReached
            } else {
                record.edit(request.payload.clone(), &request.by, step.wall);
                Edited::Now
            }
        }))
    }

    async fn discard(&self, ids: &[DeadId], by: &str) -> Result<u64> {
        self.link.check("discard").await?;
        check_by("discard", by)?;
        let step = self.step();
        Ok(self.server.database.write(|state, _| {
            let mut discarded = 0;
            for id in ids {
                let record = state.dead_letters.get_mut(step.store, *id);
                if let Some(record) = record.filter(|record| record.letter.is_open()) {
                    record.close_discarded(by, step.wall);
                    discarded += 1;
                }
            }
            discarded
        }))
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        self.link.check("purge").await?;
        Ok(self.server.database.write(|state, now| {
            let mut purged = 0;
            while purged < limit
                && let Some(letter) = state.dead_letters.remove_oldest(older_than, now)
            {
                state.forget_row_of(&letter, now);
                purged += 1;
            }
            purged as u64
        }))
    }
}

/// What every step over the dead letters needs beside them.
struct Step {
    store: StoreId,
    wall: DateTime<Utc>,
}

impl Memory {
    fn check_payload(&self, operation: &'static str, payload: &[u8]) -> Result<()> {
        let most = self.server.config.max_payload.get();
        if payload.len() > most {
            return Err(refused(
                operation,
                Error::too_large("payload", payload.len(), most),
            ));
        }
        Ok(())
    }

    fn step(&self) -> Step {
        Step {
            store: self.server.id,
            wall: self.server.database.wall(),
        }
    }
}

impl State {
    fn bury(&mut self, burial: &Bury, step: &Step, now: Duration) -> Marked {
        let arrival = &burial.arrival;
        let key = key_of(arrival);
        let (inbox, view) = self.inbox(now);
        let answer = inbox.judge_mark(arrival, burial.hold, &MarkedHere::default(), &view);
        if answer != Marked::Now {
            return answer;
        }
        let known = inbox.row(&key);
        let rounds = known.map_or(1, |row| row.rounds);
        let redriven = known.and_then(|row| row.redriven);
        let mut failures = known.map(|row| row.failures.clone()).unwrap_or_default();
        Failure::append(&mut failures, burial.failures.clone());
        let origin = Origin::Group(arrival.group.clone());
        let letter = self
            .dead_letters
            .add(step.store, origin, burial.message.clone(), (now, step.wall));
        letter.failures.clone_from(&failures);
        letter.rounds = rounds;
        set_redriven_from(letter, redriven);
        let id = letter.id;
        let (inbox, view) = self.inbox(now);
        inbox.end(arrival, Phase::Dead, &view);
        inbox.change(&key, &view, |row| {
            row.rounds = rounds;
            row.failures = failures;
            row.dead_letter = Some(id);
        });
        Marked::Now
    }

    fn redrive(&mut self, id: DeadId, request: &Redrive, step: &Step, now: Duration) -> Result<Redriven> {
        let Some(record) = self.dead_letters.get(step.store, id) else {
            return Ok(Redriven::NotFound);
        };
        let letter = &record.letter;
        if !letter.is_open() {
            return Ok(Redriven::Closed);
        }
        if request
            .max_age
            .is_some_and(|most| now.saturating_sub(record.died) > most)
        {
            return Ok(Redriven::TooOld);
        }
        if letter.redrives >= request.max_redrives {
            return Ok(Redriven::CapReached);
        }
        let again = (id, letter.redrives.saturating_add(1));
        let mut message = letter.message.clone();
        let is_edited = request.payload.is_some() || letter.edits > 0;
        if is_edited && letter.origin == Origin::Relay && self.outbox.contains(message.id) {
            let again = Error::new(
                ErrorKind::Conflict,
                "the message was published again and waits in the outbox: it would go without this payload",
            );
            return Err(refused("redrive", again));
        }
        if let Some(payload) = &request.payload {
            message.payload = payload.clone();
        }
        match letter.origin.clone() {
            Origin::Relay => self.redrive_relay(message, again, now)?,
            Origin::Group(group) => {
                let key = (group, message.id);
                let view = View {
                    now,
                    locks: &self.locks,
                    me: None,
                };
                // A group's open letter always has its dead row; both are removed by the same purge.
                let Some(row) = self.inbox.row(&key).filter(|row| row.dead_letter == Some(id)) else {
                    return Ok(Redriven::Closed);
                };
                if self.inbox.reserved(&row.arrival, &view) == Reserved::Processed {
                    return Ok(Redriven::Superseded);
                }
                self.inbox.park_redriven(&key, message, again, &view);
            }
        }
        if let Some(record) = self.dead_letters.get_mut(step.store, id) {
            record.close_redriven(&request.by, step.wall, request.payload.clone());
        }
        Ok(Redriven::Now)
    }

    /// Back into the outbox; a message that was published again meanwhile is on its way already.
    fn redrive_relay(&mut self, message: Message, again: (DeadId, u32), now: Duration) -> Result<()> {
        if !self.outbox.has_room_for(1) {
            let full = Error::new(
                ErrorKind::Unavailable,
                "the outbox is full: redrive when the relay has drained it",
            );
            return Err(refused("redrive", full));
        }
        let number = self.sequence.next();
        self.outbox.insert_redriven(number, message, now, again);
        Ok(())
    }

    /// Removes the row that is dead by this letter; one that was redriven goes its own way.
    fn forget_row_of(&mut self, letter: &DeadLetter, now: Duration) {
        let Origin::Group(group) = &letter.origin else {
            return;
        };
        let key = (group.clone(), letter.message.id);
        let (inbox, view) = self.inbox(now);
        if inbox
            .row(&key)
            .is_some_and(|row| row.phase == Phase::Dead && row.dead_letter == Some(letter.id))
        {
            inbox.remove(&key, &view);
        }
    }
}

/// Links a letter to the one that its message was redriven from.
pub(super) fn set_redriven_from(letter: &mut DeadLetter, from: Option<(DeadId, u32)>) {
    if let Some((previous, redrives)) = from {
        letter.previous = Some(previous);
        letter.redrives = redrives;
    }
}

fn check_by(operation: &'static str, by: &str) -> Result<()> {
    let wrong = if by.is_empty() {
        "by is empty: say who asks".to_owned()
    } else if by.len() > MAX_BY {
        format!("by is {} bytes, the limit is {MAX_BY}", by.len())
    } else {
        return Ok(());
    };
    Err(refused(operation, Error::invalid(wrong)))
}

fn refused(operation: &'static str, error: Error) -> Error {
    error.with_operation(operation).with_provider("memory")
}
