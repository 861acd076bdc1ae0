//! The user's own transaction.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use headless_abstractions::{
    Appended, Arrival, Error, ErrorKind, Hold, Marked, Message, OwnedTx, Result, StoreId, StoreTx,
    UnitOfWorkStore,
};
use sqlx::{Connection, Executor, PgConnection, Postgres as Pg, Transaction, pool::PoolConnection};

use crate::{
    Postgres,
    error::{NAME, fault},
    outbox,
    postgres::Shared,
    session::acquire,
    wake::Signal,
};

/// A transaction of its own. [`conn`](Self::conn) is where the application's statements go.
///
/// Dropping it rolls back.
pub struct PostgresTx {
    shared: Arc<Shared>,
    // Its client believes in a transaction from its first use on (a depth of 1), also between transactions: so a nested
    // `begin` of the application is a savepoint, and a commit may be sent together with the statement that finds out
    // whether there is anything to commit. No other code may ever get this connection.
    conn: PoolConnection<Pg>,
    open: bool,
    /// Whether others are to be told of its commit.
    appended: bool,
    /// Whether the server is to be told of its beginning together with the first mark.
    begins_with_mark: bool,
    doomed: Option<&'static str>,
}

impl PostgresTx {
    pub(crate) async fn begin(shared: Arc<Shared>) -> Result<Self> {
        let conn = acquire(&shared.work, "max_connections").await?;
        Self::begin_on(shared, conn).await
    }

    fn on(shared: Arc<Shared>, conn: PoolConnection<Pg>) -> Self {
        Self {
            shared,
            conn,
            open: true,
            appended: false,
            begins_with_mark: false,
            doomed: None,
        }
    }

    async fn begin_on(shared: Arc<Shared>, conn: PoolConnection<Pg>) -> Result<Self> {
        let mut tx = Self::on(shared, conn);
        let begin = tx.shared.statements.begin.get();
        if tx.conn.is_in_transaction() {
            tx.conn.execute(sqlx::raw_sql(begin)).await.map_err(fault)?;
        } else {
            let begun = Transaction::<Pg>::begin(&mut *tx.conn, Some(tx.shared.first_begin()))
                .await
                .map_err(fault)?;
            // Its end is ours to send.
            std::mem::forget(begun);
        }
        Ok(tx)
    }

    /// Begins with the first mark where the connection was used before, else at once.
    async fn begin_to_mark(shared: Arc<Shared>) -> Result<Self> {
        let conn = acquire(&shared.work, "max_connections").await?;
        if !conn.is_in_transaction() {
            return Self::begin_on(shared, conn).await;
        }
        let mut tx = Self::on(shared, conn);
        tx.begins_with_mark = true;
        Ok(tx)
    }

    /// The connection, within the transaction. Begin and end nothing on it but savepoints.
    pub fn conn(&mut self) -> &mut PgConnection {
        if self.begins_with_mark {
            // What is sent now is outside of the transaction, which has not begun.
            self.doomed = Some("statement before the marks");
        }
        &mut self.conn
    }

    async fn end(&mut self, commit: bool) -> Result<()> {
        if self.begins_with_mark {
            // The server knows nothing of it.
            self.open = false;
            return Ok(());
        }
        let statements = &self.shared.statements;
        let statement = if commit {
            &statements.commit
        } else {
            &statements.rollback
        };
        self.conn
            .execute(sqlx::raw_sql(statement.get()))
            .await
            .map_err(fault)?;
        self.open = false;
        Ok(())
    }
}

impl Drop for PostgresTx {
    fn drop(&mut self) {
        if self.open && !self.begins_with_mark {
            // The server ends the transaction with the connection.
            self.conn.close_on_drop();
        }
    }
}

#[async_trait]
impl StoreTx for PostgresTx {
    async fn append(&mut self, messages: &[Message]) -> Result<Vec<Appended>> {
        check(self.doomed, "append")?;
        self.doomed = Some("append");
        check(
            self.begins_with_mark.then_some("append before the marks"),
            "append",
        )?;
        let shared = self.shared.clone();
        let answers = shared
            .call("append", outbox::append(&shared, &mut self.conn, messages))
            .await?;
        self.doomed = None;
        self.appended = true;
        Ok(answers)
    }

