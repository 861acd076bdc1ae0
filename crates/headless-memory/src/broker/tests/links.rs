//! Closing, severing, leaving and removing.

use super::*;

/// Long enough for every lease to lapse; a call that has not answered by then never will.
async fn never_answers<T>(call: impl Future<Output = T>) {
    assert!(
        timeout(60 * MINUTE, call).await.is_err(),
        "a severed link answered"
    );
}

#[tokio::test(start_paused = true)]
async fn should_never_answer_when_severed() {
    let memory = server(TopicOrder::Unordered).await;
    let cut = memory.connect();
    let reader = member(&cut, 1).await;
    send(&memory, [message(0)]).await;
    let held = receive(&*reader, 1).await;
    cut.sever();
    never_answers(cut.send(&[message(1)])).await;
    never_answers(cut.ping()).await;
    never_answers(cut.close()).await;
    never_answers(cut.declare(&topology(partitions(3)))).await;
    never_answers(reader.receive(1, NOW)).await;
    never_answers(reader.settle(&[Settlement::Ack(held[0].token)])).await;
    never_answers(reader.close()).await;
    assert_eq!(lag(&memory).await, 1, "nothing was stored and nothing settled");
}

#[tokio::test(start_paused = true)]
async fn should_never_answer_when_severed_during_the_wait() {
    let memory = server(TopicOrder::Unordered).await;
    let cut = memory.connect();
    let reader = member(&cut, 1).await;
    let cutting = async {
        sleep(SECOND).await;
        cut.sever();
        send(&memory, [message(0)]).await;
        sleep(10 * MINUTE).await;
        assert_eq!(numbers(&receive(&*member(&memory, 2).await, 1).await), [0]);
    };
    tokio::join!(never_answers(reader.receive(1, MINUTE)), cutting);
}

#[tokio::test(start_paused = true)]
async fn should_lapse_by_time_when_a_severed_subscriber_is_dropped() {
    let memory = server(TopicOrder::Unordered).await;
    let cut = memory.connect();
    let reader = member(&cut, 1).await;
    send(&memory, [message(0)]).await;
    assert_eq!(receive(&*reader, 1).await.len(), 1);
    cut.sever();
    drop(reader);
    let other = member(&memory, 2).await;
    assert!(other.receive(1, 29 * SECOND).await.unwrap().is_empty());
    assert_eq!(
        numbers(&other.receive(1, 2 * SECOND).await.unwrap().deliveries),
        [0]
    );
}

