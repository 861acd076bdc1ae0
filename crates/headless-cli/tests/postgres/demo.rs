//! `headless demo`, with members that are processes.

use std::io::Write;

use headless_harness::services;
use serde_json::{Value, json};
use sqlx::Row;
use tempfile::NamedTempFile;

use crate::{process::Process, world::World};

async fn figures(world: &World, args: &[&str]) -> Value {
    let url = world.server();
    let demo = ["demo", "--json", "--store", &url, "--transport", &url];
    let said = Process::start(&[&demo[..], args].concat()).end_well().await;
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

fn assert_figures(figures: &Value, wanted: &Value) {
    for (name, figure) in wanted.as_object().unwrap() {
        assert_eq!(&figures[name], figure, "{name} in {figures}");
    }
}

async fn assert_nothing_left(world: &World) {
    let count: i64 = world.row(include_str!("sql/count_schemas.sql")).await.get(0);
    assert_eq!(count, 0);
}

/// 400 events, most of them on few keys; every tenth id comes again later.
fn events() -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    for n in 0..400 {
        let id = if n % 10 == 9 { n - 7 } else { n };
        let payload = json!({ "n": n, "text": "x".repeat(20 * n) });
        let event = json!({ "id": format!("id-{id}"), "event": "push", "key": format!("k{}", n % 7), "payload": payload });
        writeln!(file, "{event}").unwrap();
    }
    file
}

#[tokio::test]
async fn should_lose_double_and_reorder_nothing_and_leave_nothing_when_a_member_is_killed() {
    World::run_in_database(async |world| {
        let file = events();
        let input = file.path().to_str().unwrap();
        let wanted = json!({ "lines": 400, "published": 400, "handled": 360, "duplicates": 40, "dead": 0, "lost": 0, "order_violations": 0 });
        assert_figures(&figures(world, &["--input", input]).await, &wanted);
        let crashed = figures(world, &["--input", input, "--crash-after", "100"]).await;
        assert_figures(&crashed, &wanted);
        assert_nothing_left(world).await;
    })
    .await;
}

#[tokio::test]
async fn should_lose_double_and_reorder_nothing_when_the_transport_is_rabbitmq_and_a_member_is_killed() {
    let rabbitmq = match services::rabbitmq() {
        Ok(rabbitmq) => rabbitmq,
        Err(absent) => {
            assert!(!services::is_required("rabbitmq"), "{absent:?}");
            return;
        }
    };
    World::run_in_database(async |world| {
        let (file, url) = (events(), world.server());
        let input = file.path().to_str().unwrap();
        let args = ["demo", "--json", "--store", &url, "--transport", &rabbitmq, "--input", input];
        let said = Process::start(&[&args[..], &["--crash-after", "100"]].concat())
            .end_well()
            .await;
        let figures: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        let wanted = json!({ "lines": 400, "published": 400, "handled": 360, "duplicates": 40, "dead": 0, "lost": 0, "order_violations": 0 });
        assert_figures(&figures, &wanted);
        assert_ne!(figures["redelivered"], 0, "the member that was killed held nothing: {figures}");
        assert_nothing_left(world).await;
    })
    .await;
}

#[tokio::test]
async fn should_run_in_one_process_when_the_transport_is_in_memory() {
    World::run_in_database(async |world| {
        let url = world.server();
        let args = [
            "demo",
            "--json",
            "--keys=20",
            "--messages=300",
            "--crash-after=100",
            "--store",
            &url,
        ];
        let said = Process::start(&args).end_well().await;
        let figures: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        let wanted =
            json!({ "published": 300, "handled": 300, "duplicates": 0, "lost": 0, "order_violations": 0 });
        assert_figures(&figures, &wanted);
        assert_nothing_left(world).await;
    })
    .await;
}

#[tokio::test]
async fn should_leave_nothing_when_it_ends_badly() {
    World::run_in_database(async |world| {
        let url = world.server();
        let mut mistaken = Process::start(&["demo", "--store", &url, "--transport", &url, "--input", "-"]);
        mistaken.write("{\"id\":\"\",\"key\":\"k\",\"payload\":1}\n");
        let ended = mistaken.end().await;
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        let unreachable = "postgres://127.0.0.1:1/db";
        for (store, transport) in [(&*url, unreachable), (unreachable, &*url)] {
            let ended = Process::start(&["demo", "--store", store, "--transport", transport])
                .end()
                .await;
            assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        }
        assert_nothing_left(world).await;
    })
    .await;
}
