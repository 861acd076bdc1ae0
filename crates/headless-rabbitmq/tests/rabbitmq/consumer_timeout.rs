//! The server closes a channel on which a delivery is unsettled for its `consumer_timeout`: deliveries go back before.

use std::time::Duration;

use futures::StreamExt;
use headless_abstractions::{Delivery, ErrorKind, Settlement, Subscriber, TopicOrder, Transport};
use headless_harness::services::{self, PrivateRabbitMq};
use lapin::{
    options::{BasicConsumeOptions, QueueDeclareOptions},
    types::FieldTable,
};

use crate::shop::{
    PATIENCE, Shop, billing, config_at, member_of, message, partitioned, send_all, there, work,
};

/// What the server says of each channel that it closes for it.
const TIMED_OUT: &str = "has timed out waiting";

/// A server with this time-out, which looks every half second (a usual one looks every minute), and a shop at it that
/// knows.
async fn impatient(timeout: Duration, order: TopicOrder) -> Option<(PrivateRabbitMq, Shop)> {
    let server = there(services::private_rabbitmq())?;
    for (setting, time) in [
        ("consumer_timeout", timeout.as_millis()),
        ("channel_tick_interval", 500),
    ] {
        let set = format!("application:set_env(rabbit, {setting}, {time}).");
        server.ctl(&["eval", &set]).unwrap();
    }
    let config = config_at(&server.url()).with_consumer_timeout(timeout);
    let shop = Shop::open_with(config, order).await;
    Some((server, shop))
}

/// A member that may keep what it has for longer than the server lets it.
async fn patient(shop: &Shop) -> Box<dyn Subscriber> {
    let to = member_of(billing()).with_visibility(Duration::from_secs(60));
    shop.rabbitmq.subscribe(&to).await.unwrap()
}

async fn take(member: &dyn Subscriber, count: usize) -> Vec<Delivery> {
    let taking = async {
        let mut taken = Vec::new();
        while taken.len() < count {
            // One long wait: nothing but the driver's own times wakes it.
            taken.extend(member.receive(count, PATIENCE).await.unwrap().deliveries);
        }
        taken
    };
    tokio::time::timeout(PATIENCE, taking).await.unwrap()
}

fn bodies(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries
        .iter()
        .map(|delivery| str::from_utf8(&delivery.message.payload).unwrap())
        .collect()
}

async fn assert_lost(member: &dyn Subscriber, held: &[Delivery]) {
    let acks: Vec<_> = held.iter().map(|d| Settlement::Ack(d.token)).collect();
    for settled in member.settle(&acks).await {
        assert_eq!(settled.unwrap_err().kind(), ErrorKind::LeaseLost);
    }
}

/// The server closed no channel of ours, and does close that of a consumer which just keeps what it has.
async fn assert_closed_none_of_ours(server: &PrivateRabbitMq, shop: &Shop) {
    let channel = shop.rabbitmq.client().await.unwrap();
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), exclusive, FieldTable::default())
        .await
        .unwrap();
    channel
        .basic_publish(
            "".into(),
            queue.name().clone(),
            lapin::options::BasicPublishOptions::default(),
            b"kept",
            lapin::BasicProperties::default(),
        )
        .await
        .unwrap();
    let options = BasicConsumeOptions::default();
    let mut consumer = channel
        .basic_consume(
            queue.name().clone(),
            "keeps".into(),
            options,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let closed = async {
        let mut kept = Vec::new();
        while let Some(Ok(delivery)) = consumer.next().await {
            kept.push(delivery);
        }
        kept.len()
    };
    assert_eq!(tokio::time::timeout(PATIENCE, closed).await.unwrap(), 1);
    let told = async {
        while !server.log().contains(TIMED_OUT) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, told).await.is_err() {
        panic!("the server does not say so: {}", server.log());
    }
    let log = server.log();
    let closed: Vec<&str> = log.lines().filter(|line| line.contains(TIMED_OUT)).collect();
    // It names no consumer (3.10 says its delivery's tag), but the one that just keeps is among them.
    assert_eq!(closed.len(), 1, "the server closed channels of ours: {closed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_give_back_what_is_held_before_the_server_closes_the_channel() {
    let at = impatient(Duration::from_secs(10), TopicOrder::Unordered).await;
    let Some((server, shop)) = at else { return };
    let (holds, works) = (patient(&shop).await, patient(&shop).await);
    send_all(&shop.rabbitmq, &["a:0", "b:0", "c:0"].map(message)).await;
    let held = take(&*holds, 3).await;
    let tokens: Vec<_> = held.iter().map(|delivery| delivery.token).collect();
    for extended in holds.extend(&tokens, Duration::from_millis(100)).await {
        extended.unwrap();
    }
    for extended in holds.extend(&tokens, Duration::from_secs(60)).await {
        let error = extended.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("consumer_timeout"), "{error}");
    }

    let mut came = work(&*works, 3).await;
    came.sort();
    assert_eq!(came, ["a:0", "b:0", "c:0"]);
    assert_lost(&*holds, &held).await;
    assert_closed_none_of_ours(&server, &shop).await;
    assert_eq!(shop.rabbitmq.lag(&billing()).await.unwrap(), 0);
    assert_eq!(shop.ready(":billing!dead").await, 0);
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_hand_a_partition_on_before_the_server_closes_the_channel() {
    // Less than a member's own beat: it is to wake for this.
    let at = impatient(Duration::from_secs(4), partitioned(1)).await;
    let Some((server, shop)) = at else { return };
    let member = patient(&shop).await;
    let sent = ["a:0", "b:0", "a:1"];
    send_all(&shop.rabbitmq, &sent.map(message)).await;
    let held = take(&*member, 3).await;
    assert_eq!(bodies(&held), sent);

    let again = take(&*member, 3).await;
    assert_eq!(bodies(&again), sent, "in place");
    assert_lost(&*member, &held).await;
    let acks: Vec<_> = again.iter().map(|d| Settlement::Ack(d.token)).collect();
    for settled in member.settle(&acks).await {
        settled.unwrap();
    }
    assert_closed_none_of_ours(&server, &shop).await;
    assert_eq!(shop.rabbitmq.lag(&billing()).await.unwrap(), 0);
    member.close().await.unwrap();
    shop.end().await;
}
