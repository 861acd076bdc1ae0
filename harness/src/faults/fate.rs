//! How a call may fail, and what a seed has for it. The simulation and the faulty drivers draw from here.

use std::collections::BTreeSet;

use headless_abstractions::{Error, ErrorKind, Message};

use crate::simulation::Chance;

/// A call of a driver, and how it may fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) name: &'static str,
    fails: Fails,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fails {
    /// In every way.
    Any,
    /// Only before it has an effect: its answer carries something that would be lost with it.
    Before,
    Never,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered,
    /// Refused before it had an effect, and the caller knows.
    Refused,
    /// It had no effect, and the caller does not know.
    RequestLost,
    /// It had its effect, and the caller does not know.
    AnswerLost,
    /// It is made twice.
    Duplicated,
}

impl Op {
    pub(crate) const fn any(name: &'static str) -> Self {
        let fails = Fails::Any;
        Self { name, fails }
    }

    pub(crate) const fn before(name: &'static str) -> Self {
        let fails = Fails::Before;
        Self { name, fails }
    }

    /// Whether it fails at all.
    pub(super) fn fails(self) -> bool {
        self.fails != Fails::Never
    }

    pub(crate) const fn never(name: &'static str) -> Self {
        let fails = Fails::Never;
        Self { name, fails }
    }
}

impl Fate {
    /// Draws what becomes of a call where this many of ten thousand fail; with `twice` it may be made twice.
    pub(crate) fn of(op: Op, chance: &Chance, rate: u64, twice: bool) -> Self {
        if op.fails == Fails::Never || !chance.happens(rate) {
            return Self::Answered;
        }
        match chance.below(4 + u64::from(twice)) {
            _ if op.fails == Fails::Before => Self::Refused,
            0 | 1 => Self::Refused,
            2 => Self::RequestLost,
            3 => Self::AnswerLost,
            _ => Self::Duplicated,
        }
    }
}

/// Which messages of a batch a broker refuses: some, and the later ones of their keys with them.
pub(crate) fn refused_of(batch: &[Message], chance: &Chance, rate: u64) -> Vec<Option<Error>> {
    let mut stopped = BTreeSet::new();
    batch
        .iter()
        .map(|message| {
            let key = message.key.as_ref().map(|key| (&message.topic, key));
            if key.is_some_and(|key| stopped.contains(&key)) {
                return Some(Error::new(
                    ErrorKind::Conflict,
                    "kept back by an earlier message of its key",
                ));
            }
            let refused = chance.happens(rate);
            if refused {
                stopped.extend(key);
            }
            refused.then(|| Error::new(ErrorKind::Unavailable, "the broker refuses it for now"))
        })
        .collect()
}
