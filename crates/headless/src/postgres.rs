//! The PostgreSQL provider: its settings, its migrations, and the client that its transactions are used with.
//!
//! ```no_run
//! use headless::{Headless, Postgres, postgres::sqlx};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let postgres = Postgres::connect("postgres://app@localhost/app").await?;
//! let runtime = Headless::builder("orders").store(&postgres).start().await?;
//! let mut work = runtime.begin::<Postgres>().await?;
//! sqlx::query("insert into orders (name) values ($1)").bind("o-1").execute(work.conn()).await?;
//! work.commit().await?;
//! # Ok(())
//! # }
//! ```

pub use headless_postgres::{
    EnlistedTx, Migrate, Migration, MigrationState, Pooler, Postgres, PostgresConfig, PostgresTx, Schema,
    Wake,
};
/// The client, in the version that the provider speaks.
pub use sqlx;
