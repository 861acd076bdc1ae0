//! What is wrong with a plan or a message is said clearly, all at once, and before anything has happened.

use std::{borrow::Cow, num::NonZeroUsize, sync::Arc, time::Duration};

use async_trait::async_trait;
use headless_abstractions::{
    Error, ErrorKind, GroupName, Message, Result, Sent, StartFrom, Store, Subscriber, Subscription, Topology,
    Transport, TransportCapabilities, TransportInfo,
};
use headless_core::{Environment, Event, SeededRandom, Spawner, State, SystemClock};
use headless_memory::{Memory, MemoryConfig};
use headless_messaging::{Consumer, Context, Inbox, Messaging, Ordered, Plan, PublishExt, RelayConfig};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct OrderPlaced {
    order: u32,
    key: Option<String>,
}

impl Event for OrderPlaced {
    const TOPIC: &'static str = "orders.placed";

    fn key(&self) -> Option<Cow<'_, str>> {
        self.key.as_deref().map(Cow::Borrowed)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct BadTopic;

impl Event for BadTopic {
    const TOPIC: &'static str = "Orders Placed";
}

async fn ok<M>(_: M, _: Context) -> headless_core::HandlerResult {
    Ok(())
}

fn plan_over(memory: &Memory) -> Plan {
    let environment = Environment::new(
        Arc::new(SystemClock::new()),
        Arc::new(SeededRandom::new(1)),
        Spawner::current(),
        "node",
    );
    let mut plan = Plan::new(environment);
    plan.store = Some(memory.parts());
    plan.transport = Some(Arc::new(memory.clone()));
    plan.state = State::new().with(memory.clone());
    plan
}

fn plan() -> Plan {
    plan_over(&Memory::new())
}

async fn refused(plan: Plan) -> Error {
    match Messaging::start(plan).await {
        Ok(_) => panic!("the plan was accepted"),
        Err(error) => error,
    }
}

/// A plan is refused as invalid, in words that contain each of these.
async fn refused_naming(plan: Plan, words: &[&str]) {
    let error = refused(plan).await;
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn should_name_the_command_when_a_topic_exists_with_another_partition_count() {
    let memory = Memory::new();
    let mut first = plan_over(&memory);
    first.topic::<OrderPlaced>(Ordered::partitions(16));
    let running = Messaging::start(first).await.unwrap();
    for order in [Ordered::partitions(8), Ordered::no()] {
        let mut other = plan_over(&memory.connect());
        other.topic::<OrderPlaced>(order);
        other.consumer(Consumer::group("billing").on(ok::<OrderPlaced>));
        let error = refused(other).await;
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let said = error.to_string();
        assert!(
            said.contains("headless topics repartition") && said.contains("16"),
            "{said}"
        );
    }
    // Nothing of the refused plan was made.
    let billing = GroupName::parse("billing").unwrap();
    assert_eq!(
        Transport::lag(&memory, &billing).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    running.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_refuse_a_topic_when_it_is_declared_twice_in_different_ways() {
    let mut twice = plan();
    twice.topic::<OrderPlaced>(Ordered::partitions(16));
    twice.topic::<OrderPlaced>(Ordered::partitions(8));
    refused_naming(twice, &["orders.placed", "16", "8"]).await;

    let mut same = plan();
    same.topic::<OrderPlaced>(Ordered::partitions(16));
    same.topic::<OrderPlaced>(Ordered::partitions(16));
    Messaging::start(same).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_refuse_names_when_they_are_outside_the_alphabet() {
    let long = "x".repeat(101);
    let bad = [
        "public\"; drop table x;--",
        "Orders",
        "ordérs",
        "",
        ".",
        "a..b",
        "a\0b",
        "*",
        ">",
        "a\r\nb",
        &long,
    ];
    for name in bad {
        let mut topic = plan();
        topic.topic_named(name, Ordered::no(), false);
        assert_eq!(refused(topic).await.kind(), ErrorKind::Invalid, "topic {name:?}");
        let mut group = plan();
        group.consumer(Consumer::group(name).on(ok::<OrderPlaced>));
        assert_eq!(refused(group).await.kind(), ErrorKind::Invalid, "group {name:?}");
    }
    let mut event = plan();
    event.consumer(Consumer::group("billing").on(ok::<BadTopic>));
    refused_naming(event, &["Orders Placed", "billing"]).await;
}

#[tokio::test(start_paused = true)]
async fn should_refuse_partition_counts_when_they_are_out_of_range() {
    for count in [0, 1_025] {
        let mut plan = plan();
        plan.topic::<OrderPlaced>(Ordered::partitions(count));
        refused_naming(plan, &["orders.placed", &count.to_string(), "1024"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn should_report_every_problem_when_there_are_several() {
    let mut plan = plan();
    plan.topic_named("Bad Topic", Ordered::no(), false);
    plan.topic::<OrderPlaced>(Ordered::partitions(0));
    plan.consumer(Consumer::group("no-handlers"));
    plan.consumer(
        Consumer::group("settings")
            .on(ok::<OrderPlaced>)
            .concurrency(0)
            .timeout(Duration::ZERO)
            .lease(Duration::from_millis(1))
            .visibility(Duration::ZERO)
            .park_poll(Duration::ZERO),
    );
    plan.consumer(
        Consumer::group("twice")
            .on(ok::<OrderPlaced>)
            .on(ok::<OrderPlaced>),
    );
    plan.consumer(Consumer::group("twice").on(ok::<OrderPlaced>));
    let batch =
        Consumer::group("batches").batch(0, Duration::ZERO, |_: Vec<OrderPlaced>, _| async { Ok(()) });
    plan.consumer(batch);
    refused_naming(
        plan,
        &[
            "problems",
            "Bad Topic",
            "partition",
            "\"no-handlers\" has no handlers",
            "concurrency is 0",
            "timeout is 0ns",
            "lease is 1ms",
            "visibility is 0ns",
            "park_poll is 0ns",
            "two handlers for the type \"orders.placed\"",
            "group \"twice\" has two consumers",
            "at most 0",
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn should_say_what_to_add_when_a_part_is_missing() {
    let mut no_transport = plan();
    no_transport.transport = None;
    no_transport.consumer(Consumer::group("billing").on(ok::<OrderPlaced>));
    refused_naming(no_transport, &["billing", ".transport("]).await;

    for form in [Inbox::Around, Inbox::Transactional] {
        let mut no_store = plan();
        no_store.store = None;
        no_store.consumer(Consumer::group("billing").on(ok::<OrderPlaced>).inbox(form));
        refused_naming(no_store, &["billing", ".store(", "Inbox::Off"]).await;
    }

    let mut unordered = plan();
    unordered.consumer(Consumer::group("billing").on(ok::<OrderPlaced>).ordered_by_key());
    refused_naming(unordered, &["billing", "Ordered::partitions("]).await;
}

#[tokio::test(start_paused = true)]
async fn should_name_field_and_limit_when_a_setting_of_the_relay_is_wrong() {
    let mut plan = plan();
    plan.relay = RelayConfig::default().with_batch(0);
    refused_naming(plan, &["relay", "batch", "0"]).await;
}

#[tokio::test(start_paused = true)]
async fn should_name_the_capability_when_the_transport_lacks_it() {
    let memory = Memory::with_config(MemoryConfig::default().with_replay_capacity(0));
    let mut replay = plan_over(&memory);
    replay.consumer(
        Consumer::group("billing")
            .on(ok::<OrderPlaced>)
            .start_from(StartFrom::Oldest),
    );
    refused_naming(replay, &["billing", "memory", "replay_from_start"]).await;

    let poor = || Some(Arc::new(Poor(Memory::new())) as Arc<dyn Transport>);
    let mut ordered = plan();
    ordered.transport = poor();
    ordered.topic::<OrderPlaced>(Ordered::partitions(4));
    refused_naming(ordered, &["orders.placed", "poor", "`ordering`"]).await;

    let mut instance = plan();
    instance.transport = poor();
    instance.consumer(Consumer::group("billing").on(ok::<OrderPlaced>).per_instance());
    refused_naming(instance, &["billing", "poor", "`per_instance_groups`"]).await;
}

#[tokio::test(start_paused = true)]
async fn should_refuse_an_event_without_a_key_when_its_topic_is_ordered() {
    let memory = Memory::new();
    let mut plan = plan_over(&memory);
    plan.topic::<OrderPlaced>(Ordered::partitions(4));
    let state = plan.state.clone();
    let environment = plan.environment.clone();
    let messaging = Messaging::start(plan).await.unwrap();
    let without = OrderPlaced { order: 1, key: None };

    for publisher in [messaging.publisher().clone(), messaging.publisher().direct()] {
        let error = publisher.publish(&without).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let said = error.to_string();
        assert!(said.contains("key") && said.contains("orders.placed"), "{said}");
    }

    // In a unit of work nothing else of it can be committed either.
    let tx = headless_abstractions::UnitOfWorkStore::begin(&memory)
        .await
        .unwrap();
    let mut work = headless_core::UnitOfWork::begun(tx, messaging.state_of_work(&state), &environment);
    let with = OrderPlaced {
        order: 1,
        key: Some("a".to_owned()),
    };
    work.publish(&with).await.unwrap();
    assert_eq!(
        work.publish(&without).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(work.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
    let outbox = memory.parts().outbox.unwrap();
    let stats = outbox.queries.stats().await.unwrap();
    assert_eq!(stats.ready + stats.leased + stats.delayed, 0);
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_name_the_smaller_limit_when_a_payload_is_too_large() {
    const SMALL: NonZeroUsize = NonZeroUsize::new(1_024).unwrap();
    let memory = Memory::with_config(MemoryConfig::default().with_max_payload(SMALL));
    let messaging = Messaging::start(plan_over(&memory)).await.unwrap();
    let large = "x".repeat(2_000);
    let error = messaging
        .publisher()
        .message("orders.placed", &large)
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let said = error.to_string();
    assert!(said.contains("payload") && said.contains("1024"), "{said}");
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

/// A transport that offers nothing beyond what each of them must.
#[derive(Debug)]
struct Poor(Memory);

#[async_trait]
impl Transport for Poor {
    fn info(&self) -> TransportInfo {
        TransportInfo::new("poor", TransportCapabilities::none(), "poor:")
    }

    async fn declare(&self, _: &Topology) -> Result<()> {
        panic!("a plan that cannot be carried out was begun")
    }

    async fn send(&self, batch: &[Message]) -> Vec<Result<Sent>> {
        self.0.send(batch).await
    }

    async fn subscribe(&self, to: &Subscription) -> Result<Box<dyn Subscriber>> {
        self.0.subscribe(to).await
    }

    async fn remove_group(&self, group: &GroupName) -> Result<()> {
        self.0.remove_group(group).await
    }

    async fn lag(&self, group: &GroupName) -> Result<u64> {
        Transport::lag(&self.0, group).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
