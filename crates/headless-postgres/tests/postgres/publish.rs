//! Publishing from SQL: psql, a trigger, Python. What they publish is relayed and handled as everything else.

use std::process::{Command, Output};

use headless::{Consumer, Context, Event, Headless, Memory, Ordered, PublishExt, Runtime};
use headless_harness::Unavailable;
use headless_postgres::Postgres;
use serde::{Deserialize, Serialize};
use sqlx::{Row, postgres::PgListener};
use tokio::{sync::mpsc, time::timeout};
use uuid::Uuid;

use crate::world::{PATIENCE, World, present};

const BY_PSQL: &str = include_str!("publish/by_psql.sql");
const ID: &str = include_str!("publish/id.sql");
const LOUD: &str = include_str!("publish/loud.sql");
const PLACES: &str = include_str!("publish/places.sql");
const QUIET: &str = include_str!("publish/quiet.sql");
const REFUSED: &str = include_str!("publish/refused.sql");
const TRIGGER: &str = include_str!("publish/trigger.sql");
const WRITE: &str = include_str!("publish/write.sql");

/// What every one of them publishes.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    text: String,
}

impl Event for Noted {
    const TOPIC: &'static str = "notes.noted";

    fn key(&self) -> Option<std::borrow::Cow<'_, str>> {
        Some("k".into())
    }
}

/// What a handler saw.
#[derive(Debug)]
struct Seen {
    id: Uuid,
    text: String,
    key: Option<String>,
    by: Option<String>,
}

/// A service that relays the outbox of this world and handles what is noted.
async fn service(world: &World) -> (Runtime, mpsc::UnboundedReceiver<Seen>) {
    let (seen, receiver) = mpsc::unbounded_channel();
    let handler = move |noted: Noted, cx: Context| {
        let seen = seen.clone();
        async move {
            let message = cx.message();
            let work = cx.begin::<Postgres>().await?;
            work.commit().await?;
            seen.send(Seen {
                id: message.id.as_uuid(),
                text: noted.text,
                key: message.key.as_ref().map(|key| key.as_str().to_owned()),
                by: message.headers.get("by").map(str::to_owned),
            })?;
            Ok(())
        }
    };
    let runtime = Headless::builder("notes")
        .store(&world.connect().await)
        .transport(Memory::new())
        .topic::<Noted>(Ordered::partitions(4))
        .consumer(Consumer::group("readers").on(handler).ordered_by_key())
        .start()
        .await
        .unwrap();
    (runtime, receiver)
}

async fn next(receiver: &mut mpsc::UnboundedReceiver<Seen>) -> Seen {
    timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap()
}

/// What a program printed, which must have worked.
fn printed(output: &Output) -> String {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    String::from_utf8(output.stdout.clone())
        .unwrap()
        .trim()
        .to_owned()
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap()
}

