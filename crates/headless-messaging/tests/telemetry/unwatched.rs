//! A store that does not watch over its nodes, so that leases are renewed; and what is given back, or in doubt.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use headless_abstractions::{Message, Store, TopicName, Transport};
use headless_core::{Environment, Event, HandlerError, HandlerResult, Retry, Spawner, State};
use headless_memory::Memory;
use headless_messaging::{Consumer, Context, Inbox, Messaging, Ordered, Plan, Planted, Relay, RelayConfig};

use crate::{Click, SECOND, Task, faulty::Faulty, task};

/// All of one key, so that what waits is one run.
async fn publish(messaging: &Messaging, what: &str) {
    let message = messaging.publisher().message(Task::TOPIC, &task(what));
    message.key("one").send().await.unwrap();
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let look = async {
        while !holds() {
            tokio::time::sleep(SECOND / 100).await;
        }
    };
    let in_time = tokio::time::timeout(600 * SECOND, look).await;
    assert!(in_time.is_ok(), "not in time: {what}");
}

pub(crate) async fn go_without_membership() {
    let memory = Memory::new();
    let mut parts = memory.parts();
    parts.membership = None;
    let transport = Faulty::new(Arc::new(memory.connect()), memory.info().capabilities);
    let stuck = Arc::new(AtomicU32::new(0));
    let is_stuck = stuck.clone();
    let work = move |task: Task, cx: Context| {
        let stuck = stuck.clone();
        async move {
            match &*task.what {
                "slow" => tokio::time::sleep(15 * SECOND).await,
                "late" if cx.attempt().round <= 2 => return Err(HandlerError::retry("not now")),
                "stuck" => {
                    stuck.fetch_add(1, Ordering::SeqCst);
                    std::future::pending::<()>().await;
                }
                _ => {}
            }
            Ok(())
        }
    };
    let retry = Retry::exponential(SECOND, SECOND).inline(0);
    let workers = Consumer::group("workers")
        .on(work)
        .inbox(Inbox::Around)
        .ordered_by_key()
        .timeout(20 * SECOND)
        .retry(retry);
    let counters = Consumer::group("counters")
        .on(commit_in_doubt)
        .timeout(SECOND)
        .retry(retry);
    let mut plan = Plan::new(Environment::system(Spawner::current(), "dan"));
    plan.store = Some(parts);
    plan.transport = Some(transport.clone());
    plan.state = State::new().with(memory.connect());
    plan.topic::<Task>(Ordered::partitions(2));
    plan.consumer(workers);
    plan.consumer(counters);
    let messaging = Messaging::start(plan).await.unwrap();
    let handled = |group: usize| messaging.consumers()[group].stats().handled;

    // Sent, and then handled, for longer than a third of a lease.
    *transport.latency.lock().unwrap() = 15 * SECOND;
    publish(&messaging, "slow").await;
    until("the slow one is handled", || handled(0) == 1).await;
    *transport.latency.lock().unwrap() = SECOND / 100;
    // What waits behind the late one is claimed with it, and goes back with it.
    publish(&messaging, "late").await;
    publish(&messaging, "behind").await;
    until("both are handled", || handled(0) == 3).await;
    messaging.publisher().publish(&Click { n: 1 }).await.unwrap();
    until("the one in doubt is handled", || handled(1) == 1).await;
    publish(&messaging, "stuck").await;
    until("a handler is stuck", || is_stuck.load(Ordering::SeqCst) == 1).await;
    messaging.shutdown(SECOND).await.unwrap();

    acknowledge_by_itself(Arc::new(memory.connect())).await;
}

/// The last batch: no claim follows that could acknowledge it.
async fn acknowledge_by_itself(memory: Arc<Memory>) {
    let environment = Environment::system(Spawner::current(), "eve");
    let topic = TopicName::parse(Click::TOPIC).unwrap();
    let (id, now) = (environment.new_message_id(), environment.clock.now());
    let message = Message::new(id, topic, now, b"{\"n\":2}".to_vec().into());
    let outbox = memory.parts().outbox.unwrap().store;
    outbox.append(&[message]).await.unwrap();
    let config = RelayConfig::default();
    let relay = Relay::new(&environment, outbox, memory, config, Planted::default());
    relay.run_once().await.unwrap();
    relay.flush().await.unwrap();
}

/// Loses its connection before the first commit is answered.
async fn commit_in_doubt(_: Click, cx: Context) -> HandlerResult {
    if cx.attempt().round > 1 {
        return Ok(());
    }
    let work = cx.begin::<Memory>().await?;
    cx.state::<Memory>()?.sever();
    work.commit().await?;
    Ok(())
}
