//! The simulation over many seeds: every promise of core, whatever happens.

#![expect(clippy::unwrap_used, reason = "a helper of tests")]

use std::{
    num::NonZeroUsize,
    panic,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use headless_harness::simulation::{Outcome, SimConfig, simulate};

const SEEDS: u64 = 2_000;

/// Panics of core's own tasks; those of simulated handlers pass the hook by.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn count_panics() {
    let printed = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        printed(info);
    }));
}

fn run(seed: u64, config: &SimConfig) -> Outcome {
    simulate(seed, config).unwrap_or_else(|error| panic!("seed {seed} could not be run: {error}"))
}

/// The outcomes of these seeds, from as many threads as the machine has; each run has a runtime of its own.
fn run_all(seeds: u64, config: &SimConfig) -> Vec<Outcome> {
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let every = |first: usize| (first as u64..seeds).step_by(threads);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| scope.spawn(move || every(first).map(|seed| run(seed, config)).collect::<Vec<_>>()))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    })
}

#[test]
fn should_keep_every_promise_whatever_the_seed() {
    count_panics();
    let outcomes = run_all(SEEDS, &SimConfig::default());
    let mut broken = String::new();
    for outcome in outcomes.iter().filter(|outcome| !outcome.violations.is_empty()) {
        for violation in &outcome.violations {
            broken += &format!("seed {}: {violation}\n", outcome.seed);
        }
        broken += &format!("  replay: {}\n", outcome.replay());
    }
    assert!(broken.is_empty(), "promises were broken\n{broken}");
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "a task of core panicked");
    let sum = |figure: fn(&Outcome) -> u64| outcomes.iter().map(figure).sum::<u64>();
    // A simulation in which nothing happens keeps every promise.
    assert!(sum(|outcome| outcome.stats.faults) > 10 * SEEDS);
    assert!(sum(|outcome| outcome.stats.crashes) > SEEDS);
    assert!(sum(|outcome| outcome.stats.freezes) > SEEDS / 2);
    assert!(sum(|outcome| outcome.stats.leaves) > SEEDS / 5);
    assert!(sum(|outcome| outcome.stats.effects) > 60 * SEEDS);
    assert!(sum(|outcome| outcome.stats.steps) > SEEDS / 2);
    assert!(sum(|outcome| outcome.stats.burials) > SEEDS);
    assert!(
        sum(|outcome| outcome.stats.registrations_anew) > 0,
        "nobody registered anew"
    );
}

#[test]
fn should_replay_a_seed_step_by_step() {
    let config = SimConfig::default().with_trace();
    for seed in 0..15 {
        let (first, second) = (run(seed, &config), run(seed, &config));
        let differs = first
            .trace
            .iter()
            .zip(&second.trace)
            .position(|(one, other)| one != other);
        if let Some(at) = differs {
            panic!(
                "seed {seed} differs at step {at}:\n{}\n{}",
                first.trace[at], second.trace[at]
            );
        }
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        let untraced = run(seed, &SimConfig::default());
        assert_eq!(
            untraced.trace_hash, first.trace_hash,
            "keeping a trace changes nothing"
        );
    }
}

#[test]
fn should_differ_when_the_seed_does() {
    let config = SimConfig::default();
    assert_ne!(run(1, &config).trace_hash, run(2, &config).trace_hash);
}

#[test]
fn should_keep_every_promise_when_everything_fails_often() {
    let config = SimConfig::default().with_faults(1_500).with_messages(25);
    for outcome in run_all(30, &config) {
        assert!(
            outcome.violations.is_empty(),
            "seed {} with 15 % faults: {:?}",
            outcome.seed,
            outcome.violations
        );
    }
}

#[test]
fn should_be_calm_when_nothing_may_fail() {
    let outcome = run(1, &SimConfig::default().with_faults(0));
    assert_eq!((outcome.stats.faults, outcome.violations), (0, Vec::new()));
}