/// A Python that has psycopg2: the one on the path, or that of the system.
fn python() -> Result<&'static str, Unavailable> {
    ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(|python| {
            let tried = Command::new(python).args(["-c", "import psycopg2"]).output();
            tried.is_ok_and(|tried| tried.status.success())
        })
        .ok_or_else(|| Unavailable::Absent("no python3 has psycopg2: install python3-psycopg2".to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_be_handled_when_psql_publishes() {
    World::run(async |world| {
        let (runtime, mut seen) = service(world).await;
        let mut psql = Command::new("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c"])
            .args([&world.sql(BY_PSQL).0, &world.url]);
        let id = printed(&run(psql).await);
        let noted = next(&mut seen).await;
        assert_eq!(noted.id.to_string(), id);
        assert_eq!(
            (noted.text.as_str(), noted.key.as_deref()),
            ("from psql", Some("k"))
        );
        assert_eq!(noted.by.as_deref(), Some("psql"));
        runtime.shutdown(PATIENCE).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_be_handled_when_python_publishes_and_commits() {
    let Some(python) = present(python()) else { return };
    World::run(async |world| {
        let (runtime, mut seen) = service(world).await;
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/postgres/publish/by_psycopg2.py"
        );
        let mut command = Command::new(python);
        command.args([script, &world.url, world.schema.as_str()]);
        let ids = printed(&run(command).await);
        // A dictionary, then a text, then bytes: what was rolled back between them is not there.
        for (id, text) in ids.lines().zip(["a dictionary", "a text", "bytes"]) {
            let noted = next(&mut seen).await;
            assert_eq!((noted.id.to_string().as_str(), noted.text.as_str()), (id, text));
            assert_eq!(noted.by.as_deref(), Some("python"));
        }
        assert_eq!(ids.lines().count(), 3);
        runtime.settled(PATIENCE).await.unwrap();
        assert!(seen.try_recv().is_err(), "what was rolled back was not published");
        runtime.shutdown(PATIENCE).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_be_handled_in_order_when_a_trigger_of_the_users_table_publishes() {
    World::run(async |world| {
        let (runtime, mut seen) = service(world).await;
        world.raw(TRIGGER).await;
        let mut work = runtime.begin::<Postgres>().await.unwrap();
        for text in ["first", "second", "third"] {
            sqlx::query(world.sql(WRITE))
                .bind(text)
                .execute(work.conn())
                .await
                .unwrap();
        }
        work.commit().await.unwrap();
        for text in ["first", "second", "third"] {
            let noted = next(&mut seen).await;
            assert_eq!(
                (noted.text.as_str(), noted.by.as_deref()),
                (text, Some("trigger"))
            );
        }
        runtime.shutdown(PATIENCE).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_have_the_same_place_as_what_the_library_publishes() {
    World::run(async |world| {
        let (runtime, _seen) = service(world).await;
        let mut work = runtime.begin::<Postgres>().await.unwrap();
        work.publish(&Noted { text: "x".to_owned() }).await.unwrap();
        sqlx::query(world.sql(BY_PSQL))
            .execute(work.conn())
            .await
            .unwrap();
        let places = sqlx::query(world.sql(PLACES))
            .fetch_all(work.conn())
            .await
            .unwrap();
        work.rollback().await.unwrap();
        let counts: Vec<i64> = places.iter().map(|place| place.get("messages")).collect();
        assert_eq!(counts, [2], "one place for both");
        runtime.shutdown(PATIENCE).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_give_ids_that_sort_by_time() {
    World::run(async |world| {
        Postgres::migrate(&world.config()).await.unwrap();
        let mut ids: Vec<Uuid> = Vec::new();
        for _ in 0..3 {
            let row = &world.rows(ID).await[0];
            let id: Uuid = row.get("id");
            let (before, after): (i64, i64) = (row.get("before"), row.get("after"));
            assert_eq!(id.get_version_num(), 7);
            assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
            let millis = i64::try_from(id.as_u128() >> 80).unwrap();
            assert!((before..=after).contains(&millis), "{before} {millis} {after}");
            ids.push(id);
        }
        ids.dedup();
        assert_eq!(ids.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn should_wake_relays_with_the_commit_unless_told_not_to() {
    World::run(async |world| {
        Postgres::migrate(&world.config()).await.unwrap();
        let channel = format!("headless_{}", world.schema);
        let mut listener = PgListener::connect(&world.url).await.unwrap();
        listener.listen(&channel).await.unwrap();
        world.raw(QUIET).await;
        world.raw(LOUD).await;
        // The server keeps the order: had the first one notified, it would be here.
        let heard = timeout(PATIENCE, listener.recv()).await.unwrap().unwrap();
        assert_eq!(heard.payload(), "after the quiet one");
        let heard = timeout(PATIENCE, listener.recv()).await.unwrap().unwrap();
        assert_eq!(heard.payload(), "store");
    })
    .await;
}

/// Each call of the file is refused with the words in the comment above it, and leaves nothing.
#[tokio::test]
async fn should_refuse_what_the_library_refuses_and_name_it() {
    World::run(async |world| {
        Postgres::migrate(&world.config()).await.unwrap();
        let mut conn = world.conn().await;
        let mut tried = 0;
        let mut lines = REFUSED.lines();
        while let Some(words) = lines.next() {
            let (words, call) = (words.strip_prefix("-- ").unwrap(), lines.next().unwrap());
            let error = sqlx::raw_sql(world.sql(call))
                .execute(&mut conn)
                .await
                .unwrap_err();
            assert!(error.to_string().contains(words), "{call}: {error}");
            tried += 1;
        }
        assert!(tried > 20);
        assert!(world.rows(PLACES).await.is_empty());
    })
    .await;
}
