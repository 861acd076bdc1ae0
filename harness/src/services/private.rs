//! Servers of one's own: started from the machine's binaries, stopped and removed with their handle.

mod account;
mod binaries;
mod daemon;
mod folder;
mod pgbouncer;
mod postgres;
mod process;
mod rabbitmq;

pub use pgbouncer::{PrivatePgbouncer, PrivatePgbouncerBuilder, private_pgbouncer};
pub use postgres::{PrivatePostgres, PrivatePostgresBuilder, private_postgres, private_postgres_standby};
pub use rabbitmq::{PrivateRabbitMq, private_rabbitmq};

/// How a server is made to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// As in a crash: no good-byes, no checkpoint. The next start recovers from the log.
    Immediate,
    /// In order, but without waiting for clients: their transactions are rolled back, their connections closed.
    Fast,
}
