use std::ffi::OsString;

use super::*;
use crate::{Headless, Setting};

mod groups;

/// A whole configuration of memory, with this after it.
fn config(more: &str) -> Config {
    let text =
        format!("service = \"orders\"\nstore.url = \"memory:a\"\ntransport.url = \"memory:a\"\n{more}");
    Config::new().with_text("orders.toml", &text)
}

fn explained(config: &Config) -> Vec<String> {
    let settings = Headless::from_config(config).node("n").explain();
    settings.iter().map(Setting::to_string).collect()
}

async fn refused(config: &Config) -> String {
    let error = Headless::from_config(config).check().unwrap_err();
    let again = Headless::from_config(config).start().await.unwrap_err();
    assert_eq!(error.to_string(), again.to_string(), "check and start differ");
    error.to_string()
}

fn assert_has(lines: &[String], wanted: &str) {
    assert!(
        lines.iter().any(|line| line == wanted),
        "{lines:#?} lacks {wanted:?}"
    );
}

#[tokio::test]
async fn should_say_of_each_value_where_it_came_from_when_several_give_it() {
    let config = config(
        "preset = \"development\"\nrelay.batch = 10\nrelay.lease = \"10 s\"\n[purge]\nbatch = 7\n\
         [topics.\"orders.placed\"]\npartitions = 16\nrequired = true\n",
    )
    .with_text("over.toml", "purge.interval = \"2 min\"\nrelay.attempts = 3\n")
    .with_variables([
        ("HEADLESS__RELAY__BATCH", "20"),
        ("HEADLESS__RELAY__ATTEMPTS", "4"),
        ("HEADLESS_RELAY_BATCH", "not one of ours"),
        ("PATH", "/bin"),
    ]);
    let builder = Headless::from_config(&config).node("n").relay_attempts(6);
    builder.check().unwrap();
    let lines: Vec<String> = builder.explain().iter().map(ToString::to_string).collect();
    for wanted in [
        "service = orders (file orders.toml, line 1)",
        "node = n (builder)",
        "preset = development (file orders.toml, line 4)",
        "store = memory: (file orders.toml, line 2)",
        "topic.orders.placed = 16 partitions, required (file orders.toml, line 11)",
        "relay.batch = 20 (variable HEADLESS__RELAY__BATCH)",
        "relay.lease = 10 s (file orders.toml, line 6)",
        "relay.attempts = 6 (builder)",
        "relay.poll = 200 ms (preset development)",
        "purge.batch = 7 (file orders.toml, line 8)",
        "purge.interval = 2 min (file over.toml, line 1)",
        "keep.marks = 7 d (default)",
    ] {
        assert_has(&lines, wanted);
    }
}

#[tokio::test]
async fn should_report_every_problem_with_key_place_and_limit_when_much_is_wrong() {
    let config = config(
        "relay.bacth = 1\nrelay.batch = 0\nrelay.lease = 30\nkeep.marks = \"1 ms\"\nrelay.enabled = \"yes\"\n\
         preset = \"staging\"\nnode = \"a\\nb\"\n[topics.\"no spaces\"]\npartition = 4\nrequired = true\n\
         [topics.placed]\npartitions = 2000\n",
    )
    .with_file("/no/such/file.toml")
    .with_text("broken.toml", "a = \n\nb = [1,\n")
    .with_variables([
        ("HEADLESS__PURGE__BATCH", "0"),
        ("HEADLESS__RELAY_BATCH", "5"),
        ("HEADLESS__RELAY__ATTEMPTS", "many"),
    ]);
    let text = refused(&config).await;
    for problem in [
        "relay.bacth (file orders.toml, line 4) is unknown: do you mean relay.batch?",
        "relay.batch is 0 (file orders.toml, line 5), the least is 1",
        "relay.lease is a number, it must be a time with its unit, as \"30 s\" (file orders.toml, line 6)",
        "keep.marks is 1 ms (file orders.toml, line 7), the least is 10 ms",
        "relay.enabled is a string, it must be true or false (file orders.toml, line 8)",
        "preset is \"staging\", it must be \"production\" or \"development\" (file orders.toml, line 9)",
        "the node's label (file orders.toml, line 10) \"a\\nb\" has a control character",
        "topics.\"no spaces\".partition (file orders.toml, line 12) is unknown: do you mean topics.\"no spaces\".partitions?",
        "topic: ",
        "2000",
        "the configuration /no/such/file.toml cannot be read",
        "broken.toml, line 1: ",
        "purge.batch is 0 (variable HEADLESS__PURGE__BATCH), the least is 1",
        "HEADLESS__RELAY_BATCH is unknown: do you mean HEADLESS__RELAY__BATCH?",
        "relay.attempts is \"many\", it must be a whole number from 0 to 4294967295 (variable HEADLESS__RELAY__ATTEMPTS)",
    ] {
        assert!(text.contains(problem), "{text} lacks {problem:?}");
    }
}

