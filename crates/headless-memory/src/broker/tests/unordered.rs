//! Topics whose members take messages as they come.

use headless_abstractions::{Clock, Priority};

use super::*;

const SHARED: TopicOrder = TopicOrder::Unordered;

fn delayed(n: u32, by: Duration) -> Message {
    altered(message(n), |m| m.deliver_after = Some(by))
}

#[tokio::test(start_paused = true)]
async fn should_share_without_doubling_when_two_members_read() {
    let memory = server(SHARED).await;
    let (one, two) = (member(&memory, 1).await, member(&memory.connect(), 2).await);
    send(&memory, (0..10).map(message)).await;
    let (first, second) = (receive(&*one, 4).await, receive(&*two, 100).await);
    assert_eq!(numbers(&first), [0, 1, 2, 3]);
    assert_eq!(numbers(&second), [4, 5, 6, 7, 8, 9]);
    assert_eq!(
        kind(settle(&*two, Settlement::Ack(first[0].token)).await),
        ErrorKind::NotFound,
        "another's token"
    );
    // Any order of tokens is safe.
    for delivery in first.iter().rev() {
        settle(&*one, Settlement::Ack(delivery.token)).await.unwrap();
        assert_eq!(
            kind(settle(&*one, Settlement::Ack(delivery.token)).await),
            ErrorKind::NotFound,
            "settled"
        );
    }
    settle(&*two, Settlement::Reject(second[0].token)).await.unwrap();
    assert_eq!(lag(&memory).await, 5);
}

#[tokio::test(start_paused = true)]
async fn should_fence_when_a_delivery_was_redelivered_elsewhere() {
    let memory = server(SHARED).await;
    let (slow, quick) = (member(&memory, 1).await, member(&memory, 2).await);
    send(&memory, [message(0), message(1)]).await;
    let held = receive(&*slow, 2).await;
    assert_eq!(kinds(slow.extend(&[held[1].token], MINUTE).await), [Ok(())]);
    sleep(LAPSE).await;
    let taken = receive(&*quick, 10).await;
    assert_eq!(numbers(&taken), [0], "the other one was extended");
    assert_eq!(taken[0].redelivery, Redelivery::Again(1));
    for late in [
        Settlement::Ack(held[0].token),
        Settlement::Reject(held[0].token),
        requeue(held[0].token, None),
    ] {
        assert_eq!(kind(settle(&*slow, late).await), ErrorKind::LeaseLost);
    }
    assert_eq!(
        kinds(slow.extend(&[held[0].token], MINUTE).await),
        [Err(ErrorKind::LeaseLost)]
    );
    assert_eq!(lag(&memory).await, 2);
    ack_all(&*quick, &taken).await;
    ack_all(&*slow, &held[1..]).await;
    assert_eq!(lag(&memory).await, 0);
}

#[tokio::test(start_paused = true)]
async fn should_settle_when_the_visibility_time_passed_and_nobody_looked() {
    let memory = server(SHARED).await;
    let slow = member(&memory, 1).await;
    send(&memory, [message(0)]).await;
    let held = receive(&*slow, 1).await;
    sleep(LAPSE).await;
    ack_all(&*slow, &held).await;
    assert_eq!(lag(&memory).await, 0);
}

#[tokio::test(start_paused = true)]
async fn should_not_shorten_when_extended_by_less() {
    let memory = server(SHARED).await;
    let slow = member(&memory, 1).await;
    send(&memory, [message(0)]).await;
    let held = receive(&*slow, 1).await;
    assert_eq!(kinds(slow.extend(&[held[0].token], SECOND).await), [Ok(())]);
    sleep(20 * SECOND).await;
    assert!(receive(&*slow, 1).await.is_empty());
    ack_all(&*slow, &held).await;
}

