//! The two halves of the flow by sqlx and lapin alone.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt, future::try_join_all};
use headless_abstractions::TopicOrder;
use lapin::{Consumer, options::BasicAckOptions};
use sqlx::{PgPool, Row};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{AT_ONCE, BATCH, messages};
use crate::{args::Args, database::Database, lapin_by_hand::ByHand, measure::Meter, transport::send_by_hand};

/// Stores, claims, publishes in one window of confirms, and deletes: a batch at a time.
pub(super) async fn sent(args: &Args, database: &Database, meter: &Meter, count: usize) -> Result<f64> {
    database
        .script(include_str!("../../queries/raw/create_queue.sql"))
        .await?;
    let raw = ByHand::open(&args.transport, TopicOrder::Unordered).await?;
    let messages = messages(0, count, count)?;
    let mut conn = database.raw.acquire().await?;
    let owner = Uuid::new_v4();
    let rate = meter
        .rate(count, async {
            for batch in messages.chunks(BATCH) {
                send_by_hand(&mut conn, batch).await?;
                let rows = sqlx::query(include_str!("../../queries/raw/receive_queue.sql"))
                    .bind(owner)
                    .bind(i64::try_from(BATCH)?)
                    .fetch_all(&mut *conn)
                    .await?;
                ensure!(rows.len() == batch.len(), "{} rows were claimed", rows.len());
                raw.send(batch).await?;
                let claimed = rows
                    .iter()
                    .map(|row| row.try_get("seq"))
                    .collect::<Result<Vec<i64>, _>>()?;
                sqlx::query(include_str!("../../queries/raw/settle_queue.sql"))
                    .bind(owner)
                    .bind(claimed)
                    .execute(&mut *conn)
                    .await?;
            }
            Ok(())
        })
        .await;
    drop(conn);
    raw.close().await?;
    rate
}

/// Consumes with one transaction for each message: a mark and an effect, several at once.
pub(super) async fn consumed(args: &Args, database: &Database, meter: &Meter, count: usize) -> Result<f64> {
    database
        .script(include_str!("../../queries/raw/create_effects.sql"))
        .await?;
    let raw = ByHand::open(&args.transport, TopicOrder::Unordered).await?;
    for batch in messages(0, count, count)?.chunks(BATCH) {
        raw.send(batch).await?;
    }
    let reader = raw.readers(2 * BATCH).await?.pop().context("there is a queue")?;
    let rate = meter
        .rate(count, async {
            let consumer = Arc::new(Mutex::new(reader.deliveries()));
            let loops = (0..AT_ONCE).map(|_| {
                let (pool, consumer) = (database.raw.clone(), consumer.clone());
                async move { tokio::spawn(handle(pool, consumer, count / AT_ONCE)).await? }
            });
            try_join_all(loops).await.map(drop)
        })
        .await;
    reader.close().await?;
    raw.close().await?;
    rate
}

async fn handle(pool: PgPool, consumer: Arc<Mutex<Consumer>>, count: usize) -> Result<()> {
    for _ in 0..count {
        let next = consumer.lock().await.next().await;
        let delivery = next.context("the consumer has ended")??;
        let id = delivery
            .properties
            .message_id()
            .as_ref()
            .context("there is an id")?
            .as_str()
            .parse::<Uuid>()?;
        let mut tx = pool.begin().await?;
        sqlx::query(include_str!("../../queries/raw/insert_mark.sql"))
            .bind("bench")
            .bind(id)
            .execute(&mut *tx)
            .await?;
        sqlx::query(include_str!("../../queries/raw/insert_effect.sql"))
            .bind(id)
            .bind([0_u8; 8].as_slice())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        delivery.acker.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}
