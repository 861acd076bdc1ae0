//! Webhooks come while a node is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, resume_unwind},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures::{FutureExt, future::join_all};
use headless::Sandbox;
use headless_harness::services;
use reqwest::Client;

use crate::{
    deliveries::{all, totals},
    github::{Delivery, client, to},
    node::{Node, eventually},
    schema::Schema,
};

/// How many deliver at once.
const CLIENTS: usize = 16;
/// How often each webhook is delivered.
const TIMES: usize = 2;
/// After how many answers a node is killed.
const KILL_AFTER: usize = 150;

/// A repository: received, and what is counted of it: handled, last number, gaps.
type Disorder = (String, i64, Option<i64>, Option<i64>, Option<i64>);
type Totals = BTreeMap<(String, String), i64>;

#[tokio::test]
async fn should_count_each_webhook_once_and_in_order_when_a_node_is_killed_while_sixteen_clients_deliver_twice()
 {
    Schema::run(async |schema| count_all(schema, &["--store", &schema.url()]).await).await;
}

#[tokio::test]
async fn should_count_each_webhook_once_and_in_order_when_a_node_is_killed_and_rabbitmq_is_the_transport() {
    let server = match services::rabbitmq() {
        Ok(server) => server,
        Err(absent) => {
            assert!(!services::is_required("rabbitmq"), "{absent:?}");
            eprintln!("NOT RUN: {absent:?}");
            return;
        }
    };
    let sandbox = Sandbox::new();
    let transport = sandbox.url(&server);
    let ended = AssertUnwindSafe(Schema::run(async |schema| {
        count_all(schema, &["--store", &schema.url(), "--transport", &transport]).await;
    }))
    .catch_unwind()
    .await;
    sandbox.remove(&transport).await.unwrap();
    if let Err(panic) = ended {
        resume_unwind(panic);
    }
}

/// Delivers everything to two nodes with these arguments, kills one, and counts in the database.
async fn count_all(schema: &Schema, urls: &[&str]) {
    let deliveries = all();
    let args = [urls, &["--lease", "2"]].concat();
    let (first, second) = (Node::start(&args), Node::start(&args));
    let urls = [&first, &second].map(|node| node.url("/webhooks"));
    let round = Round {
        urls,
        deliveries: [&deliveries[..]; TIMES].concat(),
        ..Round::default()
    };
    let killing = async {
        eventually("enough answers", async || {
            (round.taken.load(SeqCst) >= KILL_AFTER).then_some(())
        })
        .await;
        first.kill();
    };
    futures::join!(round.deliver(), killing);
    let refused = round.refused.load(SeqCst);
    assert_eq!(round.taken.load(SeqCst), TIMES * deliveries.len());
    assert!(refused > 0, "the node was killed while nobody delivered to it");

    let client = client();
    eventually("everything is counted", async || {
        let stats = client.get(second.url("/stats?limit=1000")).send().await.unwrap();
        let stats: serde_json::Value = stats.json().await.unwrap();
        let backlog = &stats["backlog"];
        ["outbox", "lag", "running", "parked"]
            .iter()
            .all(|what| backlog[what] == 0)
            .then_some(())
    })
    .await;
    let (status, log) = second.end().await;
    assert!(status.success(), "{log}");

    let wanted = totals(&deliveries);
    assert_eq!(
        read(schema, include_str!("sql/webhooks.sql")).await,
        wanted,
        "stored"
    );
    assert_eq!(
        read(schema, include_str!("sql/totals.sql")).await,
        wanted,
        "counted"
    );
    let disorder: Vec<Disorder> = schema.rows(include_str!("sql/order.sql")).await;
    assert_eq!(disorder, [], "received, handled, last number, gaps");
    let left: Vec<(i64, i64, i64)> = schema.rows(include_str!("sql/left.sql")).await;
    assert_eq!(left, [(0, 0, 0)], "outbox, dead letters, parked");
    eprintln!(
        "{} webhooks of {} repositories, each delivered {TIMES} times by {CLIENTS} clients; {refused} deliveries found no node and came again",
        wanted.values().sum::<i64>(),
        wanted
            .keys()
            .map(|(repository, _)| repository)
            .collect::<BTreeSet<_>>()
            .len(),
    );
}

async fn read(schema: &Schema, query: &str) -> Totals {
    let rows: Vec<(String, String, i64)> = schema.rows(query).await;
    rows.into_iter()
        .map(|(repository, event, count)| ((repository, event), count))
        .collect()
}

/// Deliveries, each to one of two nodes, and to the other one when it is not taken.
#[derive(Default)]
struct Round {
    urls: [String; 2],
    deliveries: Vec<Delivery>,
    next: AtomicUsize,
    taken: AtomicUsize,
    refused: AtomicUsize,
}

impl Round {
    async fn deliver(&self) {
        join_all((0..CLIENTS).map(async |number| {
            let client = client();
            while let Some(delivery) = self.deliveries.get(self.next.fetch_add(1, SeqCst)) {
                self.redeliver(&client, delivery, number).await;
            }
        }))
        .await;
    }

    /// Delivers one until it is taken.
    async fn redeliver(&self, client: &Client, delivery: &Delivery, first: usize) {
        let mut attempt = first;
        eventually("a node takes it", async || {
            let url = &self.urls[attempt % self.urls.len()];
            attempt += 1;
            match to(client, url, delivery).send().await {
                Ok(answer) if answer.status() == 202 => Some(()),
                Ok(answer) if answer.status() == 503 => None,
                Ok(answer) => panic!("{delivery:?}: {answer:?}"),
                Err(_gone) => {
                    self.refused.fetch_add(1, SeqCst);
                    None
                }
            }
        })
        .await;
        self.taken.fetch_add(1, SeqCst);
    }
}
