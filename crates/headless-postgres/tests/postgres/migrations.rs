//! Bringing the schema up to date, by one and by many, to the end and cut off.

use std::{
    env,
    process::{Child, Command, Stdio},
};

use headless_abstractions::{ErrorKind, UnitOfWorkStore};
use headless_postgres::{Migrate, Migration, Postgres, PostgresConfig, Schema};
use sqlx::{Connection, Row};

use crate::world::{World, eventually};

const CHANGE: &str = include_str!("sql/change_migration.sql");
const CREATE_SCHEMA: &str = include_str!("../../queries/migration/create_schema.sql");
const CREATE_TABLE: &str = include_str!("../../queries/migration/create_table.sql");
const HELD_UP: &str = include_str!("sql/held_up.sql");
const HOLD: &str = include_str!("sql/hold_migrations.sql");
const NEWER: &str = include_str!("sql/newer_migration.sql");
const OBJECTS: &str = include_str!("sql/objects.sql");
const RECORDED: &str = include_str!("sql/recorded.sql");

/// Tells this program to be a process that migrates, and where.
const CHILD_URL: &str = "HEADLESS_TEST_MIGRATE_URL";
const CHILD_SCHEMA: &str = "HEADLESS_TEST_MIGRATE_SCHEMA";

fn all() -> Vec<i32> {
    Migration::ALL.iter().map(|step| step.version).collect()
}

/// The steps that the schema has, in the order in which they were applied.
async fn recorded(world: &World) -> Vec<i32> {
    let rows = world.rows(RECORDED).await;
    rows.iter().map(|row| row.get("version")).collect()
}

/// Every object of the schema, by kind and name.
async fn objects(world: &World) -> Vec<String> {
    let rows = world.rows(OBJECTS).await;
    rows.iter().map(|row| row.get("object")).collect()
}

/// This program again, as a process that migrates this schema.
fn child(world: &World) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "migrations::as_a_child", "--nocapture"])
        .env(CHILD_URL, &world.url)
        .env(CHILD_SCHEMA, world.schema.as_str())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a child does; without being one, nothing.
#[tokio::test]
async fn as_a_child() {
    let (Ok(url), Ok(schema)) = (env::var(CHILD_URL), env::var(CHILD_SCHEMA)) else {
        return;
    };
    let config = PostgresConfig::new(&url)
        .unwrap()
        .with_schema(Schema::parse(&schema).unwrap());
    Postgres::migrate(&config).await.unwrap();
}

#[tokio::test]
async fn should_apply_every_step_once_when_repeated() {
    World::run(async |world| {
        let pending = Postgres::check(&world.config()).await.unwrap().pending;
        assert_eq!(
            pending,
            Migration::ALL,
            "checking an empty database finds nothing"
        );
        assert_eq!(Postgres::migrate(&world.config()).await.unwrap(), Migration::ALL);
        assert_eq!(Postgres::migrate(&world.config()).await.unwrap(), []);

        let state = Postgres::check(&world.config()).await.unwrap();
        assert_eq!(
            (state.applied.as_slice(), state.pending.as_slice()),
            (Migration::ALL, [].as_slice())
        );
        assert_eq!(recorded(world).await, all());
    })
    .await;
}

#[tokio::test]
async fn should_be_one_store_when_connected_to_twice_and_another_in_another_schema() {
    World::run(async |world| {
        let (first, second) = (world.connect().await, world.connect().await);
        assert_eq!(first.store_id(), second.store_id());
        World::run(async |other| {
            assert_ne!(other.connect().await.store_id(), first.store_id());
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn should_apply_every_step_once_when_ten_tasks_begin_together() {
    World::run(async |world| {
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let config = world.config();
                tokio::spawn(async move { Postgres::migrate(&config).await.unwrap() })
            })
            .collect();
        let mut applied = Vec::new();
        for task in tasks {
            applied.extend(task.await.unwrap());
        }
        applied.sort_by_key(|step| step.version);
        assert_eq!(applied, Migration::ALL, "each by one of them");
        assert_eq!(recorded(world).await, all());
    })
    .await;
}

#[tokio::test]
async fn should_apply_every_step_once_when_ten_processes_begin_together() {
    World::run(async |world| {
        let children: Vec<Child> = (0..10).map(|_| child(world)).collect();
        for mut child in children {
            let status = tokio::task::spawn_blocking(move || child.wait())
                .await
                .unwrap()
                .unwrap();
            assert!(status.success(), "{status}");
        }
        assert_eq!(recorded(world).await, all());
    })
    .await;
}

#[tokio::test]
async fn should_leave_a_whole_step_when_killed_in_the_middle_of_one() {
    World::run(async |world| {
        // It gets as far as writing down its first step, whose objects are made by then.
        world.raw(CREATE_SCHEMA).await;
        world.raw(CREATE_TABLE).await;
        let empty = objects(world).await;
        let mut conn = world.conn().await;
        let mut hold = conn.begin().await.unwrap();
        sqlx::raw_sql(world.sql(HOLD)).execute(&mut *hold).await.unwrap();
        let mut child = child(world);
        eventually("the child is held up", async || {
            world.rows(HELD_UP).await.first().map(|_| ())
        })
        .await;
        // On Unix this is SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        hold.rollback().await.unwrap();
        conn.close().await.unwrap();

        let applied = Postgres::migrate(&world.config()).await.unwrap();
        assert_eq!(applied, Migration::ALL, "of what was killed there is nothing");
        assert_eq!(recorded(world).await, all());

        // The same objects as where nothing happened.
        let made = objects(world).await;
        assert!(made.len() > empty.len());
        World::run(async |other| {
            Postgres::migrate(&other.config()).await.unwrap();
            assert_eq!(objects(other).await, made);
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn should_refuse_a_step_that_was_changed_after_it_was_applied() {
    World::run(async |world| {
        Postgres::migrate(&world.config()).await.unwrap();
        world.raw(CHANGE).await;
        for error in [
            Postgres::migrate(&world.config()).await.unwrap_err(),
            Postgres::check(&world.config()).await.unwrap_err(),
            Postgres::connect_with(world.config()).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Conflict);
            let text = error.to_string();
            assert!(
                text.contains("0001_base") && text.contains(world.schema.as_str()),
                "{text}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn should_refuse_a_schema_when_it_is_newer() {
    World::run(async |world| {
        Postgres::migrate(&world.config()).await.unwrap();
        world.raw(NEWER).await;
        for error in [
            Postgres::migrate(&world.config()).await.unwrap_err(),
            Postgres::connect_with(world.config()).await.unwrap_err(),
            Postgres::connect_with(world.config().with_migrate(Migrate::Check))
                .await
                .unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Conflict);
            let text = error.to_string();
            assert!(text.contains("9999_later") && text.contains("newer"), "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn should_change_nothing_and_say_what_is_missing_when_told_to_check() {
    World::run(async |world| {
        let config = world.config().with_migrate(Migrate::Check);
        let error = Postgres::connect_with(config.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let text = error.to_string();
        assert!(
            text.contains("0001_base") && text.contains("headless migrate"),
            "{text}"
        );
        assert_eq!(Postgres::check(&config).await.unwrap().pending, Migration::ALL);

        Postgres::migrate(&config).await.unwrap();
        Postgres::connect_with(config).await.unwrap();
    })
    .await;
}
