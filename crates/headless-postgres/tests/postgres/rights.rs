//! Users who may do less than everything: what the page of the provider grants them is enough.

use headless::{Consumer, Context, Event, HandlerResult, Headless, PublishExt};
use headless_abstractions::ErrorKind;
use headless_harness::services::private_postgres;
use headless_postgres::{Migrate, Migration, Postgres, PostgresConfig};
use sqlx::{Connection, PgConnection};

use crate::world::{PATIENCE, World, present};

const PAGE: &str = include_str!("../../../../docs/providers/postgres.md");
const PUBLISH: &str = include_str!("publish/loud.sql");
const USER: &str = include_str!("sql/user.sql");

/// The statements that the page grants this user with, for the user and the schema of this world.
fn grants(world: &World, user: &str) -> String {
    let last = format!(" to {user};");
    let block = PAGE
        .split("```")
        .filter_map(|block| block.strip_prefix("sql\n"))
        .find(|block| block.contains(&last))
        .unwrap();
    block
        .replace("schema headless", &format!("schema {}", world.schema))
        .replace("headless.", &format!("{}.", world.schema))
        .replace(&last, &format!(" to {};", world.schema))
}

/// The settings of a user without rights on the database of this world.
async fn limited(world: &World) -> PostgresConfig {
    world.raw(USER).await;
    world.config_at(&url_of_user(world))
}

fn url_of_user(world: &World) -> String {
    let url = world.url.replace("postgres@", &format!("{}@", world.schema));
    assert_ne!(url, world.url);
    url
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Noted {}

impl Event for Noted {
    const TOPIC: &'static str = "notes.noted";
}

async fn read(_: Noted, cx: Context) -> HandlerResult {
    let work = cx.begin::<Postgres>().await?;
    Ok(work.commit().await?)
}

/// A server of one's own, since users are shared by all databases of a server.
async fn run(test: impl AsyncFnOnce(&World)) {
    if let Some(server) = present(private_postgres()) {
        World::run_at(server.url(), test).await;
    }
}

#[tokio::test]
async fn should_migrate_when_the_user_may_create_in_the_schema_but_not_in_the_database() {
    run(async |world| {
        let config = limited(world).await;
        let error = Postgres::migrate(&config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(
            error.to_string().contains("permission denied for database"),
            "{error}"
        );

        world.raw(&grants(world, "migrator")).await;
        assert_eq!(Postgres::migrate(&config).await.unwrap(), Migration::ALL);
        Postgres::connect_with(config).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_be_denied_by_name_until_the_rights_of_the_page_are_granted() {
    run(async |world| {
        let config = limited(world).await.with_migrate(Migrate::Check);
        Postgres::migrate(&world.config()).await.unwrap();
        for config in [config.clone(), config.clone().with_migrate(Migrate::Auto)] {
            let error = Postgres::connect_with(config).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            let text = error.to_string();
            assert!(
                text.contains(world.schema.as_str()) && text.contains("grant"),
                "{text}"
            );
        }

        world.raw(&grants(world, "app")).await;
        let postgres = Postgres::connect_with(config).await.unwrap();
        let runtime = Headless::builder("limited")
            .store(&postgres)
            .transport(postgres.clone())
            .consumer(Consumer::group("readers").on(read))
            .start()
            .await
            .unwrap();
        let mut work = runtime.begin::<Postgres>().await.unwrap();
        work.publish(&Noted {}).await.unwrap();
        work.commit().await.unwrap();
        runtime.settled(PATIENCE).await.unwrap();
        assert_eq!(runtime.backlog().await.unwrap().dead, 0);
        runtime.shutdown(PATIENCE).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_publish_from_sql_when_nothing_else_is_granted() {
    run(async |world| {
        let config = limited(world).await;
        Postgres::migrate(&world.config()).await.unwrap();
        world.raw(&grants(world, "shop")).await;
        let mut conn = PgConnection::connect(&url_of_user(world)).await.unwrap();
        sqlx::raw_sql(world.sql(PUBLISH))
            .execute(&mut conn)
            .await
            .unwrap();
        conn.close().await.unwrap();
        let error = Postgres::connect_with(config.with_migrate(Migrate::Check))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
    })
    .await;
}
