//! The memory provider against the conformance suites.

use std::process::ExitCode;

use headless_harness::{MemoryFixture, Suites, run};

fn main() -> ExitCode {
    run(Suites::of("memory")
        .capabilities::<MemoryFixture>(include_str!("../../../docs/capabilities.md"))
        .transport::<MemoryFixture>()
        .outbox::<MemoryFixture>()
        .inbox::<MemoryFixture>()
        .membership::<MemoryFixture>()
        .control::<MemoryFixture>()
        .consumer::<MemoryFixture>())
}