#[tokio::test(start_paused = true)]
async fn should_come_back_when_requeued() {
    let memory = server(SHARED).await;
    let reader = member(&memory, 1).await;
    send(&memory, (0..3).map(message)).await;
    let held = receive(&*reader, 2).await;
    settle(&*reader, requeue(held[0].token, None)).await.unwrap();
    settle(&*reader, requeue(held[1].token, Some(10 * SECOND)))
        .await
        .unwrap();
    let next = receive(&*reader, 10).await;
    assert_eq!(
        numbers(&next),
        [0, 2],
        "the first at its own place, the second not yet"
    );
    assert!(reader.receive(10, 9 * SECOND).await.unwrap().is_empty());
    let last = reader.receive(10, 2 * SECOND).await.unwrap().deliveries;
    assert_eq!(
        (numbers(&last), last[0].redelivery),
        (vec![1], Redelivery::Again(1))
    );
    settle(&*reader, requeue(last[0].token, None)).await.unwrap();
    assert_eq!(receive(&*reader, 10).await[0].redelivery, Redelivery::Again(2));
    assert_eq!(lag(&memory).await, 3);
}

#[tokio::test(start_paused = true)]
async fn should_wait_for_its_time_when_delayed() {
    let memory = server(SHARED).await;
    let reader = member(&memory, 1).await;
    send(
        &memory,
        [delayed(0, 10 * SECOND), delayed(1, 5 * SECOND), message(2)],
    )
    .await;
    assert_eq!(lag(&memory).await, 3);
    let clock = TokioClock::new();
    let mut arrivals = Vec::new();
    while arrivals.len() < 3 {
        let deliveries = reader.receive(10, MINUTE).await.unwrap().deliveries;
        let after = clock.monotonic();
        arrivals.extend(numbers(&deliveries).into_iter().map(|n| (n, after.as_secs())));
    }
    assert_eq!(arrivals, [(2, 0), (1, 5), (0, 10)]);
}

