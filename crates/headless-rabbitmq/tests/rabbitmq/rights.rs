//! Who may do what: the rights that the page for users names are enough, and fewer are told apart from an absent server.

use headless_abstractions::{ErrorKind, Transport};
use headless_harness::services;
use headless_rabbitmq::{RabbitMq, RabbitMqConfig};

use crate::shop::{Shop, billing, message, orders, partitioned, send_all, there, work};

const USER: &str = "app";
const PASSWORD: &str = "p@:/%?#";
const ENCODED: &str = "p%40%3A%2F%25%3F%23";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_work_with_the_documented_rights_and_be_denied_without() {
    let Some(server) = there(services::private_rabbitmq()) else {
        return;
    };
    server.ctl(&["add_user", USER, PASSWORD]).unwrap();
    let at = |user: &str, password: &str| format!("amqp://{user}:{password}@127.0.0.1:{}", server.port());

    for (what, url) in [
        ("a wrong password", at(USER, "s3cret")),
        ("an unknown user", at("nobody", "s3cret")),
        ("no right to the virtual host", at(USER, ENCODED)),
        ("no such virtual host", at(USER, ENCODED) + "/none"),
    ] {
        let error = RabbitMq::connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }

    let shop = Shop::open_at(&server.url(), partitioned(4)).await;
    let name = shop.config.namespace.as_str();
    let own = format!("^({name}[:!]|amq\\.gen).*");
    let also = format!("^({name}[:!]|amq\\.).*");
    server
        .ctl(&["set_permissions", "-p", "/", USER, &own, &also, &also])
        .unwrap();
    let config = RabbitMqConfig::new(&at(USER, ENCODED)).unwrap();
    let app = Shop {
        rabbitmq: RabbitMq::connect_with(config.clone().with_namespace(shop.config.namespace.clone()))
            .await
            .unwrap(),
        config: shop.config.clone(),
    };
    let mut delayed = message("c:0");
    delayed.deliver_after = Some(std::time::Duration::from_secs(1));
    send_all(&app.rabbitmq, &[message("a:0"), message("b:0"), delayed]).await;
    let member = app.join().await;
    assert_eq!(app.rabbitmq.lag(&billing()).await.unwrap(), 3);
    assert_eq!(work(&*member, 3).await.len(), 3);
    member.close().await.unwrap();

    // Another namespace is none of its business.
    let other = RabbitMq::connect_with(config).await.unwrap();
    let topology = headless_abstractions::Topology::new()
        .with_topic(headless_abstractions::TopicSpec::new(orders(), partitioned(4)));
    let error = other.declare(&topology).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    other.close().await.unwrap();
    app.end().await;
    shop.rabbitmq.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_be_unavailable_when_nobody_listens() {
    let error = RabbitMq::connect("amqp://user:s3cret@127.0.0.1:1/x")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.is_retryable());
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}
