//! Dead letters of groups and of the relay, and how an operator sends them on their way again.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use headless_abstractions::{
    Bury, Change, DeadId, DeadLetter, DeadLetterChange, DeadLetterStore, Edit, Edited, Error, ErrorKind,
    Failure, InboxState, Marked, Message, Origin, Redrive, Redriven, Result,
};
use uuid::Uuid;

use crate::{
    error::NAME,
    inbox::Stay,
    outbox,
    server::{Locked, State},
    store::ToyStore,
};

/// By the number of their death.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    pub(crate) all: BTreeMap<u64, DeadLetter>,
    /// What operators did to them, in the order in which they did it.
    pub(crate) changes: Vec<(DeadId, DeadLetterChange)>,
}

/// Which dead letter a row was redriven from, and how often its message has been.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lineage {
    redrives: u32,
    previous: Option<DeadId>,
}

/// A dead letter to be written.
pub(crate) struct Death {
    pub(crate) number: u64,
    pub(crate) origin: Origin,
    pub(crate) message: Message,
    pub(crate) failures: Vec<Failure>,
    pub(crate) rounds: u32,
    pub(crate) lineage: Lineage,
    pub(crate) buried_at: DateTime<Utc>,
}

impl Letters {
    pub(crate) fn write(&mut self, death: Death) -> DeadId {
        let id = DeadId::from_uuid(Uuid::from_u128(death.number.into()));
        let mut letter = DeadLetter::new(id, death.origin, death.message, death.buried_at);
        letter.failures = death.failures;
        letter.rounds = death.rounds;
        letter.redrives = death.lineage.redrives;
        letter.previous = death.lineage.previous;
        self.all.insert(death.number, letter);
        id
    }

    fn note(&mut self, id: DeadId, by: &str, at: DateTime<Utc>, what: Change) {
        self.changes.push((id, DeadLetterChange::new(at, by, what)));
    }

    pub(crate) fn find(&mut self, id: DeadId) -> Option<&mut DeadLetter> {
        self.all.values_mut().find(|letter| letter.id == id)
    }
}

fn bury(server: &mut Locked<'_>, bury: &Bury) -> Marked {
    let (now, buried_at) = (server.now, server.clock.wall(server.now));
    let State {
        inbox,
        letters,
        sequence,
        ..
    } = &mut **server;
    let answer = inbox.end(&bury.arrival, bury.hold, InboxState::Dead, now);
    if let (Marked::Now, Some(row)) = (
        answer,
        inbox.rows.get_mut(&(bury.arrival.group.clone(), bury.arrival.id)),
    ) {
        Failure::append(&mut row.failures, bury.failures.iter().cloned());
        // A message that nobody had admitted dies in its first round.
        row.rounds = row.rounds.max(1);
        row.letter = Some(letters.write(Death {
            number: sequence.next(),
            origin: Origin::Group(bury.arrival.group.clone()),
            message: bury.message.clone(),
            failures: row.failures.clone(),
            rounds: row.rounds,
            lineage: row.lineage,
            buried_at,
        }));
    }
    answer
}

fn redrive(server: &mut Locked<'_>, id: DeadId, request: &Redrive) -> Result<Redriven> {
    let (now, today) = (server.now, server.clock.wall(server.now));
    let State {
        inbox,
        outbox,
        letters,
        sequence,
        ..
    } = &mut **server;
    let Some(letter) = letters.find(id) else {
        return Ok(Redriven::NotFound);
    };
    if !letter.is_open() {
        return Ok(Redriven::Closed);
    }
    let age = (today - letter.buried_at).to_std().unwrap_or_default();
    if request.max_age.is_some_and(|most| age > most) {
        return Ok(Redriven::TooOld);
    }
    if letter.redrives >= request.max_redrives {
        return Ok(Redriven::CapReached);
    }
    let mut message = letter.message.clone();
    if let Some(payload) = &request.payload {
        message.payload = payload.clone();
    }
    let is_edited = request.payload.is_some() || letter.edits > 0;
    let lineage = Lineage {
        redrives: letter.redrives + 1,
        previous: Some(id),
    };
    let place = sequence.next();
    match &letter.origin {
        Origin::Relay if is_edited && outbox.has(message.id) => {
            let why =
                "the message was published again and waits in the outbox: it would go without this payload";
            return Err(Error::new(ErrorKind::Conflict, why).with_provider(NAME));
        }
        // Published again in the meantime, it is on its way already.
        Origin::Relay if outbox.has(message.id) => {}
        Origin::Relay => {
            outbox
                .rows
                .insert(place, outbox::Row::new(message, place, now, lineage));
        }
        Origin::Group(group) => {
            let key = (group.clone(), message.id);
            let Some(arrival) = inbox.rows.get(&key).map(|row| row.arrival.clone()) else {
                return Ok(Redriven::NotFound);
            };
            if inbox.is_done(&arrival) {
                return Ok(Redriven::Superseded);
            }
            let reserves = inbox.is_first(&arrival, None);
            if let Some(row) = inbox.rows.get_mut(&key) {
                row.state = InboxState::Parked;
                row.epoch = row.epoch.next();
                row.rounds = 0;
                row.reserves = reserves;
                row.failures = Vec::new();
                row.lineage = lineage;
                row.letter = None;
                row.stay = Some(Stay {
                    place,
                    message,
                    due: now,
                });
            }
        }
    }
    letter.redriven = Some((request.by.clone(), today));
    let with = request.payload.clone();
    letters.note(id, &request.by, today, Change::Redriven { with });
    Ok(Redriven::Now)
}

