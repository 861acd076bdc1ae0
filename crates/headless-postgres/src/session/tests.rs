//! What the provider's connections are, whatever the server's defaults.

use headless_abstractions::{OwnedTx, UnitOfWorkStore};
use headless_harness::{Namespace, services};
use sqlx::Row;

use crate::{Postgres, PostgresConfig, Schema};

const DROP: &str = include_str!("tests/drop.sql");
const ISOLATION: &str = include_str!("tests/isolation.sql");

#[tokio::test]
async fn should_read_what_is_committed_when_the_default_is_another_isolation() {
    let Ok(url) = services::postgres() else {
        assert!(!services::is_required("postgres"));
        return;
    };
    let url = format!("{url}?options[default_transaction_isolation]=serializable");
    let schema = Schema::parse(Namespace::unique().as_str()).unwrap();
    let config = PostgresConfig::new(&url).unwrap().with_schema(schema.clone());
    let postgres = Postgres::connect_with(config).await.unwrap();

    let mut tx = postgres.begin().await.unwrap();
    let row = sqlx::query(ISOLATION).fetch_one(tx.conn()).await.unwrap();
    assert_eq!(row.get::<&str, _>(0), "read committed", "a unit of work");
    Box::new(tx).rollback().await.unwrap();

    let shared = &postgres.shared;
    let mut session = shared.session().await.unwrap();
    let row = sqlx::query(ISOLATION).fetch_one(&mut *session).await.unwrap();
    assert_eq!(row.get::<&str, _>(0), "read committed", "a call");
    session.finish(&shared.statements).await.unwrap();

    let row = sqlx::query(ISOLATION).fetch_one(postgres.client()).await.unwrap();
    assert_eq!(row.get::<&str, _>(0), "serializable", "the application's own");
    sqlx::raw_sql(sqlx::AssertSqlSafe(DROP.replace("{schema}", schema.as_str())))
        .execute(postgres.client())
        .await
        .unwrap();
}
