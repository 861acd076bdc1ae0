//! PostgreSQL against the conformance suites.

mod fixture;
#[path = "fixture/shared.rs"]
mod shared;

use std::process::ExitCode;

use headless_harness::{Suites, run};

use shared::PostgresFixture;

fn main() -> ExitCode {
    run(Suites::of("postgres")
        .at_once(3)
        .capabilities::<PostgresFixture>(include_str!("../../../docs/capabilities.md"))
        .outbox::<PostgresFixture>()
        .inbox::<PostgresFixture>()
        .membership::<PostgresFixture>()
        .control::<PostgresFixture>()
        .transport::<PostgresFixture>()
        .consumer_over_transport::<PostgresFixture>()
        .consumer_over_store::<PostgresFixture>())
}
