//! The server is killed in the middle of everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use headless_abstractions::{
    ErrorKind, GroupName, GroupSpec, Message, Sent, Settlement, Subscriber, TopicOrder, Topology, Transport,
};
use headless_harness::services::{self, Stop};
use headless_rabbitmq::RabbitMq;
use tokio::sync::watch;

use crate::shop::{PATIENCE, Shop, billing, member_of, message, orders, partitioned, there, work_until};

const KEYS: usize = 10;
/// The server is killed once this many were accepted, in the middle of sending.
const ENOUGH: usize = 300;
/// Nobody sends as many before the server is dead.
const BOUND: usize = 50_000;

fn of_every_key(place: usize) -> Vec<Message> {
    (0..KEYS).map(|key| message(&format!("k{key}:{place}"))).collect()
}

fn body(message: &Message) -> String {
    String::from_utf8(message.payload.to_vec()).unwrap()
}

/// Sends until the server is gone; answers what was accepted, and tells meanwhile how much that is.
async fn send_until_dead(rabbitmq: &RabbitMq, told: &watch::Sender<usize>) -> BTreeSet<String> {
    let mut accepted = BTreeSet::new();
    for place in 0.. {
        let batch = of_every_key(place);
        let answers = rabbitmq.send(&batch).await;
        let is_dead = answers.iter().any(Result::is_err);
        for (message, answer) in batch.iter().zip(answers) {
            if let Ok(sent) = answer {
                assert_eq!(sent, Sent::Accepted);
                accepted.insert(body(message));
            }
        }
        told.send_replace(accepted.len());
        if is_dead {
            break;
        }
        assert!(accepted.len() < BOUND, "the server lives");
    }
    accepted
}

/// Receives some, and settles every second of them; answers what was settled. The others stay in hand.
async fn settle_some(member: &dyn Subscriber) -> BTreeSet<String> {
    let some = async {
        loop {
            let received = member.receive(20, Duration::from_secs(1)).await.unwrap();
            if received.deliveries.len() > 1 {
                break received.deliveries;
            }
        }
    };
    let held = tokio::time::timeout(PATIENCE, some).await.unwrap();
    let (tokens, bodies): (Vec<_>, BTreeSet<_>) = held
        .iter()
        .step_by(2)
        .map(|delivery| (Settlement::Ack(delivery.token), body(&delivery.message)))
        .unzip();
    for settled in member.settle(&tokens).await {
        settled.unwrap();
    }
    bodies
}

/// The first occurrences of each key are in the order in which they were sent. Of what was not accepted, any may be there.
fn assert_in_order(bodies: &[String]) {
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for body in bodies {
        let (key, place) = body.split_once(':').unwrap();
        let place: usize = place.parse().unwrap();
        if let Some(before) = last.insert(key, place) {
            assert!(before < place, "{key}: {place} came after {before}");
        }
    }
}

/// Joins once the server has what the group needs: it listens before that, and says that it is not there yet.
async fn joins(shop: &Shop, group: GroupName) -> Box<dyn Subscriber> {
    let to = member_of(group);
    let joining = async {
        loop {
            match shop.rabbitmq.subscribe(&to).await {
                Ok(member) => break member,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, joining).await.unwrap()
}

async fn is_there_after_a_crash(order: TopicOrder) {
    let Some(mut server) = there(services::private_rabbitmq()) else {
        return;
    };
    let shop = Shop::open_at(&server.url(), order).await;
    let shipping = GroupName::parse("shipping").unwrap();
    let topology = Topology::new().with_group(GroupSpec::new(shipping.clone(), orders()));
    shop.rabbitmq.declare(&topology).await.unwrap();
    // What was declared a moment ago is not on disk yet: Mnesia and the tables that name the members of Raft groups are
    // written seconds later. This does it now; the page for users says what becomes of a server that is killed before.
    let synced = "mnesia:sync_log(), [ok = dets:sync(Table) || Table <- dets:all()].";
    server.ctl(&["eval", synced]).unwrap();
    let member = shop.join().await;

    let (told, mut hears) = watch::channel(0);
    let sending = {
        let rabbitmq = shop.rabbitmq.clone();
        tokio::spawn(async move { send_until_dead(&rabbitmq, &told).await })
    };
    let settled = settle_some(&*member).await;
    hears.wait_for(|accepted| *accepted >= ENOUGH).await.unwrap();
    let mut server = tokio::task::spawn_blocking(move || {
        server.stop(Stop::Immediate).unwrap();
        server
    })
    .await
    .unwrap();
    let accepted = sending.await.unwrap();
    assert!(accepted.len() >= ENOUGH);
    // The process goes as well: neither says good-bye.
    drop((member, shop.rabbitmq));
    let server = tokio::task::spawn_blocking(move || {
        server.start().unwrap();
        server
    })
    .await
    .unwrap();

    let after = Shop {
        rabbitmq: RabbitMq::connect_with(shop.config.clone()).await.unwrap(),
        config: shop.config,
    };
    for group in [billing(), shipping] {
        // What was settled a moment before may be gone, and may come again.
        let mut missing = accepted.clone();
        if group == billing() {
            missing.retain(|body| !settled.contains(body));
        }
        let member = joins(&after, group).await;
        let mut looked_at = 0;
        let bodies = work_until(&*member, |bodies| {
            for body in &bodies[looked_at..] {
                missing.remove(body);
            }
            looked_at = bodies.len();
            missing.is_empty()
        })
        .await;
        if order.is_ordered() {
            assert_in_order(&bodies);
        }
        member.close().await.unwrap();
    }
    after.end().await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_have_what_it_accepted_for_each_group_when_it_was_killed() {
    is_there_after_a_crash(TopicOrder::Unordered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_have_what_it_accepted_in_key_order_when_it_was_killed() {
    is_there_after_a_crash(partitioned(4)).await;
}
