//! The transport on PostgreSQL beside a queue by hand (P10), and that on RabbitMQ beside its client.

use std::{num::NonZeroUsize, time::Duration};

use anyhow::{Result, ensure};
use headless_abstractions::{
    GroupName, GroupSpec, Message, Owner, Partitions, Settlement, Subscription, TopicName, TopicOrder,
    TopicSpec, Topology, Transport,
};
use headless_postgres::{Postgres, Wake};
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::{
    args::Args,
    database::Database,
    measure::Meter,
    report::{Case, Report},
    samples::Samples,
};

pub(crate) mod rabbitmq;

/// What is sent at once, and received at once.
const BATCH: usize = 500;
const PAYLOAD: usize = 1_024;

pub(crate) async fn run(args: &Args, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let count = if args.quick { 5_000 } else { 50_000 };
    let orders = [
        ("unordered", TopicOrder::Unordered),
        ("ordered", TopicOrder::Partitioned(Partitions::default())),
    ];
    for (name, order) in orders {
        let sending = format!("send, {name}, batches of 500, beside UNNEST");
        let consuming = format!("receive + settle, {name}, beside a lease loop");
        if report.wants(&sending) || report.wants(&consuming) {
            let (mut sent, mut consumed) = (Vec::new(), Vec::new());
            for _ in 0..meter.rounds() {
                meter.settle().await;
                let ours = ours(args, meter, count, order).await?;
                meter.settle().await;
                let raw = by_hand(args, meter, count).await?;
                sent.push([ours.sent, raw.sent]);
                consumed.push([ours.consumed, raw.consumed]);
            }
            report.print(Case::new(sending, "P10", 0.95, sent))?;
            report.print(Case::new(consuming, "P10", 0.9, consumed))?;
        }
    }
    rabbitmq::run(args, meter, report).await
}

/// What was measured in one round.
struct Rates {
    sent: f64,
    consumed: f64,
}

fn messages(count: usize, order: TopicOrder) -> Result<Vec<Message>> {
    let keyed = order.is_ordered();
    let key = |n| keyed.then(|| format!("key-{}", n % 10_000));
    Ok(Samples::new("bench", PAYLOAD)?.many(count, key)?)
}

async fn ours(args: &Args, meter: &Meter, count: usize, order: TopicOrder) -> Result<Rates> {
    let database = Database::open(&args.store).await?;
    let postgres = database.connect(Wake::On).await?;
    let (topic, group) = (TopicName::parse("bench")?, GroupName::parse("bench")?);
    let topology = Topology::new()
        .with_topic(TopicSpec::new(topic.clone(), order))
        .with_group(GroupSpec::new(group.clone(), topic.clone()));
    postgres.declare(&topology).await?;
    let messages = messages(count, order)?;
    let sent = meter
        .rate(count, async {
            for batch in messages.chunks(BATCH) {
                postgres
                    .send(batch)
                    .await
                    .into_iter()
                    .collect::<Result<Vec<_>, _>>()?;
            }
            Ok(())
        })
        .await?;
    let consumed = meter.rate(count, receive(&postgres, group, topic, count)).await?;
    postgres.close().await?;
    database.drop().await?;
    Ok(Rates { sent, consumed })
}

async fn receive(postgres: &Postgres, group: GroupName, topic: TopicName, count: usize) -> Result<()> {
    let prefetch = NonZeroUsize::new(2 * BATCH).unwrap_or(NonZeroUsize::MIN);
    let member = Owner::from_bits(Uuid::new_v4().as_u128());
    let subscription = Subscription::new(group, topic, member).with_prefetch(prefetch);
    let subscriber = postgres.subscribe(&subscription).await?;
    let mut received = 0;
    while received < count {
        let deliveries = subscriber
            .receive(BATCH, Duration::from_secs(5))
            .await?
            .deliveries;
        ensure!(!deliveries.is_empty(), "{received} messages arrived of {count}");
        received += deliveries.len();
        let acks: Vec<_> = deliveries
            .iter()
            .map(|delivery| Settlement::Ack(delivery.token))
            .collect();
        for settled in subscriber.settle(&acks).await {
            settled?;
        }
    }
    subscriber.close().await?;
    Ok(())
}

async fn by_hand(args: &Args, meter: &Meter, count: usize) -> Result<Rates> {
    let database = Database::open(&args.store).await?;
    database.connect(Wake::Off).await?.close().await?;
    database
        .script(include_str!("../queries/raw/create_queue.sql"))
        .await?;
    let messages = messages(count, TopicOrder::Unordered)?;
    let mut conn = database.raw.acquire().await?;
    let sent = meter
        .rate(count, async {
            for batch in messages.chunks(BATCH) {
                send_by_hand(&mut conn, batch).await?;
            }
            Ok(())
        })
        .await?;
    let consumed = meter.rate(count, consume_by_hand(&mut conn, count)).await?;
    drop(conn);
    database.drop().await?;
    Ok(Rates { sent, consumed })
}

pub(crate) async fn send_by_hand(conn: &mut PgConnection, batch: &[Message]) -> Result<()> {
    let of = |pick: fn(&Message) -> Option<&str>| batch.iter().map(pick).collect::<Vec<_>>();
    sqlx::query(include_str!("../queries/raw/send_queue.sql"))
        .bind(batch.iter().map(|m| m.id.as_uuid()).collect::<Vec<_>>())
        .bind(of(|m| Some(m.topic.as_str())))
        .bind(of(|m| m.key.as_ref().map(|key| key.as_str())))
        .bind(batch.iter().map(|m| m.occurred_at).collect::<Vec<_>>())
        .bind(of(|_| None))
        .bind(of(|_| Some("{\"hl-type\":\"bench\"}")))
        .bind(batch.iter().map(|m| m.payload.as_ref()).collect::<Vec<_>>())
        .execute(conn)
        .await?;
    Ok(())
}

async fn consume_by_hand(conn: &mut PgConnection, count: usize) -> Result<()> {
    let (owner, mut received) = (Uuid::new_v4(), 0);
    while received < count {
        let rows = sqlx::query(include_str!("../queries/raw/receive_queue.sql"))
            .bind(owner)
            .bind(BATCH as i64)
            .fetch_all(&mut *conn)
            .await?;
        ensure!(!rows.is_empty(), "{received} messages arrived of {count}");
        received += rows.len();
        let claimed = rows
            .iter()
            .map(|row| row.try_get("seq"))
            .collect::<Result<Vec<i64>, _>>()?;
        sqlx::query(include_str!("../queries/raw/settle_queue.sql"))
            .bind(owner)
            .bind(claimed)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}
