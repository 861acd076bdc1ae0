//! The transport in memory beside a bounded channel (P11).

use std::{num::NonZeroUsize, time::Duration};

use anyhow::{Result, ensure};
use headless_abstractions::{
    GroupName, GroupSpec, Message, Owner, Partitions, Settlement, Subscription, TopicName, TopicOrder,
    TopicSpec, Topology, Transport,
};
use headless_memory::Memory;
use tokio::sync::mpsc;

use crate::{
    args::Args,
    measure::Meter,
    report::{Case, Report},
    samples::Samples,
};

/// How many messages wait at most, in ours and in the channel.
const BOUND: usize = 10_000;

/// What a sender passes at once, and what a receiver takes.
const BATCH: usize = 500;

pub(crate) async fn run(args: &Args, meter: &Meter, report: &Report<'_>) -> Result<()> {
    let count = if args.quick { 200_000 } else { 2_000_000 };
    for (name, order) in [
        (
            "transport, unordered, beside a bounded mpsc",
            TopicOrder::Unordered,
        ),
        (
            "transport, ordered, beside a bounded mpsc",
            TopicOrder::Partitioned(Partitions::default()),
        ),
    ] {
        if report.wants(name) {
            let rounds = meter
                .turns(
                    || through_memory(meter, count, order),
                    || through_channel(meter, count),
                )
                .await?;
            report.print(Case::new(name, "P11", 0.5, rounds).with_known_raw(2_400_000.0))?;
        }
    }
    Ok(())
}

fn messages(count: usize, order: TopicOrder) -> Result<Vec<Message>> {
    let mut samples = Samples::new("bench", 100)?;
    let keyed = order.is_ordered();
    Ok(samples.many(count, |n| keyed.then(|| format!("key-{}", n % 1_000)))?)
}

/// One sender and one member, acknowledged in batches.
async fn through_memory(meter: &Meter, count: usize, order: TopicOrder) -> Result<f64> {
    let memory = Memory::new();
    let (topic, group) = (TopicName::parse("bench")?, GroupName::parse("bench")?);
    let topology = Topology::new()
        .with_topic(TopicSpec::new(topic.clone(), order))
        .with_group(GroupSpec::new(group.clone(), topic.clone()));
    memory.declare(&topology).await?;
    let prefetch = NonZeroUsize::new(BOUND).unwrap_or(NonZeroUsize::MIN);
    let subscription = Subscription::new(group.clone(), topic, Owner::from_bits(1)).with_prefetch(prefetch);
    let subscriber = memory.subscribe(&subscription).await?;
    let sender = memory.connect();
    let batches: Vec<Vec<Message>> = messages(count, order)?.chunks(BATCH).map(<[_]>::to_vec).collect();
    let rate = meter
        .rate(count, async {
            let sending = tokio::spawn(async move {
                for batch in batches {
                    while sender.lag(&group).await? as usize > BOUND {
                        tokio::task::yield_now().await;
                    }
                    sender
                        .send(&batch)
                        .await
                        .into_iter()
                        .collect::<Result<Vec<_>, _>>()?;
                }
                Result::<(), headless_abstractions::Error>::Ok(())
            });
            let mut received = 0;
            while received < count {
                let deliveries = subscriber
                    .receive(BATCH, Duration::from_secs(1))
                    .await?
                    .deliveries;
                received += deliveries.len();
                let acks: Vec<_> = deliveries
                    .iter()
                    .map(|delivery| Settlement::Ack(delivery.token))
                    .collect();
                for settled in subscriber.settle(&acks).await {
                    settled?;
                }
            }
            sending.await??;
            ensure!(received == count, "{received} messages arrived of {count}");
            Ok(())
        })
        .await?;
    memory.close().await?;
    Ok(rate)
}

async fn through_channel(meter: &Meter, count: usize) -> Result<f64> {
    let (sender, mut receiver) = mpsc::channel(BOUND);
    let messages = messages(count, TopicOrder::Unordered)?;
    meter
        .rate(count, async {
            let sending = tokio::spawn(async move {
                for message in messages {
                    sender.send(message).await?;
                }
                anyhow::Ok(())
            });
            let (mut received, mut taken) = (0, Vec::with_capacity(BATCH));
            while received < count {
                let n = receiver.recv_many(&mut taken, BATCH).await;
                ensure!(n > 0, "the channel closed after {received} messages of {count}");
                received += n;
                taken.clear();
            }
            sending.await?
        })
        .await
}
