//! The provider behind a pooler that gives a session to each transaction, against the same suites. Not core over the store:
//! its cases have time-outs of a tenth of a second, and eight cases that share sessions do not keep to them on two cores.

mod fixture;
#[path = "fixture/pooled.rs"]
mod pooled;

use std::process::ExitCode;

use headless_harness::{Suites, run};

use pooled::PooledFixture;

fn main() -> ExitCode {
    run(Suites::of("postgres-pgbouncer")
        .unreported()
        .at_once(8)
        .outbox::<PooledFixture>()
        .inbox::<PooledFixture>()
        .membership::<PooledFixture>()
        .transport::<PooledFixture>()
        .consumer_over_transport::<PooledFixture>())
}
