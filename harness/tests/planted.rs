//! The simulation finds bugs: each of these, planted on purpose, breaks the promise that it should.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper of tests; how many seeds a bug takes is what one runs this for"
)]

use headless_harness::simulation::{Rule, SimConfig, simulate};
use headless_messaging::{Plant, Planted};

const SEEDS: u64 = 2_000;

/// Runs seeds until one breaks a promise, which must be one of `rules`; prints how many it took.
fn must_be_found(name: &str, config: &SimConfig, rules: &[Rule]) {
    for seed in 0..SEEDS {
        let outcome = simulate(seed, config).unwrap();
        let Some(first) = outcome.violations.first() else {
            continue;
        };
        println!("{name}: found by seed {seed}, after {} seeds: {first}", seed + 1);
        let found = outcome
            .violations
            .iter()
            .any(|violation| rules.contains(&violation.rule));
        assert!(
            found,
            "{name} breaks other promises than expected: {:?}",
            outcome.violations
        );
        return;
    }
    panic!("{name}: not found within {SEEDS} seeds");
}

fn planted(plant: Plant) -> SimConfig {
    SimConfig::default().with_planted(Planted::bug(plant))
}

#[test]
fn should_find_an_ack_before_the_handler() {
    must_be_found(
        "ack before the handler",
        &planted(Plant::AckBeforeHandler),
        &[Rule::NothingLost],
    );
}

#[test]
fn should_find_a_mark_after_the_commit() {
    must_be_found(
        "mark after the commit",
        &planted(Plant::MarkAfterCommit),
        &[Rule::EffectsOnce],
    );
}

#[test]
fn should_find_a_relay_that_steps_past_a_key() {
    must_be_found(
        "relay stepping past a key",
        &planted(Plant::RelayStepsPastKey),
        &[Rule::KeyOrder],
    );
}

#[test]
fn should_find_a_parked_key_that_is_forgotten_on_take_over() {
    must_be_found(
        "parked key forgotten",
        &planted(Plant::ParkedKeyForgotten),
        &[Rule::KeyOrder],
    );
}

#[test]
fn should_find_a_consumer_that_goes_on_when_its_life_is_over() {
    must_be_found("life ignored", &planted(Plant::LifeIgnored), &[Rule::OneOwner]);
}

#[test]
fn should_find_a_store_that_takes_from_the_suspected_what_they_hold() {
    let config = SimConfig::default().with_suspected_buried();
    must_be_found("suspected nodes buried", &config, &[Rule::OneOwner]);
}

#[test]
fn should_find_an_epoch_that_is_dropped_on_renew() {
    let config = SimConfig::default().with_epoch_dropped_on_renew();
    must_be_found("epoch dropped on renew", &config, &[Rule::OneOwner]);
}
