//! A reader that knows nothing of this library agrees with what we say.

use std::{collections::BTreeSet, time::Duration};

use futures::StreamExt;
use headless_abstractions::{Sent, TopicOrder, Transport};
use lapin::{
    options::{BasicAckOptions, BasicConsumeOptions},
    types::FieldTable,
};

use crate::shop::{Shop, billing, message, partitioned};

async fn agrees(order: TopicOrder) {
    let Some(shop) = Shop::open(order).await else {
        return;
    };
    let messages: Vec<_> = (0..300).map(|n| message(&format!("k{}:{n}", n % 11))).collect();
    let mut accepted = BTreeSet::new();
    for batch in messages.chunks(70) {
        for (message, answer) in batch.iter().zip(shop.rabbitmq.send(batch).await) {
            assert_eq!(answer.unwrap(), Sent::Accepted);
            accepted.insert(message.id.to_string());
        }
    }
    assert_eq!(shop.rabbitmq.lag(&billing()).await.unwrap(), 300);

    let channel = shop.rabbitmq.client().await.unwrap();
    let queues = match order.partitions() {
        None => vec![shop.name(":billing:orders")],
        Some(partitions) => partitions
            .iter()
            .map(|partition| shop.name(&format!(":billing:orders:{partition}")))
            .collect(),
    };
    let (mut read, mut count) = (BTreeSet::new(), 0);
    for queue in queues {
        let options = BasicConsumeOptions::default();
        let mut consumer = channel
            .basic_consume(queue, "".into(), options, FieldTable::default())
            .await
            .unwrap();
        while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(500), consumer.next()).await
        {
            let delivery = delivery.unwrap();
            delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
            count += 1;
            read.insert(delivery.properties.message_id().as_ref().unwrap().to_string());
        }
    }
    assert_eq!((count, &read), (300, &accepted));
    assert_eq!(shop.rabbitmq.lag(&billing()).await.unwrap(), 0);
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_find_what_was_accepted_when_it_reads_the_queue() {
    agrees(TopicOrder::Unordered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_find_what_was_accepted_when_it_reads_the_partitions() {
    agrees(partitioned(8)).await;
}
