//! The provider behind a pooler that gives a session to each transaction, against the same suites. Not core over the store:
//! its cases have time-outs of a tenth of a second, and eight cases that share sessions do not keep to them on two cores.
//!
//! Not the transport either, nor core over it: ten of their cases failed there on a busy machine, most with calls that had no
//! answer in time, and why is not known.

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
        .inbox::<PooledFixture>())
}
