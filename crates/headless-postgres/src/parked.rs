//! Parked messages.

use async_trait::async_trait;
use headless_abstractions::{
    Abandon, Arrival, AttemptUse, Claim, ClaimParked, Epoch, GroupName, IdempotencyKey, Owner, Park,
    ParkLimits, Parked, ParkedRow, ParkedStore, Result, Settled,
};
use sqlx::{Row, postgres::PgRow};

use crate::{
    Postgres,
    config::LARGEST_PAYLOAD,
    error::fault,
    failures,
    inbox::{
        answer::{of_each, parked},
        arrivals::{Arrivals, claimed, owner_uuid},
        require, settled,
    },
    row::{self, Columns},
    span::{count, micros},
    sql::statements,
    wake::Signal,
};

statements! {
    /// What the park sends.
    Statements {
        park: "parked/park",
        claim: "parked/claim",
        abandon: "parked/abandon",
        reap: "parked/reap",
    }
}

#[async_trait]
impl ParkedStore for Postgres {
    async fn park(&self, parks: &[Park], limits: ParkLimits) -> Result<Vec<Parked>> {
        let shared = &self.shared;
        let answers = shared
            .call("park", async {
                if parks.is_empty() {
                    return Ok(Vec::new());
                }
                let messages = Columns::of(parks.iter().map(|park| &park.message), LARGEST_PAYLOAD)?;
                let arrivals = Arrivals::with_holds(parks.iter().map(|park| (&park.arrival, park.hold)));
                let afters: Vec<i64> = parks.iter().map(|park| micros(park.after)).collect();
                let behind: Vec<bool> = parks.iter().map(|park| park.only_behind).collect();
                let unused: Vec<bool> = parks
                    .iter()
                    .map(|park| park.attempt == AttemptUse::Return)
                    .collect();
                let added = parks
                    .iter()
                    .map(|park| failures::to_json(&park.failures))
                    .collect::<Result<Vec<_>>>()?;
                let mut session = shared.session().await?;
                let answers: Vec<i64> = sqlx::query_scalar(shared.parked.park.get())
                    .bind(&arrivals.groups)
                    .bind(&arrivals.ids)
                    .bind(&arrivals.topics)
                    .bind(&messages.keys)
                    .bind(&arrivals.key_hashes)
                    .bind(&arrivals.idempotency_keys)
                    .bind(&arrivals.owners)
                    .bind(&arrivals.epochs)
                    .bind(&messages.occurred_at)
                    .bind(&messages.content_types)
                    .bind(&messages.headers)
                    .bind(&messages.payloads)
                    .bind(&afters)
                    .bind(&behind)
                    .bind(&unused)
                    .bind(&added)
                    .bind(count(limits.per_key.get()))
                    .bind(count(limits.per_group.get()))
                    .bind(shared.short_wait())
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                of_each(&answers, parks.len(), parked)
            })
            .await?;
        // What is parked behind another is nothing to wake up for: its head's end is.
        let due = parks.iter().zip(&answers);
        if due
            .into_iter()
            .any(|(park, answer)| !park.only_behind && *answer == Parked::Now)
        {
            shared.wake.notify(Signal::Store);
        }
        Ok(answers)
    }

    async fn claim(&self, request: &ClaimParked) -> Result<Vec<ParkedRow>> {
        let shared = &self.shared;
        shared
            .call("claim", async {
                require(Some(request.limit), Some(request.lease))?;
                let except: Vec<&str> = request.except_topics.iter().map(|topic| topic.as_str()).collect();
                let mut session = shared.session().await?;
                let rows = sqlx::query(shared.parked.claim.get())
                    .bind(request.group.as_str())
                    .bind(owner_uuid(request.owner))
                    .bind(i32::try_from(request.limit).unwrap_or(i32::MAX))
                    .bind(micros(request.lease))
                    .bind(&except)
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                rows.iter().map(|row| parked_row(&request.group, row)).collect()
            })
            .await
    }

    async fn abandon(
        &self,
        group: &GroupName,
        owner: Owner,
        claims: &[Claim],
        how: &Abandon,
    ) -> Result<Settled> {
        let shared = &self.shared;
        let settled = shared
            .call("abandon", async {
                let (ids, epochs) = claimed(claims);
                let failure = match &how.failure {
                    Some(failure) => Some(failures::to_json(std::slice::from_ref(failure))?),
                    None => None,
                };
                let mut session = shared.session().await?;
                let rows = sqlx::query(shared.parked.abandon.get())
                    .bind(group.as_str())
                    .bind(&ids)
                    .bind(&epochs)
                    .bind(owner_uuid(owner))
                    .bind(micros(how.after))
                    .bind(how.attempt == AttemptUse::Return)
                    .bind(failure)
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

    async fn reap_expired(&self, limit: usize) -> Result<u64> {
        let shared = &self.shared;
        shared
            .call("reap_expired", async {
                let mut session = shared.session().await?;
                let reaped: i64 = sqlx::query_scalar(shared.parked.reap.get())
                    .bind(count(limit))
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                Ok(reaped.unsigned_abs())
            })
            .await
    }
}

fn parked_row(group: &GroupName, row: &PgRow) -> Result<ParkedRow> {
    // What a message could not be read from is a defect of who wrote it: its group judges it as any other.
    let (message, _wrong) = row::message(row)?;
    let epoch: i64 = row.try_get("epoch").map_err(fault)?;
    let rounds: i32 = row.try_get("rounds").map_err(fault)?;
    let ordered: bool = row.try_get("ordered").map_err(fault)?;
    let idempotency_key: Option<&str> = row.try_get("idempotency_key").map_err(fault)?;
    let kept: Option<&str> = row.try_get("failures").map_err(fault)?;
    let mut arrival = Arrival::of(group, &message, ordered);
    arrival.idempotency_key = idempotency_key.map(IdempotencyKey::parse).transpose()?;
    Ok(ParkedRow::new(
        Claim::new(message.id, Epoch::new(epoch.unsigned_abs())),
        arrival,
        message,
        rounds.unsigned_abs(),
        failures::from_json(kept)?,
    ))
}
