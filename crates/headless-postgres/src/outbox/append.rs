//! Storing messages, in a transaction of whoever calls.

use std::collections::HashSet;

use headless_abstractions::{Appended, Error, Message, Result};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{error::fault, postgres::Shared, row::Columns, span::micros};

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
    let priorities: Vec<i16> = messages.iter().map(|m| i16::from(m.priority.get())).collect();
    let delays = messages.iter().map(delay).collect::<Result<Vec<_>>>()?;
    let stored: Vec<Uuid> = sqlx::query_scalar(shared.outbox.append.get())
        .bind(&columns.ids)
        .bind(&columns.topics)
        .bind(&columns.keys)
        .bind(&columns.key_hashes)
        .bind(&columns.occurred_at)
        .bind(&columns.content_types)
        .bind(&columns.headers)
        .bind(&columns.payloads)
        .bind(&priorities)
        .bind(&delays)
        .fetch_all(conn)
        .await
        .map_err(fault)?;
    Ok(answers(&columns.ids, stored))
}

/// Of each id that was stored, the first message is the one.
fn answers(ids: &[Uuid], stored: Vec<Uuid>) -> Vec<Appended> {
    if stored.len() == ids.len() {
        return vec![Appended::Stored; ids.len()];
    }
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
