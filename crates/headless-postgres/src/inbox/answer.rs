//! What the functions of the schema answer about a message, as numbers; see migration 0003.

use headless_abstractions::{Edited, Error, ErrorKind, InboxState, Marked, Parked, Redriven, Result};

use crate::span::span;

const NOW: i64 = -1;
const BEHIND: i64 = -2;
const LEASE_LOST: i64 = -3;
const KEY_FREE: i64 = -4;
const FULL: i64 = -5;
const SUPERSEDED: i64 = -6;
const TOO_OLD: i64 = -7;
const CAP_REACHED: i64 = -8;
const CHANGED: i64 = -9;
/// Less the number of the state.
const ALREADY: i64 = -10;

/// How a message is to end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Processed = 2,
    Discarded = 4,
}

/// The state with this number.
pub(crate) fn state(number: i64) -> Result<InboxState> {
    match number {
        0 => Ok(InboxState::Running),
        1 => Ok(InboxState::Parked),
        2 => Ok(InboxState::Processed),
        3 => Ok(InboxState::Dead),
        4 => Ok(InboxState::Discarded),
        _ => Err(foreign()),
    }
}

/// The number of this state.
pub(crate) const fn number(state: InboxState) -> i16 {
    match state {
        InboxState::Running => 0,
        InboxState::Parked => 1,
        InboxState::Processed => 2,
        InboxState::Dead => 3,
        InboxState::Discarded => 4,
    }
}

pub(crate) fn marked(answer: i64) -> Result<Marked> {
    Ok(match answer {
        NOW => Marked::Now,
        BEHIND => Marked::Behind,
        LEASE_LOST => Marked::LeaseLost,
        left if left >= 0 => Marked::Busy {
            lease_left: span(left),
        },
        already => Marked::Already(state(ALREADY - already)?),
    })
}

pub(crate) fn parked(answer: i64) -> Result<Parked> {
    Ok(match answer {
        NOW => Parked::Now,
        KEY_FREE => Parked::KeyFree,
        FULL => Parked::Full,
        LEASE_LOST => Parked::LeaseLost,
        already => Parked::Already(state(ALREADY - already)?),
    })
}

pub(crate) fn redriven(answer: i64) -> Result<Redriven> {
    Ok(match answer {
        NOW => Redriven::Now,
        BEHIND => Redriven::NotFound,
        LEASE_LOST => Redriven::Closed,
        SUPERSEDED => Redriven::Superseded,
        TOO_OLD => Redriven::TooOld,
        CAP_REACHED => Redriven::CapReached,
        _ => return Err(foreign()),
    })
}

pub(crate) fn edited(answer: i64) -> Result<Edited> {
    Ok(match answer {
        NOW => Edited::Now,
        BEHIND => Edited::NotFound,
        LEASE_LOST => Edited::Closed,
        CAP_REACHED => Edited::CapReached,
        CHANGED => Edited::Changed,
        _ => return Err(foreign()),
    })
}

/// Reads as many answers as there were questions.
pub(crate) fn of_each<T>(answers: &[i64], asked: usize, read: fn(i64) -> Result<T>) -> Result<Vec<T>> {
    if answers.len() != asked {
        return Err(foreign());
    }
    answers.iter().copied().map(read).collect()
}

pub(crate) fn foreign() -> Error {
    Error::new(
        ErrorKind::Internal,
        "a function of the schema answered what this version does not know",
    )
}

/// What an admission answers: three columns.
pub(crate) mod admission {
    use headless_abstractions::{Admission, Epoch, Result};
    use sqlx::{Row, postgres::PgRow};

    use super::{ALREADY, BEHIND, NOW, foreign, state};
    use crate::{error::fault, span::span};

    pub(crate) fn of_each(row: &PgRow, asked: usize) -> Result<Vec<Admission>> {
        let answers: Vec<i64> = row.try_get("answers").map_err(fault)?;
        let epochs: Vec<Option<i64>> = row.try_get("epochs").map_err(fault)?;
        let rounds: Vec<Option<i32>> = row.try_get("rounds").map_err(fault)?;
        if [answers.len(), epochs.len(), rounds.len()] != [asked; 3] {
            return Err(foreign());
        }
        answers
            .into_iter()
            .zip(epochs.into_iter().zip(rounds))
            .map(|(answer, (epoch, rounds))| of(answer, epoch, rounds))
            .collect()
    }

    fn of(answer: i64, epoch: Option<i64>, rounds: Option<i32>) -> Result<Admission> {
        Ok(match (answer, epoch, rounds) {
            (NOW, Some(epoch), Some(rounds)) => Admission::Run {
                epoch: Epoch::new(epoch.unsigned_abs()),
                rounds: rounds.unsigned_abs(),
            },
            (NOW, ..) => return Err(foreign()),
            (BEHIND, ..) => Admission::Behind,
            (left, ..) if left >= 0 => Admission::Busy {
                lease_left: span(left),
            },
            (already, ..) => Admission::Settled(state(ALREADY - already)?),
        })
    }
}
