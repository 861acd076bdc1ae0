use std::error::Error as _;

use super::*;

const SECRET: &str = "s3cret";

fn config(url: &str) -> PostgresConfig {
    PostgresConfig::new(url).unwrap()
}

/// The error of this URL, with its sources.
fn error(url: &str) -> String {
    let error = PostgresConfig::new(url).unwrap_err();
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text} {error}");
        source = error.source();
    }
    text
}

#[test]
fn should_read_our_settings_when_the_url_has_them() {
    let config = config(
        "postgres://app:pw@db:6432/shop?schema=billing&max_connections=3&sslmode=disable&control_connections=2\
         &acquire_timeout=250ms&call_timeout=1m&lock_timeout=2s&idle_in_transaction_timeout=3s&max_payload=1024&migrate=check&wake=off&pooler=none\
         &segment_age=12h&segment_messages=5000&keep_replay=72h",
    );
    assert_eq!(config.schema.as_str(), "billing");
    assert_eq!(
        (
            config.max_connections.get(),
            config.control_connections.get(),
            config.max_payload.get()
        ),
        (3, 2, 1024)
    );
    assert_eq!(config.acquire_timeout, Duration::from_millis(250));
    assert_eq!(config.call_timeout, Duration::from_secs(60));
    assert_eq!(config.lock_timeout, Duration::from_secs(2));
    assert_eq!(config.idle_in_transaction_timeout, Duration::from_secs(3));
    assert_eq!(
        (config.migrate, config.wake, config.pooler),
        (Migrate::Check, Wake::Off, Pooler::None)
    );
    assert_eq!(
        (
            config.segment_age,
            config.segment_messages.get(),
            config.keep_replay
        ),
        (Duration::from_hours(12), 5_000, Duration::from_hours(72))
    );
    config.validate().unwrap();
    assert_eq!(config.endpoint(), "postgres://db:6432/shop");
}

#[test]
fn should_turn_wake_ups_off_when_the_pooler_shares_sessions() {
    let pooled = config("postgres://db/shop?pooler=transaction");
    assert_eq!((pooled.pooler, pooled.wake), (Pooler::Transaction, Wake::Off));
    pooled.validate().unwrap();

    let contradicting = config("postgres://db/shop?pooler=transaction&wake=on");
    let error = contradicting.validate().unwrap_err().to_string();
    assert!(error.contains("wake"), "{error}");
}

#[test]
fn should_name_the_parameter_when_it_is_unknown_or_refused() {
    for (query, named) in [
        ("shema=x", "shema"),
        ("connect_timeout=5", "connect_timeout"),
        ("schema=Bad", "schema"),
        ("schema=a%22b", "schema"),
        ("max_connections=0", "max_connections"),
        ("max_connections=-1", "max_connections"),
        ("control_connections=many", "control_connections"),
        ("acquire_timeout=5", "acquire_timeout"),
        ("call_timeout=5days", "call_timeout"),
        ("lock_timeout=s", "lock_timeout"),
        ("lock_timeout=99999999999999999999s", "lock_timeout"),
        ("call_timeout=18446744073709551615h", "call_timeout"),
        ("max_payload=1k", "max_payload"),
        ("migrate=yes", "migrate"),
        ("wake=1", "wake"),
        ("pooler=session", "pooler"),
        ("segment_age=1", "segment_age"),
        ("segment_messages=0", "segment_messages"),
        ("segment_messages=5000000000", "segment_messages"),
        ("keep_replay=forever", "keep_replay"),
        ("sslmode=sometimes", "sslmode"),
        ("port=x", "port"),
        ("schema=a&schema=b", "schema"),
    ] {
        let error = error(&format!("postgres://u:{SECRET}@db/shop?{query}"));
        assert!(error.contains(named), "{query}: {error}");
        assert!(!error.contains(SECRET), "{query}: {error}");
    }
}

