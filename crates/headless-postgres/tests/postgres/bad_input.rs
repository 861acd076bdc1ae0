//! Settings and values that cannot be right: a clear error each, and nothing lost.

use std::{error::Error as _, time::Duration};

use headless_abstractions::{Error, ErrorKind, OwnedTx, UnitOfWorkStore};
use headless_harness::services::{PrivatePostgres, private_postgres, private_postgres_standby};
use headless_postgres::{Migrate, Postgres, PostgresConfig};

use crate::world::{PATIENCE, World, few, present};

/// The error, with everything that it shows of itself and its sources.
fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text} {error} {error:?}");
        source = error.source();
    }
    text
}

async fn refused(config: PostgresConfig) -> Error {
    tokio::time::timeout(PATIENCE, Postgres::connect_with(config))
        .await
        .expect("it is refused soon")
        .unwrap_err()
}

/// The URL with another part in place of this one.
fn with(url: &str, part: &str, other: &str) -> PostgresConfig {
    assert!(url.contains(part), "{url}");
    PostgresConfig::new(&url.replace(part, other)).unwrap()
}

#[tokio::test]
async fn should_connect_with_a_hard_password_and_say_so_when_it_is_wrong() {
    let password = "p@ss:/%?#";
    let Some(server) = present(PrivatePostgres::builder().password(password).start()) else {
        return;
    };
    World::run_at(server.url(), async |world| {
        let postgres = world.connect().await;
        assert!(!format!("{postgres:?} {:?}", postgres.config()).contains("p@ss"));

        let url = url::Url::parse(&world.url).unwrap();
        for wrong in ["other", ""] {
            let mut url = url.clone();
            url.set_password(Some(wrong)).unwrap();
            let error = refused(world.config_at(url.as_str())).await;
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.to_string().contains("password"), "{error}");
            assert!(!error.is_retryable());
        }
        let mut url = url.clone();
        url.set_username("nobody").unwrap();
        let error = refused(world.config_at(url.as_str())).await;
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(!shown(&error).contains("p@ss"), "{}", shown(&error));
    })
    .await;
}

#[tokio::test]
async fn should_name_what_is_not_there_when_database_or_host_is_unknown() {
    World::run(async |world| {
        let error = refused(with(&world.url, "/test", "/no_such_database")).await;
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("no_such_database"), "{error}");

        let error = refused(with(&world.url, "127.0.0.1", "no-such-host.invalid")).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");

        let error = refused(with(&world.url, "127.0.0.1:5432", "127.0.0.1:1")).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_retryable());
    })
    .await;
}

#[tokio::test]
async fn should_say_tls_when_the_server_has_none() {
    let Some(server) = present(private_postgres()) else {
        return;
    };
    World::run_at(server.url(), async |world| {
        let error = refused(world.config_at(&format!("{}?sslmode=require", world.url))).await;
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("TLS"), "{error}");
        assert!(!error.is_retryable());
    })
    .await;
}

#[tokio::test]
async fn should_be_unavailable_when_the_database_is_in_recovery() {
    let Some(primary) = present(private_postgres()) else {
        return;
    };
    World::run_at(primary.url(), async |world| {
        Postgres::migrate(&world.config()).await.unwrap();
        let standby = present(private_postgres_standby(&primary)).unwrap();
        let config = world.config_at(&standby.url());

        // All is there already: connecting writes nothing.
        let postgres = Postgres::connect_with(config.clone()).await.unwrap();
        let mut tx = postgres.begin().await.unwrap();
        let error = sqlx::raw_sql(world.sql(include_str!("sql/write.sql")))
            .execute(tx.conn())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("read-only"), "{error}");
        Box::new(tx).rollback().await.unwrap();

        World::run_at(primary.url(), async |other| {
            let error = refused(other.config_at(&standby.url())).await;
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.to_string().contains("recovery"), "{error}");
            let check = other.config_at(&standby.url()).with_migrate(Migrate::Check);
            assert_eq!(refused(check).await.kind(), ErrorKind::NotFound);
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn should_name_the_setting_when_all_connections_are_in_use() {
    World::run(async |world| {
        let config = world
            .config()
            .with_max_connections(few(1))
            .with_control_connections(few(1))
            .with_acquire_timeout(Duration::from_millis(300));
        let postgres = Postgres::connect_with(config).await.unwrap();
        let open = postgres.begin().await.unwrap();
        let error = postgres.begin().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("raise max_connections"), "{error}");
        assert!(error.is_retryable() && !error.is_outcome_unknown());

        Box::new(open).commit().await.unwrap();
        let again = postgres.begin().await.unwrap();
        Box::new(again).rollback().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_say_that_the_server_is_gone_and_not_that_the_pool_is_small() {
    let Some(mut server) = present(private_postgres()) else {
        return;
    };
    let world = server.url();
    let config = PostgresConfig::new(&world)
        .unwrap()
        .with_acquire_timeout(Duration::from_millis(300));
    let postgres = Postgres::connect_with(config).await.unwrap();
    server.stop(headless_harness::services::Stop::Immediate).unwrap();
    let error = postgres.begin().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.to_string().contains("max_connections"), "{error}");
    assert!(error.to_string().contains("server"), "{error}");
}
