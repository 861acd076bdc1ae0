//! The suites in their refused form: a transport that can do nothing beyond what each of them must, and core over it.

use std::process::ExitCode;

use headless_harness::{Restricted, Suites, run};

fn main() -> ExitCode {
    run(Suites::of("restricted")
        .unreported()
        .transport::<Restricted>()
        .consumer_over_transport::<Restricted>())
}
