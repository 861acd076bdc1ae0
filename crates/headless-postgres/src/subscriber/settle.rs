//! Settling and extending.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::Duration,
};

use headless_abstractions::{DeliveryToken, Error, ErrorKind, Result, Settlement};
use sqlx::{Row, postgres::PgRow};

use super::{
    Member,
    held::{Place, lease_lost},
    step::{LONGEST, about},
};
use crate::{error::fault, span::micros, transport::clock::now, wake::Signal};

impl Member {
    pub(super) async fn settle(&self, batch: &[Settlement]) -> Vec<Result<()>> {
        let settling = Settling::begin(self, batch);
        if settling.begun.is_empty() {
            return settling.finish(|_| Ok(()));
        }
        let mut done: BTreeMap<(i32, i64), Vec<i64>> = BTreeMap::new();
        let mut back = Back::default();
        for (index, place) in &settling.begun {
            match batch[*index] {
                Settlement::Ack(_) | Settlement::Reject(_) => {
                    done.entry((place.part, place.epoch))
                        .or_default()
                        .push(place.place);
                }
                Settlement::Requeue { after, .. } => back.push(*place, after),
            }
        }
        let gives_back = !back.parts.is_empty();
        let done = Ranges::of(done);
        let statements = &self.shared.transport.statements;
        let settled = self
            .shared
            .guarded("settle", async {
                let mut session = self.shared.session().await?;
                let rows = sqlx::query(statements.settle.get())
                    .bind(self.session)
                    .bind(self.group)
                    .bind(&done.parts)
                    .bind(&done.epochs)
                    .bind(&done.places)
                    .bind(&back.parts)
                    .bind(&back.epochs)
                    .bind(&back.places)
                    .bind(&back.delays)
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&self.shared.statements).await?;
                Lost::of(&rows)
            })
            .await;
        let answers = match settled {
            Ok(lost) => settling.settled(&lost, &self.to.group),
            Err(error) => settling.finish(|_| Err(copy_of(&error))),
        };
        if gives_back {
            self.shared.wake.notify(Signal::Transport);
        }
        if std::mem::take(&mut self.state().is_full) {
            self.changed.notify_one();
        }
        answers
    }

    pub(super) async fn extend(&self, tokens: &[DeliveryToken], by: Duration) -> Vec<Result<()>> {
        let mut answers: Vec<Result<()>> = Vec::with_capacity(tokens.len());
        let mut asked: BTreeMap<usize, Place> = BTreeMap::new();
        {
            let state = self.state();
            for (index, token) in tokens.iter().enumerate() {
                answers.push(match state.held.find(*token) {
                    Ok((place, true)) => {
                        asked.insert(index, place);
                        Ok(())
                    }
                    // The hold on its partition holds it.
                    Ok((_, false)) => Ok(()),
                    Err(error) => Err(about("extend")(error)),
                });
            }
        }
        if asked.is_empty() {
            return answers;
        }
        let mut places: BTreeMap<(i32, i64), Vec<i64>> = BTreeMap::new();
        for place in asked.values() {
            places
                .entry((place.part, place.epoch))
                .or_default()
                .push(place.place);
        }
        let ranges = Ranges::of(places);
        let statements = &self.shared.transport.statements;
        let extended = self
            .shared
            .guarded("extend", async {
                let mut session = self.shared.session().await?;
                // What is held is held from before the server says so.
                let asked_at = now();
                let rows = sqlx::query(statements.extend.get())
                    .bind(self.session)
                    .bind(self.group)
                    .bind(&ranges.parts)
                    .bind(&ranges.epochs)
                    .bind(&ranges.places)
                    .bind(micros(by))
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&self.shared.statements).await?;
                Ok((Lost::of(&rows)?, asked_at))
            })
            .await;
        let mut state = self.state();
        for (index, place) in asked {
            answers[index] = match &extended {
                Ok((lost, _)) if lost.contains(place) => match state.held.find(tokens[index]) {
                    Ok(_) => {
                        state.held.lose(tokens[index]);
                        Err(lost.error(&self.to.group))
                    }
                    // It was settled meanwhile, or is about to be told so: that is no loss.
                    Err(error) => Err(error),
                },
                Ok((_, asked_at)) => {
                    state.held.extend(tokens[index], *asked_at + by.min(LONGEST));
                    Ok(())
                }
                Err(error) => Err(copy_of(error)),
            }
            .map_err(about("extend"));
        }
        answers
    }
}

/// Settlements that are under way. If they are given up, their deliveries can be settled again.
struct Settling<'a> {
    member: &'a Member,
    batch: &'a [Settlement],
    answers: Vec<Result<()>>,
    /// Those that the server is asked for.
    begun: BTreeMap<usize, Place>,
}

