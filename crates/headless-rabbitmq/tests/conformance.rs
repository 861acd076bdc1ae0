//! RabbitMQ against the conformance suites.

mod fixture;

use std::process::ExitCode;

use headless_harness::{Suites, run};

use fixture::RabbitMqFixture;

fn main() -> ExitCode {
    run(Suites::of("rabbitmq")
        .capabilities::<RabbitMqFixture>(include_str!("../../../docs/capabilities.md"))
        .transport::<RabbitMqFixture>()
        .consumer_over_transport::<RabbitMqFixture>())
}
