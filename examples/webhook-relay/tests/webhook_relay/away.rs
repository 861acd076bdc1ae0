//! The database is away for a while.

use std::time::Duration;

use headless_harness::{
    Unavailable,
    services::{self, Stop, private_postgres},
};

use crate::{
    deliveries::all,
    github::{answer, client, request},
    node::{Node, eventually},
};

#[tokio::test]
async fn should_tell_github_to_come_again_and_count_all_when_the_store_is_away_for_a_while() {
    let mut server = match private_postgres() {
        Ok(server) => server,
        Err(Unavailable::Absent(why)) if !services::is_required("postgres") => {
            eprintln!("NOT RUN: {why}");
            return;
        }
        Err(why) => panic!("{why:?}"),
    };
    let url = format!("{}?acquire_timeout=1s", server.url());
    let (node, client) = (Node::start(&["--store", &url, "--lease", "2"]), client());
    let all = all();
    let [first, second] = &all[..2] else {
        panic!("there are many")
    };
    assert_eq!(answer(request(&client, &node, first)).await.0, 202);

    server.stop(Stop::Immediate).unwrap();
    for delivery in [first, second] {
        let refused = request(&client, &node, delivery).send().await.unwrap();
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "5");
        let text = refused.text().await.unwrap();
        assert_eq!(
            text, r#"{"error":"not now, come again"}"#,
            "it says nothing of what is inside"
        );
    }
    eventually("it says that it is not well", async || {
        let (status, problems) = answer(client.get(node.url("/healthz"))).await;
        (status == 503
            && problems["problems"]
                .as_array()
                .is_some_and(|problems| !problems.is_empty()))
        .then_some(())
    })
    .await;

    server.start().unwrap();
    for delivery in [first, second] {
        eventually("it comes again and is taken", async || {
            (answer(request(&client, &node, delivery)).await.0 == 202).then_some(())
        })
        .await;
    }
    eventually("both are counted once", async || {
        let (_, stats) = answer(client.get(node.url("/stats"))).await;
        let handled = stats["repositories"]
            .as_array()?
            .iter()
            .map(|row| row["handled"].as_i64());
        (handled.sum::<Option<i64>>() == Some(2)).then_some(())
    })
    .await;
    eventually("it is well again", async || {
        (answer(client.get(node.url("/healthz"))).await.0 == 200).then_some(())
    })
    .await;
    let (status, log) = tokio::time::timeout(Duration::from_secs(30), node.end())
        .await
        .unwrap();
    assert!(status.success(), "{log}");
}