#[tokio::test]
async fn should_name_scheme_and_feature_before_anything_connects_when_one_is_not_compiled_in() {
    let config = Config::new().with_text(
        "orders.toml",
        "service = \"orders\"\nstore.url = \"redis://h/0\"\ntransport.url = \"sqs://h\"\nrelay.batch = 0\n",
    );
    let text = refused(&config).await;
    for problem in [
        "store.url (file orders.toml, line 2): the scheme \"redis\" needs the feature \"redis\"",
        "transport.url (file orders.toml, line 3): the scheme \"sqs\" is unknown",
        "relay.batch is 0",
    ] {
        assert!(text.contains(problem), "{text} lacks {problem:?}");
    }
}

#[tokio::test]
async fn should_ask_for_the_service_when_nothing_names_it() {
    let text = refused(&Config::new()).await;
    assert!(
        text.contains("service is not set") && text.contains("HEADLESS__SERVICE"),
        "{text}"
    );
    // A text that cannot be read may well name it.
    let text = refused(&Config::new().with_text("broken.toml", "service = \"orders")).await;
    assert!(!text.contains("not set"), "{text}");
}

#[tokio::test]
async fn should_never_show_a_secret_when_it_explains_or_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "hunter2@:/%\n").unwrap();
    let of_file = file.to_str().unwrap();
    let sound = "store.url = \"postgres://app:hunter2@db/orders?password=hunter2\"\n";
    for (text, variables) in [
        (
            sound.to_owned(),
            vec![("HEADLESS__TRANSPORT__URL", "amqp://app:hunter2@mq/hunter2")],
        ),
        (
            "store.url = \"postgres://app@db/orders\"".to_owned(),
            vec![("HEADLESS__STORE__PASSWORD_FILE", of_file)],
        ),
        (
            "store.url = \"postgres://app@db/orders\"\nstore.password = \"hunter2\"".to_owned(),
            vec![],
        ),
        (
            "store.password = \"hunter2\"\nstore.url = \"hunter2 :// hunter2\"".to_owned(),
            vec![],
        ),
        (
            "store.password = [\"hunter2\"]\nstore.ulr = \"hunter2\"".to_owned(),
            vec![],
        ),
        (
            "store.url = \"postgres://app:hunter2@db\nstore.password = 'hunter2".to_owned(),
            vec![],
        ),
        (
            "store.url = \"memory:hunter2\"\nstore.password = \"hunter2\"".to_owned(),
            vec![],
        ),
        (
            "store.url = \"postgres://app@db/orders\"\nstore.password_file = \"hunter2\"".to_owned(),
            vec![("HEADLESS__TRANSPORT__URL_FILE", "amqp://app:hunter2@mq")],
        ),
        // What is not encoded ends the host: the user and the head of the password would be shown as host and port.
        (
            "store.url = \"postgres://hunter2:1234/x@db/orders\"".to_owned(),
            vec![("HEADLESS__TRANSPORT__URL", "amqp://hunter2:12?x@mq")],
        ),
        (
            "store.url = \"postgres://hunter2:1234#x@db/orders\"".to_owned(),
            vec![],
        ),
    ] {
        let config = Config::new()
            .with_text("orders.toml", &format!("service = \"orders\"\n{text}"))
            .with_variables(variables);
        let builder = Headless::from_config(&config);
        let shown = format!(
            "{config:?} {builder:?} {:?} {:?}",
            builder.explain(),
            builder.check()
        );
        assert!(!shown.contains("hunter2"), "{text}: {shown}");
    }
}

#[tokio::test]
async fn should_put_the_password_into_the_url_as_it_is_when_a_file_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "p@s:s/w%41\r\n").unwrap();
    let config = Config::new()
        .with_text(
            "orders.toml",
            "service = \"orders\"\nstore.url = \"sqs://app@db/orders\"",
        )
        .with_variables([("HEADLESS__STORE__PASSWORD_FILE", file.as_os_str())]);
    let builder = Headless::from_config(&config);
    let endpoint = builder.configured.store.as_ref().unwrap();
    assert_eq!(endpoint.url.expose(), "sqs://app:p%40s%3As%2Fw%2541@db/orders");
    let lines: Vec<String> = builder.explain().iter().map(ToString::to_string).collect();
    assert_has(
        &lines,
        "store.password = *** (variable HEADLESS__STORE__PASSWORD_FILE)",
    );
}

