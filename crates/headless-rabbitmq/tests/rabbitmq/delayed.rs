//! Delayed messages: they come when they are due, whatever becomes of the server and of their groups meanwhile.

use std::time::Duration;

use headless_abstractions::{
    ErrorKind, GroupName, GroupSpec, Message, Sent, Subscriber, TopicOrder, Topology, Transport,
};
use headless_harness::services::{self, PrivateRabbitMq, Stop};
use headless_rabbitmq::RabbitMq;
use lapin::options::QueueDeleteOptions;
use tokio::{task::spawn_blocking, time::Instant};

use crate::shop::{
    PATIENCE, Shop, billing, config_at, member_of, message, orders, partitioned, there, work, work_until,
};

/// Long enough for the server to be killed, started and joined before.
pub(crate) const LATER: Duration = Duration::from_secs(12);
/// How late something may be on a busy machine, or while a server that was killed starts.
const SLACK: Duration = Duration::from_secs(20);
/// The queue that it waits in.
pub(crate) const WAITING: &str = ":billing:orders!wait:12";

pub(crate) fn shipping() -> GroupName {
    GroupName::parse("shipping").unwrap()
}

pub(crate) fn delayed(body: &str, by: Duration) -> Message {
    let mut message = message(body);
    message.deliver_after = Some(by);
    message
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long the server took, by this process's clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// On the server that tests share, with time for a busy one.
pub(crate) async fn open(order: TopicOrder) -> Option<Shop> {
    Some(open_at(&there(services::rabbitmq())?, order).await)
}

pub(crate) async fn open_at(url: &str, order: TopicOrder) -> Shop {
    Shop::open_with(config_at(url).with_call_timeout(PATIENCE), order).await
}

pub(crate) async fn accepted(rabbitmq: &RabbitMq, batch: &[Message]) {
    for answer in rabbitmq.send(batch).await {
        assert_eq!(answer.unwrap(), Sent::Accepted);
    }
}

/// What comes in this time.
async fn comes_within(member: &dyn Subscriber, time: Duration) -> usize {
    member.receive(10, time).await.unwrap().deliveries.len()
}

async fn killed_and_started(mut server: PrivateRabbitMq) -> PrivateRabbitMq {
    spawn_blocking(move || {
        server.stop(Stop::Immediate).unwrap();
        server.start().unwrap();
        server
    })
    .await
    .unwrap()
}

/// Joins as soon as the server has what it had.
async fn joins(shop: &Shop) -> Box<dyn Subscriber> {
    let joining = async {
        loop {
            match shop.rabbitmq.subscribe(&member_of(billing())).await {
                Ok(member) => break member,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, joining).await.unwrap()
}

/// The first message with a delay makes the queue that it waits in, and is confirmed a moment before the server is killed.
async fn comes_after_a_crash(order: TopicOrder) {
    let Some(server) = there(services::private_rabbitmq()) else {
        return;
    };
    let shop = open_at(&server.url(), order).await;
    // What was declared, and not what the send makes: a server may forget the first for seconds after it has said yes, as
    // the page for users says, and is given the time for the second.
    let synced = "mnesia:sync_log(), [ok = dets:sync(Table) || Table <- dets:all()].";
    server.ctl(&["eval", synced]).unwrap();
    let batch = [
        delayed("a:0", LATER),
        delayed("a:1", LATER),
        delayed("b:0", LATER),
    ];
    accepted(&shop.rabbitmq, &batch).await;
    let sent = now();
    let server = killed_and_started(server).await;
    let member = joins(&shop).await;
    let bodies = work(&*member, batch.len()).await;
    // What was accepted last was sent a moment before that.
    let took = sent.elapsed();
    assert!(took >= LATER - Duration::from_secs(1), "early: after {took:?}");
    assert!(took < LATER + SLACK, "late: after {took:?}");
    let of_a: Vec<_> = bodies.iter().filter(|body| body.starts_with('a')).collect();
    if order.is_ordered() {
        assert_eq!(of_a, ["a:0", "a:1"]);
    }
    assert_eq!(shop.rabbitmq.lag(&billing()).await.unwrap(), 0);
    member.close().await.unwrap();
    shop.end().await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_come_when_due_when_the_server_was_killed_meanwhile() {
    comes_after_a_crash(TopicOrder::Unordered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_take_its_place_when_due_when_the_server_was_killed_meanwhile() {
    comes_after_a_crash(partitioned(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_be_of_the_groups_that_there_were_when_it_was_sent() {
    const DELAY: Duration = Duration::from_secs(2);
    let Some(shop) = open(TopicOrder::Unordered).await else {
        return;
    };
    let topology = Topology::new().with_group(GroupSpec::new(shipping(), orders()));
    shop.rabbitmq.declare(&topology).await.unwrap();
    accepted(&shop.rabbitmq, &[delayed("a:0", DELAY)]).await;
    shop.rabbitmq.remove_group(&shipping()).await.unwrap();
    shop.rabbitmq.declare(&topology).await.unwrap();
    assert_eq!(shop.rabbitmq.lag(&billing()).await.unwrap(), 1);
    assert_eq!(shop.rabbitmq.lag(&shipping()).await.unwrap(), 0, "it begins anew");
    let anew = shop.rabbitmq.subscribe(&member_of(shipping())).await.unwrap();
    let member = shop.join().await;
    assert_eq!(work(&*member, 1).await, ["a:0"]);
    assert_eq!(comes_within(&*anew, Duration::from_millis(500)).await, 0);
    // And it has what is sent from now on.
    accepted(&shop.rabbitmq, &[delayed("a:1", DELAY)]).await;
    assert_eq!(work(&*anew, 1).await, ["a:1"]);
    assert_eq!(work(&*member, 1).await, ["a:1"]);

    for group in [billing(), shipping()] {
        shop.rabbitmq.remove_group(&group).await.unwrap();
    }
    for answer in shop.rabbitmq.send(&[delayed("a:2", DELAY)]).await {
        assert_eq!(answer.unwrap(), Sent::Unrouted);
    }
    shop.end().await;
}

/// Its place is that of the moment when it is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_take_its_place_when_it_is_due_when_the_topic_is_ordered() {
    let Some(shop) = open(partitioned(1)).await else {
        return;
    };
    let member = shop.join().await;
    let batch = [
        delayed("a:long", Duration::from_secs(4)),
        delayed("a:short", Duration::from_secs(2)),
        message("a:now"),
    ];
    accepted(&shop.rabbitmq, &batch).await;
    let sent = now();
    // The server counts from the moment when it got them.
    assert_eq!(work(&*member, 3).await, ["a:now", "a:short", "a:long"]);
    assert!(
        sent.elapsed() > Duration::from_secs(3),
        "the long one did not wait"
    );
    // Of about the same length: the shorter one waits for the one before it, and no longer than that.
    let batch = [
        delayed("a:first", Duration::from_millis(2_000)),
        delayed("a:second", Duration::from_millis(1_100)),
    ];
    accepted(&shop.rabbitmq, &batch).await;
    let sent = now();
    assert_eq!(work(&*member, 2).await, ["a:first", "a:second"]);
    let took = sent.elapsed();
    assert!(
        took > Duration::from_secs(1),
        "the first did not wait: after {took:?}"
    );
    // Each was due by then; what comes at twice that waited for something else.
    assert!(
        took < Duration::from_secs(6),
        "the second waited for longer: {took:?}"
    );
    member.close().await.unwrap();
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_stay_where_it_waits_when_the_queue_of_its_group_is_missing() {
    const DELAY: Duration = Duration::from_secs(2);
    let Some(server) = there(services::private_rabbitmq()) else {
        return;
    };
    // A usual server tries again after three minutes.
    let soon = "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 1000).";
    server.ctl(&["eval", soon]).unwrap();
    let shop = open_at(&server.url(), TopicOrder::Unordered).await;
    accepted(&shop.rabbitmq, &[delayed("a:0", DELAY)]).await;
    let channel = shop.rabbitmq.client().await.unwrap();
    channel
        .queue_delete(shop.name(":billing:orders"), QueueDeleteOptions::default())
        .await
        .unwrap();
    // Longer than it waits: it is tried, and refused.
    tokio::time::sleep(DELAY * 2).await;
    shop.declare(TopicOrder::Unordered).await;
    let member = shop.join().await;
    assert_eq!(work(&*member, 1).await, ["a:0"]);
    member.close().await.unwrap();
    shop.end().await;
}

/// What another process makes when it sends first is used by those that know nothing of it, and the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_reach_every_group_when_processes_send_and_declare_at_once() {
    const DELAY: Duration = Duration::from_secs(1);
    const GROUPS: usize = 4;
    let Some(shop) = open(TopicOrder::Unordered).await else {
        return;
    };
    let config =
        config_at(&there(services::rabbitmq()).unwrap()).with_namespace(shop.config.namespace.clone());
    let other = RabbitMq::connect_with(config.with_call_timeout(PATIENCE))
        .await
        .unwrap();
    let groups: Vec<_> = (0..GROUPS)
        .map(|at| GroupName::parse(&format!("group{at}")).unwrap())
        .collect();
    let declaring = async {
        for group in &groups {
            let topology = Topology::new().with_group(GroupSpec::new(group.clone(), orders()));
            shop.rabbitmq.declare(&topology).await.unwrap();
        }
    };
    let first = [delayed("a:0", DELAY)];
    let ((), ()) = tokio::join!(declaring, accepted(&other, &first));
    accepted(&other, &[delayed("a:1", DELAY)]).await;
    for group in groups {
        let member = shop.rabbitmq.subscribe(&member_of(group)).await.unwrap();
        // The first one may have been sent before the group was declared.
        let is_there = |bodies: &[String]| bodies.iter().any(|body| body == "a:1");
        let bodies = work_until(&*member, is_there).await;
        assert!(
            bodies.iter().all(|body| body == "a:0" || body == "a:1"),
            "{bodies:?}"
        );
        member.close().await.unwrap();
    }
    other.close().await.unwrap();
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_be_refused_alone_when_its_delay_is_too_long() {
    let Some(shop) = open(TopicOrder::Unordered).await else {
        return;
    };
    let too_long = Duration::from_secs(48 * 24 * 3600 + 1);
    let batch = [delayed("a:0", too_long), message("b:0"), message("a:1")];
    let mut answers = shop.rabbitmq.send(&batch).await.into_iter();
    let error = answers.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("deliver_after"), "{error}");
    assert_eq!(answers.next().unwrap().unwrap(), Sent::Accepted);
    // Of the same key: it is not to overtake.
    assert_eq!(answers.next().unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    shop.end().await;
}
