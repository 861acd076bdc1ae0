//! PostgreSQL against the conformance suites.

use std::process::ExitCode;

use headless_harness::{Suites, run};

fn main() -> ExitCode {
    run(Suites::of("postgres").unreported())
}
