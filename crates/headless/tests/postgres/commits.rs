//! A COMMIT that does not reach the server, and one whose answer does not come back: of a publisher, of a handler, and of
//! a relay whose calls are transactions.

use headless::{AnyStore, AnyTransport, Builder, Runtime};
use headless_harness::FaultProxy;

use super::*;

/// How often a relay's COMMIT is hit.
const TIMES: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Dropped,
    Unanswered,
}

impl Fault {
    /// What becomes of the next COMMIT through this proxy.
    fn on(self, proxy: &FaultProxy) {
        match self {
            Self::Dropped => proxy.drop_commit(),
            Self::Unanswered => proxy.lose_commit_answer(),
        }
        .unwrap();
    }
}

/// One database for a publisher, a relay and a consumer, of which one reaches its store through a proxy.
struct Trial<'a> {
    schema: &'a Schema,
    proxy: FaultProxy,
    publisher: Runtime,
    relay: Runtime,
    consumer: Runtime,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Publisher,
    Relay,
    Consumer,
}

impl Trial<'_> {
    async fn run(broken: Role, trial: impl AsyncFnOnce(&Trial<'_>)) {
        Schema::run(async |schema, url| {
            let proxy = FaultProxy::in_front_of(url).unwrap();
            // What is encrypted is not for the proxy to read.
            let through = format!("{}&sslmode=disable", proxy.url_for(url).unwrap());
            let part = async |role| {
                let store = match (broken == role, role) {
                    (false, _) => url.to_owned(),
                    // Each of its calls is a transaction then, with a COMMIT of its own.
                    (true, Role::Relay) => format!("{through}&pooler=transaction"),
                    (true, _) => through.clone(),
                };
                let store = Providers::builtin().connect(&store).await.unwrap();
                let transport = Providers::builtin().connect(url).await.unwrap();
                builder(&store.store().unwrap(), &transport.transport().unwrap())
            };
            let group = Consumer::group("billing").on(bill).ordered_by_key();
            let consumer = part(Role::Consumer).await.relays(false).consumer(group);
            let consumer = consumer.state(schema.clone()).start().await.unwrap();
            let relay = part(Role::Relay).await.start().await.unwrap();
            let publisher = part(Role::Publisher).await.relays(false).start().await.unwrap();
            let of_run = Trial {
                schema,
                proxy,
                publisher,
                relay,
                consumer,
            };
            trial(&of_run).await;
            let Trial {
                publisher,
                relay,
                consumer,
                ..
            } = of_run;
            for runtime in [publisher, relay, consumer] {
                runtime.shutdown(MINUTE).await.unwrap();
            }
        })
        .await;
    }

    /// Publishes an order with its row; what its commit says.
    async fn publish(&self, order: &str) -> headless::Result<()> {
        let mut work = self.publisher.begin::<Postgres>().await?;
        let insert = sqlx::query(self.schema.sql(include_str!("order.sql"))).bind(order);
        insert.execute(work.conn()).await.unwrap();
        let order = order.to_owned();
        work.publish(&Placed { order }).await?;
        work.commit().await
    }

    async fn names(&self, query: &str) -> Vec<String> {
        let mut conn = PgConnection::connect(&services::postgres().unwrap())
            .await
            .unwrap();
        let rows = sqlx::query(self.schema.sql(query))
            .fetch_all(&mut conn)
            .await
            .unwrap();
        conn.close().await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Waits until all is settled, and compares what was handled with what was published, each once.
    async fn assert_handled_once(&self, wanted: &[&str]) {
        assert!(self.proxy.is_passing(), "no COMMIT came through the proxy");
        self.consumer.settled(MINUTE).await.unwrap();
        assert_eq!(self.names(include_str!("orders.sql")).await, wanted);
        assert_eq!(self.names(include_str!("invoices.sql")).await, wanted);
    }
}

fn builder(store: &AnyStore, transport: &AnyTransport) -> Builder {
    Headless::builder("orders")
        .any_store(store)
        .any_transport(transport)
        .topic::<Placed>(Ordered::partitions(4))
        .preset(Preset::Development)
        .relay_lease(Duration::from_secs(1))
}

#[tokio::test]
async fn should_keep_nothing_when_a_publishers_commit_does_not_reach_the_server() {
    Trial::run(Role::Publisher, async |trial| {
        Fault::Dropped.on(&trial.proxy);
        let error = trial.publish("o-1").await.unwrap_err();
        assert!(error.is_outcome_unknown(), "{error}");
        trial.publish("o-2").await.unwrap();
        trial.assert_handled_once(&["o-2"]).await;
        trial.publish("o-1").await.unwrap();
        trial.assert_handled_once(&["o-1", "o-2"]).await;
    })
    .await;
}

#[tokio::test]
async fn should_send_once_when_the_answer_to_a_publishers_commit_is_lost() {
    Trial::run(Role::Publisher, async |trial| {
        Fault::Unanswered.on(&trial.proxy);
        let error = trial.publish("o-1").await.unwrap_err();
        assert!(error.is_outcome_unknown(), "{error}");
        // Committed all the same, and relayed though nobody was woken.
        trial.assert_handled_once(&["o-1"]).await;
    })
    .await;
}

#[tokio::test]
async fn should_handle_once_when_a_handlers_commit_does_not_reach_the_server() {
    Trial::run(Role::Consumer, async |trial| {
        Fault::Dropped.on(&trial.proxy);
        trial.publish("o-1").await.unwrap();
        trial.consumer.settled(MINUTE).await.unwrap();
        trial.assert_handled_once(&["o-1"]).await;
        let stats = trial.consumer.consumers()[0].stats();
        assert_eq!(
            (stats.handled, stats.retried),
            (1, 1),
            "what was rolled back is run again"
        );
    })
    .await;
}

#[tokio::test]
async fn should_handle_once_when_the_answer_to_a_handlers_commit_is_lost() {
    Trial::run(Role::Consumer, async |trial| {
        Fault::Unanswered.on(&trial.proxy);
        trial.publish("o-1").await.unwrap();
        trial.consumer.settled(MINUTE).await.unwrap();
        trial.assert_handled_once(&["o-1"]).await;
        let stats = trial.consumer.consumers()[0].stats();
        assert_eq!(
            (stats.handled, stats.retried),
            (1, 0),
            "the store was asked, and knew"
        );
    })
    .await;
}

#[tokio::test]
async fn should_send_everything_when_commits_of_a_relay_are_hit_in_both_ways() {
    Trial::run(Role::Relay, async |trial| {
        let mut wanted = Vec::new();
        for n in 0..TIMES {
            let fault = [Fault::Dropped, Fault::Unanswered][n % 2];
            fault.on(&trial.proxy);
            wanted.push(format!("o-{n}"));
            trial.publish(&wanted[n]).await.unwrap();
            trial.consumer.settled(MINUTE).await.unwrap();
            assert!(trial.proxy.is_passing(), "COMMIT {n} was not hit: {fault:?}");
        }
        let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
        trial.assert_handled_once(&wanted).await;
        assert!(trial.relay.health().is_healthy());
    })
    .await;
}
