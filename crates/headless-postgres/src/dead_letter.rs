//! Dead letters: burying, redriving, discarding.

mod queries;

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{
    Bury, DeadId, DeadLetterStore, Edit, Edited, Error, Marked, Redrive, Redriven, Result,
};
use uuid::Uuid;

use crate::{
    Postgres,
    config::LARGEST_PAYLOAD,
    error::fault,
    failures,
    inbox::{
        answer::{edited, marked, of_each, redriven},
        arrivals::Arrivals,
    },
    row::Columns,
    span::{count, micros},
    sql::statements,
    wake::Signal,
};

statements! {
    /// What is sent about dead letters.
    Statements {
        bury: "dead_letter/bury",
        redrive: "dead_letter/redrive",
        edit: "dead_letter/edit",
        discard: "dead_letter/discard",
        purge: "dead_letter/purge",
        get: "dead_letter/get",
        list: "dead_letter/list",
        stats: "dead_letter/stats",
        tally: "dead_letter/tally",
        history: "dead_letter/history",
    }
}

/// The longest name of who redrives or discards, in bytes.
const MAX_BY: usize = 200;

#[async_trait]
impl DeadLetterStore for Postgres {
    async fn bury(&self, burials: &[Bury]) -> Result<Vec<Marked>> {
        let shared = &self.shared;
        shared
            .call("bury", async {
                if burials.is_empty() {
                    return Ok(Vec::new());
                }
                if burials.iter().any(|burial| burial.failures.is_empty()) {
                    return Err(Error::invalid(
                        "a burial has no failure: name at least one as its cause",
                    ));
                }
                let messages = Columns::of(burials.iter().map(|burial| &burial.message), LARGEST_PAYLOAD)?;
                let arrivals =
                    Arrivals::with_holds(burials.iter().map(|burial| (&burial.arrival, burial.hold)));
                let added = burials
                    .iter()
                    .map(|burial| failures::to_json(&burial.failures))
                    .collect::<Result<Vec<_>>>()?;
                let mut session = shared.session().await?;
                let answers: Vec<i64> = sqlx::query_scalar(shared.dead_letters.bury.get())
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
                    .bind(&added)
                    .bind(shared.short_wait())
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                of_each(&answers, burials.len(), marked)
            })
            .await
    }

    async fn redrive(&self, request: &Redrive) -> Result<Vec<Redriven>> {
        let shared = &self.shared;
        let answers = shared
            .call("redrive", async {
                check_by(&request.by)?;
                if let Some(payload) = &request.payload {
                    if request.ids.len() != 1 {
                        return Err(Error::invalid("payload is given for other than exactly one id"));
                    }
                    check_payload(payload, shared.config.max_payload.get())?;
                }
                let mut session = shared.session().await?;
                let answers: Vec<i64> = sqlx::query_scalar(shared.dead_letters.redrive.get())
                    .bind(uuids(&request.ids))
                    .bind(&request.by)
                    .bind(number(request.max_redrives))
                    .bind(request.max_age.map(micros))
                    .bind(request.payload.as_deref())
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                of_each(&answers, request.ids.len(), redriven)
            })
            .await?;
        shared.wake.notify(Signal::Store);
        Ok(answers)
    }

    async fn edit(&self, request: &Edit) -> Result<Edited> {
        let shared = &self.shared;
        shared
            .call("edit", async {
                check_by(&request.by)?;
                check_payload(&request.payload, shared.config.max_payload.get())?;
                let mut session = shared.session().await?;
                let answer: i64 = sqlx::query_scalar(shared.dead_letters.edit.get())
                    .bind(request.id.as_uuid())
                    .bind(&request.payload[..])
                    .bind(&request.by)
                    .bind(request.seen.map(number))
                    .bind(number(request.max_edits))
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                edited(answer)
            })
            .await
    }

    async fn discard(&self, ids: &[DeadId], by: &str) -> Result<u64> {
        let shared = &self.shared;
        shared
            .call("discard", async {
                check_by(by)?;
                let mut session = shared.session().await?;
                let discarded = sqlx::query(shared.dead_letters.discard.get())
                    .bind(uuids(ids))
                    .bind(by)
                    .execute(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                Ok(discarded.rows_affected())
            })
            .await
    }

    async fn purge(&self, older_than: Duration, limit: usize) -> Result<u64> {
        let shared = &self.shared;
        shared
            .call("purge", async {
                let mut session = shared.session().await?;
                let purged: i64 = sqlx::query_scalar(shared.dead_letters.purge.get())
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

fn uuids(ids: &[DeadId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.as_uuid()).collect()
}

/// As the server counts; more than it can count stands for the most.
fn number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn check_payload(payload: &[u8], most: usize) -> Result<()> {
    if payload.len() > most {
        return Err(Error::too_large("payload", payload.len(), most));
    }
    Ok(())
}

fn check_by(by: &str) -> Result<()> {
    let wrong = if by.is_empty() {
        "by is empty: say who asks".to_owned()
    } else if by.len() > MAX_BY {
        format!("by is {} bytes, the limit is {MAX_BY}", by.len())
    } else if by.contains('\0') {
        "by contains NUL, which the server's text cannot hold".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::invalid(wrong))
}