#[tokio::test]
async fn should_refuse_what_contradicts_itself_when_a_url_or_a_password_is_given_twice() {
    let both = config("store.url_file = \"/no/such/file\"\ntransport.password_file = \"/none\"");
    let text = refused(&both).await;
    for problem in [
        "store.url (file orders.toml, line 2) and store.url_file (file orders.toml, line 4) are both given",
        "store.url_file names a file that cannot be read",
        "transport.password_file names a file that cannot be read",
    ] {
        assert!(text.contains(problem), "{text} lacks {problem:?}");
    }
    let alone = Config::new().with_text("orders.toml", "service = \"o\"\nstore.password = \"x\"");
    assert!(
        refused(&alone)
            .await
            .contains("store.password (file orders.toml, line 2) has no URL")
    );
    let twice = Config::new().with_text(
        "orders.toml",
        "service = \"o\"\nstore.url = \"sqs://a:b@h\"\nstore.password = \"c\"",
    );
    assert!(refused(&twice).await.contains("has a password too"));
    let none = config("store.password = \"c\"");
    assert!(refused(&none).await.contains("takes no password"));
    // A variable goes before what a text says in the other form.
    let over = config("").with_variables([("HEADLESS__STORE__URL", "memory:b")]);
    assert_has(
        &explained(&over),
        "store = memory: (variable HEADLESS__STORE__URL)",
    );
}

/// The URL of the store that these texts and variables make, and where its password came from.
fn store(texts: &[&str], variables: &[(&'static str, &'static str)]) -> Result<(String, String), String> {
    let mut config = Config::new().with_variables([("HEADLESS__SERVICE", "orders")]);
    for (n, text) in texts.iter().enumerate() {
        config = config.with_text(format!("{n}.toml"), text);
    }
    let builder = Headless::from_config(&config.with_variables(variables.iter().copied()));
    match &builder.configured.store {
        Some(endpoint) => Ok((
            endpoint.url.expose().to_owned(),
            endpoint
                .password
                .as_ref()
                .map_or_else(String::new, |source| source.place()),
        )),
        None => Err(builder.check().unwrap_err().to_string()),
    }
}

#[tokio::test]
async fn should_keep_a_password_from_another_server_when_a_later_layer_names_one() {
    let text = "store.url = \"sqs://app@db/orders\"\nstore.password = \"secret\"";
    let of_text = store(&[text], &[]).unwrap();
    assert_eq!(
        of_text,
        (
            "sqs://app:secret@db/orders".to_owned(),
            " (file 0.toml, line 2)".to_owned()
        )
    );
    let elsewhere = store(&[text], &[("HEADLESS__STORE__URL", "sqs://app@staging/orders")]).unwrap();
    assert_eq!(elsewhere, ("sqs://app@staging/orders".to_owned(), String::new()));
    // Where none is taken, none is in the way.
    let memory = store(&[text], &[("HEADLESS__STORE__URL", "memory:a")]).unwrap();
    assert_eq!(memory.0, "memory:a");
    let both = [
        ("HEADLESS__STORE__URL", "sqs://app@staging/orders"),
        ("HEADLESS__STORE__PASSWORD", "other"),
    ];
    assert_eq!(store(&[text], &both).unwrap().0, "sqs://app:other@staging/orders");
    let later = store(&[text, "store.url = \"sqs://app@later\""], &[]).unwrap();
    assert_eq!(later.0, "sqs://app@later");
}

#[tokio::test]
async fn should_go_before_the_password_of_an_earlier_url_when_it_is_of_a_later_layer() {
    let variable = [("HEADLESS__STORE__PASSWORD", "secret")];
    let (url, source) = store(&["store.url = \"sqs://app:dev@db\""], &variable).unwrap();
    assert_eq!(url, "sqs://app:secret@db");
    assert_eq!(source, " (variable HEADLESS__STORE__PASSWORD)");
    // Of two in one URL the client would take the other.
    let refused = store(&["store.url = \"sqs://app@db?password=dev\""], &variable).unwrap_err();
    assert!(refused.contains("has a password too"), "{refused}");
}

