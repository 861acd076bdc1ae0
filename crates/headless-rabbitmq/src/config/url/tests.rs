use std::error::Error as _;

use super::*;

#[test]
fn should_read_every_part_when_it_is_there() {
    let config = read(
        "amqps://us%40er:p%40%3A%2F%25%3F%23@rabbit.example:5999/my%2Fvhost?namespace=shop&heartbeat=5s\
         &connect_timeout=250ms&call_timeout=1m&consumer_timeout=1h&max_payload=1024&publish_window=5\
         &publish_channels=2&delivery_limit=7&ca_file=/ca.pem&cert_file=/c.pem&key_file=/k.pem",
    )
    .unwrap();
    let server = &config.server;
    assert!(server.is_tls);
    assert_eq!((server.host.as_str(), server.port), ("rabbit.example", 5999));
    assert_eq!(
        (server.user.as_str(), server.password.as_str()),
        ("us@er", "p@:/%?#")
    );
    assert_eq!(server.vhost, "my/vhost");
    assert_eq!(config.namespace.as_str(), "shop");
    assert_eq!(config.heartbeat, Duration::from_secs(5));
    assert_eq!(config.connect_timeout, Duration::from_millis(250));
    assert_eq!(config.call_timeout, Duration::from_secs(60));
    assert_eq!(config.consumer_timeout, Duration::from_secs(3600));
    assert_eq!(config.max_payload.get(), 1024);
    assert_eq!(
        (config.publish_window.get(), config.publish_channels.get()),
        (5, 2)
    );
    assert_eq!(config.delivery_limit.get(), 7);
    assert_eq!(config.endpoint(), "amqps://rabbit.example:5999/my%2Fvhost");
}

#[test]
fn should_take_the_defaults_when_parts_are_left_out() {
    let config = read("amqp://localhost").unwrap();
    let server = &config.server;
    assert_eq!((server.host.as_str(), server.port), ("localhost", 5672));
    assert_eq!(
        (server.user.as_str(), server.password.as_str()),
        ("guest", "guest")
    );
    assert_eq!(server.vhost, "/");
    assert_eq!(config.namespace.as_str(), "headless");
    assert_eq!(read("amqps://host").unwrap().server.port, 5671);
    let six = read("amqp://[::1]:5672/x").unwrap();
    assert_eq!(six.server.host, "::1");
    assert_eq!(six.endpoint(), "amqp://[::1]:5672/x");
}

#[test]
fn should_name_the_parameter_when_its_value_is_bad() {
    for (parameter, name) in [
        ("heartbeat=0s", "heartbeat"),
        ("heartbeat=1500ms", "heartbeat"),
        ("heartbeat=2m", "heartbeat"),
        ("call_timeout=5", "call_timeout"),
        ("call_timeout=99999999999999999999h", "call_timeout"),
        ("connect_timeout=2h", "connect_timeout"),
        ("consumer_timeout=0ms", "consumer_timeout"),
        ("max_payload=0", "max_payload"),
        ("max_payload=134217729", "max_payload"),
        ("publish_window=65536", "publish_window"),
        ("publish_channels=65", "publish_channels"),
        ("delivery_limit=-1", "delivery_limit"),
        ("delivery_limit=1000001", "delivery_limit"),
        ("namespace=A", "namespace"),
        ("namespace=", "namespace"),
        ("heartbeat=5s&heartbeat=6s", "heartbeat"),
        ("prefetch=5", "prefetch"),
        ("ca_file=/x", "certificates"),
    ] {
        let error = read(&format!("amqp://u:s3cret@h/v?{parameter}")).unwrap_err();
        assert_eq!(
            error.kind(),
            headless_abstractions::ErrorKind::Invalid,
            "{parameter}"
        );
        assert!(error.to_string().contains(name), "{parameter}: {error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
    for url in [
        "amqps://h/?cert_file=/x",
        "amqp:host",
        "amqp:/host",
        "http://h",
        "h",
        "",
    ] {
        assert!(read(url).is_err(), "{url:?}");
    }
}

#[test]
fn should_show_no_secret_when_it_is_printed_or_refused() {
    let config = read("amqp://user:s3cret@host/vhost").unwrap();
    assert!(!format!("{config:?} {}", config.endpoint()).contains("s3cret"));
    for url in [
        "amqp://user:s3cret#x@host",
        "amqp://user:s3cret?x@host",
        "amqp://user:s3cret/x@host",
        "amqp://user:s3cret%zz@host",
        "amqp://user:s3cret%00@host",
        "http://user:s3cret@host",
        "amqp://user:s3cret@host:port",
        "amqp://user:s3cret@ho st",
        "amqp://host/?pass=s3cret",
        "amqp://user:x@host/vhost?s3cret@host",
    ] {
        let error = read(url).unwrap_err();
        let mut shown = format!("{error} {error:?}");
        if let Some(source) = error.source() {
            shown.push_str(&source.to_string());
        }
        assert!(!shown.contains("s3cret"), "{url}: {shown}");
    }
}