fn edit(letters: &mut Letters, request: &Edit, today: DateTime<Utc>) -> Edited {
    let Some(letter) = letters.find(request.id) else {
        return Edited::NotFound;
    };
    if !letter.is_open() {
        return Edited::Closed;
    }
    if request.seen.is_some_and(|seen| seen != letter.edits) {
        return Edited::Changed;
    }
    if letter.edits >= request.max_edits {
        return Edited::CapReached;
    }
    letter.edits += 1;
    let before = std::mem::replace(&mut letter.message.payload, request.payload.clone());
    letters.note(request.id, &request.by, today, Change::Edited { before });
    Edited::Now
}

fn check_by(by: &str) -> Result<()> {
    if by.is_empty() || by.len() > 200 {
        return Err(Error::invalid("`by` is empty or over 200 bytes").with_provider(NAME));
    }
    Ok(())
}

#[async_trait]
impl DeadLetterStore for ToyStore {
    async fn bury(&self, burials: &[Bury]) -> Result<Vec<Marked>> {
        if burials.iter().any(|one| one.failures.is_empty()) {
            return Err(Error::invalid("a burial names no failure").with_provider(NAME));
        }
        let mut server = self.link.change("bury")?;
        Ok(burials.iter().map(|one| bury(&mut server, one)).collect())
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        check_by(&request.by)?;
        if request.payload.is_some() && request.ids.len() != 1 {
            return Err(Error::invalid("a payload is for exactly one dead letter").with_provider(NAME));
        }
        let mut server = self.link.change("redrive")?;
        request
            .ids
            .iter()
            .map(|id| redrive(&mut server, *id, request))
            .collect()
    }

    async fn edit(&self, request: &Edit) -> Result<Edited> {
        check_by(&request.by)?;
        let mut server = self.link.change("edit")?;
        let today = server.clock.wall(server.now);
        Ok(edit(&mut server.letters, request, today))
    }

    async fn discard(&self, ids: &[DeadId], by: &str) -> Result<u64> {
        check_by(by)?;
        let mut server = self.link.change("discard")?;
        let today = server.clock.wall(server.now);
        let mut open = 0;
        for id in ids {
            if let Some(letter) = server.letters.find(*id).filter(|letter| letter.is_open()) {
                letter.discarded = Some((by.to_owned(), today));
                server.letters.note(*id, by, today, Change::Discarded);
                open += 1;
            }
        }
        Ok(open)
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        let mut server = self.link.change("purge")?;
        let today = server.clock.wall(server.now);
        let State { inbox, letters, .. } = &mut *server;
        let age = |letter: &DeadLetter| (today - letter.buried_at).to_std().unwrap_or_default();
        let old: Vec<u64> = letters
            .all
            .iter()
            .filter(|(_, letter)| age(letter) >= older_than)
            .map(|(number, _)| *number)
            .take(limit)
            .collect();
        for number in &old {
            let id = letters.all.remove(number).map(|letter| letter.id);
            letters.changes.retain(|(of, _)| Some(*of) != id);
            // A message that was redriven has moved on, and its row is no longer this letter's.
            inbox
                .rows
                .retain(|_, row| row.letter.is_none() || row.letter != id);
        }
        Ok(old.len() as u64)
    }
}
