//! The transport on RabbitMQ beside the client that it uses (P10): the same kind of queues, messages and acknowledgements.

use std::{num::NonZeroUsize, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt, stream::SelectAll};
use headless_abstractions::{
    GroupName, GroupSpec, Owner, Partitions, Settlement, Subscription, TopicName, TopicOrder, TopicSpec,
    Topology, Transport,
};
use headless_rabbitmq::{Namespace, RabbitMq, RabbitMqConfig};
use uuid::Uuid;

use super::{BATCH, PAYLOAD, Rates, messages};
use crate::{
    args::Args,
    lapin_by_hand::{ByHand, Reader},
    measure::Meter,
    report::{Case, Report},
    samples::Samples,
};

/// How many deliveries may be unsettled: of each queue.
pub(crate) const PREFETCH: usize = 2 * BATCH;
/// How many messages of the loop that awaits each confirm: it is slow.
const FEW: usize = 2_000;

pub(super) async fn run(args: &Args, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let count = if args.quick { 5_000 } else { 50_000 };
    let orders = [
        ("unordered", TopicOrder::Unordered),
        ("ordered", TopicOrder::Partitioned(Partitions::default())),
    ];
    for (name, order) in orders {
        let sending = format!("rabbitmq: send, {name}, batches of 500, beside lapin");
        let consuming = format!("rabbitmq: receive + settle, {name}, beside lapin");
        let awaiting = format!("rabbitmq: send, {name}, beside lapin that awaits each");
        if !(report.wants(&sending) || report.wants(&consuming) || report.wants(&awaiting)) {
            continue;
        }
        let (mut sent, mut consumed, mut awaited) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..meter.rounds() {
            meter.settle().await;
            let ours = ours(args, meter, count, order).await?;
            meter.settle().await;
            let raw = by_hand(args, meter, count, order).await?;
            meter.settle().await;
            let slow = awaiting_each(args, meter, order).await?;
            sent.push([ours.sent, raw.sent]);
            consumed.push([ours.consumed, raw.consumed]);
            awaited.push([ours.sent, slow]);
        }
        report.print(Case::new(sending, "P10", 0.95, sent))?;
        report.print(Case::new(consuming, "P10", 0.9, consumed))?;
        report.print(Case::new(awaiting, "P10", 5.0, awaited))?;
    }
    Ok(())
}

async fn ours(args: &Args, meter: &Meter, count: usize, order: TopicOrder) -> Result<Rates> {
    let rabbitmq = connect(&args.transport, namespace()?).await?;
    let (topic, group) = (TopicName::parse("bench")?, GroupName::parse("bench")?);
    let topology = Topology::new()
        .with_topic(TopicSpec::new(topic.clone(), order))
        .with_group(GroupSpec::new(group.clone(), topic.clone()));
    rabbitmq.declare(&topology).await?;
    let messages = messages(count, order)?;
    let sent = meter
        .rate(count, async {
            for batch in messages.chunks(BATCH) {
                rabbitmq
                    .send(batch)
                    .await
                    .into_iter()
                    .collect::<Result<Vec<_>, _>>()?;
            }
            Ok(())
        })
        .await?;
    let consumed = meter.rate(count, receive(&rabbitmq, group, topic, count)).await?;
    rabbitmq.delete_namespace().await?;
    rabbitmq.close().await?;
    Ok(Rates { sent, consumed })
}

/// A namespace of its own.
pub(crate) fn namespace() -> Result<Namespace> {
    let name = format!("bench_{}", &Uuid::new_v4().simple().to_string()[..12]);
    Ok(Namespace::parse(&name)?)
}

pub(crate) async fn connect(url: &str, namespace: Namespace) -> Result<RabbitMq> {
    let config = RabbitMqConfig::new(url)
        .context("--transport")?
        .with_namespace(namespace);
    Ok(RabbitMq::connect_with(config).await?)
}

async fn receive(rabbitmq: &RabbitMq, group: GroupName, topic: TopicName, count: usize) -> Result<()> {
    let prefetch = NonZeroUsize::new(PREFETCH).unwrap_or(NonZeroUsize::MIN);
    let member = Owner::from_bits(Uuid::new_v4().as_u128());
    let subscription = Subscription::new(group, topic, member).with_prefetch(prefetch);
    let subscriber = rabbitmq.subscribe(&subscription).await?;
    let (mut received, mut acks) = (0, Vec::new());
    while received < count {
        // As core does: what was received is settled beside the next receive.
        let next = subscriber.receive(BATCH, Duration::from_secs(5));
        let (next, settled) = futures::future::join(next, subscriber.settle(&acks)).await;
        settled.into_iter().collect::<Result<(), _>>()?;
        let deliveries = next?.deliveries;
        ensure!(!deliveries.is_empty(), "{received} messages arrived of {count}");
        received += deliveries.len();
        acks = deliveries
            .iter()
            .map(|delivery| Settlement::Ack(delivery.token))
            .collect();
    }
    for settled in subscriber.settle(&acks).await {
        settled?;
    }
    subscriber.close().await?;
    Ok(())
}

async fn by_hand(args: &Args, meter: &Meter, count: usize, order: TopicOrder) -> Result<Rates> {
    let raw = ByHand::open(&args.transport, order).await?;
    let messages = messages(count, order)?;
    let sent = meter
        .rate(count, async {
            for batch in messages.chunks(BATCH) {
                raw.send(batch).await?;
            }
            Ok(())
        })
        .await?;
    let readers = raw.readers(PREFETCH).await?;
    let consumed = meter.rate(count, consume(&readers, count)).await?;
    for reader in readers {
        reader.close().await?;
    }
    raw.close().await?;
    Ok(Rates { sent, consumed })
}

/// Reads all queues at once, and acknowledges what was read of each, a batch of them together at a time.
async fn consume(readers: &[Reader], count: usize) -> Result<()> {
    let mut unsettled: Vec<Option<u64>> = vec![None; readers.len()];
    let mut deliveries: SelectAll<_> = readers
        .iter()
        .enumerate()
        .map(|(n, reader)| reader.deliveries().map(move |delivery| (n, delivery)))
        .collect();
    for received in 1..=count {
        let (n, delivery) = deliveries.next().await.context("the consumers have ended")?;
        if let Some(unsettled) = unsettled.get_mut(n) {
            *unsettled = Some(delivery?.delivery_tag);
        }
        if received % BATCH == 0 || received == count {
            for (reader, tag) in readers.iter().zip(&mut unsettled) {
                if let Some(tag) = tag.take() {
                    reader.settle_up_to(tag).await?;
                }
            }
        }
    }
    Ok(())
}

async fn awaiting_each(args: &Args, meter: &Meter, order: TopicOrder) -> Result<f64> {
    let raw = ByHand::open(&args.transport, order).await?;
    let keyed = order.is_ordered();
    let key = |n| keyed.then(|| format!("key-{n}"));
    let messages = Samples::new("bench", PAYLOAD)?.many(FEW, key)?;
    let rate = meter
        .rate(FEW, async {
            for message in messages.chunks(1) {
                raw.send(message).await?;
            }
            Ok(())
        })
        .await?;
    raw.close().await?;
    Ok(rate)
}
