use headless_abstractions::{ErrorKind, UnitOfWorkStore};
use headless_memory::Memory;

use super::*;

async fn error(url: &str) -> Error {
    Providers::builtin().connect(url).await.unwrap_err()
}

async fn id(providers: &Providers, url: &str) -> headless_abstractions::StoreId {
    let connected = providers.connect(url).await.unwrap();
    connected.store().unwrap().typed::<Memory>().unwrap().store_id()
}

#[tokio::test]
async fn should_share_a_memory_server_only_when_it_has_a_name() {
    let providers = Providers::builtin();
    assert_ne!(id(&providers, "memory:").await, id(&providers, "memory:").await);
    assert_eq!(
        id(&providers, "memory:a").await,
        id(&providers.clone(), "MEMORY:a").await
    );
    assert_ne!(id(&providers, "memory:a").await, id(&providers, "memory:b").await);
    assert_ne!(
        id(&providers, "memory:a").await,
        id(&Providers::builtin(), "memory:a").await
    );
}

#[tokio::test]
async fn should_name_scheme_and_feature_when_a_provider_is_not_compiled_in() {
    let there = Providers::builtin().factories;
    for (scheme, feature) in FEATURES.iter().filter(|(scheme, _)| !there.contains_key(*scheme)) {
        let error = error(&format!("{scheme}://localhost/x")).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let text = error.to_string();
        for part in [
            &format!("{scheme:?}"),
            &format!("feature {feature:?}"),
            "compiled in: ",
            "memory",
        ] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    }
}

#[tokio::test]
async fn should_name_what_there_is_when_a_scheme_is_unknown() {
    let error = error("sqs://queue").await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    let mut known = vec!["memory"];
    if cfg!(feature = "postgres") {
        known.extend(["postgres", "postgresql"]);
    }
    if cfg!(feature = "rabbitmq") {
        known.extend(["amqp", "amqps"]);
    }
    known.sort_unstable();
    let known = known.join(", ");
    let wanted = format!("\"sqs\" is unknown (compiled in: {known})");
    assert!(text.contains(&wanted), "{text}");
}

#[tokio::test]
async fn should_use_the_users_provider_when_one_is_added() {
    let memory = Memory::new();
    let given = memory.clone();
    let providers = Providers::builtin().with("SQS", move |url| {
        assert_eq!(url.expose(), "sqs://user:hunter2@queue/path");
        let connected = Connected::new().with_store(&given);
        async { Ok(connected) }
    });
    let connected = providers.connect("sqs://user:hunter2@queue/path").await.unwrap();
    assert_eq!(
        connected.store().unwrap().typed::<Memory>().unwrap().store_id(),
        memory.store_id()
    );
    let error = connected.transport().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("no transport"), "{error}");
}

#[tokio::test]
async fn should_refuse_a_memory_url_when_it_names_no_server() {
    for url in ["memory://host", "memory:a?b=c", "memory:a#b", "memory:/a"] {
        assert_eq!(error(url).await.kind(), ErrorKind::Invalid, "{url}");
    }
}

#[tokio::test]
async fn should_never_show_a_secret_when_a_url_is_refused() {
    for url in [
        "amqp://hunter2:hunter2@localhost:5432/hunter2?password=hunter2#hunter2",
        "sqs://hunter2:hunter2@host/hunter2?token=hunter2",
        "amqp:hunter2",
        "x:hunter2@host",
        "postgres://user:hunter2 @@@[",
        "postgres://user:hunter2@127.0.0.1:1/x",
        "postgres://user@127.0.0.1:1/x?password=hunter2",
        "//user:hunter2@host",
        "hunter2",
        "",
        "memory://user:hunter2@host/?password=hunter2",
        "postgres://app:p@hunter2/word@db/x",
    ] {
        let error = error(url).await;
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{url}: {error:?}"
        );
        if let Ok(url) = ProviderUrl::parse(url) {
            assert!(!format!("{url} {url:?}").contains("hunter2"), "{url:?}");
        }
    }
    let url = ProviderUrl::parse("amqp://u:p@broker:5671/vhost").unwrap();
    assert_eq!(url.to_string(), "amqp://broker:5671");
}
