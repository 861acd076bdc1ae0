//! Many processes on one database, which die and stall in the middle of their work.

use std::time::Duration;

use serde_json::Value;
use sqlx::Row;

use crate::{
    process::Process,
    world::{World, eventually},
};

const MESSAGES: i64 = 3_000;
/// Longer than any lease of a process of the demo (2 s), and than the session of a member that says nothing.
const PAST_ITS_LEASE: Duration = Duration::from_secs(6);

fn start(world: &World, role: &str) -> Process {
    let (url, messages) = (world.url(), MESSAGES.to_string());
    Process::start(&[
        "demo-member",
        "--role",
        role,
        "--store",
        &url,
        "--transport",
        &url,
        "--keys",
        "40",
        "--messages",
        &messages,
    ])
}

/// Waits until so many messages are published, and so many handled; not all of them yet, so that what is done next is
/// done in the middle of the work.
async fn reached(world: &World, published: i64, handled: i64) {
    let what = format!("{published} published and {handled} handled messages");
    let (_, handled) = eventually(&what, async || {
        let counts = world.row(include_str!("sql/counts.sql")).await;
        let counts: (i64, i64) = (counts.get("published"), counts.get("handled"));
        (counts.0 >= published && counts.1 >= handled).then_some(counts)
    })
    .await;
    assert!(handled < MESSAGES, "all was over before it could be disturbed");
}

#[tokio::test]
async fn should_handle_everything_once_and_in_order_when_processes_are_killed_and_paused() {
    World::run(async |world| {
        Process::start(&["migrate", "--store", &world.url()])
            .end_well()
            .await;
        world.execute(include_str!("../../queries/demo/create.sql")).await;
        // Declares the group: what is sent to a topic without groups is kept for nobody.
        start(world, "consumer").end_well().await;
        let [killed_producer, killed_relay, mut paused_relay] =
            ["producer", "relay", "relay"].map(|role| start(world, role));
        reached(world, MESSAGES / 10, 0).await;
        killed_producer.kill();
        let producer = start(world, "producer");
        reached(world, MESSAGES / 5, 0).await;
        killed_relay.kill();
        let relay = start(world, "relay");

        // Late, so that they have their hands full.
        reached(world, MESSAGES / 2, 0).await;
        let [killed_consumer, mut paused_consumer] = ["consumer"; 2].map(|role| start(world, role));
        reached(world, MESSAGES / 2, 100).await;
        killed_consumer.kill();
        let consumer = start(world, "consumer");

        // They come back to work that was taken from them in the meantime.
        reached(world, MESSAGES / 2, 200).await;
        for process in [&paused_relay, &paused_consumer] {
            process.signal("STOP");
        }
        tokio::time::sleep(PAST_ITS_LEASE).await;
        for process in [&paused_relay, &paused_consumer] {
            process.signal("CONT");
        }
        for process in [&mut paused_relay, &mut paused_consumer] {
            assert!(process.is_running(), "one died of its pause");
        }

        producer.end_well().await;
        let mut redelivered = 0;
        for process in [relay, paused_relay, consumer, paused_consumer] {
            let told: Value = serde_json::from_str(process.end_well().await.trim()).unwrap();
            redelivered += told["redelivered"].as_u64().unwrap();
        }
        assert_ne!(
            redelivered, 0,
            "neither the killed consumer nor the paused one held anything"
        );
        let figures = world.row(include_str!("sql/figures.sql")).await;
        for (name, wanted) in [
            ("published", MESSAGES),
            ("handled", MESSAGES),
            ("messages", MESSAGES),
            ("idempotency_keys", MESSAGES),
            ("strangers", 0),
            ("overtaken", 0),
        ] {
            assert_eq!(figures.get::<i64, _>(name), wanted, "{name}");
        }
    })
    .await;
}
