//! Processes on one database and one RabbitMQ: one is killed, one stopped for longer than its lease, and the RabbitMQ is
//! restarted, all in the middle of their work.

use std::time::Duration;

use headless_harness::{
    Unavailable,
    services::{self, PrivateRabbitMq, Stop},
};
use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use sqlx::Row;
use tokio::task::spawn_blocking;

use crate::{
    process::Process,
    trial::{assert_all_is_well, counts, named, relays, stop_where, told},
    world::{World, eventually},
};

const MESSAGES: i64 = 4_000;
/// The lease and the visibility time of the demo's members.
const LEASE: Duration = Duration::from_secs(2);

struct Trial<'a> {
    world: &'a World,
    /// The RabbitMQ, and its namespace of this trial.
    server: String,
    transport: String,
}

impl Trial<'_> {
    /// Starts a process whose sessions in the database have this name.
    fn start(&self, role: &str, name: &str) -> Process {
        let mut store = named(self.world, &self.world.url(), name);
        if role == "consumer" {
            // What a stopped process has under way is not to be held for ever.
            store.push_str(&format!("&idle_in_transaction_timeout={}s", LEASE.as_secs()));
        }
        Process::start(&[
            "demo-member",
            "--role",
            role,
            "--store",
            &store,
            "--transport",
            &self.transport,
            "--keys",
            "40",
            "--messages",
            &MESSAGES.to_string(),
        ])
    }

    /// Lets it work until this is so: what is stopped again and again from its birth on cannot connect.
    async fn until(&self, what: &str, is_so: impl Fn([i64; 3]) -> bool) {
        eventually(what, async || is_so(counts(self.world).await).then_some(())).await;
    }

    /// Stops a relay that holds messages, with some sent and some to be sent, and says who it is.
    async fn stop_amid_relaying(&self, relay: (&mut Process, &str)) -> String {
        self.until("a message is sent", |[published, waiting, _]| waiting < published)
            .await;
        stop_where(self.world, relay, "a relay amid its work", async |_| {
            let [published, waiting, _] = counts(self.world).await;
            let holders = relays(self.world).await;
            (0 < waiting && waiting < published)
                .then(|| holders.into_iter().next())
                .flatten()
        })
        .await
    }

    /// Starts another relay, and waits until it has what this one held.
    async fn relay_instead_of(&self, owner: &String) -> Process {
        let relay = self.start("relay", "second");
        eventually("another relay has what this one held", async || {
            let holders = relays(self.world).await;
            (!holders.contains(owner)).then_some(())
        })
        .await;
        relay
    }

    /// Stops a consumer within the call of a handler: its message is not settled on the broker.
    async fn stop_amid_handling(&self, consumer: (&mut Process, &str)) {
        self.until("a message is handled", |[.., handled]| handled > 0)
            .await;
        stop_where(self.world, consumer, "a consumer amid its work", async |open| {
            let [published, _, handled] = counts(self.world).await;
            (open > 0 && handled > 0 && handled < published).then_some(())
        })
        .await;
    }

    /// Restarts the server in the middle of everything.
    async fn restart(&self, mut server: PrivateRabbitMq) -> PrivateRabbitMq {
        let mut server = spawn_blocking(move || {
            server.stop(Stop::Fast).unwrap();
            server
        })
        .await
        .unwrap();
        let [published, _, handled] = counts(self.world).await;
        assert!(
            handled < published,
            "everything was done: {handled} of {published}"
        );
        spawn_blocking(move || {
            server.start().unwrap();
            server
        })
        .await
        .unwrap()
    }

    /// How many members of the group the RabbitMQ knows.
    async fn members(&self) -> u32 {
        let connection = Connection::connect(&self.server, ConnectionProperties::default())
            .await
            .unwrap();
        let queue = format!("{}:demo!members", self.world.schema());
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let channel = connection.create_channel().await.unwrap();
        let queue = channel
            .queue_declare(queue.into(), passive, FieldTable::default())
            .await
            .unwrap();
        connection.close(200, "bye".into()).await.unwrap();
        queue.consumer_count()
    }

    /// Judges what is in the database, and how often handlers were called.
    #[expect(clippy::print_stdout, reason = "repeated calls are allowed, and counted")]
    async fn judge(&self, told: &[serde_json::Value]) {
        assert_all_is_well(self.world, MESSAGES).await;
        let calls: i64 = self.world.row(include_str!("sql/calls.sql")).await.get("calls");
        assert!(calls >= MESSAGES, "{calls} calls");
        println!(
            "{MESSAGES} messages, {calls} calls of handlers; told: {}",
            serde_json::to_string(told).unwrap()
        );
        let redelivered: u64 = told.iter().filter_map(|told| told["redelivered"].as_u64()).sum();
        assert_ne!(redelivered, 0, "what was unsettled did not come again");
    }
}

/// Runs a trial where the tables are, and the group: what is sent to a topic without groups is kept for nobody.
async fn run(trial: impl AsyncFnOnce(Trial<'_>, PrivateRabbitMq)) {
    let server = match services::private_rabbitmq() {
        Ok(server) => server,
        Err(Unavailable::Absent(_)) if !services::is_required("rabbitmq") => return,
        Err(why) => panic!("{why:?}"),
    };
    World::run(async |world| {
        Process::start(&["migrate", "--store", &world.url()])
            .end_well()
            .await;
        world.execute(include_str!("../../queries/demo/create.sql")).await;
        let of_run = Trial {
            world,
            server: server.url(),
            // A process that is stopped is missed after two heartbeats.
            transport: format!("{}/?namespace={}&heartbeat=2s", server.url(), world.schema()),
        };
        of_run.start("consumer", "first").end_well().await;
        trial(of_run, server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_do_everything_once_when_a_consumer_is_killed_and_a_relay_stopped_and_the_server_restarts() {
    run(async |trial, server| {
        let producer = trial.start("producer", "producer");
        let mut relay = trial.start("relay", "relay");
        let mut target = trial.start("consumer", "target");
        let other = trial.start("consumer", "other");

        let owner = trial.stop_amid_relaying((&mut relay, "relay")).await;
        let second = trial.relay_instead_of(&owner).await;
        relay.signal("CONT");

        trial.stop_amid_handling((&mut target, "target")).await;
        target.kill();
        let server = trial.restart(server).await;

        producer.end_well().await;
        told(second).await;
        told(relay).await;
        trial.judge(&[told(other).await]).await;
        drop(server);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_do_everything_once_when_a_relay_is_killed_and_a_consumer_stopped_and_the_server_restarts() {
    run(async |trial, server| {
        let producer = trial.start("producer", "producer");
        let mut relay = trial.start("relay", "relay");
        let mut target = trial.start("consumer", "target");
        let other = trial.start("consumer", "other");

        trial.stop_amid_handling((&mut target, "target")).await;
        let owner = trial.stop_amid_relaying((&mut relay, "relay")).await;
        relay.kill();
        let second = trial.relay_instead_of(&owner).await;

        // Past its lease: the server has missed it, and has given to the other one what it held.
        eventually("one member is left", async || {
            (trial.members().await == 1).then_some(())
        })
        .await;
        let server = trial.restart(server).await;
        target.signal("CONT");

        producer.end_well().await;
        told(second).await;
        assert!(target.is_running(), "it died of its pause");
        let told = [told(other).await, told(target).await];
        trial.judge(&told).await;
        drop(server);
    })
    .await;
}
