//! What a member has read ahead goes back when nobody asks it for more.

use std::{num::NonZeroUsize, time::Duration};

use headless_abstractions::{Settlement, TopicOrder, Transport};
use lapin::{options::QueueDeclareOptions, types::FieldTable};

use crate::shop::{PATIENCE, Shop, billing, member_of, message, send_all};

/// More than the driver takes in at a time, three times over.
const COUNT: usize = 3_500;

#[tokio::test]
async fn should_give_back_all_that_it_has_read_ahead_when_nobody_receives() {
    let Some(shop) = Shop::open(TopicOrder::Unordered).await else {
        return;
    };
    let first = message("k:first");
    send_all(&shop.rabbitmq, std::slice::from_ref(&first)).await;
    let mut to = member_of(billing());
    to.prefetch = NonZeroUsize::new(COUNT * 2).unwrap();
    let member = shop.rabbitmq.subscribe(&to).await.unwrap();
    let received = member.receive(1, PATIENCE).await.unwrap();
    assert_eq!(received.deliveries.len(), 1);

    let messages: Vec<_> = (0..COUNT).map(|n| message(&format!("k:{n}"))).collect();
    for batch in messages.chunks(500) {
        for answer in shop.rabbitmq.send(batch).await {
            answer.unwrap();
        }
    }
    // A process that gets no time: the client has read on, and the driver finds the grace over and all of it unread.
    let queue = shop.name(":billing:orders");
    let channel = shop.rabbitmq.client().await.unwrap();
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let reading = async {
        let consumers = async || {
            let queue = channel.queue_declare(queue.clone(), passive, FieldTable::default());
            queue.await.unwrap().consumer_count()
        };
        while consumers().await == 0 {}
    };
    tokio::select! {
        received = member.receive(0, PATIENCE) => panic!("{received:?}"),
        () = reading => {}
    }
    #[expect(clippy::disallowed_methods, reason = "the runtime is to be blocked")]
    std::thread::sleep(Duration::from_secs(2));

    let mut ready = 0;
    let back = async {
        while ready < COUNT {
            ready = shop.ready(":billing:orders").await as usize;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let is_back = tokio::time::timeout(PATIENCE / 3, back).await.is_ok();
    assert!(is_back, "{ready} of {COUNT} were given back");
    let ack = Settlement::Ack(received.deliveries[0].token);
    member.settle(&[ack]).await.remove(0).unwrap();
    assert_eq!(shop.rabbitmq.lag(&billing()).await.unwrap(), COUNT as u64);
    member.close().await.unwrap();
    shop.end().await;
}
