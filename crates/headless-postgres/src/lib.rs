//! The PostgreSQL provider of headless: outbox, inbox and dead letters in the user's own transaction, and a transport
//! over queue tables, so that one database is enough for everything.
//!
//! ```no_run
//! use headless_postgres::Postgres;
//!
//! # async fn example() -> headless_abstractions::Result<()> {
//! let postgres = Postgres::connect("postgres://app@localhost/app").await?;
//! # let _ = postgres;
//! # Ok(())
//! # }
//! ```
//!
//! All objects of the provider live in one schema of their own, `headless` unless another is named. Leases, delays and
//! ages are written and compared by the server's clock. See `docs/providers/postgres.md` for rights, sizing, vacuum and
//! poolers.

mod config;
mod control;
mod dead_letter;
mod error;
mod examine;
mod failures;
mod inbox;
mod membership;
mod migrate;
mod outbox;
mod page;
mod parked;
mod postgres;
mod pulse;
mod row;
mod schema;
mod session;
mod span;
mod sql;
mod store;
mod subscriber;
mod transport;
mod unit_of_work;
mod wake;

pub use config::{Migrate, Pooler, PostgresConfig, Wake};
pub use migrate::{Migration, MigrationState};
pub use postgres::Postgres;
pub use schema::Schema;
pub use unit_of_work::{EnlistedTx, PostgresTx};
