//! Joining a group, for the first time or again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use headless_abstractions::{Error, ErrorKind, Owner, Partition, Result, Subscription, TopicName};
use sqlx::{Row, postgres::PgRow};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Member, Part, PostgresSubscriber, State, Turn};
use crate::{
    error::fault,
    postgres::Shared,
    span::micros,
    transport::{unknown_group, unknown_topic},
    wake::Signal,
};

impl PostgresSubscriber {
    pub(crate) async fn join(shared: &Arc<Shared>, to: &Subscription) -> Result<Self> {
        let session = Uuid::new_v4();
        let joined = shared
            .guarded("subscribe", async {
                if to.topics.is_empty() {
                    return Err(Error::invalid("a subscription needs one topic at least"));
                }
                if to.visibility.is_zero() {
                    return Err(Error::invalid(
                        "a subscription's visibility time is zero; give it 1 ms or more",
                    ));
                }
                ask(shared, session, None, to).await
            })
            .await?;
        shared.transport.sessions().insert(session);
        // Others may have to let partitions go.
        shared.wake.notify(Signal::Transport);
        let turn = Turn {
            step: None,
            waiter: shared.wake.waiter(Signal::Transport),
        };
        let member = Member {
            shared: shared.clone(),
            session,
            group: joined.group,
            to: to.clone(),
            state: Mutex::new(State {
                parts: joined.parts,
                ..State::default()
            }),
            changed: Notify::new(),
            leaving: CancellationToken::new(),
            left: AtomicBool::new(false),
        };
        Ok(Self {
            member: Arc::new(member),
            turn: tokio::sync::Mutex::new(turn),
        })
    }
}

impl Member {
    /// Joins again, after the server has forgotten it: unless it leaves.
    pub(super) async fn join_again(&self) -> Result<()> {
        if self.leaving.is_cancelled() {
            return Ok(());
        }
        ask(&self.shared, self.session, Some(self.group), &self.to).await?;
        if self.leaving.is_cancelled() {
            // The server may have heard of that first.
            return self.leave().await;
        }
        self.shared.wake.notify(Signal::Transport);
        Ok(())
    }
}

/// What the server says of a member that joined.
struct Joined {
    group: i32,
    parts: BTreeMap<i32, Part>,
}

async fn ask(shared: &Shared, session: Uuid, group: Option<i32>, to: &Subscription) -> Result<Joined> {
    let topics: Vec<&str> = to.topics.iter().map(TopicName::as_str).collect();
    let mut connection = shared.session().await?;
    let rows = sqlx::query(shared.transport.statements.join.get())
        .bind(session)
        .bind(to.group.as_str())
        .bind(group)
        .bind(&topics)
        .bind(owner(to.member))
        .bind(micros(to.visibility))
        .fetch_all(&mut *connection)
        .await
        .map_err(fault)?;
    connection.finish(&shared.statements).await?;
    let mut joined = Joined {
        group: 0,
        parts: BTreeMap::new(),
    };
    for row in &rows {
        refused(row, group.is_some(), to)?;
        joined.group = row.try_get("grp").map_err(fault)?;
        let topic: &str = row.try_get("topic").map_err(fault)?;
        let number: i16 = row.try_get("number").map_err(fault)?;
        let is_ordered: bool = row.try_get("ordered").map_err(fault)?;
        let number = Partition::new(u16::try_from(number).unwrap_or(0));
        let part = Part {
            topic: TopicName::parse_stored(topic)?,
            partition: is_ordered.then_some(number),
        };
        joined.parts.insert(row.try_get("part").map_err(fault)?, part);
    }
    Ok(joined)
}

/// Why the server did not let it in, if it did not.
fn refused(row: &PgRow, again: bool, to: &Subscription) -> Result<()> {
    let answer: i16 = row.try_get("answer").map_err(fault)?;
    let topic: Option<&str> = row.try_get("topic").map_err(fault)?;
    let topic = topic.unwrap_or_default();
    match answer {
        0 => Ok(()),
        1 => Err(unknown_topic(topic)),
        2 | 3 if again => Err(Error::new(ErrorKind::NotFound, "the group was removed")
            .with_resource(format!("group {}", to.group))),
        2 => Err(unknown_group(&to.group)),
        _ => Err(Error::new(
            ErrorKind::NotFound,
            format!("the group was not declared on topic {topic}; declare it there first"),
        )
        .with_resource(format!("group {}", to.group))),
    }
}

fn owner(owner: Owner) -> Uuid {
    Uuid::from_u128(owner.bits())
}
