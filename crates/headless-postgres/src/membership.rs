//! The nodes, and the end of the claims of those that die.

use std::time::Duration;

use async_trait::async_trait;
use headless_abstractions::{
    Beat, Buried, Cursor, Error, ErrorKind, Incarnation, LivingNode, MembershipStore, NodeEntry, NodeFacts,
    NodeState, Owner, Page, Registration, Result,
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::{
    Postgres,
    error::fault,
    inbox::arrivals::owner_uuid,
    page::{Cursors, foreign, one_more_than},
    span::{count, micros, span},
    sql::{Sql, statements},
    wake::Signal,
};

statements! {
    /// What the membership sends.
    Statements {
        register: "membership/register",
        heartbeat: "membership/heartbeat",
        leave: "membership/leave",
        bury: "membership/bury",
        sweep: "membership/sweep",
        forget: "membership/forget",
        list: "membership/list",
        living: "membership/living",
    }
}

#[async_trait]
impl MembershipStore for Postgres {
    async fn register(&self, registration: &Registration) -> Result<Incarnation> {
        let shared = &self.shared;
        let incarnation = shared
            .call("register", async {
                let mut session = shared.beat_session().await?;
                let incarnation: i64 = sqlx::query_scalar(shared.membership.register.get())
                    .bind(owner_uuid(registration.owner))
                    .bind(&*registration.service)
                    .bind(&*registration.node)
                    .bind(micros(registration.suspect_after))
                    .bind(micros(registration.dead_after))
                    .bind(registration.facts.as_str())
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                Ok(Incarnation::new(incarnation.unsigned_abs()))
            })
            .await?;
        // An earlier death of this owner may have freed something.
        shared.wake.notify(Signal::Store);
        Ok(incarnation)
    }

    async fn heartbeat(&self, owner: Owner, incarnation: Incarnation, facts: &NodeFacts) -> Result<Beat> {
        let shared = &self.shared;
        shared
            .call("heartbeat", async {
                let mut session = shared.beat_session().await?;
                let accepted: Option<bool> = sqlx::query_scalar(shared.membership.heartbeat.get())
                    .bind(owner_uuid(owner))
                    .bind(number(incarnation))
                    .bind(facts.as_str())
                    .fetch_optional(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                Ok(match accepted {
                    Some(_) => Beat::Accepted,
                    None => Beat::Ended,
                })
            })
            .await
    }

    async fn leave(&self, owner: Owner, incarnation: Incarnation) -> Result<bool> {
        let shared = &self.shared;
        let left: bool = shared
            .call("leave", async {
                let mut session = shared.beat_session().await?;
                let left = sqlx::query_scalar(shared.membership.leave.get())
                    .bind(owner_uuid(owner))
                    .bind(number(incarnation))
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                Ok(left)
            })
            .await?;
        if left {
            // It may have freed something.
            shared.wake.notify(Signal::Store);
        }
        Ok(left)
    }

    async fn bury(&self, limit: usize) -> Result<Vec<Buried>> {
        let shared = &self.shared;
        shared
            .call("bury", async {
                one_more_than(limit)?;
                let mut buried = Vec::new();
                // Each in a transaction of its own: what one death takes keeps no lock that another waits for.
                while buried.len() < limit {
                    let mut session = shared.session().await?;
                    let row = sqlx::query(shared.membership.bury.get())
                        .fetch_optional(&mut *session)
                        .await
                        .map_err(fault)?;
                    session.finish(&shared.statements).await?;
                    let Some(row) = row else { break };
                    let death = death(&row)?;
                    if death.freed > 0 {
                        shared.wake.notify(Signal::Store);
                    }
                    buried.push(death);
                }
                Ok(buried)
            })
            .await
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        let shared = &self.shared;
        shared
            .call("sweep", async {
                one_more_than(limit)?;
                let mut freed = 0;
                // Each in a transaction of its own, as for burials.
                for _ in 0..limit {
                    let mut session = shared.session().await?;
                    let here: Option<i64> = sqlx::query_scalar(shared.membership.sweep.get())
                        .fetch_optional(&mut *session)
                        .await
                        .map_err(fault)?;
                    session.finish(&shared.statements).await?;
                    let Some(here) = here else { break };
                    if here > 0 {
                        shared.wake.notify(Signal::Store);
                    }
                    freed += here.unsigned_abs();
                }
                Ok(freed)
            })
            .await
    }

    async fn forget(&self, older_than: Duration, limit: usize) -> Result<u64> {
        let shared = &self.shared;
        shared
            .call("forget", async {
                let mut session = shared.session().await?;
                let forgotten: i64 = sqlx::query_scalar(shared.membership.forget.get())
                    .bind(micros(older_than))
                    .bind(count(limit))
                    .fetch_one(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                Ok(forgotten.unsigned_abs())
            })
            .await
    }

    async fn list(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<NodeEntry>> {
        let list = List {
            operation: "list",
            name: "nodes",
            statement: &self.shared.membership.list,
        };
        list.read(self, after, limit, entry).await
    }

    async fn living(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<LivingNode>> {
        let list = List {
            operation: "living",
            name: "living nodes",
            statement: &self.shared.membership.living,
        };
        list.read(self, after, limit, living).await
    }
}

/// A list of nodes in the order of their incarnations.
struct List<'a> {
    operation: &'static str,
    name: &'static str,
    statement: &'a Sql,
}

impl List<'_> {
    async fn read<T: Send>(
        &self,
        postgres: &Postgres,
        after: Option<&Cursor>,
        limit: usize,
        read: impl Fn(&PgRow) -> Result<T> + Send + Sync,
    ) -> Result<Page<T>> {
        let shared = &postgres.shared;
        shared
            .call(self.operation, async {
                let cursors = Cursors::new(self.name, shared.id);
                let most = one_more_than(limit)?;
                let after: i64 = match cursors.read(after)? {
                    Some(place) => place.parse().map_err(|_| foreign())?,
                    None => 0,
                };
                let mut session = shared.session().await?;
                let rows = sqlx::query(self.statement.get())
                    .bind(after)
                    .bind(most)
                    .fetch_all(&mut *session)
                    .await
                    .map_err(fault)?;
                session.finish(&shared.statements).await?;
                let nodes = rows
                    .iter()
                    .map(|row| Ok((incarnation_of(row)?.to_string(), read(row)?)));
                Ok(cursors.page(limit, nodes.collect::<Result<Vec<_>>>()?))
            })
            .await
    }
}

/// An incarnation as the server counts; one that it cannot count was never there.
fn number(incarnation: Incarnation) -> i64 {
    i64::try_from(incarnation.get()).unwrap_or(i64::MAX)
}

fn incarnation_of(row: &PgRow) -> Result<Incarnation> {
    let number: i64 = row.try_get("incarnation").map_err(fault)?;
    Ok(Incarnation::new(number.unsigned_abs()))
}

fn owner_of(row: &PgRow) -> Result<Owner> {
    let owner: Uuid = row.try_get("owner").map_err(fault)?;
    Ok(Owner::from_bits(owner.as_u128()))
}

fn death(row: &PgRow) -> Result<Buried> {
    let label: String = row.try_get("label").map_err(fault)?;
    let freed: i64 = row.try_get("freed").map_err(fault)?;
    Ok(Buried::new(
        incarnation_of(row)?,
        owner_of(row)?,
        label,
        freed.unsigned_abs(),
    ))
}

fn state_of(row: &PgRow) -> Result<NodeState> {
    let state: i16 = row.try_get("state").map_err(fault)?;
    match state {
        0 => Ok(NodeState::Alive),
        1 => Ok(NodeState::Suspected),
        2 => Ok(NodeState::Dead),
        3 => Ok(NodeState::Left),
        other => Err(Error::new(
            ErrorKind::Internal,
            format!("a node has the state {other}, which this version does not know"),
        )),
    }
}

fn living(row: &PgRow) -> Result<LivingNode> {
    let label: String = row.try_get("label").map_err(fault)?;
    Ok(LivingNode::new(
        incarnation_of(row)?,
        owner_of(row)?,
        label,
        state_of(row)?,
    ))
}

fn entry(row: &PgRow) -> Result<NodeEntry> {
    let text = |name| -> Result<String> { row.try_get(name).map_err(fault) };
    let time = |name| -> Result<Duration> { row.try_get(name).map_err(fault).map(span) };
    let registration = Registration::new(owner_of(row)?, &text("service")?, &text("label")?)?
        .with_silence(time("suspect_after")?, time("dead_after")?)?;
    Ok(NodeEntry::new(incarnation_of(row)?, &registration)
        .with_state(state_of(row)?, time("registered")?, time("silent")?)
        .with_facts(NodeFacts::new(text("facts")?)?))
}
