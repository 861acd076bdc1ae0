//! One connection for one call of the provider.

use std::ops::{Deref, DerefMut};

use headless_abstractions::Result;
use sqlx::{Executor, PgConnection, PgPool, Postgres, pool::PoolConnection};

use crate::{Pooler, error::fault, postgres::Statements};

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
        let conn = pool.acquire().await.map_err(fault)?;
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
                .execute(sqlx::raw_sql(statements.begin.get()))
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