impl<'a> Settling<'a> {
    fn begin(member: &'a Member, batch: &'a [Settlement]) -> Self {
        let mut settling = Self {
            member,
            batch,
            answers: Vec::with_capacity(batch.len()),
            begun: BTreeMap::new(),
        };
        let mut state = member.state();
        for (index, settlement) in batch.iter().enumerate() {
            let answer = match state.held.begin(settlement.token()) {
                Ok(place) => {
                    settling.begun.insert(index, place);
                    Ok(())
                }
                Err(error) => Err(about("settle")(error)),
            };
            settling.answers.push(answer);
        }
        drop(state);
        settling
    }

    /// What the server has done, except for what was lost.
    fn settled(mut self, lost: &Lost, group: &headless_abstractions::GroupName) -> Vec<Result<()>> {
        let mut state = self.member.state();
        for (index, place) in std::mem::take(&mut self.begun) {
            let token = self.batch[index].token();
            if lost.contains(place) {
                if lost.is_gone {
                    state.held.remove(token);
                } else {
                    state.held.lose(token);
                }
                self.answers[index] = Err(about("settle")(lost.error(group)));
            } else {
                state.held.remove(token);
            }
        }
        drop(state);
        std::mem::take(&mut self.answers)
    }

    /// Answers for what was not settled.
    fn finish(mut self, answer: impl Fn(Place) -> Result<()>) -> Vec<Result<()>> {
        for (index, place) in &self.begun {
            self.answers[*index] = answer(*place);
        }
        std::mem::take(&mut self.answers)
    }
}

impl Drop for Settling<'_> {
    fn drop(&mut self) {
        if self.begun.is_empty() {
            return;
        }
        let mut state = self.member.state();
        for index in self.begun.keys() {
            state.held.put_back(self.batch[*index].token());
        }
    }
}

/// Places by part and epoch, as the server takes them.
#[derive(Default)]
struct Ranges {
    parts: Vec<i32>,
    epochs: Vec<i64>,
    /// Texts of multiranges.
    places: Vec<String>,
}

impl Ranges {
    /// In the order of the keys, which is the order in which rows are locked.
    fn of(places: BTreeMap<(i32, i64), Vec<i64>>) -> Self {
        let mut ranges = Self::default();
        for ((part, epoch), mut places) in places {
            places.sort_unstable();
            ranges.parts.push(part);
            ranges.epochs.push(epoch);
            ranges.places.push(multirange(&places));
        }
        ranges
    }
}

/// The text of the multirange of these places, which rise.
fn multirange(places: &[i64]) -> String {
    let mut text = String::from("{");
    for run in places.chunk_by(|a, b| a + 1 == *b) {
        if let [first, ..] = run {
            let separator = if text.len() > 1 { "," } else { "" };
            let end = first + run.len() as i64;
            // Writing to a text does not fail.
            let _written = write!(text, "{separator}[{first},{end})");
        }
    }
    text.push('}');
    text
}

/// What is to be given back, as the server takes it.
#[derive(Default)]
struct Back {
    parts: Vec<i32>,
    epochs: Vec<i64>,
    places: Vec<i64>,
    delays: Vec<i64>,
}

impl Back {
    fn push(&mut self, place: Place, after: Option<Duration>) {
        self.parts.push(place.part);
        self.epochs.push(place.epoch);
        self.places.push(place.place);
        self.delays.push(micros(after.unwrap_or_default()));
    }
}

/// What is no longer with the member.
#[derive(Debug, Default)]
struct Lost {
    places: BTreeSet<(i32, i64, i64)>,
    /// The group was removed.
    is_gone: bool,
}

impl Lost {
    fn of(rows: &[PgRow]) -> Result<Self> {
        let mut lost = Self::default();
        for row in rows {
            let part: Option<i32> = row.try_get("part").map_err(fault)?;
            match part {
                None => lost.is_gone = true,
                Some(part) => {
                    let epoch = row.try_get("epoch").map_err(fault)?;
                    let place = row.try_get("place").map_err(fault)?;
                    lost.places.insert((part, epoch, place));
                }
            }
        }
        Ok(lost)
    }

    fn contains(&self, place: Place) -> bool {
        self.places.contains(&(place.part, place.epoch, place.place))
    }

    fn error(&self, group: &headless_abstractions::GroupName) -> Error {
        if self.is_gone {
            Error::new(ErrorKind::NotFound, "the group was removed").with_resource(format!("group {group}"))
        } else {
            lease_lost()
        }
    }
}

/// The same error for another of the batch.
fn copy_of(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message().to_owned())
        .with_advice(error.advice())
        .with_operation(error.operation().unwrap_or("settle"))
        .with_provider(error.provider().unwrap_or("postgres"));
    if error.is_outcome_unknown() {
        copy = copy.with_outcome_unknown();
    }
    copy
}
