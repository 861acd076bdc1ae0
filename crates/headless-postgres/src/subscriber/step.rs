//! One look of a member for deliveries, in a task that outlives the receive that began it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use headless_abstractions::{Delivery, Error, Partition, Redelivery, Result, TopicName};
use sqlx::{Row, postgres::PgRow};
use tokio::task::JoinHandle;

use super::{Member, Part, State, held::Place};
use crate::{
    error::{NAME, fault},
    row,
    span::span,
    transport::clock::{Moment, now},
    wake::Signal,
};

/// What the server raises when the member has gone during its step: nothing of the step has happened.
const GONE: &str = "HL001";

/// What is further away than this is as good as never: sums of moments must not overflow.
pub(super) const LONGEST: Duration = Duration::from_hours(100 * 366 * 24);

/// What the server says of the member.
enum Answer {
    Member,
    Unknown,
    GivenUp,
}

impl Member {
    /// Begins a look for at most `max` deliveries. It ends with how long the next one may be put off.
    pub(super) fn begin_step(self: &Arc<Self>, max: usize) -> JoinHandle<Result<Duration>> {
        let member = self.clone();
        self.shared
            .transport
            .tasks
            .spawn(async move { member.step(max).await })
    }

    async fn step(&self, max: usize) -> Result<Duration> {
        let stepped = self.shared.call("receive", self.look(max)).await;
        if let Err(error) = self.shared.maintain_now_and_then().await {
            tracing::debug!(%error, "the log could not be looked after");
        }
        stepped
    }

    async fn look(&self, max: usize) -> Result<Duration> {
        self.let_go().await?;
        self.make_sure().await?;
        let mut session = self.shared.session().await?;
        if self.leaving.is_cancelled() {
            // It has left while this waited for a connection.
            session.finish(&self.shared.statements).await?;
            return Ok(Duration::ZERO);
        }
        let asked = Asked::new(&mut self.state(), max, self.to.prefetch.get());
        // What it gives is lent from before the server does so.
        let asked_at = now();
        let rows = sqlx::query(self.shared.transport.statements.step.get())
            .bind(self.session)
            .bind(self.group)
            .bind(asked.step)
            .bind(asked.max)
            .bind(asked.room)
            .bind(asked.prefetch)
            .bind(&asked.busy)
            .bind(&asked.counts)
            .bind(asked.held)
            .bind(asked.sum)
            .fetch_all(&mut *session)
            .await;
        let rows = match rows {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(GONE) => {
                self.state().is_unsure = false;
                return Ok(Duration::ZERO);
            }
            rows => rows.map_err(fault)?,
        };
        session.finish(&self.shared.statements).await?;
        self.learn(&rows).await?;
        let (answer, wait) = self.apply(&rows, asked_at)?;
        match answer {
            Answer::Member => {
                Ok(wait.map_or_else(|| self.longest_wait(), |wait| wait.min(self.longest_wait())))
            }
            Answer::Unknown => {
                self.join_again().await?;
                Ok(Duration::ZERO)
            }
            Answer::GivenUp => Ok(Duration::ZERO),
        }
    }

    /// Tells the server of partitions that a receive has reported as revoked.
    async fn let_go(&self) -> Result<()> {
        let (parts, holds): (Vec<i32>, Vec<i64>) = self.state().given_up.iter().copied().unzip();
        if parts.is_empty() {
            return Ok(());
        }
        let mut session = self.shared.session().await?;
        sqlx::query(self.shared.transport.statements.release.get())
            .bind(self.session)
            .bind(self.group)
            .bind(&parts)
            .bind(&holds)
            .execute(&mut *session)
            .await
            .map_err(fault)?;
        session.finish(&self.shared.statements).await?;
        {
            let mut state = self.state();
            for (part, hold) in parts.into_iter().zip(holds) {
                state.given_up.retain(|given_up| *given_up != (part, hold));
                if state.holds.get(&part) == Some(&hold) {
                    state.holds.remove(&part);
                }
            }
        }
        self.shared.wake.notify(Signal::Transport);
        Ok(())
    }

    /// Gives back what a step may have taken whose answer never came.
    async fn make_sure(&self) -> Result<()> {
        let (step, known) = {
            let mut state = self.state();
            if !state.is_unsure {
                return Ok(());
            }
            state.step += 1;
            (state.step, state.held.epochs().into_iter().collect::<Vec<i64>>())
        };
        let mut session = self.shared.session().await?;
        sqlx::query(self.shared.transport.statements.recover.get())
            .bind(self.session)
            .bind(self.group)
            .bind(step)
            .bind(&known)
            .execute(&mut *session)
            .await
            .map_err(fault)?;
        session.finish(&self.shared.statements).await?;
        self.state().is_unsure = false;
        Ok(())
    }

    /// Asks for the parts of its topics where the server speaks of some that it does not know: a topic was given another
    /// order.
    async fn learn(&self, rows: &[PgRow]) -> Result<()> {
        let mut named = BTreeSet::new();
        for row in rows {
            let part: Option<i32> = row.try_get("part").map_err(fault)?;
            let parts: Option<Vec<i32>> = row.try_get("parts").map_err(fault)?;
            named.extend(part.into_iter().chain(parts.into_iter().flatten()));
        }
        if named.iter().all(|part| self.state().parts.contains_key(part)) {
            return Ok(());
        }
        let parts = self.shared.parts_of(&self.to.topics).await?;
        self.state().replace_parts(parts);
        Ok(())
    }

