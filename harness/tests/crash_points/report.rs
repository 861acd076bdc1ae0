//! What a trial tells, and what all of them come to.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use headless_core::CrashPoint;
use serde::{Deserialize, Serialize};

use crate::{
    action::{Action, Spot, Style},
    judge::Judgement,
};

/// What a trial tells.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Told {
    /// What was broken, in words.
    pub(crate) broken: Vec<String>,
    /// How often handlers were called.
    pub(crate) calls: u64,
    /// How often with one message at most.
    pub(crate) most: u64,
    /// How long it took from the point until nothing waited any more; unless nothing was taken away or stood still.
    pub(crate) recovered_ms: Option<u64>,
    /// How often the first member, if it has lived to tell, has reached each point.
    pub(crate) hits: Vec<u64>,
}

impl Told {
    /// What is told by the process in which the first member lives.
    pub(crate) fn of(judgement: Judgement, recovered: Option<Duration>) -> Self {
        Self {
            broken: judgement.broken,
            calls: judgement.calls,
            most: judgement.most,
            recovered_ms: recovered.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            hits: hits(),
        }
    }

    /// Whether the promises were kept.
    pub(crate) const fn is_sound(&self) -> bool {
        self.broken.is_empty()
    }

    /// The point at which something was to happen, if it was not reached; where nothing was, all points of this style that were
    /// not.
    pub(crate) fn missed(&self, style: Style, spot: Option<Spot>) -> Vec<&'static str> {
        let reached = |point: CrashPoint| self.hits.get(point as usize).is_some_and(|hits| *hits > 0);
        match spot {
            Some(Spot {
                action: Action::Error,
                point,
            }) if !reached(point) => vec![point.name()],
            Some(Spot {
                action: Action::Error,
                ..
            }) => Vec::new(),
            Some(Spot { point, .. }) if self.recovered_ms.is_none() => vec![point.name()],
            Some(_) => Vec::new(),
            None => style
                .points()
                .iter()
                .filter(|point| !reached(**point))
                .map(|point| point.name())
                .collect(),
        }
    }

    /// Whether the promises were kept, and nothing was [`missed`](Self::missed).
    pub(crate) fn judged(&self, style: Style, spot: Option<Spot>) -> Result<(), String> {
        let missed = self.missed(style, spot);
        let mut wrong = self.broken.clone();
        if !missed.is_empty() {
            wrong.push(format!("not reached: {}", missed.join(", ")));
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("; "))
        }
    }
}

/// How often this process has reached each point.
pub(crate) fn hits() -> Vec<u64> {
    CrashPoint::ALL.iter().map(|point| point.hits()).collect()
}

/// What the trials of each place and action come to.
#[derive(Debug, Default)]
pub(crate) struct Report(Mutex<BTreeMap<Kind, Sum>>);

/// The place, how handlers are given messages, and what happens.
type Kind = (&'static str, Style, Option<Action>);

#[derive(Debug, Default)]
struct Sum {
    trials: u64,
    calls: u64,
    most: u64,
    slowest: Option<(u64, &'static str)>,
}

impl Report {
    pub(crate) fn note(&self, place: &'static str, style: Style, spot: Option<Spot>, told: &Told) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = sums
            .entry((place, style, spot.map(|spot| spot.action)))
            .or_default();
        sum.trials += 1;
        sum.calls += told.calls;
        sum.most = sum.most.max(told.most);
        let point = spot.map_or("", |spot| spot.point.name());
        sum.slowest = sum.slowest.max(told.recovered_ms.map(|time| (time, point)));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((place, style, action), sum) in &*sums {
            let action = action.map_or("nothing happens", Action::name);
            let style = style.name();
            write!(
                f,
                "{place}: {style}: {action}: {} trials, {} calls, {} at most with one message",
                sum.trials, sum.calls, sum.most
            )?;
            if let Some((time, point)) = sum.slowest {
                write!(f, ", everything settled within {time} ms (the slowest: {point})")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
