//! Heartbeats of an application that never yields.

use std::{sync::mpsc, thread, time::Duration};

use headless::{
    Headless, Postgres,
    postgres::sqlx::{self, Connection, PgConnection, Row},
};
use headless_harness::services;

use crate::{MINUTE, Schema};

/// Looks at the server from a thread of its own until the node was heard of so often, each time anew.
fn watch(schema: &Schema, times: usize) -> mpsc::Receiver<()> {
    let (tell, told) = mpsc::channel();
    let schema = schema.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut conn = PgConnection::connect(&services::postgres().unwrap())
                .await
                .unwrap();
            let mut latest = 0_i64;
            for _ in 0..times {
                loop {
                    let row = sqlx::query(schema.sql(include_str!("heard.sql")))
                        .fetch_one(&mut conn)
                        .await
                        .unwrap();
                    let heard: i64 = row.get("heard_at");
                    if heard > latest {
                        latest = heard;
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            conn.close().await.unwrap();
            tell.send(()).unwrap();
        });
    });
    told
}

/// The connection of heartbeats is made, and served, where they run: here nothing of the application's one thread is free.
#[tokio::test]
async fn should_be_heard_of_when_the_application_never_yields() {
    Schema::run(async |schema, url| {
        let store = Postgres::connect(url).await.unwrap();
        let builder = Headless::builder("orders")
            .store(&store)
            .transport(store.clone())
            .membership_heartbeat(Duration::from_millis(200));
        let runtime = builder.start().await.unwrap();
        let told = watch(schema, 3);
        told.recv_timeout(MINUTE).unwrap();
        runtime.shutdown(MINUTE).await.unwrap();
    })
    .await;
}
