//! `headless groups` and `headless status`, beside processes that handle.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{interval, timeout};

use crate::{
    process::{Ended, Process},
    trial::{assert_all_is_well, counts, told},
    world::{World, eventually},
};

const MESSAGES: i64 = 300;
/// How long it is looked for what must not happen, once everything that could make it happen has happened.
const QUIET: Duration = Duration::from_secs(2);

/// A process of the demo.
fn start(world: &World, role: &str) -> Process {
    let (url, messages) = (world.url(), MESSAGES.to_string());
    let place = ["--store", &url, "--transport", &url];
    let size = ["--keys", "40", "--messages", &messages];
    Process::start(&[&["demo-member", "--role", role], &place[..], &size[..]].concat())
}

/// `headless groups`, of the demo.
async fn groups(world: &World, args: &[&str]) -> Ended {
    let url = world.url();
    let mut all = vec!["groups"];
    all.extend_from_slice(args);
    all.extend_from_slice(&["--store", &url, "--service", "demo", "--json"]);
    if args[0] != "list" {
        all.extend_from_slice(&["--by", "ada"]);
    }
    Process::start(&all).end().await
}

/// A change that every live node has to apply, or all but some.
async fn changed(world: &World, args: &[&str], code: i32) -> Value {
    let ended = groups(world, args).await;
    assert_eq!(
        ended.code,
        Some(code),
        "{args:?}: {} {}",
        ended.stdout,
        ended.stderr
    );
    serde_json::from_str(&ended.stdout).unwrap()
}

async fn status(world: &World) -> Value {
    let url = world.url();
    let said = Process::start(&["status", "--json", "--store", &url])
        .end_well()
        .await;
    serde_json::from_str(&said).unwrap()
}

/// What there is to see once so many live nodes say that they have the group.
async fn status_with(world: &World, nodes: usize) -> Value {
    eventually(&format!("{nodes} nodes"), async || {
        let status = status(world).await;
        (status["services"][0]["groups"][0]["nodes"] == nodes).then_some(status)
    })
    .await
}

fn len(value: &Value) -> usize {
    value.as_array().unwrap().len()
}

/// Fails if anything is handled while it is looked for.
async fn nothing_is_handled(world: &World, handled: i64) {
    let looking = async {
        let mut steps = interval(Duration::from_millis(100));
        loop {
            steps.tick().await;
            assert_eq!(
                counts(world).await[2],
                handled,
                "handled while the group is paused"
            );
        }
    };
    let ended: Result<(), _> = timeout(QUIET, looking).await;
    assert!(ended.is_err(), "it looks until the time is over");
}

