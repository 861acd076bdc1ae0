//! What is answered to whom.

use std::{io::Write, process::Stdio};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    github::{Delivery, SECRET, answer, client, request},
    node::{Node, command, eventually},
};

fn opened(id: u32) -> Delivery {
    let body = json!({ "action": "opened", "repository": { "full_name": "octo/repo" } });
    Delivery {
        id: format!("00000000-0000-4000-8000-{id:012}"),
        event: "issues".to_owned(),
        repository: "octo/repo".to_owned(),
        body: body.to_string(),
    }
}

async fn stats(client: &Client, node: &Node) -> Value {
    answer(client.get(node.url("/stats"))).await.1
}

#[tokio::test]
async fn should_store_and_count_once_when_a_webhook_is_delivered_again() {
    let (node, client) = (Node::start(&[]), client());
    let stored = answer(request(&client, &node, &opened(1))).await;
    assert_eq!(stored, (202, json!({ "stored": true, "number": 1 })));
    let again = answer(request(&client, &node, &opened(1))).await;
    assert_eq!(
        again,
        (202, json!({ "stored": false, "why": "it was stored before" }))
    );
    let other = answer(request(&client, &node, &opened(2))).await;
    assert_eq!(other, (202, json!({ "stored": true, "number": 2 })));
    let wanted = json!([{ "repository": "octo/repo", "received": 2, "handled": 2, "gaps": 0, "events": { "issues": 2 } }]);
    eventually("both are counted", async || {
        (stats(&client, &node).await["repositories"] == wanted).then_some(())
    })
    .await;
    assert_eq!(
        answer(client.get(node.url("/healthz"))).await,
        (200, json!({ "problems": [] }))
    );
    let after = answer(client.get(node.url("/stats?after=octo/repo"))).await;
    assert_eq!(after.1["repositories"], json!([]));
    let (status, log) = node.end().await;
    assert!(status.success() && log.contains("stopping"), "{log}");
}

#[tokio::test]
async fn should_say_what_is_wrong_when_a_request_is_not_one_of_github() {
    let (node, client) = (Node::start(&["--max-body", "1000"]), client());
    let sent = |change: &dyn Fn(&mut Delivery)| {
        let mut delivery = opened(1);
        change(&mut delivery);
        request(&client, &node, &delivery)
    };
    let cases = [
        (
            "another body",
            sent(&|_| ()).body("{}"),
            401,
            "X-Hub-Signature-256",
        ),
        (
            "no JSON",
            sent(&|d| d.body = "payload=%7B%7D".to_owned()),
            400,
            "application/json",
        ),
        (
            "too deep",
            sent(&|d| d.body = "[".repeat(500)),
            400,
            "recursion limit",
        ),
        (
            "a bad id",
            sent(&|d| d.id = "7".to_owned()),
            400,
            "X-GitHub-Delivery",
        ),
        (
            "a bad event",
            sent(&|d| d.event = "x".repeat(201)),
            400,
            "X-GitHub-Event has to have 1 to 200 bytes",
        ),
        (
            "a bad name",
            sent(&|d| d.body = json!({ "repository": { "full_name": "a\0b" } }).to_string()),
            400,
            "the repository's name",
        ),
        (
            "too large",
            sent(&|d| d.body = json!("x".repeat(1_000)).to_string()),
            413,
            "larger",
        ),
        (
            "a bad limit",
            client.get(node.url("/stats?limit=1001")),
            400,
            "1 to 1000",
        ),
        (
            "an unknown parameter",
            client.get(node.url("/stats?offset=3")),
            400,
            "offset",
        ),
    ];
    for (what, request, status, text) in cases {
        let (answered, body) = answer(request).await;
        assert_eq!(answered, status, "{what}: {body}");
        assert!(body["error"].as_str().unwrap().contains(text), "{what}: {body}");
    }
    let unsigned = client.post(node.url("/webhooks")).body("{}");
    assert_eq!(answer(unsigned).await.0, 401);
    let get = client.get(node.url("/webhooks")).send().await.unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(stats(&client, &node).await["repositories"], json!([]));
}

#[tokio::test]
async fn should_refuse_what_is_over_its_limits_when_bodies_do_not_come() {
    let node = Node::start(&["--max-requests", "1", "--request-timeout", "2"]);
    let client = client();
    // A body that has begun and does not go on.
    let mut slow = TcpStream::connect(node.address()).await.unwrap();
    let head = "POST /webhooks HTTP/1.1\r\nhost: here\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let busy = eventually("one is too many", async || {
        let answered = request(&client, &node, &opened(1)).send().await.unwrap();
        (answered.status() == 503).then_some(answered)
    })
    .await;
    assert_eq!(busy.headers()["retry-after"], "5");
    assert!(busy.text().await.unwrap().contains("too many requests"));
    let mut answered = String::new();
    slow.read_to_string(&mut answered).await.unwrap();
    assert!(
        answered.starts_with("HTTP/1.1 503 "),
        "the body does not come: {answered}"
    );
    eventually("there is room again", async || {
        (answer(request(&client, &node, &opened(1))).await.0 == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn should_take_the_secret_from_a_file_and_refuse_to_start_without_one() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{SECRET}").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let node = Node::start(&["--secret-file", &path]);
    assert_eq!(answer(request(&client(), &node, &opened(1))).await.0, 202);

    let ended = |args: &[&str], secret: Option<&str>| {
        let mut command = command(args);
        let ended = command
            .envs(secret.map(|secret| ("WEBHOOK_SECRET", secret)))
            .stdout(Stdio::null())
            .output();
        let ended = ended.unwrap();
        assert_eq!(ended.status.code(), Some(1));
        String::from_utf8(ended.stderr).unwrap()
    };
    let missing = ended(&[], None);
    assert!(missing.contains("WEBHOOK_SECRET"), "{missing}");
    let short = ended(&[], Some("hunter2"));
    assert!(
        short.contains("7 bytes, the least is 16") && !short.contains("hunter2"),
        "{short}"
    );
    let nowhere = ended(&["--secret-file", "/nowhere/at/all"], Some(SECRET));
    assert!(nowhere.contains("/nowhere/at/all"), "{nowhere}");
    let scheme = ended(&["--store", "sqs://queue"], Some(SECRET));
    assert!(scheme.contains("--store") && scheme.contains("sqs"), "{scheme}");
}
