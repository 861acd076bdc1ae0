//! A server that is short of memory holds publishers back.

use std::time::Duration;

use headless_abstractions::{ErrorKind, Settlement, TopicOrder, Transport};
use headless_harness::services;

use crate::shop::{PATIENCE, Shop, message, partitioned, send_all, there, work};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_say_so_and_go_on_consuming_when_publishers_are_blocked() {
    let Some(server) = there(services::private_rabbitmq()) else {
        return;
    };
    let shop = Shop::open_at(&server.url(), TopicOrder::Unordered).await;
    let member = shop.join().await;
    let messages: Vec<_> = (0..20).map(|n| message(&format!("k:{n}"))).collect();
    send_all(&shop.rabbitmq, &messages).await;
    server.ctl(&["set_vm_memory_high_watermark", "0"]).unwrap();

    // The first one that is sent is the one by which the server notices; its outcome is unknown. The next is refused.
    let late = message("k:late");
    let mut answers = shop.rabbitmq.send(std::slice::from_ref(&late)).await;
    let error = answers.pop().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.is_outcome_unknown());
    let mut answers = shop.rabbitmq.send(&[message("k:later")]).await;
    let error = answers.pop().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(
        !error.is_outcome_unknown() && error.to_string().contains("memory"),
        "{error}"
    );
    // So is what needs queues that are still to be made, without waiting for them.
    let mut delayed = message("k:delayed");
    delayed.deliver_after = Some(Duration::from_secs(60));
    let mut answers = shop.rabbitmq.send(&[delayed]).await;
    let error = answers.pop().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    // Meanwhile what is there is worked off: acknowledgements go over another connection.
    assert_eq!(work(&*member, 20).await.len(), 20);
    shop.rabbitmq.ping().await.unwrap();

    server.ctl(&["set_vm_memory_high_watermark", "0.6"]).unwrap();
    send_all(&shop.rabbitmq, &[message("k:after")]).await;
    // The one whose outcome was unknown may have come as well.
    let mut bodies = work(&*member, 1).await;
    if bodies == ["k:late"] {
        bodies.extend(work(&*member, 1).await);
    }
    assert!(
        bodies == ["k:after"] || bodies == ["k:late", "k:after"],
        "{bodies:?}"
    );
    member.close().await.unwrap();
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_let_a_member_come_and_work_when_publishers_are_blocked() {
    let Some(server) = there(services::private_rabbitmq()) else {
        return;
    };
    let shop = Shop::open_at(&server.url(), partitioned(4)).await;
    let messages: Vec<_> = (0..20).map(|n| message(&format!("k{n}:{n}"))).collect();
    send_all(&shop.rabbitmq, &messages).await;
    server.ctl(&["set_vm_memory_high_watermark", "0"]).unwrap();
    // By this one the server notices, and holds the connection back from then on.
    let mut answers = shop.rabbitmq.send(&[message("k:late")]).await;
    assert!(answers.pop().unwrap().unwrap_err().is_outcome_unknown());

    // It can tell nobody that it is there, and takes what nobody else has.
    let member = shop.join().await;
    let mut count = 0;
    let working = async {
        while count < 20 {
            let received = member.receive(50, Duration::from_secs(1)).await.unwrap();
            let acks: Vec<_> = received
                .deliveries
                .iter()
                .map(|delivery| Settlement::Ack(delivery.token))
                .collect();
            count += acks.len();
            for answer in member.settle(&acks).await {
                answer.unwrap();
            }
        }
    };
    let is_done = tokio::time::timeout(PATIENCE, working).await.is_ok();
    assert!(is_done, "{count} of 20 came");
    member.close().await.unwrap();
    server.ctl(&["set_vm_memory_high_watermark", "0.6"]).unwrap();
    send_all(&shop.rabbitmq, &[message("k:after")]).await;
    shop.end().await;
}