#[tokio::test]
async fn should_report_nothing_that_is_not_so_when_the_transport_is_named_and_of_no_use() {
    let config = Config::new().with_text(
        "orders.toml",
        "service = \"orders\"\nstore.url = \"memory:a\"\ntransport.url = \"no url\"",
    );
    let consumer = crate::Consumer::group("billing").on(async |_: Placed, _| Ok(()));
    let builder = Headless::from_config(&config).topic::<Placed>(crate::Ordered::no());
    let text = builder.consumer(consumer).check().unwrap_err().to_string();
    assert!(
        text.contains("transport.url (file orders.toml, line 3)"),
        "{text}"
    );
    assert!(!text.contains("needs a transport"), "{text}");
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Placed;

impl crate::Event for Placed {
    const TOPIC: &'static str = "orders.placed";
}

#[tokio::test]
async fn should_take_a_table_for_what_it_is_when_nothing_is_in_it() {
    // All that stood under `relay` is commented out; a topic may need nothing else.
    assert_has(
        &explained(&config("[relay]\n[topics.\"orders.placed\"]\n")),
        "topic.orders.placed = no order (file orders.toml, line 5)",
    );
    let text = refused(&config("[relya]\n[topics]\nplaced = 3\n")).await;
    assert!(
        text.contains("relya (file orders.toml, line 4) is unknown"),
        "{text}"
    );
    assert!(
        text.contains("topics.placed is a number, it must be a table (file orders.toml, line 6)"),
        "{text}"
    );
}

#[tokio::test]
async fn should_read_no_more_than_the_limit_when_a_file_has_no_end() {
    for (file, wanted) in [("/dev/zero", "is no regular file"), ("/", "is no regular file")] {
        let text = refused(&config("").with_file(file)).await;
        assert!(
            text.contains(&format!("the configuration {file} {wanted}")),
            "{text}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.toml");
    fs::write(&large, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    let text = refused(&config("").with_file(&large)).await;
    assert!(text.contains("has more than 1048576 bytes, the limit"), "{text}");
}

#[tokio::test]
async fn should_read_the_file_that_a_variable_names_when_it_is_from_variables() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.toml");
    fs::write(
        &file,
        "service = \"orders\"\nrelay.batch = 5\nrelay.attempts = 2\n",
    )
    .unwrap();
    let variables = [
        (OsString::from("HEADLESS__CONFIG"), file.clone().into_os_string()),
        ("HEADLESS__RELAY__ATTEMPTS".into(), "3".into()),
    ];
    let lines = explained(&Config::from_variables(variables.clone()));
    assert_has(
        &lines,
        &format!("relay.batch = 5 (file {}, line 2)", file.display()),
    );
    assert_has(&lines, "relay.attempts = 3 (variable HEADLESS__RELAY__ATTEMPTS)");
    // Without `from_variables`, no file is read.
    let lines = explained(&Config::new().with_variables(variables));
    assert_has(&lines, "relay.batch = 100 (default)");
}

#[tokio::test]
async fn should_run_with_what_the_configuration_names_when_it_is_sound() {
    let config = config("relay.batch = 5\nshutdown.timeout = \"1 s\"");
    let runtime = Headless::from_config(&config).start().await.unwrap();
    assert_eq!(runtime.service(), "orders");
    let lines: Vec<String> = runtime.explain().iter().map(Setting::to_string).collect();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("store = memory at ")
                && line.ends_with(" (file orders.toml, line 2)")),
        "{lines:#?}"
    );
    // One URL for both is one server: the runtime relays within it.
    runtime
        .begin::<crate::Memory>()
        .await
        .unwrap()
        .rollback()
        .await
        .unwrap();
    runtime.shutdown(std::time::Duration::from_secs(1)).await.unwrap();
}

#[tokio::test]
async fn should_refuse_a_second_store_when_code_gives_one_too() {
    let memory = crate::Memory::new();
    let builder = Headless::from_config(&config(""))
        .store(&memory)
        .transport(memory.clone());
    let text = builder.check().unwrap_err().to_string();
    for problem in [
        "two stores are given, memory in code and memory: (file orders.toml, line 2): keep one",
        "two transports are given, memory in code and memory: (file orders.toml, line 3): keep one",
    ] {
        assert!(text.contains(problem), "{text} lacks {problem:?}");
    }
}

#[tokio::test]
async fn should_be_sound_when_it_is_the_example_of_the_documentation() {
    let page = include_str!("../../../../docs/configuration.md");
    let (_, rest) = page.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let config = Config::new()
        .with_text("orders.toml", example)
        .with_variables([("HEADLESS__STORE__PASSWORD", "hunter2")]);
    let builder = Headless::from_config(&config);
    let missing: Vec<_> = ["postgres", "rabbitmq"]
        .into_iter()
        .filter(|feature| match *feature {
            "postgres" => !cfg!(feature = "postgres"),
            _ => !cfg!(feature = "rabbitmq"),
        })
        .collect();
    match builder.check() {
        Ok(()) => assert!(missing.is_empty(), "{missing:?} should be missed"),
        // Without the providers, their features are all that it lacks.
        Err(error) => assert_eq!(
            error.to_string().matches("needs the feature").count(),
            missing.len(),
            "{error}"
        ),
    }
    for key in keys::known().map(|key| format!("`{key}`")) {
        let settings = include_str!("../../../../docs/settings.md");
        assert!(
            page.contains(&key) || settings.contains(&key),
            "no page names {key}"
        );
    }
}
