//! PostgreSQL against the conformance suites.

mod fixture;

use std::process::ExitCode;

use headless_harness::{Suites, run};

use fixture::PostgresFixture;

fn main() -> ExitCode {
    run(Suites::of("postgres")
        .capabilities::<PostgresFixture>(include_str!("../../../docs/capabilities.md"))
        .outbox::<PostgresFixture>()
        .inbox::<PostgresFixture>()
        .transport::<PostgresFixture>()
        .consumer_over_transport::<PostgresFixture>()
        .consumer_over_store::<PostgresFixture>())
}
