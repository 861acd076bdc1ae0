//! What is looked at, and done to processes, while they work on one database.

use serde_json::Value;
use sqlx::Row;

use crate::{
    process::Process,
    world::{World, eventually},
};

/// The name by which a process is known among the sessions on the server: what its URL asks for.
pub(crate) fn named(world: &World, url: &str, name: &str) -> String {
    format!("{url}&application_name={}_{name}", world.schema())
}

/// How many messages are published, wait in the outbox, and are handled.
pub(crate) async fn counts(world: &World) -> [i64; 3] {
    let row = world.row(include_str!("sql/counts.sql")).await;
    ["published", "waiting", "handled"].map(|name| row.get(name))
}

/// Stops the process of this name where `look` finds it, and what it has sent is done.
pub(crate) async fn stop_where<T>(
    world: &World,
    (target, name): (&mut Process, &str),
    what: &str,
    look: impl AsyncFn(i64) -> Option<T>,
) -> T {
    let sessions_of_it = include_str!("sql/target.sql").replace("{target}", name);
    let found = eventually(what, async || {
        target.assert_running();
        target.signal("STOP");
        let sessions = world.row(&sessions_of_it).await;
        let found = match sessions.get("active") {
            0_i64 => look(sessions.get("open")).await,
            _ => None,
        };
        if found.is_none() {
            target.signal("CONT");
        }
        found
    })
    .await;
    target.assert_running();
    found
}

/// Who holds rows of the outbox.
pub(crate) async fn relays(world: &World) -> Vec<String> {
    world.row(include_str!("sql/relays.sql")).await.get("holders")
}

/// What it tells at its end, of itself.
pub(crate) async fn told(process: Process) -> Value {
    let said = process.end_well().await;
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

/// Everything was published and handled, once and in the order of each key.
pub(crate) async fn assert_all_is_well(world: &World, messages: i64) {
    let figures = world.row(include_str!("sql/figures.sql")).await;
    for (name, wanted) in [
        ("published", messages),
        ("handled", messages),
        ("messages", messages),
        ("idempotency_keys", messages),
        ("strangers", 0),
        ("overtaken", 0),
    ] {
        assert_eq!(figures.get::<i64, _>(name), wanted, "{name}");
    }
}
