//! The toy against the conformance suites.

use std::process::ExitCode;

use headless_harness::{Suites, run};

mod fixture;
use fixture::ToyFixture;

fn main() -> ExitCode {
    run(Suites::of("toy")
        .unreported()
        .capabilities::<ToyFixture>(include_str!("../capabilities.md"))
        .transport::<ToyFixture>()
        .outbox::<ToyFixture>()
        .inbox::<ToyFixture>()
        .consumer_over_transport::<ToyFixture>()
        .consumer_over_store::<ToyFixture>())
}
