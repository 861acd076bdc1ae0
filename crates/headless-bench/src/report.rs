//! What a run prints.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

use crate::{args::Args, measure::median};

/// One case: ours beside the limit or the peer that its name says.
#[derive(Debug, Serialize)]
pub(crate) struct Case {
    bench: &'static str,
    case: String,
    /// The line of the performance page.
    target: &'static str,
    unit: &'static str,
    ours: f64,
    raw: f64,
    ratio: f64,
    goal: f64,
    rounds: Vec<[f64; 2]>,
    /// The raw loop is more than a fifth slower than where it was measured before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    suspect: bool,
    #[serde(skip)]
    lower_is_better: bool,
}

impl Case {
    pub(crate) fn new(
        case: impl Into<String>,
        target: &'static str,
        goal: f64,
        rounds: Vec<[f64; 2]>,
    ) -> Self {
        let ours = median(rounds.iter().map(|[ours, _]| *ours));
        let raw = median(rounds.iter().map(|[_, raw]| *raw));
        Self {
            bench: "",
            case: case.into(),
            target,
            unit: "messages/s",
            ours,
            raw,
            ratio: ours / raw,
            goal,
            rounds,
            suspect: false,
            lower_is_better: false,
        }
    }

    /// A bound on a figure of our own: `raw` is the bound itself.
    pub(crate) fn at_most(
        case: impl Into<String>,
        target: &'static str,
        unit: &'static str,
        bound: f64,
        figures: &[f64],
    ) -> Self {
        let rounds = figures.iter().map(|figure| [*figure, bound]).collect();
        Self {
            unit,
            lower_is_better: true,
            ..Self::new(case, target, 1.0, rounds)
        }
    }

    /// Where the raw loop was measured at `known` before.
    pub(crate) fn with_known_raw(mut self, known: f64) -> Self {
        self.suspect = self.raw < 0.8 * known;
        self
    }

    fn is_met(&self) -> bool {
        if self.lower_is_better {
            self.ratio <= self.goal
        } else {
            self.ratio >= self.goal
        }
    }
}

/// Prints each case as it comes.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    args: &'a Args,
}

impl<'a> Report<'a> {
    pub(crate) const fn new(args: &'a Args) -> Self {
        Self { args }
    }

    /// Whether this case is asked for.
    pub(crate) fn wants(&self, case: &str) -> bool {
        case.contains(&self.args.only)
    }

    pub(crate) fn print(&self, mut case: Case) -> Result<()> {
        case.bench = self.args.name.as_str();
        let mut out = io::stdout().lock();
        if self.args.json {
            writeln!(out, "{}", serde_json::to_string(&case)?)?;
            return Ok(());
        }
        let met = if case.is_met() { "met" } else { "MISSED" };
        let suspect = if case.suspect {
            ", the raw loop is suspect"
        } else {
            ""
        };
        writeln!(
            out,
            "{:<4} {:<58} ours {:>11.1}  raw {:>11.1} {}  ratio {:>5.2}, goal {:.2}: {met}{suspect}",
            case.target, case.case, case.ours, case.raw, case.unit, case.ratio, case.goal
        )?;
        for [ours, raw] in &case.rounds {
            writeln!(out, "       round: {ours:>11.1} {raw:>11.1}  {:.2}", ours / raw)?;
        }
        Ok(())
    }
}
