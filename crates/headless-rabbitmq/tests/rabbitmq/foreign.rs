//! Messages of producers that know nothing of this library.

use std::time::Duration;

use headless_abstractions::{Delivery, Settlement, Subscriber, TopicOrder};
use lapin::{
    BasicProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};

use crate::shop::{PATIENCE, Shop};

async fn publish(shop: &Shop, payload: &[u8], properties: BasicProperties) {
    let channel = shop.rabbitmq.client().await.unwrap();
    let options = BasicPublishOptions::default();
    channel
        .basic_publish(shop.name(":orders"), "".into(), options, payload, properties)
        .await
        .unwrap();
    channel.close(200, "sent".into()).await.unwrap();
}

async fn next(member: &dyn Subscriber) -> Delivery {
    let next = async {
        loop {
            let mut received = member.receive(1, Duration::from_secs(1)).await.unwrap();
            if let Some(delivery) = received.deliveries.pop() {
                break delivery;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next).await.unwrap()
}

async fn requeue(member: &dyn Subscriber, delivery: &Delivery) {
    let token = delivery.token;
    member
        .settle(&[Settlement::Requeue { token, after: None }])
        .await
        .pop()
        .unwrap()
        .unwrap();
}

async fn ack(member: &dyn Subscriber, delivery: &Delivery) {
    member
        .settle(&[Settlement::Ack(delivery.token)])
        .await
        .pop()
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_keep_its_id_when_a_foreign_message_has_one_and_is_delivered_again() {
    let Some(shop) = Shop::open(TopicOrder::Unordered).await else {
        return;
    };
    let member = shop.join().await;
    publish(
        &shop,
        b"x",
        BasicProperties::default().with_message_id("order-42".into()),
    )
    .await;
    let first = next(&*member).await;
    assert!(first.malformed.is_none());
    assert!(first.message.message_type.is_none() && first.message.tenant.is_none());
    requeue(&*member, &first).await;
    let second = next(&*member).await;
    assert_eq!(second.message.id, first.message.id);
    ack(&*member, &second).await;

    // Another message with the same id is the same message; without one, each delivery is a new one.
    publish(
        &shop,
        b"y",
        BasicProperties::default().with_message_id("order-42".into()),
    )
    .await;
    let same = next(&*member).await;
    assert_eq!(same.message.id, first.message.id);
    ack(&*member, &same).await;
    publish(&shop, b"z", BasicProperties::default()).await;
    let without = next(&*member).await;
    requeue(&*member, &without).await;
    let again = next(&*member).await;
    assert_ne!(again.message.id, without.message.id);
    ack(&*member, &again).await;
    member.close().await.unwrap();
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_deliver_it_as_malformed_when_headers_of_ours_are_forged() {
    let Some(shop) = Shop::open(TopicOrder::Unordered).await else {
        return;
    };
    let member = shop.join().await;
    for (name, value) in [
        ("hl-id", AMQPValue::LongString("not a uuid".into())),
        ("hl-id", AMQPValue::LongInt(7)),
        ("hl-tenant", AMQPValue::LongString(vec![0xff, 0xfe].into())),
        ("hl-occurred-at", AMQPValue::Timestamp(7)),
        ("hl-priority", AMQPValue::LongString("99".into())),
        ("hl-expires-at", AMQPValue::FieldTable(FieldTable::default())),
    ] {
        let mut headers = FieldTable::default();
        headers.insert(name.into(), value);
        publish(&shop, b"x", BasicProperties::default().with_headers(headers)).await;
        let delivery = next(&*member).await;
        let wrong = delivery
            .malformed
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(wrong.contains(name), "{name}: {wrong}");
        ack(&*member, &delivery).await;
    }
    // What the server counts is not for a producer to say.
    let mut headers = FieldTable::default();
    headers.insert("x-delivery-count".into(), AMQPValue::LongInt(1_000_000));
    publish(&shop, b"x", BasicProperties::default().with_headers(headers)).await;
    let delivery = next(&*member).await;
    assert_eq!(delivery.redelivery, headless_abstractions::Redelivery::First);
    ack(&*member, &delivery).await;
    member.close().await.unwrap();
    shop.end().await;
}
