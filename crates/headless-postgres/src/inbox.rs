//! The inbox.

pub(crate) mod answer;
pub(crate) mod arrivals;
mod queries;

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{
    Admission, Arrival, AttemptUse, Claim, Epoch, Error, GroupName, Hold, InboxStore, Marked, MessageId,
    Owner, Result, Settled,
};
use sqlx::{AssertSqlSafe, PgConnection, Row, SqlSafeStr, SqlStr, postgres::PgRow};
use uuid::Uuid;

use self::{
    answer::{Target, admission, marked, of_each},
    arrivals::{Arrivals, claimed, owner_uuid},
};
use crate::{
    Postgres,
    error::fault,
    postgres::Shared,
    span::{count, micros},
    sql::statements,
    wake::Signal,
};

statements! {
    /// What the inbox sends.
    Statements {
        admit: "inbox/admit",
        mark: "inbox/mark",
        mark_sent: "inbox/mark_sent",
        prepare_marks: "inbox/prepare_marks",
        execute_mark: "inbox/execute_mark",
        execute_mark_one: "inbox/execute_mark_one",
        renew: "inbox/renew",
        release: "inbox/release",
        release_owner: "inbox/release_owner",
        purge: "inbox/purge",
        get: "inbox/get",
        list: "inbox/list",
        list_running: "inbox/list_running",
        list_parked: "inbox/list_parked",
        stats: "inbox/stats",
    }
}

/// How long a call of the provider's own waits for a row that a transaction holds: a transaction of the application may
/// be open for long, and those who ask would use up the connections that renew leases.
const PATIENCE: Duration = Duration::from_millis(100);

#[async_trait]
impl InboxStore for Postgres {
    async fn admit(&self, owner: Owner, lease: Duration, arrivals: &[Arrival]) -> Result<Vec<Admission>> {
        let shared = &self.shared;
        shared
            .call("admit", async {
                require(None, Some(lease))?;
                if arrivals.is_empty() {
                    return Ok(Vec::new());
                }
                let columns = Arrivals::of(arrivals);
                let mut session = shared.session().await?;
                let row = sqlx::query(shared.inbox.admit.get())
                    .bind(&columns.groups)
                    .bind(&columns.ids)
                    .bind(&columns.topics)
                    .bind(&columns.key_hashes)
                    .bind(&columns.idempotency_keys)
                    .bind(owner_uuid(owner))
                    .bind(micros(lease))
                    .bind(shared.short_wait())
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                admission::of_each(&row, arrivals.len())
            })
            .await
    }

    async fn mark(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        self.shared
            .call("mark", self.shared.end(marks, Target::Processed))
            .await
    }

    async fn discard(&self, marks: &[(Arrival, Hold)]) -> Result<Vec<Marked>> {
        self.shared
            .call("discard", self.shared.end(marks, Target::Discarded))
            .await
    }

    async fn renew(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        lease: Duration,
    ) -> Result<Settled> {
        let shared = &self.shared;
        shared
            .call("renew", async {
                require(None, Some(lease))?;
                let (ids, epochs) = claimed(claims);
                let mut session = shared.session().await?;
                let rows = sqlx::query(shared.inbox.renew.get())
                    .bind(group.as_str())
                    .bind(&ids)
                    .bind(&epochs)
                    .bind(owner_uuid(owner))
                    .bind(micros(lease))
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                settled(claims, &rows)
            })
            .await
    }

    async fn release(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        attempt: AttemptUse,
    ) -> Result<Settled> {
        let shared = &self.shared;
        let settled = shared
            .call("release", async {
                let (ids, epochs) = claimed(claims);
                let mut session = shared.session().await?;
                let rows = sqlx::query(shared.inbox.release.get())
                    .bind(group.as_str())
                    .bind(&ids)
                    .bind(&epochs)
                    .bind(owner_uuid(owner))
                    .bind(attempt == AttemptUse::Return)
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                settled(claims, &rows)
            })
            .await?;
        shared.wake.notify(Signal::Store);
        Ok(settled)
    }

    async fn release_owner(&self, owner: Owner) -> Result<u64> {
        let shared = &self.shared;
        let released = shared
            .call("release_owner", async {
                let mut session = shared.session().await?;
                let released: i64 = sqlx::query_scalar(shared.inbox.release_owner.get())
                    .bind(owner_uuid(owner))
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                Ok(released.unsigned_abs())
            })
            .await?;
        if released > 0 {
            shared.wake.notify(Signal::Store);
        }
        Ok(released)
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        let shared = &self.shared;
        shared
            .call("purge", async {
                let mut session = shared.session().await?;
                let purged: i64 = sqlx::query_scalar(shared.inbox.purge.get())
                    .bind(micros(older_than))
                    .bind(count(limit))
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                Ok(purged.unsigned_abs())
            })
            .await
    }
}

