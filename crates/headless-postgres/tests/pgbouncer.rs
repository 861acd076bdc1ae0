//! The store behind a pooler that gives a session to each transaction, against the same suites.

#[path = "pgbouncer/fixture.rs"]
mod fixture;

use std::process::ExitCode;

use headless_harness::{Suites, run};

use fixture::PooledFixture;

fn main() -> ExitCode {
    run(Suites::of("postgres-pgbouncer")
        .unreported()
        .at_once(8)
        .outbox::<PooledFixture>()
        .inbox::<PooledFixture>())
}
