//! On connections that the application makes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use headless_abstractions::{ErrorKind, TopicOrder, Transport};
use headless_harness::{FaultProxy, services};
use headless_rabbitmq::RabbitMq;
use lapin::{Connection, ConnectionProperties};

use crate::shop::{Shop, config_at, message, send_all, there, work};

/// What the settings say of where the server is is not asked: nobody can listen here.
const NOWHERE: &str = "amqp://127.0.0.1:1";

async fn one_of_ours(url: String) -> lapin::Result<Connection> {
    with_heartbeat(url, 10).await
}

async fn with_heartbeat(url: String, seconds: u16) -> lapin::Result<Connection> {
    let url = format!("{url}?heartbeat={seconds}");
    let properties = ConnectionProperties::default().with_connection_name("the application's".into());
    Connection::connect(&url, properties).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_go_on_with_new_ones_when_the_applications_connections_are_lost() {
    let Some(url) = there(services::rabbitmq()) else {
        return;
    };
    let way = FaultProxy::in_front_of(&url).unwrap();
    let through = way.url_for(&url).unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let connect = {
        let made = made.clone();
        move || {
            made.fetch_add(1, Ordering::Relaxed);
            one_of_ours(through.clone())
        }
    };
    let config = config_at(NOWHERE);
    let rabbitmq = RabbitMq::from_client(connect, config.clone()).await.unwrap();
    assert_eq!(made.load(Ordering::Relaxed), 1, "the others when they are needed");
    assert_eq!(rabbitmq.info().endpoint, "amqp://127.0.0.1:1/%2F");
    let shop = Shop { rabbitmq, config };
    shop.declare(TopicOrder::Unordered).await;
    let member = shop.join().await;
    send_all(&shop.rabbitmq, &[message("a:0")]).await;
    assert_eq!(work(&*member, 1).await, ["a:0"]);
    drop(shop.rabbitmq.client().await.unwrap());
    assert_eq!(made.load(Ordering::Relaxed), 3);

    way.reset();
    way.pass();
    send_all(&shop.rabbitmq, &[message("a:1")]).await;
    assert_eq!(work(&*member, 1).await, ["a:1"]);
    assert!(made.load(Ordering::Relaxed) >= 5, "{made:?}");
    member.close().await.unwrap();
    shop.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_say_what_is_wrong_when_the_application_gives_no_connection() {
    let Some(url) = there(services::rabbitmq()) else {
        return;
    };
    let config = config_at(NOWHERE).with_connect_timeout(Duration::from_millis(500));
    let nobody = || one_of_ours(NOWHERE.to_owned());
    let error = RabbitMq::from_client(nobody, config.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let never = std::future::pending::<lapin::Result<Connection>>;
    let error = RabbitMq::from_client(never, config.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let closed = {
        let url = url.clone();
        move || {
            let url = url.clone();
            async move {
                let connection = one_of_ours(url).await?;
                connection.close(200, "bye".into()).await?;
                Ok(connection)
            }
        }
    };
    let error = RabbitMq::from_client(closed, config.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("the application made"), "{error}");

    let secure = config_at(&NOWHERE.replacen("amqp:", "amqps:", 1)).with_ca_file("ca.pem");
    let error = RabbitMq::from_client(nobody, secure).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.message().contains("ca_file"), "{error}");
    for login in ["amqp://app@127.0.0.1:1", "amqp://:secret@127.0.0.1:1"] {
        let error = RabbitMq::from_client(nobody, config_at(login)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.message().contains("user or password"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_refuse_the_applications_connection_when_it_rarely_shows_that_it_is_there() {
    let Some(url) = there(services::rabbitmq()) else {
        return;
    };
    // Without a word of its own it has what the server has.
    let server = there(services::private_rabbitmq()).unwrap();
    let none = "application:set_env(rabbit, heartbeat, 0).";
    server.ctl(&["eval", none]).unwrap();
    for (url, seconds, said) in [(url, 11, "11 s"), (server.url(), 0, "no heartbeat")] {
        let connect = move || with_heartbeat(url.clone(), seconds);
        let error = RabbitMq::from_client(connect, config_at(NOWHERE))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.message().contains(said), "{error}");
        assert!(!error.is_retryable(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_close_every_connection_when_it_is_closed() {
    let Some(url) = there(services::rabbitmq()) else {
        return;
    };
    let connect = move || one_of_ours(url.clone());
    let rabbitmq = RabbitMq::from_client(connect, config_at(NOWHERE)).await.unwrap();
    let channel = rabbitmq.client().await.unwrap();
    assert!(channel.status().connected());
    rabbitmq.close().await.unwrap();
    assert!(!channel.status().connected());
}
