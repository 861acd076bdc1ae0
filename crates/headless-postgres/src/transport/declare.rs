//! Declaring topics and groups.

use std::{collections::BTreeMap, sync::Arc};

use headless_abstractions::{
    Error, ErrorKind, Partitions, Result, StartFrom, TopicName, TopicOrder, Topology,
};
use sqlx::{Row, postgres::PgRow};

use super::instance;
use crate::{error::fault, postgres::Shared, span::micros, wake::Signal};

pub(super) async fn declare(shared: &Arc<Shared>, topology: &Topology) -> Result<()> {
    let transport = &shared.transport;
    shared
        .guarded("declare", async {
            let named = named(topology)?;
            let names: Vec<&str> = topology.topics.iter().map(|topic| topic.name.as_str()).collect();
            let partitions: Vec<Option<i16>> =
                topology.topics.iter().map(|topic| count(topic.order)).collect();
            let required: Vec<bool> = topology.topics.iter().map(|topic| topic.required).collect();
            let groups: Vec<&str> = topology.groups.iter().map(|spec| spec.group.as_str()).collect();
            let of: Vec<&str> = topology.groups.iter().map(|spec| spec.topic.as_str()).collect();
            let oldest: Vec<bool> = topology
                .groups
                .iter()
                .map(|spec| spec.start == StartFrom::Oldest)
                .collect();
            let own: Vec<bool> = topology.groups.iter().map(|spec| spec.per_instance).collect();
            let mut session = shared.session().await?;
            let refusal = sqlx::query(transport.statements.declare.get())
                .bind(&names)
                .bind(&partitions)
                .bind(&required)
                .bind(&groups)
                .bind(&of)
                .bind(&oldest)
                .bind(&own)
                .bind(transport.instance)
                .bind(micros(instance::LEASE))
                .fetch_optional(&mut *session)
                .await
                .map_err(fault)?;
            session.finish(&shared.statements).await?;
            match refusal {
                Some(row) => Err(refused(&row, &named)?),
                None => Ok(()),
            }
        })
        .await?;
    if topology.groups.iter().any(|spec| spec.per_instance) {
        shared.keep_instance();
    }
    shared.wake.notify(Signal::Transport);
    Ok(())
}

/// The order of each topic that the request names; it must not contradict itself.
fn named(topology: &Topology) -> Result<BTreeMap<&str, TopicOrder>> {
    let mut named = BTreeMap::new();
    for spec in &topology.topics {
        let first = *named.entry(spec.name.as_str()).or_insert(spec.order);
        if first != spec.order {
            return Err(conflict(spec.name.as_str(), first, spec.order));
        }
    }
    Ok(named)
}

/// What the server has against it.
fn refused(row: &PgRow, named: &BTreeMap<&str, TopicOrder>) -> Result<Error> {
    let topic: &str = row.try_get("topic").map_err(fault)?;
    let known: Option<i16> = row.try_get("known").map_err(fault)?;
    if row.try_get("is_known").map_err(fault)? {
        let asked = named.get(topic).copied().unwrap_or(TopicOrder::Unordered);
        return Ok(conflict(topic, order(known)?, asked));
    }
    Ok(unknown_topic(topic))
}

pub(crate) fn unknown_topic(topic: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "the topic was never declared; declare it first",
    )
    .with_resource(format!("topic {topic}"))
}

fn conflict(topic: &str, known: TopicOrder, asked: TopicOrder) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!(
            "the topic is {known} and was declared as {asked}; to change it, run `headless topics repartition`"
        ),
    )
    .with_resource(format!("topic {topic}"))
}

/// The order that this count of the server stands for.
pub(super) fn order(partitions: Option<i16>) -> Result<TopicOrder> {
    Ok(match partitions {
        None => TopicOrder::Unordered,
        Some(count) => TopicOrder::Partitioned(Partitions::new(u16::try_from(count).unwrap_or(0))?),
    })
}

/// The partitions as the server has them. There are at most 1 024.
pub(super) fn count(order: TopicOrder) -> Option<i16> {
    order
        .partitions()
        .map(|partitions| i16::try_from(partitions.get()).unwrap_or(i16::MAX))
}

/// The name of a topic as it is in an error.
pub(super) fn about(topic: &TopicName) -> impl Fn(Error) -> Error {
    move |error| error.with_resource(format!("topic {topic}"))
}
