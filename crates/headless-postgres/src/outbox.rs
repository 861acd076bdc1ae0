//! The outbox. How it works is `docs/decisions/0007-outbox-on-postgresql.md`, and the functions of `0002_outbox.sql`.

mod append;
mod order;
mod queries;

use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, Appended, AttemptUse, Claim, ClaimOutbox, ClaimedOutbox, Epoch, Failure, InFlight, Message,
    MessageId, OutboxRow, OutboxStore, Owner, Result, Settled,
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    Postgres,
    error::fault,
    failures,
    inbox::{
        arrivals::{claimed as named, owner_uuid as owner},
        require,
    },
    postgres::Shared,
    row,
    span::{count, micros},
    sql::{Sql, statements},
    wake::Signal,
};

pub(crate) use self::append::append;

statements! {
    /// What the outbox sends.
    Statements {
        append: "outbox/append",
        append_one: "outbox/append_one",
        claim: "outbox/claim",
        ack: "outbox/ack",
        abandon: "outbox/abandon",
        fail: "outbox/fail",
        fail_unreadable: "outbox/fail_unreadable",
        renew: "outbox/renew",
        reap: "outbox/reap",
        release: "outbox/release",
        list: "outbox/list",
        stats: "outbox/stats",
    }
}

/// The most rows of one claim, whatever was asked: the server builds the answer in its memory.
const MOST: usize = 10_000;

#[async_trait]
impl OutboxStore for Postgres {
    async fn append(&self, messages: &[Message]) -> Result<Vec<Appended>> {
        let shared = &self.shared;
        let answers = shared
            .call("append", async {
                let mut session = shared.session().await?;
                let answers = append(shared, &mut session, messages).await?;
                session.finish(&shared.statements).await?;
                Ok(answers)
            })
            .await?;
        shared.wake.notify(Signal::Store);
        Ok(answers)
    }

    async fn claim(&self, request: &ClaimOutbox) -> Result<ClaimedOutbox> {
        let shared = &self.shared;
        shared
            .call("claim", async {
                require(Some(request.limit), Some(request.lease))?;
                let (ids, epochs) = named(&request.ack);
                let mut session = shared.session().await?;
                let rows = sqlx::query(shared.outbox.claim.get())
                    .bind(owner(request.owner))
                    .bind(i32::try_from(request.limit.min(MOST)).unwrap_or(i32::MAX))
                    .bind(micros(request.lease))
                    .bind(request.in_flight == InFlight::RunPerKey)
                    .bind(&ids)
                    .bind(&epochs)
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                let (claimed, unreadable) = claimed(&request.ack, &rows)?;
                if !unreadable.is_empty()
                    && let Err(error) = bury_unreadable(shared, request.owner, &unreadable).await
                {
                    // They come again when their lease has ended; what could be read goes on.
                    tracing::debug!(%error, "rows of the outbox that cannot be read could not be buried");
                }
                Ok(claimed)
            })
            .await
    }

    async fn ack(&self, of: Owner, claims: &[Claim]) -> Result<Settled> {
        let shared = &self.shared;
        let settling = Settling::new(shared, of, claims);
        shared
            .call("ack", settling.send(&shared.outbox.ack, |query| query))
            .await
    }

    async fn abandon(&self, of: Owner, claims: &[Claim], how: &Abandon) -> Result<Settled> {
        let shared = &self.shared;
        let settling = Settling::new(shared, of, claims);
        let settled = shared
            .call("abandon", async {
                let failures = how.failure.as_slice();
                let failures = (!failures.is_empty())
                    .then(|| failures::to_json(failures))
                    .transpose()?;
                settling
                    .send(&shared.outbox.abandon, |query| {
                        query
                            .bind(micros(how.after))
                            .bind(i32::from(how.attempt == AttemptUse::Consume))
                            .bind(failures)
                    })
                    .await
            })
            .await?;
        shared.wake.notify(Signal::Store);
        Ok(settled)
    }

    async fn fail(&self, of: Owner, claims: &[Claim], failure: &Failure) -> Result<Settled> {
        let shared = &self.shared;
        let settling = Settling::new(shared, of, claims);
        shared
            .call("fail", async {
                let failures = failures::to_json(std::slice::from_ref(failure))?;
                settling
                    .send(&shared.outbox.fail, |query| query.bind(failures))
                    .await
            })
            .await
    }