#[tokio::test(start_paused = true)]
async fn should_come_back_at_once_when_a_subscriber_leaves_or_is_dropped() {
    for ordered in [false, true] {
        let memory = server(if ordered {
            partitions(1)
        } else {
            TopicOrder::Unordered
        })
        .await;
        send(&memory, (0..3).map(|n| keyed(n, "k"))).await;
        let (first, last) = (member(&memory, 1).await, member(&memory, 3).await);
        let held = first.receive(2, NOW).await.unwrap();
        first.close().await.unwrap();
        first.close().await.unwrap();
        assert_eq!(kind(first.receive(1, MINUTE).await), ErrorKind::Closed);
        assert_eq!(kind(first.pause().await), ErrorKind::Closed);
        if let Some(delivery) = held.deliveries.first() {
            assert_eq!(
                kind(settle(&*first, Settlement::Ack(delivery.token)).await),
                ErrorKind::Closed
            );
        }
        assert_eq!(numbers(&receive(&*last, 2).await), [0, 1]);
        drop(last);
        assert_eq!(numbers(&receive(&*member(&memory, 4).await, 5).await), [0, 1, 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn should_answer_closed_when_the_handle_was_closed() {
    let memory = server(TopicOrder::Unordered).await;
    let leaving = memory.connect();
    let reader = member(&leaving, 1).await;
    send(&memory, [message(0)]).await;
    assert_eq!(receive(&*reader, 1).await.len(), 1);
    let closing = async {
        sleep(SECOND).await;
        let (first, second) = tokio::join!(leaving.close(), leaving.close());
        first.and(second).unwrap();
    };
    let (pending, ()) = tokio::join!(promptly(reader.receive(1, MINUTE)), closing);
    assert_eq!(kind(pending), ErrorKind::Closed);
    assert_eq!(
        numbers(&receive(&*member(&memory, 2).await, 1).await),
        [0],
        "back at once"
    );
    assert_eq!(
        kinds(leaving.send(&[message(1), message(2)]).await),
        [Err(ErrorKind::Closed); 2]
    );
    assert_eq!(kind(leaving.ping().await), ErrorKind::Closed);
    assert_eq!(kind(leaving.lag(&group()).await), ErrorKind::Closed);
    assert_eq!(kind(leaving.subscribe(&membership(3)).await), ErrorKind::Closed);
    reader.close().await.unwrap();
    memory.ping().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_answer_not_found_when_the_group_was_removed() {
    let memory = server(TopicOrder::Unordered).await;
    let reader = member(&memory, 1).await;
    send(&memory, [message(0)]).await;
    let held = receive(&*reader, 1).await;
    let removing = async {
        sleep(SECOND).await;
        memory.remove_group(&group()).await.unwrap();
        memory.remove_group(&group()).await.unwrap();
    };
    let (pending, ()) = tokio::join!(promptly(reader.receive(1, MINUTE)), removing);
    assert_eq!(kind(pending), ErrorKind::NotFound);
    assert_eq!(
        kind(settle(&*reader, Settlement::Ack(held[0].token)).await),
        ErrorKind::NotFound
    );
    assert_eq!(kind(memory.lag(&group()).await), ErrorKind::NotFound);
    assert_eq!(kinds(memory.send(&[message(1)]).await), [Ok(Sent::Unrouted)]);
    memory.declare(&topology(TopicOrder::Unordered)).await.unwrap();
    assert_eq!(lag(&memory).await, 0, "it begins anew");
    assert_eq!(
        kind(reader.receive(1, NOW).await),
        ErrorKind::NotFound,
        "and its old members are not its members"
    );
}

fn instance() -> Topology {
    Topology::new()
        .with_topic(TopicSpec::new(topic(), TopicOrder::Unordered))
        .with_group(GroupSpec::new(group(), topic()).with_per_instance())
}

#[tokio::test(start_paused = true)]
async fn should_end_a_group_with_its_instance_when_it_closes() {
    let memory = Memory::new();
    let process = memory.connect();
    process.declare(&instance()).await.unwrap();
    let reader = member(&process, 1).await;
    send(&memory, [message(0)]).await;
    assert_eq!(receive(&*reader, 1).await.len(), 1);
    process.close().await.unwrap();
    assert_eq!(kind(memory.lag(&group()).await), ErrorKind::NotFound);
    assert_eq!(kinds(memory.send(&[message(1)]).await), [Ok(Sent::Unrouted)]);
}

#[tokio::test(start_paused = true)]
async fn should_end_a_group_with_its_instance_when_that_dies() {
    let memory = Memory::new();
    let process = memory.connect();
    process.declare(&instance()).await.unwrap();
    let _reader = member(&process, 1).await;
    process.sever();
    sleep(29 * SECOND).await;
    assert_eq!(
        kinds(memory.send(&[message(0)]).await),
        [Ok(Sent::Accepted)],
        "its member's hold has not lapsed"
    );
    sleep(2 * SECOND).await;
    assert_eq!(kinds(memory.send(&[message(1)]).await), [Ok(Sent::Unrouted)]);

    let idle = memory.connect();
    idle.declare(&instance()).await.unwrap();
    assert_eq!(lag(&memory).await, 0);
    idle.sever();
    assert_eq!(
        kind(memory.lag(&group()).await),
        ErrorKind::NotFound,
        "it had no member"
    );
}

#[tokio::test]
async fn should_let_others_run_when_calls_always_answer_at_once() {
    let memory = server(TopicOrder::Unordered).await;
    let reader = member(&memory, 1).await;
    send(&memory, [message(0)]).await;
    let neighbour = tokio::spawn(std::future::ready(()));
    for _ in 0..10_000 {
        if neighbour.is_finished() {
            return;
        }
        for delivery in receive(&*reader, 1).await {
            settle(&*reader, requeue(delivery.token, None)).await.unwrap();
        }
    }
    panic!("the neighbour never ran");
}
