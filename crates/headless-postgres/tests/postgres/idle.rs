//! A transaction whose holder does not go on.

use std::time::Duration;

use headless_abstractions::{ErrorKind, OwnedTx, UnitOfWorkStore};
use headless_postgres::Postgres;
use sqlx::Row;

use crate::world::World;

const ACCOUNT: &str = include_str!("sql/account.sql");
const ADD: &str = include_str!("sql/account_add.sql");
const SUM: &str = include_str!("sql/account_sum.sql");

#[tokio::test]
async fn should_give_back_its_locks_and_commit_nothing_when_a_transaction_has_nothing_to_do_for_too_long() {
    World::run(async |world| {
        world.raw(ACCOUNT).await;
        let config = world
            .config()
            .with_idle_in_transaction_timeout(Duration::from_millis(300));
        let postgres = Postgres::connect_with(config).await.unwrap();
        let mut stuck = postgres.begin().await.unwrap();
        sqlx::query(world.sql(ADD)).execute(stuck.conn()).await.unwrap();
        // It waits for the row until the server has ended the other transaction.
        world.raw(ADD).await;
        let error = Box::new(stuck).commit().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(world.rows(SUM).await[0].get::<i64, _>("sum"), 1);
    })
    .await;
}
