//! Our own rows in memory, so that the service can be tried without a server.

use headless::{Context, HandlerResult, Memory, PublishExt, Runtime};

use super::Stored;
use crate::{
    refusal::Refusal,
    statistics::Statistics,
    webhook::{Webhook, WebhookReceived},
};

/// The webhooks by their id.
const WEBHOOKS: &str = "webhooks";
/// How many were received, by repository.
const RECEIVED: &str = "received";
/// What is counted, by repository.
const STATISTICS: &str = "statistics";

pub(super) async fn store(runtime: &Runtime, webhook: &Webhook) -> Result<Stored, Refusal> {
    let mut work = runtime.begin::<Memory>().await?;
    let received = work.get_for_update(RECEIVED, &webhook.repository).await?;
    let number = received.as_deref().map_or(Ok(0), read::<i64>)? + 1;
    let delivery = webhook.delivery.to_string();
    if !work
        .put_if_absent(WEBHOOKS, &delivery, webhook.body.clone())
        .await?
    {
        work.rollback().await?;
        return Ok(Stored::Before);
    }
    work.put(RECEIVED, &webhook.repository, number.to_string())
        .await?;
    work.publish(&webhook.received(number)).await?;
    work.commit().await?;
    Ok(Stored::Now { number })
}

pub(super) async fn count(cx: &Context, webhook: &WebhookReceived) -> HandlerResult {
    let mut work = cx.begin::<Memory>().await?;
    let row = work.get_for_update(STATISTICS, &webhook.repository).await?;
    let mut statistics: Statistics = match row.as_deref() {
        Some(row) => serde_json::from_slice(row)?,
        None => Statistics::default(),
    };
    statistics.gaps += i64::from(webhook.number != statistics.received + 1);
    statistics.received = webhook.number;
    statistics.handled += 1;
    *statistics.events.entry(webhook.event.clone()).or_default() += 1;
    work.put(STATISTICS, &webhook.repository, serde_json::to_vec(&statistics)?)
        .await?;
    work.commit().await?;
    Ok(())
}

pub(super) fn statistics(memory: &Memory, after: &str, limit: u16) -> Result<Vec<Statistics>, Refusal> {
    let rows = memory
        .rows(RECEIVED)
        .into_iter()
        .filter(|(name, _)| name.as_str() > after);
    rows.take(limit.into())
        .map(|(repository, received)| {
            let row = memory.row(STATISTICS, &repository);
            let counted: Statistics = row.as_deref().map_or_else(|| Ok(Statistics::default()), read)?;
            let received = read(&received)?;
            Ok(Statistics {
                repository,
                received,
                ..counted
            })
        })
        .collect()
}

fn read<T: serde::de::DeserializeOwned>(row: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(row).map_err(|error| Refusal::Ours(format!("a row of ours: {error}")))
}
