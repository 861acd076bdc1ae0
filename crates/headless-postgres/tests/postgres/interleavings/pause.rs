//! Stopping a session of the server in the middle of a call, without a clock.

use sqlx::{Connection, PgConnection};

use crate::world::{World, eventually};

const HOLD: &str = include_str!("../sql/pause_hold.sql");
const PAUSE: &str = include_str!("../sql/pause.sql");
const WAITS: &str = include_str!("../sql/waits.sql");

/// A place at which sessions wait until this ends.
pub(super) struct Pause {
    holder: PgConnection,
}

impl Pause {
    /// Puts the pause where `place`, a text of SQL, calls it from.
    pub(super) async fn at(world: &World, place: &str) -> Self {
        world.raw(PAUSE).await;
        world.raw(place).await;
        let mut holder = world.conn().await;
        sqlx::raw_sql(world.sql(HOLD)).execute(&mut holder).await.unwrap();
        Self { holder }
    }

    /// Lets everybody go on, from now on too.
    pub(super) async fn end(self) {
        self.holder.close().await.unwrap();
    }
}

/// Looks until a statement that has this name, of a function as a rule, waits for a lock: of a pause, or of somebody's row.
pub(crate) async fn until_waits(world: &World, function: &str) {
    let mut conn = world.conn().await;
    eventually(&format!("{function} waits"), async || {
        sqlx::query(world.sql(WAITS))
            .bind(function)
            .fetch_optional(&mut conn)
            .await
            .unwrap()
            .map(drop)
    })
    .await;
    conn.close().await.unwrap();
}

/// A session that stays in a transaction after these statements.
pub(crate) async fn open(world: &World, statements: &str) -> PgConnection {
    let mut conn = world.conn().await;
    sqlx::raw_sql(world.sql(statements))
        .execute(&mut conn)
        .await
        .unwrap();
    conn
}

/// Commits what such a session has done.
pub(crate) async fn commit(mut conn: PgConnection) {
    sqlx::raw_sql("commit").execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

/// Looks until no statement that has this in it waits any more.
pub(crate) async fn until_gone(world: &World, text: &str) {
    let mut conn = world.conn().await;
    eventually(&format!("{text} no longer waits"), async || {
        let waits = sqlx::query(world.sql(WAITS))
            .bind(text)
            .fetch_optional(&mut conn)
            .await
            .unwrap();
        waits.is_none().then_some(())
    })
    .await;
    conn.close().await.unwrap();
}
