//! PostgreSQL against the conformance suites.

mod fixture;

use std::process::ExitCode;

use headless_harness::{Suites, run};

use fixture::PostgresFixture;

fn main() -> ExitCode {
    // Each suite is switched on once the part is there.
    run(Suites::of("postgres")
        .unreported()
        .outbox::<PostgresFixture>()
        .inbox::<PostgresFixture>()
        .transport::<PostgresFixture>()
        .consumer_over_transport::<PostgresFixture>())
}
