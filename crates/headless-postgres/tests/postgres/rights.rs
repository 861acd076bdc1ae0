//! Users who may do less than everything.

use headless_abstractions::ErrorKind;
use headless_harness::services::private_postgres;
use headless_postgres::{Migrate, Migration, Postgres, PostgresConfig};

use crate::world::{World, present};

const GRANT_CREATE: &str = include_str!("sql/grant_create.sql");
const GRANT_USE: &str = include_str!("sql/grant_use.sql");
const USER: &str = include_str!("sql/user.sql");

/// The settings of a user without rights on the database of this world.
async fn limited(world: &World) -> PostgresConfig {
    world.raw(USER).await;
    let url = world.url.replace("postgres@", &format!("{}@", world.schema));
    assert_ne!(url, world.url);
    world.config_at(&url)
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

        world.raw(GRANT_CREATE).await;
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

        world.raw(GRANT_USE).await;
        Postgres::connect_with(config).await.unwrap();
    })
    .await;
}
