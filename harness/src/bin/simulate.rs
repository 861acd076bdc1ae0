//! Runs seeds of the simulation: one with its trace, or many until one fails.
//!
//! ```text
//! simulate --seed 7 [--trace]        one seed; with --trace everything that happened
//! simulate --seeds 1000 [--from 500] many seeds, on every core
//! ```
//!
//! Beside these `--messages N` and `--faults N` (of ten thousand driver calls) say how large and how rough a run is.
//! Exits with 1 when a promise was broken, with 2 for arguments that it does not understand.

use std::{
    io::{self, Write},
    process::ExitCode,
    thread,
};

use headless_harness::simulation::{Outcome, SimConfig, simulate};

fn main() -> ExitCode {
    let outcome =
        Command::parse(std::env::args().skip(1)).map(|command| command.run(&mut io::stdout().lock()));
    match outcome {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => fail(&error.to_string()),
        Err(problem) => fail(&problem),
    }
}

fn fail(problem: &str) -> ExitCode {
    // Nothing is left to be done when even this cannot be said.
    let _said = writeln!(io::stderr(), "simulate: {problem}");
    ExitCode::from(2)
}

struct Command {
    from: u64,
    count: u64,
    config: SimConfig,
}

impl Command {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut command = Self {
            from: 0,
            count: 1,
            config: SimConfig::default(),
        };
        while let Some(name) = args.next() {
            if name == "--trace" {
                command.config = command.config.with_trace();
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number: u64 = value
                .parse()
                .map_err(|_| format!("{name} {value:?} is not a number"))?;
            match &*name {
                "--seed" => (command.from, command.count) = (number, 1),
                "--seeds" => command.count = number,
                "--from" => command.from = number,
                "--messages" => command.config = command.config.with_messages(number),
                "--faults" => command.config = command.config.with_faults(number),
                _ => return Err(format!("{name} is unknown: see the top of simulate.rs")),
            }
        }
        Ok(command)
    }

    /// Runs the seeds; says whether all promises were kept.
    fn run(&self, out: &mut impl Write) -> io::Result<bool> {
        let threads = thread::available_parallelism()?.get() as u64;
        let outcomes: Vec<Vec<Outcome>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.min(self.count))
                .map(|first| scope.spawn(move || self.every(threads, first)))
                .collect();
            let joined = workers.into_iter().map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect::<io::Result<_>>()
        })?;
        let mut broken = 0;
        for outcome in outcomes.iter().flatten() {
            for line in &outcome.trace {
                writeln!(out, "{line}")?;
            }
            if self.count == 1 {
                writeln!(out, "seed {}: trace {:016x}", outcome.seed, outcome.trace_hash)?;
                writeln!(out, "{:?}", outcome.stats)?;
            }
            for violation in &outcome.violations {
                writeln!(out, "seed {}: {violation}", outcome.seed)?;
            }
            if !outcome.violations.is_empty() {
                broken += 1;
                writeln!(out, "  replay: {}", outcome.replay())?;
            }
        }
        writeln!(out, "{} seeds, {broken} with broken promises", self.count)?;
        Ok(broken == 0)
    }

    fn every(&self, threads: u64, first: u64) -> io::Result<Vec<Outcome>> {
        let mut kept = Vec::new();
        for seed in (first..self.count).step_by(usize::try_from(threads).unwrap_or(1)) {
            let outcome = simulate(self.from + seed, &self.config).map_err(io::Error::other)?;
            if self.count == 1 || !outcome.violations.is_empty() {
                kept.push(outcome);
            }
        }
        Ok(kept)
    }
}