    async fn renew(&self, of: Owner, claims: &[Claim], lease: Duration) -> Result<Settled> {
        let shared = &self.shared;
        let settling = Settling::new(shared, of, claims);
        shared
            .call("renew", async {
                require(None, Some(lease))?;
                settling
                    .send(&shared.outbox.renew, |query| query.bind(micros(lease)))
                    .await
            })
            .await
    }

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        let shared = &self.shared;
        shared
            .call("reap_expired", async {
                let mut session = shared.session().await?;
                let reaped: i64 = sqlx::query_scalar(shared.outbox.reap.get())
                    .bind(count(limit))
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                Ok(reaped.unsigned_abs())
            })
            .await
    }

    async fn release_owner(&self, of: Owner) -> Result<u64> {
        let shared = &self.shared;
        let released = shared
            .call("release_owner", async {
                let mut session = shared.session().await?;
                let released: i64 = sqlx::query_scalar(shared.outbox.release.get())
                    .bind(owner(of))
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                Ok(released.unsigned_abs())
            })
            .await?;
        shared.wake.notify(Signal::Store);
        Ok(released)
    }

    /// Rows that were sent are gone: there is no history to purge.
    async fn purge(&self, _older_than: Duration, _limit: usize) -> Result<u64> {
        self.shared.call("purge", async { Ok(0) }).await
    }
}

/// A settling call: claims of one owner, and a function that returns those of them that it did not find.
struct Settling<'a> {
    shared: &'a Shared,
    owner: Uuid,
    claims: &'a [Claim],
    ids: Vec<Uuid>,
    epochs: Vec<i64>,
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

impl<'a> Settling<'a> {
    fn new(shared: &'a Shared, of: Owner, claims: &'a [Claim]) -> Self {
        let (ids, epochs) = named(claims);
        Self {
            shared,
            owner: owner(of),
            claims,
            ids,
            epochs,
        }
    }

    async fn send<'q>(&self, sql: &Sql, bind: impl FnOnce(Query<'q>) -> Query<'q>) -> Result<Settled> {
        if self.claims.is_empty() {
            return Ok(Settled::all());
        }
        let mut session = self.shared.session().await?;
        let query = sqlx::query(sql.get())
            .bind(self.owner)
            .bind(self.ids.clone())
            .bind(self.epochs.clone());
        let rows = bind(query).fetch_all(&mut *session).await.map_err(fault)?;
        session.finish(&self.shared.statements).await?;
        settled(self.claims, &rows)
    }
}

/// What a settling call answers, from the rows that name what it did not find.
fn settled<'r>(claims: &[Claim], lost: impl IntoIterator<Item = &'r PgRow>) -> Result<Settled> {
    let lost = lost.into_iter().map(claim).collect::<Result<HashSet<_>>>()?;
    if lost.is_empty() {
        return Ok(Settled::all());
    }
    let named = claims.iter().filter(|claim| lost.contains(claim)).copied();
    Ok(Settled::without(named.collect()))
}

/// A row that was claimed and cannot be read, and why.
struct Unreadable {
    claim: Claim,
    error: String,
}

/// What a claim brings. A row that no statement of ours has written may be unreadable: it does not keep the others back.
fn claimed(acked: &[Claim], rows: &[PgRow]) -> Result<(ClaimedOutbox, Vec<Unreadable>)> {
    let mut lost = Vec::new();
    let mut unreadable = Vec::new();
    let mut taken = Vec::with_capacity(rows.len());
    for row in rows {
        if row.try_get("lost").map_err(fault)? {
            lost.push(row);
            continue;
        }
        let seq: i64 = row.try_get("seq").map_err(fault)?;
        let attempts: i32 = row.try_get("attempts").map_err(fault)?;
        let claim = claim(row)?;
        match row::message(row) {
            Ok((mut message, None)) => {
                message.deliver_after = None;
                taken.push((seq, OutboxRow::new(claim, message, attempts.unsigned_abs())));
            }
            Ok((_, Some(error))) | Err(error) => unreadable.push(Unreadable {
                claim,
                error: row::unreadable(row, &error),
            }),
        }
    }
    let claimed = ClaimedOutbox::new(order::sorted(taken), settled(acked, lost)?);
    Ok((claimed, unreadable))
}

async fn bury_unreadable(shared: &Shared, of: Owner, rows: &[Unreadable]) -> Result<()> {
    let claims: Vec<Claim> = rows.iter().map(|row| row.claim).collect();
    let errors: Vec<&str> = rows.iter().map(|row| row.error.as_str()).collect();
    let (ids, epochs) = named(&claims);
    let mut session = shared.session().await?;
    sqlx::query(shared.outbox.fail_unreadable.get())
        .bind(owner(of))
        .bind(&ids)
        .bind(&epochs)
        .bind(&errors)
        .execute(&mut *session)
        .await
        .map_err(fault)?;
    session.finish(&shared.statements).await
}

fn claim(row: &PgRow) -> Result<Claim> {
    let id: Uuid = row.try_get("id").map_err(fault)?;
    let epoch: i64 = row.try_get("epoch").map_err(fault)?;
    // A number that was never an epoch comes back as it was sent.
    let epoch = u64::try_from(epoch).unwrap_or(u64::MAX);
    Ok(Claim::new(MessageId::from_uuid(id), Epoch::new(epoch)))
}
