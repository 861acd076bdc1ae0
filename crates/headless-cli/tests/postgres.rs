//! The command on a PostgreSQL server, and over a RabbitMQ, as its users see it. What is counted here is counted by a plain client.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "postgres/control.rs"]
mod control;
#[path = "postgres/demo.rs"]
mod demo;
#[path = "postgres/doctor.rs"]
mod doctor;
#[path = "postgres/migrate.rs"]
mod migrate;
#[path = "postgres/process.rs"]
mod process;
#[path = "postgres/processes.rs"]
mod processes;
#[path = "rabbitmq/processes.rs"]
mod processes_over_rabbitmq;
#[path = "postgres/tail.rs"]
mod tail;
#[path = "postgres/topics.rs"]
mod topics;
#[path = "postgres/trial.rs"]
mod trial;
#[path = "postgres/world.rs"]
mod world;
