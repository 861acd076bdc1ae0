//! Every case catches the mutations that it names, and no mutation survives.

use std::process::ExitCode;

fn main() -> ExitCode {
    headless_harness::mutation_self_test()
}
