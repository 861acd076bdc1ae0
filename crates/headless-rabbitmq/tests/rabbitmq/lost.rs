//! The server closes connections, restarts, or loses a queue.

use std::{sync::Arc, time::Duration};

use headless_abstractions::{ErrorKind, Message, Settlement, TopicOrder, Transport};
use headless_harness::{FaultProxy, services};
use headless_rabbitmq::RabbitMq;
use lapin::options::QueueDeleteOptions;

use crate::shop::{PATIENCE, Shop, billing, config_at, message, partitioned, send_all, there, work};

fn of_keys(keys: usize, each: usize) -> Vec<Message> {
    (0..each)
        .flat_map(|place| (0..keys).map(move |key| message(&format!("k{key}:{place}"))))
        .collect()
}

/// Each key's first occurrences are in order.
fn in_order(bodies: &[String], keys: usize, each: usize) {
    for key in 0..keys {
        let prefix = format!("k{key}:");
        let places: Vec<usize> = bodies
            .iter()
            .filter_map(|body| body.strip_prefix(&prefix)?.parse().ok())
            .collect();
        assert_eq!(places, (0..each).collect::<Vec<_>>(), "the places of key {key}");
    }
}

async fn goes_on(order: TopicOrder, disturb: impl FnMut(&mut services::PrivateRabbitMq) + Send + 'static) {
    const KEYS: usize = 10;
    const EACH: usize = 60;
    let Some(mut server) = there(services::private_rabbitmq()) else {
        return;
    };
    let shop = Shop::open_at(&server.url(), order).await;
    let member: Arc<dyn headless_abstractions::Subscriber> = shop.join().await.into();
    let worker = {
        let member = member.clone();
        tokio::spawn(async move { work(&*member, KEYS * EACH).await })
    };
    let mut disturb = disturb;
    let disturbing = tokio::task::spawn_blocking(move || {
        for _ in 0..2 {
            disturb(&mut server);
        }
        server
    });
    send_all(&shop.rabbitmq, &of_keys(KEYS, EACH)).await;
    let bodies = worker.await.unwrap();
    let server = disturbing.await.unwrap();
    assert_eq!(bodies.len(), KEYS * EACH);
    if order.is_ordered() {
        in_order(&bodies, KEYS, EACH);
    }
    // What came twice because an answer was lost is worked off, and then nothing is left.
    let nothing_left = async {
        loop {
            let received = member
                .receive(50, Duration::from_millis(100))
                .await
                .unwrap_or_default();
            let acks: Vec<_> = received
                .deliveries
                .iter()
                .map(|d| Settlement::Ack(d.token))
                .collect();
            drop(member.settle(&acks).await);
            if acks.is_empty() && shop.rabbitmq.lag(&billing()).await.is_ok_and(|lag| lag == 0) {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, nothing_left).await.unwrap();
    member.close().await.unwrap();
    shop.end().await;
    drop(server);
}

fn close_all(server: &mut services::PrivateRabbitMq) {
    server.ctl(&["close_all_connections", "tested"]).unwrap();
}

fn restart(server: &mut services::PrivateRabbitMq) {
    server.restart().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_lose_nothing_when_the_server_closes_all_connections() {
    goes_on(TopicOrder::Unordered, close_all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_keep_key_order_when_the_server_closes_all_connections() {
    goes_on(partitioned(4), close_all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_lose_nothing_when_the_server_restarts() {
    goes_on(TopicOrder::Unordered, restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_keep_key_order_when_the_server_restarts() {
    goes_on(partitioned(4), restart).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_be_told_when_a_queue_is_deleted_under_its_consumer() {
    let Some(shop) = Shop::open(TopicOrder::Unordered).await else {
        return;
    };
    let member = shop.join().await;
    send_all(&shop.rabbitmq, &[message("a:0")]).await;
    assert_eq!(work(&*member, 1).await, ["a:0"]);
    let channel = shop.rabbitmq.client().await.unwrap();
    channel
        .queue_delete(shop.name(":billing:orders"), QueueDeleteOptions::default())
        .await
        .unwrap();
    let told = async {
        loop {
            if let Err(error) = member.receive(1, Duration::from_millis(100)).await {
                break error;
            }
        }
    };
    let error = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    // The group has a right to what is sent now: it is not "unrouted", and is taken once the queue is there again.
    let answer = shop.rabbitmq.send(&[message("a:1")]).await.pop().unwrap();
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.is_retryable(), "{error}");
    shop.declare(TopicOrder::Unordered).await;
    let member = shop.join().await;
    send_all(&shop.rabbitmq, &[message("a:2")]).await;
    assert_eq!(work(&*member, 1).await, ["a:2"]);
    member.close().await.unwrap();
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_be_unavailable_when_the_queue_of_one_partition_is_missing() {
    let Some(shop) = Shop::open(partitioned(1)).await else {
        return;
    };
    let channel = shop.rabbitmq.client().await.unwrap();
    channel
        .queue_delete(shop.name(":billing:orders:0"), QueueDeleteOptions::default())
        .await
        .unwrap();
    for answer in shop.rabbitmq.send(&of_keys(2, 2)).await {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_end_every_send_when_the_server_answers_nothing() {
    let Some(url) = there(services::rabbitmq()) else {
        return;
    };
    let way = FaultProxy::in_front_of(&url).unwrap();
    // A connection that is dead is missed long after the test has given up.
    let config = config_at(&way.url_for(&url).unwrap())
        .with_call_timeout(Duration::from_secs(1))
        .with_heartbeat(Duration::from_secs(60));
    let namespace = config.namespace.clone();
    let shop = Shop::open_with(config, TopicOrder::Unordered).await;
    way.black_hole();
    // One finds the channel that the declaration left; the others need channels of their own, and get none.
    let sends = (0..3).map(|n| {
        let rabbitmq = shop.rabbitmq.clone();
        async move { rabbitmq.send(&[message(&format!("k:{n}"))]).await.pop().unwrap() }
    });
    let answers = tokio::time::timeout(PATIENCE, futures::future::join_all(sends))
        .await
        .unwrap();
    let mut unknown = 0;
    for answer in answers {
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        unknown += usize::from(error.is_outcome_unknown());
    }
    assert_eq!(unknown, 1, "of the one that was sent");
    let directly = RabbitMq::connect_with(config_at(&url).with_namespace(namespace))
        .await
        .unwrap();
    directly.delete_namespace().await.unwrap();
    directly.close().await.unwrap();
}
