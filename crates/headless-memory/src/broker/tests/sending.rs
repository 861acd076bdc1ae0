//! Declaring, sending and replay.

use headless_abstractions::{Priority, StartFrom};

use super::*;

fn other() -> GroupName {
    GroupName::parse("shipping").unwrap()
}

fn small(capacity: usize) -> MemoryConfig {
    MemoryConfig::default().with_group_capacity(NonZeroUsize::new(capacity).unwrap())
}

#[tokio::test(start_paused = true)]
async fn should_reach_every_group_when_sent() {
    let memory = server(TopicOrder::Unordered).await;
    memory
        .declare(&Topology::new().with_group(GroupSpec::new(other(), topic())))
        .await
        .unwrap();
    send(&memory, (0..3).map(message)).await;
    for group in [group(), other()] {
        let reader = memory
            .subscribe(&Subscription::new(group, topic(), Owner::from_bits(1)))
            .await
            .unwrap();
        assert_eq!(numbers(&receive(&*reader, 10).await), [0, 1, 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn should_take_it_for_all_groups_or_none_when_one_is_full() {
    let memory = server_with(TopicOrder::Unordered, small(2)).await;
    send(&memory, [message(0)]).await;
    memory
        .declare(&Topology::new().with_group(GroupSpec::new(other(), topic())))
        .await
        .unwrap();
    let answers = memory.send(&[message(1), message(2)]).await;
    assert_eq!(kinds(answers), [Ok(Sent::Accepted), Err(ErrorKind::Unavailable)]);
    assert_eq!((lag(&memory).await, memory.lag(&other()).await.unwrap()), (2, 1));

    let reader = member(&memory, 1).await;
    let held = receive(&*reader, 1).await;
    assert_eq!(
        kinds(memory.send(&[message(2)]).await),
        [Err(ErrorKind::Unavailable)],
        "unsettled ones count"
    );
    ack_all(&*reader, &held).await;
    send(&memory, [message(2)]).await;
}

#[tokio::test(start_paused = true)]
async fn should_stop_a_key_at_its_first_failure_when_a_batch_is_sent() {
    let config = MemoryConfig::default().with_max_payload(NonZeroUsize::new(10).unwrap());
    let memory = server_with(partitions(2), config).await;
    let huge = altered(keyed(1, "a"), |m| m.payload = vec![0; 11].into());
    let answers = memory
        .send(&[keyed(0, "a"), huge, keyed(2, "a"), keyed(3, "b"), keyed(4, "a")])
        .await;
    assert!(
        answers[1]
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("11 bytes, the limit is 10")
    );
    let (sent, kept_back) = (Ok(Sent::Accepted), Err(ErrorKind::Conflict));
    assert_eq!(
        kinds(answers),
        [sent, Err(ErrorKind::TooLarge), kept_back, sent, kept_back]
    );
    assert_eq!(lag(&memory).await, 2);
}

#[tokio::test(start_paused = true)]
async fn should_answer_for_each_message_when_some_are_wrong() {
    let memory = server(partitions(2)).await;
    let nowhere = altered(message(0), |m| m.topic = TopicName::parse("nowhere").unwrap());
    let urgent = altered(keyed(1, "urgent"), |m| m.priority = Priority::MAX);
    let answers = memory.send(&[nowhere, message(1), urgent, keyed(2, "k")]).await;
    let invalid = Err(ErrorKind::Invalid);
    assert_eq!(
        kinds(answers),
        [Err(ErrorKind::NotFound), invalid, invalid, Ok(Sent::Accepted)]
    );
    assert!(memory.send(&[]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn should_say_so_when_no_group_takes_a_message() {
    let memory = Memory::new();
    let spec = TopicSpec::new(topic(), TopicOrder::Unordered);
    memory
        .declare(&Topology::new().with_topic(spec.clone()))
        .await
        .unwrap();
    assert_eq!(kinds(memory.send(&[message(0)]).await), [Ok(Sent::Unrouted)]);
    memory
        .declare(&Topology::new().with_topic(spec.with_required()))
        .await
        .unwrap();
    assert_eq!(
        kinds(memory.send(&[message(1)]).await),
        [Err(ErrorKind::NotFound)]
    );
    let late = GroupSpec::new(group(), topic()).with_start(StartFrom::Oldest);
    memory.declare(&Topology::new().with_group(late)).await.unwrap();
    assert_eq!(
        numbers(&receive(&*member(&memory, 1).await, 10).await),
        [0],
        "what was refused is not kept"
    );
}

#[tokio::test(start_paused = true)]
async fn should_replay_in_order_when_a_group_starts_from_the_oldest() {
    let memory = server_with(partitions(1), MemoryConfig::default().with_replay_capacity(4)).await;
    let waiting = |n, time| altered(keyed(n, "k"), |m| m.deliver_after = Some(time));
    send(
        &memory,
        [
            keyed(0, "k"),
            keyed(1, "k"),
            waiting(2, 5 * SECOND),
            waiting(3, MINUTE),
        ],
    )
    .await;
    sleep(10 * SECOND).await;
    send(&memory, [keyed(4, "k")]).await;
    let late = Topology::new().with_group(GroupSpec::new(other(), topic()).with_start(StartFrom::Oldest));
    memory.declare(&late).await.unwrap();
    memory.declare(&late).await.unwrap();
    let reader = memory
        .subscribe(&Subscription::new(other(), topic(), Owner::from_bits(1)))
        .await
        .unwrap();
    assert_eq!(
        numbers(&receive(&*reader, 10).await),
        [1, 2, 4],
        "the oldest is forgotten, one is not due"
    );
    let last = reader.receive(10, MINUTE).await.unwrap().deliveries;
    assert_eq!(numbers(&last), [3]);
}

#[tokio::test(start_paused = true)]
async fn should_refuse_a_replay_when_nothing_is_kept() {
    let memory = server_with(
        TopicOrder::Unordered,
        MemoryConfig::default().with_replay_capacity(0),
    )
    .await;
    assert!(!memory.info().capabilities.replay_from_start);
    let late = GroupSpec::new(other(), topic()).with_start(StartFrom::Oldest);
    assert_eq!(
        kind(memory.declare(&Topology::new().with_group(late)).await),
        ErrorKind::Unsupported
    );
    assert_eq!(kind(memory.lag(&other()).await), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn should_make_nothing_when_a_declaration_is_refused() {
    let memory = server(partitions(4)).await;
    let fresh = TopicName::parse("fresh").unwrap();
    let refused = Topology::new()
        .with_topic(TopicSpec::new(fresh.clone(), TopicOrder::Unordered))
        .with_group(GroupSpec::new(other(), fresh.clone()))
        .with_topic(TopicSpec::new(topic(), partitions(8)));
    let error = memory.declare(&refused).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    for word in [
        "4 partitions",
        "8 partitions",
        "headless topics repartition",
        "orders",
    ] {
        assert!(error.to_string().contains(word), "{error}");
    }
    let unknown = Topology::new().with_group(GroupSpec::new(other(), fresh.clone()));
    assert_eq!(kind(memory.declare(&unknown).await), ErrorKind::NotFound);
    assert_eq!(kind(memory.lag(&other()).await), ErrorKind::NotFound);
    assert_eq!(
        kinds(memory.send(&[altered(message(0), |m| m.topic = fresh)]).await),
        [Err(ErrorKind::NotFound)]
    );
    memory.declare(&topology(partitions(4))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_refuse_to_subscribe_when_the_request_is_wrong() {
    let memory = server(TopicOrder::Unordered).await;
    let elsewhere = TopicName::parse("elsewhere").unwrap();
    memory
        .declare(&Topology::new().with_topic(TopicSpec::new(elsewhere.clone(), TopicOrder::Unordered)))
        .await
        .unwrap();
    let mut nothing = membership(1);
    nothing.topics.clear();
    assert_eq!(kind(memory.subscribe(&nothing).await), ErrorKind::Invalid);
    let blind = membership(1).with_visibility(Duration::ZERO);
    assert_eq!(kind(memory.subscribe(&blind).await), ErrorKind::Invalid);
    let stranger = Subscription::new(other(), topic(), Owner::from_bits(1));
    assert_eq!(kind(memory.subscribe(&stranger).await), ErrorKind::NotFound);
    assert_eq!(
        kind(memory.subscribe(&membership(1).with_topic(elsewhere)).await),
        ErrorKind::NotFound
    );
}