#[test]
fn should_take_a_password_as_it_is_when_it_has_the_urls_own_marks() {
    for (in_url, password) in [
        ("p%40ss%3A%2F%25", "p@ss:/%"),
        ("p@ss", "p@ss"),
        ("a:b", "a:b"),
        ("100%", "100%"),
        ("%3F%23%26", "?#&"),
    ] {
        let config = config(&format!("postgres://u:{in_url}@db/shop?schema=x"));
        // The client shows its options whole, which nothing of ours does.
        let options = format!("{:?}", config.options);
        assert!(options.contains(&format!("{password:?}")), "{in_url}: {options}");
        assert!(!format!("{config:?}").contains(password));
        assert!(!config.endpoint().contains(password));
    }
}

#[test]
fn should_show_nothing_of_a_password_when_it_was_not_encoded() {
    for url in [
        "postgres://u:s3cret/x@db/shop",
        "postgres://u:5432/s3cret@db/shop",
        "postgres://u:5432#s3cret@db/shop",
        "postgres://u:5432?s3cret@db/shop",
        "postgres://u:s3cret@db:port/shop",
        "mysql://u:s3cret@db/shop",
        "s3cret",
        "postgres://db/shop?password=s3cret&port=x",
    ] {
        let error = error(url);
        assert!(!error.contains(SECRET), "{url}: {error}");
    }
}

#[test]
fn should_show_the_socket_when_there_is_no_host() {
    let config = config("postgres:///shop?user=app&host=/var/run/postgresql");
    assert_eq!(config.endpoint(), "postgres:///shop?host=/var/run/postgresql");
}

#[test]
fn should_refuse_bounds_that_bound_nothing() {
    for (query, named) in [
        ("acquire_timeout=0s", "acquire_timeout"),
        ("call_timeout=0ms", "call_timeout"),
        ("lock_timeout=0ms", "lock_timeout"),
        ("lock_timeout=1000h", "lock_timeout"),
        ("idle_in_transaction_timeout=0s", "idle_in_transaction_timeout"),
        ("idle_in_transaction_timeout=1000h", "idle_in_transaction_timeout"),
        ("max_payload=1000000000", "max_payload"),
        ("segment_age=9s", "segment_age"),
        ("segment_age=8785h", "segment_age"),
        ("segment_messages=999", "segment_messages"),
        ("segment_messages=1000000001", "segment_messages"),
        ("keep_replay=421m", "keep_replay"),
        ("keep_replay=2h&segment_age=15m", "segment_age"),
    ] {
        let error = config(&format!("postgres://db/shop?{query}"))
            .validate()
            .unwrap_err();
        assert!(error.to_string().contains(named), "{query}: {error}");
    }
}

/// The rows of the page's table: name and default.
fn rows_of_page() -> Vec<(&'static str, &'static str)> {
    let page = include_str!("../../../../../docs/providers/postgres.md");
    let (_, settings) = page.split_once("| setting | default | meaning |").unwrap();
    settings
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`'));
            let (_, name, default) = (cells.next(), cells.next().unwrap(), cells.next().unwrap());
            (name, default)
        })
        .collect()
}

#[test]
fn should_be_what_the_page_says() {
    let defaults = config("postgres://db/shop");
    for (name, default) in rows_of_page() {
        let value = default.replace(' ', "");
        let said = config(&format!("postgres://db/shop?{name}={value}"));
        assert_eq!(format!("{said:?}"), format!("{defaults:?}"), "{name}");
    }
    let overview = include_str!("../../../../../docs/settings.md");
    for (name, _) in rows_of_page() {
        assert!(
            overview.contains(&format!("`{name}`")),
            "{name} in docs/settings.md"
        );
    }
    let named: Vec<&str> = rows_of_page().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        named,
        [
            "schema",
            "max_connections",
            "control_connections",
            "acquire_timeout",
            "call_timeout",
            "lock_timeout",
            "idle_in_transaction_timeout",
            "max_payload",
            "migrate",
            "wake",
            "pooler",
            "segment_age",
            "segment_messages",
            "keep_replay"
        ]
    );
}
