//! The queues in which delayed messages wait: when they are made, how old they are before they are used, and who waits
//! for that.

use std::{num::NonZeroUsize, time::Duration};

use headless_abstractions::{ErrorKind, GroupSpec, TopicOrder, Topology, Transport};
use headless_rabbitmq::RabbitMq;
use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};

use crate::{
    delayed::{LATER, WAITING, accepted, delayed, now, open, shipping},
    shop::{billing, message, orders, send_all, work},
};

/// How old a queue is before it is used, as the page for users says.
const WRITTEN: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_make_its_queue_again_when_that_was_deleted() {
    let Some(shop) = open(TopicOrder::Unordered).await else {
        return;
    };
    let member = shop.join().await;
    accepted(&shop.rabbitmq, &[delayed("a:0", LATER)]).await;
    let channel = shop.rabbitmq.client().await.unwrap();
    channel
        .queue_delete(shop.name(WAITING), QueueDeleteOptions::default())
        .await
        .unwrap();
    assert_eq!(
        shop.rabbitmq.lag(&billing()).await.unwrap(),
        0,
        "it went with its queue"
    );
    let sending = now();
    assert_eq!(send_all(&shop.rabbitmq, &[delayed("a:1", LATER)]).await, 1);
    assert!(sending.elapsed() >= WRITTEN, "a queue is new again");
    assert_eq!(shop.rabbitmq.lag(&billing()).await.unwrap(), 1);
    for exchange in [WAITING, ":orders!wait:12"] {
        channel
            .exchange_delete(shop.name(exchange), ExchangeDeleteOptions::default())
            .await
            .unwrap();
        assert_eq!(send_all(&shop.rabbitmq, &[delayed("a:2", LATER)]).await, 1);
    }
    assert_eq!(work(&*member, 3).await.len(), 3);
    member.close().await.unwrap();
    shop.end().await;
}