#[tokio::test(start_paused = true)]
async fn should_deliver_by_priority_when_several_are_ready() {
    let memory = server(SHARED).await;
    let reader = member(&memory, 1).await;
    let with = |n, priority| altered(message(n), |m| m.priority = Priority::new(priority).unwrap());
    send(&memory, [with(0, 0), with(1, 9), with(2, 4), with(3, 9)]).await;
    let first = receive(&*reader, 1).await;
    assert_eq!(numbers(&first), [1]);
    settle(&*reader, requeue(first[0].token, None)).await.unwrap();
    assert_eq!(numbers(&receive(&*reader, 10).await), [1, 3, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn should_drop_when_expired() {
    let memory = server(SHARED).await;
    let reader = member(&memory, 1).await;
    let soon = TokioClock::new().now() + SECOND;
    let brief = altered(message(0), |m| m.expires_at = Some(soon));
    send(&memory, [brief, message(1)]).await;
    sleep(2 * SECOND).await;
    assert_eq!(numbers(&receive(&*reader, 10).await), [1]);
    assert_eq!(lag(&memory).await, 1);
}

#[tokio::test(start_paused = true)]
async fn should_bound_by_the_prefetch_when_over_several_topics() {
    let memory = server(SHARED).await;
    let other = TopicName::parse("other").unwrap();
    let wider = Topology::new()
        .with_topic(TopicSpec::new(other.clone(), SHARED))
        .with_group(GroupSpec::new(group(), other.clone()));
    memory.declare(&wider).await.unwrap();
    let to = membership(1)
        .with_topic(other.clone())
        .with_topic(other.clone())
        .with_prefetch(NonZeroUsize::new(4).unwrap());
    let reader = memory.subscribe(&to).await.unwrap();
    send(&memory, (0..5).map(message)).await;
    send(
        &memory,
        (5..10).map(|n| altered(message(n), |m| m.topic = other.clone())),
    )
    .await;
    let held = receive(&*reader, 100).await;
    assert_eq!(held.len(), 4);
    assert!(receive(&*reader, 100).await.is_empty());
    let settled = async {
        sleep(SECOND).await;
        ack_all(&*reader, &held).await;
    };
    let (next, ()) = tokio::join!(promptly(reader.receive(100, MINUTE)), settled);
    assert!(!next.unwrap().deliveries.is_empty(), "settling makes room");
}

#[tokio::test(start_paused = true)]
async fn should_stop_at_the_time_when_nothing_comes() {
    let memory = server(SHARED).await;
    let reader = member(&memory, 1).await;
    let clock = TokioClock::new();
    assert!(reader.receive(10, MINUTE).await.unwrap().is_empty());
    let took = clock.monotonic();
    assert!((MINUTE..MINUTE + SECOND).contains(&took), "{took:?}");
    send(&memory, [message(0)]).await;
    assert!(
        reader.receive(0, SECOND).await.unwrap().is_empty(),
        "none was asked for"
    );
}

#[tokio::test(start_paused = true)]
async fn should_wake_when_a_message_comes_or_deliveries_resume() {
    let memory = server(SHARED).await;
    let reader = member(&memory, 1).await;
    let sending = async {
        sleep(SECOND).await;
        send(&memory, [message(0)]).await;
    };
    let (first, ()) = tokio::join!(promptly(reader.receive(1, MINUTE)), sending);
    assert_eq!(numbers(&first.unwrap().deliveries), [0]);

    reader.pause().await.unwrap();
    reader.pause().await.unwrap();
    send(&memory, [message(1)]).await;
    let resuming = async {
        sleep(SECOND).await;
        reader.resume().await.unwrap();
    };
    let (second, ()) = tokio::join!(promptly(reader.receive(1, MINUTE)), resuming);
    assert_eq!(numbers(&second.unwrap().deliveries), [1]);
}

#[tokio::test(start_paused = true)]
async fn should_wake_another_when_a_delivery_is_given_back() {
    let memory = server(SHARED).await;
    let (holder, waiter) = (member(&memory, 1).await, member(&memory, 2).await);
    send(&memory, [message(0)]).await;
    let held = receive(&*holder, 1).await;
    let giving_back = async {
        sleep(SECOND).await;
        settle(&*holder, requeue(held[0].token, None)).await.unwrap();
    };
    let (taken, ()) = tokio::join!(promptly(waiter.receive(1, MINUTE)), giving_back);
    settle(&*waiter, requeue(taken.unwrap().deliveries[0].token, None))
        .await
        .unwrap();
    assert_eq!(receive(&*holder, 1).await.len(), 1);
    let leaving = async {
        sleep(SECOND).await;
        holder.close().await.unwrap();
    };
    let (taken, ()) = tokio::join!(promptly(waiter.receive(1, MINUTE)), leaving);
    assert_eq!(numbers(&taken.unwrap().deliveries), [0]);
}

#[tokio::test(start_paused = true)]
async fn should_come_back_when_its_member_died_after_extending() {
    let memory = server(SHARED).await;
    let dying = memory.connect();
    let (holder, waiter) = (member(&dying, 1).await, member(&memory, 2).await);
    send(&memory, [message(0)]).await;
    let held = receive(&*holder, 1).await;
    assert_eq!(kinds(holder.extend(&[held[0].token], 5 * MINUTE).await), [Ok(())]);
    dying.sever();
    assert!(waiter.receive(1, 4 * MINUTE).await.unwrap().is_empty());
    assert_eq!(
        numbers(&waiter.receive(1, 2 * MINUTE).await.unwrap().deliveries),
        [0]
    );
}

#[tokio::test(start_paused = true)]
async fn should_hand_out_copies_when_delivered_twice() {
    let memory = server(SHARED).await;
    let reader = member(&memory, 1).await;
    let mut sent = message(0);
    sent.headers.insert("note", "original").unwrap();
    send(&memory, [sent.clone()]).await;
    let mut first = receive(&*reader, 1).await.remove(0);
    first
        .message
        .headers
        .insert("note", "changed by a handler")
        .unwrap();
    settle(&*reader, requeue(first.token, None)).await.unwrap();
    assert_eq!(receive(&*reader, 1).await[0].message, sent);
}

/// A clock that stands still, whatever tokio's does.
#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> DateTime<chrono::Utc> {
        DateTime::UNIX_EPOCH
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

#[tokio::test(start_paused = true)]
async fn should_return_in_time_when_the_clock_of_leases_stands_still() {
    let config = MemoryConfig::default().with_clock(std::sync::Arc::new(Stopped));
    let memory = server_with(SHARED, config).await;
    let reader = member(&memory, 1).await;
    send(&memory, [delayed(0, SECOND)]).await;
    assert!(
        timeout(MINUTE, reader.receive(1, 10 * SECOND))
            .await
            .unwrap()
            .unwrap()
            .is_empty()
    );
}