impl Shared {
    /// Marks or discards in a transaction of its own.
    async fn end(&self, marks: &[(Arrival, Hold)], target: Target) -> Result<Vec<Marked>> {
        let mut session = self.session().await?;
        let answers = self
            .end_in(&mut session, marks, target, self.short_wait())
            .await?;
        session.finish(&self.statements).await?;
        Ok(answers)
    }

    /// Marks within the application's transaction.
    pub(crate) async fn mark_in(
        &self,
        conn: &mut PgConnection,
        marks: &[(Arrival, Hold)],
    ) -> Result<Vec<Marked>> {
        self.end_in(conn, marks, Target::Processed, self.long_wait())
            .await
    }

    async fn end_in(
        &self,
        conn: &mut PgConnection,
        marks: &[(Arrival, Hold)],
        target: Target,
        wait: i32,
    ) -> Result<Vec<Marked>> {
        if marks.is_empty() {
            return Ok(Vec::new());
        }
        let columns = Arrivals::with_holds(marks.iter().map(|(arrival, hold)| (arrival, *hold)));
        let answers: Vec<i64> = sqlx::query_scalar(self.inbox.mark.get())
            .persistent(self.keeps_statements())
            .bind(&columns.groups)
            .bind(&columns.ids)
            .bind(&columns.topics)
            .bind(&columns.key_hashes)
            .bind(&columns.idempotency_keys)
            .bind(&columns.owners)
            .bind(&columns.epochs)
            .bind(target as i16)
            .bind(wait)
            .fetch_one(conn)
            .await
            .map_err(fault)?;
        of_each(&answers, marks.len(), marked)
    }

    /// The first BEGIN of a connection for units of work.
    pub(crate) fn first_begin(&self) -> SqlStr {
        let begin = self.statements.begin.get();
        if !self.keeps_statements() {
            return begin.into_sql_str();
        }
        let both = [&*begin.0, &*self.inbox.prepare_marks.get().0].join("\n;\n");
        AssertSqlSafe(both).into_sql_str()
    }

    /// Begins a transaction on this connection and marks in it, in one round trip. The connection was begun on before, by
    /// [`first_begin`](Self::first_begin).
    pub(crate) async fn begin_and_mark(
        &self,
        conn: &mut PgConnection,
        marks: &[(Arrival, Hold)],
    ) -> Result<Vec<Marked>> {
        let columns = Arrivals::with_holds(marks.iter().map(|(arrival, hold)| (arrival, *hold)));
        let wait = self.long_wait();
        let mark = if !self.keeps_statements() {
            columns.put_into(&self.inbox.mark_sent.get().0, wait)
        } else if columns.is_one_alone() {
            columns.put_first_into(&self.inbox.execute_mark_one.get().0, wait)
        } else {
            columns.put_into(&self.inbox.execute_mark.get().0, wait)
        };
        let both = [&*self.statements.begin.get().0, &mark].join("\n;\n");
        let rows = sqlx::raw_sql(AssertSqlSafe(both))
            .fetch_all(conn)
            .await
            .map_err(fault)?;
        let row = rows.first().ok_or_else(answer::foreign)?;
        let answers: Vec<i64> = row.try_get(0).map_err(fault)?;
        of_each(&answers, marks.len(), marked)
    }

    /// How many milliseconds a call of the provider's own waits for a row of a transaction.
    pub(crate) fn short_wait(&self) -> i32 {
        milliseconds(self.config.lock_timeout.min(PATIENCE))
    }

    /// How many milliseconds a call within the application's transaction waits for a row of another one.
    pub(crate) fn long_wait(&self) -> i32 {
        milliseconds(self.config.lock_timeout)
    }
}

/// The server takes zero for endless.
fn milliseconds(wait: Duration) -> i32 {
    i32::try_from(wait.as_millis()).unwrap_or(i32::MAX).max(1)
}

/// Those of `claims` that are not among these rows.
pub(crate) fn settled(claims: &[Claim], rows: &[PgRow]) -> Result<Settled> {
    let found = rows
        .iter()
        .map(|row| {
            let id: Uuid = row.try_get("id").map_err(fault)?;
            let epoch: i64 = row.try_get("epoch").map_err(fault)?;
            Ok(Claim::new(
                MessageId::from_uuid(id),
                Epoch::new(epoch.unsigned_abs()),
            ))
        })
        .collect::<Result<std::collections::HashSet<Claim>>>()?;
    let lost = claims.iter().filter(|claim| !found.contains(claim));
    Ok(Settled::without(lost.copied().collect()))
}

/// Refuses a limit or a lease of zero.
pub(crate) fn require(limit: Option<usize>, lease: Option<Duration>) -> Result<()> {
    if limit == Some(0) {
        Err(Error::invalid("the limit is 0, it must be at least 1"))
    } else if lease == Some(Duration::ZERO) {
        Err(Error::invalid("the lease is zero, it must be longer"))
    } else {
        Ok(())
    }
}