/// Publishes everything, and waits until the relays have sent it.
async fn publish_and_relay(world: &World) {
    start(world, "producer").end_well().await;
    eventually("an empty outbox", async || {
        (counts(world).await[1] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn should_handle_nothing_while_paused_from_another_process_and_everything_once_when_resumed() {
    World::run(async |world| {
        Process::start(&["migrate", "--store", &world.url()])
            .end_well()
            .await;
        world.execute(include_str!("../../queries/demo/create.sql")).await;
        let (first, second) = (start(world, "member"), start(world, "member"));
        status_with(world, 2).await;

        // A group that nobody has is a mistake, and the answer says what there is.
        let mistaken = groups(world, &["pause", "dmeo"]).await;
        assert_eq!((mistaken.code, &*mistaken.stdout), (Some(2), ""));
        assert!(
            mistaken.stderr.contains("known are: demo."),
            "{}",
            mistaken.stderr
        );
        let mistaken = groups(world, &["pause", "demo", "--topic", "demo.event"]).await;
        assert_eq!(mistaken.code, Some(2));
        assert!(
            mistaken.stderr.contains("known are: demo.events."),
            "{}",
            mistaken.stderr
        );

        let paused = changed(world, &["pause", "demo", "--wait", "1min"], 0).await;
        assert_eq!(
            (&paused["wanted"], &paused["changed"]),
            (&json!({ "paused": true, "concurrency": null }), &json!(true))
        );
        assert_eq!(
            (len(&paused["applied_by"]), len(&paused["not_applied_by"])),
            (2, 0),
            "{paused}"
        );
        publish_and_relay(world).await;
        assert_eq!(counts(world).await, [MESSAGES, 0, 0]);
        nothing_is_handled(world, 0).await;

        // It stays paused over the death of one member and the start of another.
        first.kill();
        let third = start(world, "member");
        let shown = status_with(world, 3).await;
        nothing_is_handled(world, 0).await;
        let service = &shown["services"][0];
        let group = &service["groups"][0];
        assert_eq!(
            (&service["service"], &group["group"]),
            (&json!("demo"), &json!("demo"))
        );
        assert_eq!(
            (&group["wanted"]["paused"], &group["wanted"]["by"]),
            (&json!(true), &json!("ada"))
        );
        assert_eq!(group["topics"][0]["paused"], json!({ "control": 3 }), "{group}");
        assert_eq!((&group["in_flight"], &group["nodes"]), (&json!(0), &json!(3)));
        assert_eq!(
            (&shown["outbox"]["ready"], &shown["inbox"]["processed"]),
            (&json!(0), &json!(0))
        );
        for node in service["nodes"].as_array().unwrap() {
            let tasks = node["report"]["tasks"].as_array().unwrap();
            assert!(tasks.iter().any(|task| task["name"] == "control"), "{node}");
            assert_eq!(node["report"]["version"], env!("CARGO_PKG_VERSION"));
        }

        // The one that died cannot apply it any more, and the others do.
        let limited = changed(world, &["concurrency", "demo", "3", "--wait", "10s"], 3).await;
        assert_eq!(
            (len(&limited["applied_by"]), len(&limited["not_applied_by"])),
            (2, 1),
            "{limited}"
        );
        let again = changed(world, &["concurrency", "demo", "3"], 0).await;
        assert_eq!(
            (&again["changed"], &again["version"]),
            (&json!(false), &limited["version"])
        );
        let listed = changed(world, &["list"], 0).await;
        let concurrency = listed["groups"][0]["concurrency"].as_array().unwrap();
        assert!(concurrency.contains(&json!(3)), "{listed}");
        nothing_is_handled(world, 0).await;

        changed(world, &["resume", "demo"], 0).await;
        eventually("the end of all messages", async || {
            (counts(world).await[2] == MESSAGES).then_some(())
        })
        .await;
        changed(world, &["concurrency", "demo", "default"], 0).await;
        told(second).await;
        told(third).await;
        assert_all_is_well(world, MESSAGES).await;
    })
    .await;
}

#[tokio::test]
async fn should_begin_paused_when_the_group_was_paused_before_any_process_was_there() {
    World::run(async |world| {
        Process::start(&["migrate", "--store", &world.url()])
            .end_well()
            .await;
        world.execute(include_str!("../../queries/demo/create.sql")).await;
        // So that there is a group for what is sent.
        start(world, "consumer").end_well().await;
        assert_unknown_service_is_refused(world).await;
        changed(world, &["pause", "demo", "--force"], 0).await;
        let member = start(world, "member");
        status_with(world, 1).await;
        start(world, "producer").end_well().await;
        eventually("an empty outbox", async || {
            (counts(world).await[1] == 0).then_some(())
        })
        .await;
        nothing_is_handled(world, 0).await;
        let resumed = changed(world, &["resume", "demo", "--wait", "1min"], 0).await;
        assert_eq!(len(&resumed["applied_by"]), 1, "{resumed}");
        told(member).await;
        assert_all_is_well(world, MESSAGES).await;
    })
    .await;
}

/// A service that no node belongs to is a mistake, unless it is forced.
async fn assert_unknown_service_is_refused(world: &World) {
    let url = world.url();
    let args = [
        "groups",
        "pause",
        "demo",
        "--service",
        "dmeo",
        "--by",
        "ada",
        "--store",
        &url,
    ];
    let mistaken = Process::start(&args).end().await;
    assert_eq!(mistaken.code, Some(2), "{}", mistaken.stderr);
    assert!(
        mistaken.stderr.contains("known are: demo."),
        "{}",
        mistaken.stderr
    );
}
