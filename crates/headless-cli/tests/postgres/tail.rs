//! `headless tail` and `headless groups remove`, on PostgreSQL and on RabbitMQ.

use headless::{
    Consumer, Context, Event, HandlerResult, Headless, Inbox, Ordered, Providers, Runtime, Sandbox,
};
use headless_harness::services;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    process::{Ended, Process},
    world::{PATIENCE, eventually},
};

#[derive(Serialize, Deserialize)]
struct Placed {
    line: u32,
}

impl Event for Placed {
    const TOPIC: &'static str = "orders.placed";

    fn key(&self) -> Option<std::borrow::Cow<'_, str>> {
        Some((self.line % 3).to_string().into())
    }
}

async fn ignore(_: Placed, _: Context) -> HandlerResult {
    Ok(())
}

/// A process whose group never handles anything: it is closed before a message comes.
async fn declare(url: &str) -> Runtime {
    let connected = Providers::builtin().connect(url).await.unwrap();
    Headless::builder("tailed")
        .any_transport(&connected.transport().unwrap())
        .topic::<Placed>(Ordered::partitions(3))
        .consumer(Consumer::group("billing").inbox(Inbox::Off).on(ignore))
        .start()
        .await
        .unwrap()
}

async fn publish(url: &str, lines: std::ops::Range<u32>) {
    let connected = Providers::builtin().connect(url).await.unwrap();
    let runtime = Headless::builder("publisher")
        .any_transport(&connected.transport().unwrap())
        .topic::<Placed>(Ordered::partitions(3))
        .start()
        .await
        .unwrap();
    for line in lines {
        runtime.publisher().publish(&Placed { line }).await.unwrap();
    }
    runtime.shutdown(PATIENCE).await.unwrap();
}

async fn remove(url: &str, group: &str, force: &[&str]) -> Ended {
    let args = [&["groups", "remove", group, "--transport", url, "--json"], force].concat();
    Process::start(&args).end().await
}

async fn lag(url: &str, group: &str) -> headless::Result<u64> {
    let connected = Providers::builtin().connect(url).await.unwrap();
    let transport = connected.transport().unwrap();
    transport.lag(&headless::GroupName::parse(group).unwrap()).await
}

async fn watch(url: &str) {
    let tail = ["tail", "--transport", url, "--topic", Placed::TOPIC];
    declare(url).await.shutdown(PATIENCE).await.unwrap();
    let nowhere = ["tail", "--transport", url, "--topic", "orders.nowhere"];
    let ended = Process::start(&nowhere).end().await;
    assert_eq!(ended.code, Some(1), "the topic is not there: {}", ended.stderr);
    assert!(ended.stderr.contains("orders.nowhere"), "{}", ended.stderr);

    let bounded = Process::start(&[&tail[..], &["--most", "4", "--json"]].concat());
    let endless = Process::start(&tail);
    let mut groups = Vec::new();
    for process in [&bounded, &endless] {
        let said = eventually("the group of a tail", async || {
            let said = process.said();
            said.contains('\n').then_some(said)
        })
        .await;
        groups.push(said.trim().rsplit(' ').next().unwrap().to_owned());
    }
    publish(url, 0..4).await;
    let seen = bounded.end_well().await;
    let mut lines: Vec<u64> = seen
        .lines()
        .map(|line| {
            let object: Value = serde_json::from_str(line).unwrap();
            assert_eq!(object["topic"], Placed::TOPIC);
            assert_eq!(object["malformed"], Value::Null);
            assert!(object["partition"].is_u64(), "{object}");
            object["payload"]["json"]["line"].as_u64().unwrap()
        })
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, [0, 1, 2, 3]);

    eventually("all of them on lines of text", async || {
        (endless.printed().lines().count() == 4).then_some(())
    })
    .await;
    endless.signal("TERM");
    let text = endless.end_well().await;
    assert!(text.contains("{\"line\":3}"), "{text}");

    // Nothing was taken from the group that is there, and none is left of those that were not.
    assert_eq!(lag(url, "billing").await.unwrap(), 4);
    for group in groups {
        assert!(group.starts_with("tail-"), "{group}");
        let error = lag(url, &group).await.unwrap_err();
        assert_eq!(error.kind(), headless::ErrorKind::NotFound, "{group}");
    }

    for (force, code, answer) in [
        (&[][..], 3, "waiting"),
        (&["--force"][..], 0, "removed"),
        (&["--force"], 3, "not_found"),
    ] {
        let ended = remove(url, "billing", force).await;
        assert_eq!(ended.code, Some(code), "{} {}", ended.stdout, ended.stderr);
        let object: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(object["answer"], answer);
    }
    assert!(lag(url, "billing").await.is_err());
}

#[tokio::test]
async fn should_show_what_goes_by_and_take_none_of_it_on_postgresql() {
    let Ok(server) = services::postgres() else {
        assert!(!services::is_required("postgres"));
        return;
    };
    let (sandbox, sign) = (Sandbox::new(), if server.contains('?') { '&' } else { '?' });
    let url = sandbox.url(&format!("{server}{sign}max_connections=3&control_connections=2"));
    watch(&url).await;
    sandbox.remove(&url).await.unwrap();
}

#[tokio::test]
async fn should_show_what_goes_by_and_take_none_of_it_on_rabbitmq() {
    let Ok(server) = services::rabbitmq() else {
        assert!(!services::is_required("rabbitmq"));
        return;
    };
    let sandbox = Sandbox::new();
    let url = sandbox.url(&server);
    watch(&url).await;
    sandbox.remove(&url).await.unwrap();
}
