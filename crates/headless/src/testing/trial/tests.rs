use std::{collections::BTreeSet, sync::atomic::AtomicUsize, time::Duration};

use futures::FutureExt;

use super::*;
use crate::{
    Consumer, Context, Environment, Event, HandlerResult, Headless, Memory, Ordered, PublishExt, Runtime,
    Spawner,
};

const MESSAGES: u32 = 50;

#[derive(serde::Serialize, serde::Deserialize)]
struct Placed(u32);

impl Event for Placed {
    const TOPIC: &'static str = "trial.placed";
}

async fn servers(trial: &Trial) -> (AnyStore, AnyTransport) {
    let [store, transport] = trial.urls();
    let store = trial.providers().connect(store).await.expect("it is in memory");
    let transport = trial
        .providers()
        .connect(transport)
        .await
        .expect("it is in memory");
    (
        store.store().expect("it is a store"),
        transport.transport().expect("it is a transport"),
    )
}

fn builder((store, transport): &(AnyStore, AnyTransport)) -> crate::Builder {
    Headless::builder("trial")
        .environment(Environment::system(Spawner::current(), "trial".to_owned()))
        .any_store(store)
        .any_transport(transport)
        .topic::<Placed>(Ordered::partitions(4))
        .relay_lease(Duration::from_millis(200))
}

async fn work(trial: Trial, handled: Handled) -> Result<u64, io::Error> {
    let servers = servers(&trial).await;
    let of_handler = servers.clone();
    let handle = move |placed: Placed, cx: Context| {
        let (store, transport) = of_handler.clone();
        let handled = handled.clone();
        async move {
            let mut work = cx.begin::<Memory>().await?;
            work.push("handled", placed.0.to_string()).await?;
            work.commit().await?;
            handled.tell(&store, &transport).expect("it is a thread");
            HandlerResult::Ok(())
        }
    };
    let lease = Duration::from_millis(200);
    let consumer = Consumer::group("trial").on(handle).ordered_by_key();
    let builder = builder(&servers).consumer(consumer.lease(lease).visibility(lease));
    let runtime: Runtime = builder.start().await.map_err(io::Error::other)?;
    let settled = runtime.settled(Duration::from_secs(60)).await;
    settled.map_err(io::Error::other)?;
    let stats = runtime.consumers()[0].stats();
    runtime
        .shutdown(Duration::from_secs(10))
        .await
        .map_err(io::Error::other)?;
    Ok(stats.redelivered)
}

fn nobody() -> io::Result<Command> {
    Err(io::Error::other("there is a server in memory"))
}

#[tokio::test(flavor = "multi_thread")]
async fn should_replace_the_member_that_is_taken_away_and_lose_nothing() {
    let (told, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counts, goes) = (told.clone(), gone.clone());
    let trial = Trial::new(["memory:", "memory:"])
        .crash_after(10)
        .watched_by(move |went| {
            counts.fetch_add(1, Relaxed);
            goes.fetch_add(usize::from(went), Relaxed);
        });
    let servers = servers(&trial).await;
    let producer = builder(&servers).relays(false).start().await.expect("it starts");
    for n in 0..MESSAGES {
        let mut work = producer.begin::<Memory>().await.expect("it begins");
        let message = work.message(Placed::TOPIC, &Placed(n)).key(n % 5);
        message.send().await.expect("it is stored");
        work.commit().await.expect("it commits");
    }
    let of_members = trial.clone();
    let serve = move |handled| work(of_members.clone(), handled);
    let redelivered: Vec<u64> = trial
        .run(2, async {}.shared(), nobody, serve)
        .await
        .expect("they end");

    assert_eq!(redelivered.len(), 2, "one of the three was taken away");
    assert_eq!(gone.load(Relaxed), 1);
    assert!(trial.took_one_away());
    // What was handled is told once each: a repeated delivery has its mark.
    assert_eq!(told.load(Relaxed), MESSAGES as usize);
    let memory: Memory = servers.0.typed().expect("it is in memory");
    let rows = memory.rows("handled");
    let distinct: BTreeSet<_> = rows.iter().map(|(_, row)| row.clone()).collect();
    assert_eq!((rows.len(), distinct.len()), (50, 50));
    producer.shutdown(Duration::from_secs(10)).await.expect("it ends");
    trial.remove().await.expect("there is nothing to remove");
}

#[tokio::test]
async fn should_run_processes_when_no_server_is_in_memory() {
    // No server is asked: these members are shells.
    let trial = Trial::new(["postgres://nowhere/db", "amqp://nowhere"]).crash_after(2);
    assert!(
        trial.urls()[0].contains("idle_in_transaction_timeout=2s"),
        "{trial:?}"
    );
    let command = || {
        let mut command = Command::new("sh");
        command.args(["-c", "echo handled; read none; echo 7"]);
        Ok(command)
    };
    let (done, until) = tokio::sync::watch::channel(false);
    let ended = async move {
        let mut until = until.clone();
        drop(until.wait_for(|done| *done).await);
    };
    let serve = async |_: Handled| Ok::<u64, io::Error>(0);
    // The second that tells is killed, and a third takes its place.
    let counted = Arc::new(AtomicUsize::new(0));
    let count = counted.clone();
    let trial = trial.watched_by(move |_| {
        if count.fetch_add(1, Relaxed) == 2 {
            done.send_replace(true);
        }
    });
    let told: Vec<u64> = trial
        .run(2, ended.shared(), command, serve)
        .await
        .expect("they end");
    assert_eq!(told, [7, 7]);
    assert_eq!(counted.load(Relaxed), 3);
}

#[tokio::test]
async fn should_answer_what_a_member_answers_when_it_fails() {
    let trial = Trial::new(["memory:", "memory:"]);
    let serve = async |_: Handled| Err::<u64, _>(io::Error::other("as planned"));
    let error = trial
        .run(2, async {}.shared(), nobody, serve)
        .await
        .expect_err("they fail");
    assert_eq!(error.to_string(), "as planned");
}
