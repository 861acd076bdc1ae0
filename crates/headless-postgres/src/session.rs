//! One connection for one call of the provider.

use std::ops::{Deref, DerefMut};

use headless_abstractions::{Error, ErrorKind, Result};
use sqlx::{Executor, PgConnection, PgPool, Postgres, pool::PoolConnection};

use crate::{
    Pooler,
    error::{NAME, fault, no_connection},
    postgres::Statements,
};

/// One connection for one call of the provider. Behind a pooler of transactions it is within a transaction.
///
/// Unless it was finished, the connection is closed when this is dropped: a call that was given up leaves an answer on
/// the wire that nobody has read.
#[derive(Debug)]
pub(crate) struct Session {
    conn: PoolConnection<Postgres>,
    in_transaction: bool,
    finished: bool,
}

impl Session {
    pub(crate) async fn open(pool: &PgPool, pooler: Pooler, statements: &Statements) -> Result<Self> {
        let conn = acquire(pool, "control_connections").await?;
        let mut session = Self {
            conn,
            in_transaction: false,
            finished: false,
        };
        if pooler == Pooler::Transaction {
            session.begin(statements).await?;
        }
        Ok(session)
    }

    /// Begins a transaction, for a call of more than one statement that must be atomic. Within one already: does nothing.
    pub(crate) async fn begin(&mut self, statements: &Statements) -> Result<()> {
        if !self.in_transaction {
            self.conn
                .execute(sqlx::raw_sql(statements.begin_call.get()))
                .await
                .map_err(fault)?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Ends the call: commits what is open, and gives the connection back.
    pub(crate) async fn finish(mut self, statements: &Statements) -> Result<()> {
        if self.in_transaction {
            self.conn
                .execute(sqlx::raw_sql(statements.commit.get()))
                .await
                .map_err(fault)?;
        }
        self.finished = true;
        Ok(())
    }
}

/// A connection of this pool, whose bound is the setting of that name.
pub(crate) async fn acquire(pool: &PgPool, bound: &'static str) -> Result<PoolConnection<Postgres>> {
    pool.acquire().await.map_err(|error| match error {
        sqlx::Error::PoolTimedOut => out_of_time(pool, bound).with_provider(NAME).with_source(error),
        error => no_connection(error),
    })
}

/// Tells apart what the client calls by one name: nothing came free, or nothing could be connected to.
fn out_of_time(pool: &PgPool, bound: &'static str) -> Error {
    let most = pool.options().get_max_connections();
    let used = pool
        .size()
        .saturating_sub(u32::try_from(pool.num_idle()).unwrap_or(u32::MAX));
    if used >= most {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "all {most} connections were in use for longer than acquire_timeout: raise {bound}, or end \
                 transactions sooner"
            ),
        )
    } else {
        Error::new(
            ErrorKind::Unavailable,
            "no connection could be made within acquire_timeout: is the server running, and can it be reached?",
        )
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.conn
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.conn
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.finished {
            self.conn.close_on_drop();
        }
    }
}

#[cfg(test)]
mod tests;
