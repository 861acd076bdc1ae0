//! PostgreSQL beyond the conformance suites: settings, migrations, statements, poolers, bad input, other clients.

#![expect(clippy::unwrap_used, reason = "tests against a real server")]

mod fixture;
#[path = "fixture/shared.rs"]
mod shared;

#[path = "postgres/bad_input.rs"]
mod bad_input;
#[path = "postgres/examine.rs"]
mod examine;
#[path = "postgres/idle.rs"]
mod idle;
#[path = "postgres/interleavings.rs"]
mod interleavings;
#[path = "postgres/mark.rs"]
mod mark;
#[path = "postgres/migrations.rs"]
mod migrations;
#[path = "postgres/nodes.rs"]
mod nodes;
#[path = "postgres/outbox.rs"]
mod outbox;
#[path = "postgres/pgbouncer.rs"]
mod pgbouncer;
#[path = "postgres/publish.rs"]
mod publish;
#[path = "postgres/repartition.rs"]
mod repartition;
#[path = "postgres/rights.rs"]
mod rights;
#[path = "statements.rs"]
mod statements;
#[path = "postgres/tls.rs"]
mod tls;
#[path = "postgres/transport.rs"]
mod transport;
#[path = "postgres/world.rs"]
mod world;