/// Who made the queues may have gone before they could be used, and may have left them half a second old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_wait_for_its_queue_when_the_first_attempt_did_not_finish() {
    const SHORT: Duration = Duration::from_secs(2);
    let Some(shop) = open(TopicOrder::Unordered).await else {
        return;
    };
    let hasty = RabbitMq::connect_with(shop.config.clone().with_call_timeout(SHORT))
        .await
        .unwrap();
    let error = hasty.send(&[delayed("a:0", LATER)]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.is_retryable() && !error.is_outcome_unknown(), "{error}");
    hasty.close().await.unwrap();

    let sending = now();
    accepted(&shop.rabbitmq, &[delayed("a:1", LATER)]).await;
    let took = sending.elapsed();
    assert!(took >= WRITTEN, "into a queue that was made {took:?} ago");
    // And no longer for what is known to be old.
    let other = RabbitMq::connect_with(shop.config.clone()).await.unwrap();
    let sending = now();
    accepted(&other, &[delayed("a:2", LATER)]).await;
    assert!(sending.elapsed() < WRITTEN, "after {:?}", sending.elapsed());
    other.close().await.unwrap();
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_be_sent_in_the_end_when_its_queue_takes_longer_than_a_call() {
    const SHORT: Duration = Duration::from_secs(2);
    let Some(shop) = open(TopicOrder::Unordered).await else {
        return;
    };
    let hasty = RabbitMq::connect_with(shop.config.clone().with_call_timeout(SHORT))
        .await
        .unwrap();
    let sending = now();
    assert!(send_all(&hasty, &[delayed("a:0", LATER)]).await > 0);
    let took = sending.elapsed();
    assert!(took >= WRITTEN, "into a queue that was made {took:?} ago");
    hasty.close().await.unwrap();
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_hold_up_nobody_when_queues_of_delays_are_made() {
    const LENGTHS: u32 = 10;
    let Some(shop) = open(TopicOrder::Unordered).await else {
        return;
    };
    let config = shop.config.clone().with_publish_channels(NonZeroUsize::MIN);
    let narrow = RabbitMq::connect_with(config).await.unwrap();
    let sending = now();
    let all = (0..LENGTHS).map(|at| {
        let narrow = narrow.clone();
        async move {
            let by = Duration::from_secs(60) * 2_u32.pow(at);
            accepted(&narrow, &[delayed("a:0", by)]).await;
            sending.elapsed()
        }
    });
    let plain = async {
        accepted(&narrow, &[message("b:0")]).await;
        sending.elapsed()
    };
    let (took, plain) = tokio::join!(futures::future::join_all(all), plain);
    let last = took.iter().max().unwrap();
    assert!(plain < WRITTEN, "a message without a delay waited {plain:?}");
    assert!(
        *last < WRITTEN * LENGTHS / 2,
        "they waited for each other: {took:?}"
    );
    narrow.close().await.unwrap();
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_have_old_queues_when_a_group_is_declared_on_a_topic_with_delays() {
    let Some(shop) = open(TopicOrder::Unordered).await else {
        return;
    };
    accepted(&shop.rabbitmq, &[delayed("a:0", LATER)]).await;
    let declaring = now();
    let topology = Topology::new().with_group(GroupSpec::new(shipping(), orders()));
    shop.rabbitmq.declare(&topology).await.unwrap();
    let took = declaring.elapsed();
    assert!(took >= WRITTEN, "its queue was made {took:?} ago");
    accepted(&shop.rabbitmq, &[delayed("a:1", LATER)]).await;
    assert_eq!(shop.rabbitmq.lag(&billing()).await.unwrap(), 2);
    assert_eq!(shop.rabbitmq.lag(&shipping()).await.unwrap(), 1);
    shop.end().await;
}

/// What the server refuses says nothing of other queues: nobody makes sure of them again, under a lock that all share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_not_be_looked_at_again_when_something_else_is_refused() {
    let Some(shop) = open(TopicOrder::Unordered).await else {
        return;
    };
    accepted(&shop.rabbitmq, &[delayed("a:0", LATER)]).await;
    let channel = shop.rabbitmq.client().await.unwrap();
    channel
        .queue_delete(shop.name(":billing:orders"), QueueDeleteOptions::default())
        .await
        .unwrap();
    // From now on nobody can change anything.
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(shop.name("!lock"), exclusive, FieldTable::default())
        .await
        .unwrap();
    let error = shop.rabbitmq.send(&[message("b:0")]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    accepted(&shop.rabbitmq, &[delayed("a:1", LATER)]).await;
    channel
        .queue_delete(shop.name("!lock"), QueueDeleteOptions::default())
        .await
        .unwrap();
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_go_with_the_last_group_of_their_topic() {
    let Some(shop) = open(TopicOrder::Unordered).await else {
        return;
    };
    let topology = Topology::new().with_group(GroupSpec::new(shipping(), orders()));
    shop.rabbitmq.declare(&topology).await.unwrap();
    accepted(&shop.rabbitmq, &[delayed("a:0", LATER)]).await;
    let is_there = async || {
        let passive = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let channel = shop.rabbitmq.client().await.unwrap();
        channel
            .exchange_declare(
                shop.name(":orders!wait:12"),
                ExchangeKind::Fanout,
                passive,
                FieldTable::default(),
            )
            .await
            .is_ok()
    };
    shop.rabbitmq.remove_group(&billing()).await.unwrap();
    assert!(is_there().await);
    shop.rabbitmq.remove_group(&shipping()).await.unwrap();
    assert!(!is_there().await);
    // The next group begins without: it takes no queues over, and none is waited for.
    let declaring = now();
    shop.declare(TopicOrder::Unordered).await;
    assert!(declaring.elapsed() < WRITTEN, "after {:?}", declaring.elapsed());
    assert_eq!(send_all(&shop.rabbitmq, &[delayed("a:1", LATER)]).await, 0);
    shop.end().await;
}
