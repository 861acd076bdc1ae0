//! What operators want of services.

use std::{num::NonZeroU32, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    ControlChange, ControlEntry, ControlPut, ControlStore, ControlSubject, ControlVersion, Cursor,
    DesiredState, Error, ErrorKind, Page, Result,
};
use sqlx::{Row, postgres::PgRow};

use crate::{
    Postgres,
    error::fault,
    page::{Cursors, one_more_than},
    span::{count, span},
    sql::statements,
    wake::Signal,
};

statements! {
    /// What is sent of the desired state.
    Statements {
        put: "control/put",
        list: "control/list",
        revision: "control/revision",
    }
}

#[async_trait]
impl ControlStore for Postgres {
    async fn put(&self, change: &ControlChange) -> Result<ControlPut> {
        let shared = &self.shared;
        let put = shared
            .call("put", async {
                let mut session = shared.session().await?;
                let row = sqlx::query(shared.desired.put.get())
                    .bind(&*change.service)
                    .bind(change.subject.to_text())
                    .bind(change.desired.paused)
                    .bind(change.desired.concurrency.map(limit_of).transpose()?)
                    .bind(number(change.expected))
                    .bind(&*change.by)
                    .bind(count(ControlEntry::MOST))
                    .fetch_optional(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                let Some(row) = row else {
                    return Ok(ControlPut::Conflict(None));
                };
                let stored: Option<i64> = row.try_get("stored").map_err(fault)?;
                match stored {
                    None => entry(&row).map(|there| ControlPut::Conflict(Some(there))),
                    Some(..=-1) => Err(change.one_too_many()),
                    Some(version) => Ok(ControlPut::Stored(ControlVersion::new(version.unsigned_abs()))),
                }
            })
            .await?;
        if let ControlPut::Stored(_) = put {
            shared.wake.notify(Signal::Store);
        }
        Ok(put)
    }

    async fn list(&self, service: &str, after: Option<&Cursor>, limit: usize) -> Result<Page<ControlEntry>> {
        let shared = &self.shared;
        shared
            .call("list", async {
                let cursors = Cursors::new("control", shared.id);
                let most = one_more_than(limit)?;
                // No subject is empty: every one comes after it.
                let after = cursors.read(after)?.unwrap_or_default();
                let mut session = shared.session().await?;
                let rows = sqlx::query(shared.desired.list.get())
                    .bind(service)
                    .bind(after)
                    .bind(most)
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                let entries = rows
                    .iter()
                    .map(|row| entry(row).map(|entry| (entry.subject.to_text(), entry)))
                    .collect::<Result<Vec<_>>>()?;
                Ok(cursors.page(limit, entries))
            })
            .await
    }

    async fn revision(&self) -> Result<ControlVersion> {
        let shared = &self.shared;
        shared
            .call("revision", async {
                let mut session = shared.session().await?;
                let revision: i64 = sqlx::query_scalar(shared.desired.revision.get())
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                Ok(ControlVersion::new(revision.unsigned_abs()))
            })
            .await
    }
}

/// A concurrency as the server keeps it.
fn limit_of(concurrency: NonZeroU32) -> Result<i32> {
    i32::try_from(concurrency.get()).map_err(|_| {
        Error::invalid(format!(
            "concurrency is {concurrency}, the most is {}",
            DesiredState::MOST_CONCURRENCY
        ))
    })
}

/// A version as the server counts; one that it cannot count was never there.
fn number(version: ControlVersion) -> i64 {
    i64::try_from(version.get()).unwrap_or(i64::MAX)
}

fn entry(row: &PgRow) -> Result<ControlEntry> {
    let text = |name| -> Result<String> { row.try_get(name).map_err(fault) };
    let version: i64 = row.try_get("version").map_err(fault)?;
    let paused: bool = row.try_get("paused").map_err(fault)?;
    let concurrency: Option<i32> = row.try_get("concurrency").map_err(fault)?;
    let changed: Duration = row.try_get("changed").map_err(fault).map(span)?;
    let desired = DesiredState::nothing()
        .with_paused(paused)
        .with_concurrency(concurrency.and_then(|most| NonZeroU32::new(most.unsigned_abs())))?;
    let change = ControlChange::new(
        &text("service")?,
        ControlSubject::parse(&text("subject")?)?,
        desired,
        &text("changed_by")?,
    )
    .map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "the store holds what no version of this writes",
        )
        .with_source(error)
    })?;
    Ok(ControlEntry::new(&change, ControlVersion::new(version.unsigned_abs())).with_changed(changed))
}
