//! Storing messages, in a transaction of whoever calls.

use std::collections::HashSet;

use headless_abstractions::{Appended, Error, Message, Result};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    error::fault,
    postgres::Shared,
    row::{Columns, key_hash, unless_empty},
    span::micros,
};

/// How many messages are worth a subtransaction: with one in each of many small batches, a transaction would have more of
/// them than the server keeps at hand (64).
const WORTH_A_TRY: usize = 50;

/// Stores messages in the transaction that `conn` is in, or in one of their own.
pub(crate) async fn append(
    shared: &Shared,
    conn: &mut PgConnection,
    messages: &[Message],
) -> Result<Vec<Appended>> {
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let columns = Columns::of(messages, shared.config.max_payload.get())?;
    let delays = messages.iter().map(delay).collect::<Result<Vec<_>>>()?;
    match messages {
        [message] => append_one(shared, conn, message, &columns, delays.first().copied().flatten()).await,
        _ => append_many(shared, conn, messages, &columns, &delays).await,
    }
}

/// One message, without the arrays: what an application's transaction usually has.
async fn append_one(
    shared: &Shared,
    conn: &mut PgConnection,
    message: &Message,
    columns: &Columns<'_>,
    delay: Option<i64>,
) -> Result<Vec<Appended>> {
    let stored = sqlx::query(shared.outbox.append_one.get())
        .bind(columns.ids.first())
        .bind(columns.topics.first())
        .bind(columns.keys.first().copied().flatten())
        .bind(hash(message))
        .bind(columns.occurred_at.first())
        .bind(columns.content_types.first().copied().flatten())
        .bind(columns.headers.first().and_then(Option::as_ref))
        .bind(columns.payloads.first())
        .bind(i16::from(message.priority.get()))
        .bind(delay)
        .execute(conn)
        .await
        .map_err(fault)?
        .rows_affected();
    Ok(vec![if stored == 0 {
        Appended::Duplicate
    } else {
        Appended::Stored
    }])
}

async fn append_many(
    shared: &Shared,
    conn: &mut PgConnection,
    messages: &[Message],
    columns: &Columns<'_>,
    delays: &[Option<i64>],
) -> Result<Vec<Appended>> {
    let priorities: Vec<i16> = messages.iter().map(|m| i16::from(m.priority.get())).collect();
    let priorities = priorities
        .iter()
        .any(|priority| *priority != 0)
        .then_some(priorities);
    let key_hashes: Vec<Option<i64>> = messages.iter().map(hash).collect();
    let ascending = messages.len() >= WORTH_A_TRY && columns.ids.is_sorted_by(|one, next| one < next);
    let stored: Option<Vec<Uuid>> = sqlx::query_scalar(shared.outbox.append.get())
        .bind(&columns.ids)
        .bind(&columns.topics)
        .bind(unless_empty(&columns.keys))
        .bind(unless_empty(&key_hashes))
        .bind(&columns.occurred_at)
        .bind(unless_empty(&columns.content_types))
        .bind(&columns.headers)
        .bind(&columns.payloads)
        .bind(priorities)
        .bind(unless_empty(delays))
        .bind(ascending)
        .fetch_one(conn)
        .await
        .map_err(fault)?;
    Ok(answers(&columns.ids, stored))
}

/// Of each id that was stored, the first message is the one.
fn answers(ids: &[Uuid], stored: Option<Vec<Uuid>>) -> Vec<Appended> {
    let Some(stored) = stored else {
        return vec![Appended::Stored; ids.len()];
    };
    let mut stored: HashSet<Uuid> = stored.into_iter().collect();
    ids.iter()
        .map(|id| {
            if stored.remove(id) {
                Appended::Stored
            } else {
                Appended::Duplicate
            }
        })
        .collect()
}

fn hash(message: &Message) -> Option<i64> {
    let key = message.key.as_ref()?;
    Some(key_hash(message.topic.as_str(), key.as_str()))
}

/// The message's delay in microseconds.
fn delay(message: &Message) -> Result<Option<i64>> {
    match message.deliver_after {
        Some(delay) if delay > Message::MAX_DELAY => {
            Err(Error::invalid("deliver_after is longer than a hundred years")
                .with_resource(format!("message {}", message.id)))
        }
        Some(delay) if !delay.is_zero() => Ok(Some(micros(delay))),
        _ => Ok(None),
    }
}