    async fn mark_processed(&mut self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        check(self.doomed, "mark_processed")?;
        // Unless this returns a success, nobody knows how far it came: also when it is dropped.
        self.doomed = Some("mark_processed");
        let shared = self.shared.clone();
        let marked = if std::mem::take(&mut self.begins_with_mark) {
            let begun = shared
                .call("mark_processed", shared.begin_and_mark(&mut self.conn, marks))
                .await;
            if begun.is_err() {
                // The application may have thrown away what was prepared on this connection.
                self.conn.close_on_drop();
            }
            begun?
        } else {
            shared
                .call("mark_processed", shared.mark_in(&mut self.conn, marks))
                .await?
        };
        self.doomed = None;
        Ok(marked)
    }
}

#[async_trait]
impl OwnedTx for PostgresTx {
    async fn commit(mut self: Box<Self>) -> Result<()> {
        let shared = self.shared.clone();
        shared
            .call("commit", async {
                if let Some(operation) = self.doomed {
                    self.end(false).await?;
                    return Err(doomed(operation));
                }
                self.end(true).await
            })
            .await?;
        if self.appended {
            shared.wake.notify(Signal::Store);
        }
        Ok(())
    }

    async fn rollback(mut self: Box<Self>) -> Result<()> {
        let shared = self.shared.clone();
        shared.call("rollback", async { self.end(false).await }).await
    }
}

/// A transaction that the application began and will end, lent to a unit of work: it has no `commit`.
pub struct EnlistedTx<'t> {
    shared: Arc<Shared>,
    conn: &'t mut PgConnection,
    doomed: Option<&'static str>,
}

impl EnlistedTx<'_> {
    /// The connection, within the transaction.
    pub fn conn(&mut self) -> &mut PgConnection {
        self.conn
    }
}

#[async_trait]
impl StoreTx for EnlistedTx<'_> {
    async fn append(&mut self, messages: &[Message]) -> Result<Vec<Appended>> {
        check(self.doomed, "append")?;
        self.doomed = Some("append");
        let shared = self.shared.clone();
        let answers = shared
            .call("append", outbox::append(&shared, self.conn, messages))
            .await?;
        self.doomed = None;
        Ok(answers)
    }

    async fn mark_processed(&mut self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        check(self.doomed, "mark_processed")?;
        // Unless this returns a success, nobody knows how far it came: also when it is dropped.
        self.doomed = Some("mark_processed");
        let shared = self.shared.clone();
        let marked = shared
            .call("mark_processed", shared.mark_in(self.conn, marks))
            .await?;
        self.doomed = None;
        Ok(marked)
    }
}

/// Refuses another call on a transaction that a failed one has doomed.
fn check(failed: Option<&'static str>, operation: &'static str) -> Result<()> {
    match failed {
        Some(failed) => Err(doomed(failed).with_operation(operation).with_provider(NAME)),
        None => Ok(()),
    }
}

fn doomed(operation: &'static str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("the transaction is doomed since its {operation:?} failed: it was rolled back"),
    )
}

impl Postgres {
    /// Lends a transaction that the application began, on this database, to a unit of work
    /// (`runtime.enlist(postgres.enlist(&mut tx))`). The application ends it.
    #[must_use]
    pub fn enlist<'t>(&self, conn: &'t mut PgConnection) -> EnlistedTx<'t> {
        EnlistedTx {
            shared: self.shared.clone(),
            conn,
            doomed: None,
        }
    }
}

#[async_trait]
impl UnitOfWorkStore for Postgres {
    type Tx = PostgresTx;

    fn store_id(&self) -> StoreId {
        self.shared.id
    }

    async fn begin(&self) -> Result<PostgresTx> {
        let shared = self.shared.clone();
        self.shared.call("begin", PostgresTx::begin(shared)).await
    }

    async fn begin_to_mark(&self) -> Result<PostgresTx> {
        let shared = self.shared.clone();
        self.shared.call("begin", PostgresTx::begin_to_mark(shared)).await
    }
}

impl fmt::Debug for PostgresTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresTx")
            .field("provider", &NAME)
            .field("open", &self.open)
            .field("doomed", &self.doomed)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EnlistedTx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnlistedTx")
            .field("provider", &NAME)
            .field("store", &self.shared.id)
            .field("doomed", &self.doomed)
            .finish_non_exhaustive()
    }
}
