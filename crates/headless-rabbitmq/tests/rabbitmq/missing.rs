//! The queue of one group is gone, and another group's is not: nothing is accepted that one of them never gets.

use std::time::Duration;

use headless_abstractions::{
    ErrorKind, GroupName, GroupSpec, Sent, TopicOrder, TopicSpec, Topology, Transport,
};
use headless_harness::{FaultProxy, services};
use lapin::{
    options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};

use crate::shop::{
    PATIENCE, Shop, billing, config_at, member_of, message, orders, partitioned, send_all, there, work,
};

fn shipping() -> GroupName {
    GroupName::parse("shipping").unwrap()
}

async fn with_shipping(shop: &Shop) {
    let topology = Topology::new().with_group(GroupSpec::new(shipping(), orders()));
    shop.rabbitmq.declare(&topology).await.unwrap();
}

async fn is_refused_until_it_is_there_again(order: TopicOrder, queue: &str) {
    let Some(shop) = Shop::open(order).await else {
        return;
    };
    with_shipping(&shop).await;
    let channel = shop.rabbitmq.client().await.unwrap();
    channel
        .queue_delete(shop.name(queue), QueueDeleteOptions::default())
        .await
        .unwrap();
    let lost = [message("a:0"), message("a:1"), message("b:0")];
    for answer in shop.rabbitmq.send(&lost).await {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.is_retryable(), "{error}");
        assert!(error.to_string().contains("declare it again"), "{error}");
    }

    with_shipping(&shop).await;
    send_all(&shop.rabbitmq, &lost).await;
    for group in [shipping(), billing()] {
        // The other group may have got some of it twice.
        let member = shop.rabbitmq.subscribe(&member_of(group)).await.unwrap();
        let mut bodies = work(&*member, 3).await;
        bodies.sort();
        assert_eq!(bodies, ["a:0", "a:1", "b:0"]);
        member.close().await.unwrap();
    }
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_accept_nothing_when_one_of_two_groups_has_lost_its_queue() {
    is_refused_until_it_is_there_again(TopicOrder::Unordered, ":shipping:orders").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_accept_nothing_when_one_of_two_groups_has_lost_a_partition() {
    is_refused_until_it_is_there_again(partitioned(1), ":shipping:orders:0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_go_on_for_the_others_when_a_group_is_removed() {
    let Some(shop) = Shop::open(TopicOrder::Unordered).await else {
        return;
    };
    with_shipping(&shop).await;
    shop.rabbitmq.remove_group(&shipping()).await.unwrap();
    for answer in shop.rabbitmq.send(&[message("a:0"), message("a:1")]).await {
        assert_eq!(answer.unwrap(), Sent::Accepted);
    }
    let member = shop.join().await;
    assert_eq!(work(&*member, 2).await, ["a:0", "a:1"]);
    member.close().await.unwrap();
    shop.end().await;
}

/// Without it a group stands still, so that it must not be on one node alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_replicate_the_queue_of_the_members_when_it_is_made() {
    let Some(shop) = Shop::open(partitioned(1)).await else {
        return;
    };
    let channel = shop.rabbitmq.client().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    // The server refuses to declare what is there in another kind.
    let queue = channel
        .queue_declare(shop.name(":billing!members"), options, arguments)
        .await
        .unwrap();
    assert_eq!(queue.consumer_count(), 0);
    shop.end().await;
}

/// The server's good-bye to a channel, for an exchange that is not there, crosses ours, for a send that is cut off. Others
/// that send on the same connection go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_keep_the_connection_when_a_send_is_cut_off_as_the_server_ends_its_channel() {
    const LATENCY: Duration = Duration::from_millis(200);
    let Some(url) = there(services::rabbitmq()) else {
        return;
    };
    let way = FaultProxy::in_front_of(&url).unwrap();
    let config = config_at(&way.url_for(&url).unwrap());
    let shop = Shop::open_with(config, TopicOrder::Unordered).await;
    let other = headless_abstractions::TopicName::parse("others").unwrap();
    let topology = Topology::new()
        .with_topic(TopicSpec::new(other.clone(), TopicOrder::Unordered))
        .with_group(GroupSpec::new(billing(), other.clone()));
    shop.rabbitmq.declare(&topology).await.unwrap();
    let to_other = |body: &str| {
        let mut message = message(body);
        message.topic = other.clone();
        message
    };
    // Each has a channel from now on.
    send_all(&shop.rabbitmq, &[message("a:0")]).await;
    send_all(&shop.rabbitmq, &[to_other("b:0")]).await;
    let channel = shop.rabbitmq.client().await.unwrap();
    channel
        .exchange_delete(shop.name(":orders"), ExchangeDeleteOptions::default())
        .await
        .unwrap();

    way.latency(LATENCY);
    let (lost, safe) = ([message("a:1")], [to_other("b:1")]);
    let cut_off = tokio::time::timeout(LATENCY / 2, shop.rabbitmq.send(&lost));
    let (cut_off, answers) = tokio::join!(cut_off, async {
        let mut answers = Vec::new();
        let sending = async {
            for _ in 0..5 {
                answers.extend(shop.rabbitmq.send(&safe).await);
            }
        };
        tokio::time::timeout(PATIENCE, sending).await.unwrap();
        answers
    });
    assert!(cut_off.is_err(), "it was answered: {cut_off:?}");
    for answer in answers {
        assert_eq!(answer.unwrap(), Sent::Accepted);
    }
    way.latency(Duration::ZERO);
    shop.end().await;
}
