//! `headless topics`, on PostgreSQL and on RabbitMQ.

use headless::{
    Consumer, Context, ErrorKind, Event, HandlerResult, Headless, Inbox, Ordered, Providers, Result, Runtime,
    Sandbox,
};
use headless_harness::services;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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

/// A process of a group that handles what there is.
async fn start(url: &str, partitions: u16) -> Result<Runtime> {
    let connected = Providers::builtin().connect(url).await?;
    Headless::builder("orders")
        .any_transport(&connected.transport()?)
        .topic::<Placed>(Ordered::partitions(partitions))
        .consumer(Consumer::group("billing").inbox(Inbox::Off).on(ignore))
        .start()
        .await
}

async fn publish(url: &str, partitions: u16, lines: std::ops::Range<u32>) {
    let connected = Providers::builtin().connect(url).await.unwrap();
    let runtime = Headless::builder("publisher")
        .any_transport(&connected.transport().unwrap())
        .topic::<Placed>(Ordered::partitions(partitions))
        .start()
        .await
        .unwrap();
    for line in lines {
        runtime.publisher().publish(&Placed { line }).await.unwrap();
    }
    runtime.shutdown(PATIENCE).await.unwrap();
}

/// `headless topics repartition`.
fn repartition(url: &str, topic: &str, others: &[&str]) -> Process {
    let args = ["topics", "repartition", topic, "--transport", url, "--json"];
    Process::start(&[&args[..], others].concat())
}

fn answered(ended: &Ended, code: i32, wanted: &Value) -> String {
    assert_eq!(ended.code, Some(code), "{} {}", ended.stdout, ended.stderr);
    let object: Value = serde_json::from_str(&ended.stdout).unwrap();
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(&object[field], value, "{field}: {object}");
    }
    object["text"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn should_change_the_count_once_everything_is_settled() {
    let Ok(server) = services::postgres() else {
        assert!(!services::is_required("postgres"));
        return;
    };
    let (sandbox, sign) = (Sandbox::new(), if server.contains('?') { '&' } else { '?' });
    let url = sandbox.url(&format!("{server}{sign}max_connections=3&control_connections=2"));
    let topic = Placed::TOPIC;
    start(&url, 3).await.unwrap().shutdown(PATIENCE).await.unwrap();
    publish(&url, 3, 0..5).await;

    let held = json!({ "topic": topic, "answer": "held", "before": null, "partitions": 8 });
    let ended = repartition(&url, topic, &["--partitions", "8"]).end().await;
    let text = answered(&ended, 3, &held);
    assert!(text.contains("billing 5"), "{text}");
    let ended = repartition(&url, topic, &["--partitions", "8", "--wait", "0s"])
        .end()
        .await;
    answered(&ended, 3, &held);
    assert!(ended.stderr.contains("waiting: "), "{}", ended.stderr);

    // It waits until somebody has handled them.
    let waits = repartition(&url, topic, &["--partitions", "8", "--wait", "1min"]);
    eventually("what stands in the way", async || {
        waits.said().contains("billing 5").then_some(())
    })
    .await;
    let member = start(&url, 3).await.unwrap();
    let changed = json!({ "answer": "changed", "before": 3, "partitions": 8 });
    answered(&waits.end().await, 0, &changed);

    let ended = repartition(&url, topic, &["--partitions", "8"]).end().await;
    answered(
        &ended,
        0,
        &json!({ "answer": "unchanged", "before": 8, "partitions": 8 }),
    );
    // The member goes on, and whoever starts with the former count is refused.
    assert_eq!(start(&url, 3).await.unwrap_err().kind(), ErrorKind::Conflict);
    publish(&url, 8, 5..9).await;
    let transport = Providers::builtin()
        .connect(&url)
        .await
        .unwrap()
        .transport()
        .unwrap();
    let billing = headless::GroupName::parse("billing").unwrap();
    eventually("the member has handled them", async || {
        (transport.lag(&billing).await.unwrap() == 0).then_some(())
    })
    .await;
    let ended = repartition(&url, topic, &["--unordered"]).end().await;
    answered(
        &ended,
        0,
        &json!({ "answer": "changed", "before": 8, "partitions": null }),
    );

    let ended = repartition(&url, "nowhere", &["--partitions", "8"]).end().await;
    answered(&ended, 3, &json!({ "topic": "nowhere", "answer": "not_found" }));
    let ended = repartition(&url, topic, &["--partitions", "2000"]).end().await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("1024"), "{}", ended.stderr);
    member.shutdown(PATIENCE).await.unwrap();
    sandbox.remove(&url).await.unwrap();
}

#[tokio::test]
async fn should_say_what_to_do_where_the_transport_cannot_change_it() {
    let Ok(server) = services::rabbitmq() else {
        assert!(!services::is_required("rabbitmq"));
        return;
    };
    let sandbox = Sandbox::new();
    let url = sandbox.url(&server);
    start(&url, 3).await.unwrap().shutdown(PATIENCE).await.unwrap();
    let ended = repartition(&url, Placed::TOPIC, &["--partitions", "8"])
        .end()
        .await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("declare another topic"), "{}", ended.stderr);
    // Also those who declare another count are told what there is to do.
    let error = start(&url, 8).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("declare another topic"), "{error}");
    assert!(!error.to_string().contains("headless topics"), "{error}");
    start(&url, 3).await.unwrap().shutdown(PATIENCE).await.unwrap();
    sandbox.remove(&url).await.unwrap();
}