    /// Notes what a step has brought.
    fn apply(&self, rows: &[PgRow], asked_at: Moment) -> Result<(Answer, Option<Duration>)> {
        let mut answer = Answer::Unknown;
        let mut wait = None;
        let mut state = self.state();
        for row in rows {
            let kind: i16 = row.try_get("kind").map_err(fault)?;
            if kind == 0 {
                answer = match row.try_get("deliveries").map_err(fault)? {
                    0 => Answer::Member,
                    1 => Answer::Unknown,
                    _ => Answer::GivenUp,
                };
                let micros: Option<i64> = row.try_get("place").map_err(fault)?;
                wait = micros.map(span);
                apply_holds(&mut state, row)?;
            }
        }
        if matches!(answer, Answer::Unknown) {
            let gone = std::mem::take(&mut state.holds);
            state.lose(gone.into_keys());
        }
        let until = asked_at + self.to.visibility.min(LONGEST);
        for row in rows {
            let kind: i16 = row.try_get("kind").map_err(fault)?;
            if kind != 0 {
                self.deliver(&mut state, row, until)?;
            }
        }
        state.is_unsure = false;
        Ok((answer, wait))
    }

    fn deliver(&self, state: &mut State, row: &PgRow, until: Moment) -> Result<()> {
        let place = Place {
            part: row.try_get("part").map_err(fault)?,
            epoch: row.try_get("epoch").map_err(fault)?,
            place: row.try_get("place").map_err(fault)?,
        };
        let deliveries: i32 = row.try_get("deliveries").map_err(fault)?;
        let partition = state.parts.get(&place.part).and_then(|part| part.partition);
        let (message, malformed) = row::message(row)?;
        let token = state.held.lend(place, partition.is_none().then_some(until));
        let mut delivery = Delivery::new(token, message)
            .with_malformed(malformed)
            .with_redelivery(match u32::try_from(deliveries - 1) {
                Ok(0) | Err(_) => Redelivery::First,
                Ok(before) => Redelivery::Again(before),
            });
        if let Some(partition) = partition {
            delivery = delivery.with_partition(partition);
        }
        state.ready.push_back((place.part, delivery));
        Ok(())
    }
}

/// What the server says that the member holds.
fn apply_holds(state: &mut State, row: &PgRow) -> Result<()> {
    let parts: Option<Vec<i32>> = row.try_get("parts").map_err(fault)?;
    let holds: Option<Vec<i64>> = row.try_get("holds").map_err(fault)?;
    if let (Some(parts), Some(holds)) = (parts, holds) {
        let holds: BTreeMap<i32, i64> = parts.into_iter().zip(holds).collect();
        let before = std::mem::replace(&mut state.holds, holds);
        let gone: Vec<i32> = before
            .iter()
            .filter(|(part, hold)| state.holds.get(part) != Some(hold))
            .map(|(part, _)| *part)
            .collect();
        state.lose(gone);
    }
    let leaving: Option<Vec<i32>> = row.try_get("leaving").map_err(fault)?;
    let told: Vec<i32> = state.given_up.iter().map(|(part, _)| *part).collect();
    state.wanted = leaving.unwrap_or_default();
    state.wanted.retain(|part| !told.contains(part));
    Ok(())
}

impl State {
    /// These are the parts now. Others are kept until a receive has told of them.
    fn replace_parts(&mut self, parts: BTreeMap<i32, (TopicName, Option<Partition>)>) {
        let Self {
            parts: known,
            holds,
            lost,
            ..
        } = self;
        known.retain(|part, _| holds.contains_key(part) || lost.contains(part));
        known.extend(
            parts
                .into_iter()
                .map(|(part, (topic, partition))| (part, Part { topic, partition })),
        );
    }

    /// These partitions were taken away.
    fn lose(&mut self, parts: impl IntoIterator<Item = i32>) {
        for part in parts {
            self.forget(part);
            // One that was given up has been told of already.
            let told = self.given_up.iter().any(|(given_up, _)| *given_up == part);
            self.given_up.retain(|(given_up, _)| *given_up != part);
            if !told && !self.lost.contains(&part) {
                self.lost.push(part);
            }
        }
    }
}

/// What a step asks for.
struct Asked {
    step: i64,
    max: i32,
    room: i32,
    prefetch: i32,
    busy: Vec<i32>,
    counts: Vec<i32>,
    held: i64,
    sum: i64,
}

impl Asked {
    fn new(state: &mut State, max: usize, prefetch: usize) -> Self {
        state.step += 1;
        // Until its answer is here.
        state.is_unsure = true;
        state.held.expire(now());
        let max = if state.paused { 0 } else { max };
        state.is_full =
            state.held.shared() >= prefetch || state.held.of_parts().any(|(_, count)| count >= prefetch);
        let (busy, counts) = state
            .held
            .of_parts()
            .map(|(part, count)| (part, bounded(count)))
            .unzip();
        Self {
            step: state.step,
            max: bounded(max),
            room: bounded(prefetch.saturating_sub(state.held.shared())),
            prefetch: bounded(prefetch),
            busy,
            counts,
            held: state.holds.len() as i64,
            sum: state.holds.values().sum(),
        }
    }
}

fn bounded(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Completes an error with where it happened.
pub(super) fn about(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.with_operation(operation).with_provider(NAME)
}
