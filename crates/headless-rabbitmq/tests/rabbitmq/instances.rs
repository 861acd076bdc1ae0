//! Groups of one process: they last as long as it does, and no longer.

use std::time::Duration;

use headless_abstractions::{
    ErrorKind, GroupName, GroupSpec, Sent, Subscriber, TopicOrder, TopicSpec, Topology, Transport,
};
use headless_harness::{FaultProxy, services};
use headless_rabbitmq::RabbitMq;
use tokio::task::spawn_blocking;

use crate::shop::{
    PATIENCE, Shop, billing, config_at, member_of, message, orders, partitioned, send_all, there, work,
};

/// A group outlives its process by this.
const OUTLIVES: Duration = Duration::from_secs(10);

fn mine() -> GroupName {
    GroupName::parse("mine").unwrap()
}

fn topology(order: TopicOrder) -> Topology {
    Topology::new()
        .with_topic(TopicSpec::new(orders(), order))
        .with_group(GroupSpec::new(mine(), orders()).with_per_instance())
}

/// A process at the same place, through this.
async fn another(shop: &Shop, url: &str) -> RabbitMq {
    let config = config_at(url).with_namespace(shop.config.namespace.clone());
    RabbitMq::connect_with(config).await.unwrap()
}

async fn joins(rabbitmq: &RabbitMq) -> Box<dyn Subscriber> {
    let joining = async {
        loop {
            match rabbitmq.subscribe(&member_of(mine())).await {
                Ok(member) => break member,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, joining).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_last_when_its_process_loses_its_connections() {
    let Some(url) = there(services::rabbitmq()) else {
        return;
    };
    let shop = Shop::open(TopicOrder::Unordered).await.unwrap();
    let way = FaultProxy::in_front_of(&url).unwrap();
    let process = another(&shop, &way.url_for(&url).unwrap()).await;
    process.declare(&topology(TopicOrder::Unordered)).await.unwrap();
    way.reset();
    way.pass();
    // Longer than it would outlive its process: the others have looked.
    tokio::time::sleep(OUTLIVES + Duration::from_secs(2)).await;
    send_all(&shop.rabbitmq, &[message("a:0")]).await;
    assert_eq!(shop.rabbitmq.lag(&mine()).await.unwrap(), 1);
    let member = joins(&process).await;
    assert_eq!(work(&*member, 1).await, ["a:0"]);
    member.close().await.unwrap();

    // Removed and declared anew it is kept anew.
    process.remove_group(&mine()).await.unwrap();
    process.declare(&topology(TopicOrder::Unordered)).await.unwrap();
    tokio::time::sleep(OUTLIVES + Duration::from_secs(2)).await;
    assert_eq!(shop.rabbitmq.lag(&mine()).await.unwrap(), 0);

    process.close().await.unwrap();
    let error = shop.rabbitmq.lag(&mine()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_last_when_the_server_restarts() {
    let Some(server) = there(services::private_rabbitmq()) else {
        return;
    };
    let shop = Shop::open_at(&server.url(), partitioned(2)).await;
    shop.rabbitmq.declare(&topology(partitioned(2))).await.unwrap();
    send_all(&shop.rabbitmq, &[message("a:0")]).await;
    let server = spawn_blocking(move || {
        let mut server = server;
        server.restart().unwrap();
        server
    })
    .await
    .unwrap();
    let member = joins(&shop.rabbitmq).await;
    assert_eq!(work(&*member, 1).await, ["a:0"]);
    tokio::time::sleep(OUTLIVES + Duration::from_secs(2)).await;
    send_all(&shop.rabbitmq, &[message("a:1")]).await;
    assert_eq!(work(&*member, 1).await, ["a:1"]);
    member.close().await.unwrap();
    shop.end().await;
    drop(server);
}

/// Nobody asks for it, and nobody says good-bye: who sends finds it, and nothing gathers. Others get everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_be_ended_by_who_sends_when_its_process_is_gone() {
    let Some(url) = there(services::rabbitmq()) else {
        return;
    };
    let shop = Shop::open(TopicOrder::Unordered).await.unwrap();
    let process = another(&shop, &url).await;
    process.declare(&topology(TopicOrder::Unordered)).await.unwrap();
    send_all(&shop.rabbitmq, &[message("a:0")]).await;
    // The last handle: what keeps the group goes with it.
    drop(process);
    let members = shop.name(":mine!members");
    let mut sent = 1;
    let ends = async {
        loop {
            assert_eq!(
                send_all(&shop.rabbitmq, &[message(&format!("a:{sent}"))]).await,
                0,
                "refused"
            );
            sent += 1;
            let channel = shop.rabbitmq.client().await.unwrap();
            let passive = lapin::options::QueueDeclareOptions {
                passive: true,
                ..lapin::options::QueueDeclareOptions::default()
            };
            let found = channel.queue_declare(members.clone(), passive, lapin::types::FieldTable::default());
            if found.await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    tokio::time::timeout(OUTLIVES * 3, ends).await.unwrap();
    let member = shop.join().await;
    assert_eq!(work(&*member, sent).await.len(), sent);
    member.close().await.unwrap();
    // A lasting group is nobody's to end.
    assert_eq!(shop.rabbitmq.lag(&billing()).await.unwrap(), 0);
    shop.rabbitmq.remove_group(&billing()).await.unwrap();
    for answer in shop.rabbitmq.send(&[message("a:last")]).await {
        assert_eq!(answer.unwrap(), Sent::Unrouted);
    }
    shop.end().await;
}
