//! The service as its users see it: processes, HTTP, and what a plain client reads in its database.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]
#![expect(clippy::print_stderr, reason = "a test says what it could not look at")]

#[path = "webhook_relay/answers.rs"]
mod answers;
#[path = "webhook_relay/away.rs"]
mod away;
#[path = "webhook_relay/deliveries.rs"]
mod deliveries;
#[path = "webhook_relay/github.rs"]
mod github;
#[path = "webhook_relay/killed.rs"]
mod killed;
#[path = "webhook_relay/node.rs"]
mod node;
#[path = "webhook_relay/schema.rs"]
mod schema;
