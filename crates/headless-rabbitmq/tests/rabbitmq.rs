//! What is RabbitMQ's own: what the server does to its clients, and what other clients do.

#![expect(clippy::unwrap_used, reason = "tests against a real server")]

#[path = "rabbitmq/alarm.rs"]
mod alarm;
#[path = "rabbitmq/consumer_timeout.rs"]
mod consumer_timeout;
#[path = "rabbitmq/delayed.rs"]
mod delayed;
#[path = "rabbitmq/delivery_limit.rs"]
mod delivery_limit;
#[path = "rabbitmq/durable.rs"]
mod durable;
#[path = "rabbitmq/foreign.rs"]
mod foreign;
#[path = "rabbitmq/from_client.rs"]
mod from_client;
#[path = "rabbitmq/lost.rs"]
mod lost;
#[path = "rabbitmq/missing.rs"]
mod missing;
#[path = "rabbitmq/plain.rs"]
mod plain;
#[path = "rabbitmq/read_ahead.rs"]
mod read_ahead;
#[path = "rabbitmq/rights.rs"]
mod rights;
#[path = "rabbitmq/shop.rs"]
mod shop;
#[path = "rabbitmq/tls.rs"]
mod tls;
#[path = "rabbitmq/waiting_queues.rs"]
mod waiting_queues;
