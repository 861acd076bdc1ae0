//! A message that is given back again and again ends in the dead queue of its group.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use headless_abstractions::{
    Delivery, GroupName, GroupSpec, Redelivery, Settlement, Subscriber, TopicOrder, Topology, Transport,
};
use headless_harness::services;
use lapin::{
    options::BasicGetOptions,
    types::{AMQPValue, FieldTable},
};
use tokio::sync::mpsc;

use crate::shop::{PATIENCE, Shop, billing, config_at, member_of, message, orders, send_all, there, work};

const LIMIT: NonZeroUsize = NonZeroUsize::new(3).unwrap();

/// Everything that comes, from a receive that always waits: what nobody waits for is given back, which counts.
fn all_of(member: &Arc<dyn Subscriber>) -> mpsc::UnboundedReceiver<Delivery> {
    let (come, comes) = mpsc::unbounded_channel();
    let member = member.clone();
    tokio::spawn(async move {
        while let Ok(received) = member.receive(10, PATIENCE).await {
            for delivery in received.deliveries {
                if come.send(delivery).is_err() {
                    return;
                }
            }
        }
    });
    comes
}

async fn settle(member: &dyn Subscriber, settlement: Settlement) {
    member.settle(&[settlement]).await.pop().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_be_in_the_dead_queue_of_its_group_alone_when_redelivered_too_often() {
    let Some(server) = there(services::private_rabbitmq()) else {
        return;
    };
    let config = config_at(&server.url()).with_delivery_limit(LIMIT);
    let shop = Shop::open_with(config, TopicOrder::Unordered).await;
    let shipping = GroupName::parse("shipping").unwrap();
    let topology = Topology::new().with_group(GroupSpec::new(shipping.clone(), orders()));
    shop.rabbitmq.declare(&topology).await.unwrap();
    let poison = message("poison:0");
    send_all(&shop.rabbitmq, &[poison.clone(), message("sound:0")]).await;

    let member: Arc<dyn Subscriber> = shop.join().await.into();
    let mut comes = all_of(&member);
    let (mut redeliveries, mut sound) = (Vec::new(), 0);
    let dies = async {
        while shop.ready(":billing!dead").await == 0 {
            while let Ok(Some(delivery)) =
                tokio::time::timeout(Duration::from_millis(500), comes.recv()).await
            {
                let token = delivery.token;
                if delivery.message.id == poison.id {
                    redeliveries.push(delivery.redelivery);
                    settle(&*member, Settlement::Requeue { token, after: None }).await;
                } else {
                    sound += 1;
                    settle(&*member, Settlement::Ack(token)).await;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, dies).await.unwrap();
    assert_eq!(
        redeliveries,
        [
            Redelivery::First,
            Redelivery::Again(1),
            Redelivery::Again(2),
            Redelivery::Again(3)
        ]
    );
    assert_eq!(sound, 1);
    assert_eq!(
        shop.rabbitmq.lag(&billing()).await.unwrap(),
        0,
        "it is nobody's work any more"
    );

    // The other group has both as if nothing had been.
    let other = shop
        .rabbitmq
        .subscribe(&member_of(shipping.clone()))
        .await
        .unwrap();
    let mut bodies = work(&*other, 2).await;
    bodies.sort();
    assert_eq!(bodies, ["poison:0", "sound:0"]);
    assert_eq!(shop.rabbitmq.lag(&shipping).await.unwrap(), 0);
    assert_eq!(shop.ready(":shipping!dead").await, 0);

    // Once, whole, and with the reason.
    let channel = shop.rabbitmq.client().await.unwrap();
    let get = || channel.basic_get(shop.name(":billing!dead"), BasicGetOptions { no_ack: true });
    let dead = get().await.unwrap().unwrap().delivery;
    assert!(get().await.unwrap().is_none());
    assert_eq!(dead.data, poison.payload);
    assert_eq!(
        dead.properties.message_id().as_ref().unwrap().as_str(),
        poison.id.to_string()
    );
    let headers = dead.properties.headers().clone().unwrap();
    assert!(headers.inner().contains_key("hl-id"), "{headers:?}");
    assert_eq!(reason(&headers).as_deref(), Some("delivery_limit"), "{headers:?}");
    member.close().await.unwrap();
    other.close().await.unwrap();
    shop.end().await;
}

/// Why the server says that it died.
fn reason(headers: &FieldTable) -> Option<String> {
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else {
        return None;
    };
    let Some(AMQPValue::FieldTable(death)) = deaths.as_slice().first() else {
        return None;
    };
    match death.inner().get("reason")? {
        AMQPValue::LongString(reason) => Some(reason.to_string()),
        _ => None,
    }
}
