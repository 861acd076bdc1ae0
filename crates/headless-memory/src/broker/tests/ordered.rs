//! Order, and partitions that move.

use super::*;

fn partitions_of<'a>(revoked: impl IntoIterator<Item = &'a Revoked>) -> BTreeSet<u16> {
    revoked
        .into_iter()
        .map(|revoked| revoked.partition.get())
        .collect()
}

fn read<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> BTreeSet<u16> {
    deliveries
        .into_iter()
        .map(|delivery| delivery.partition.unwrap().get())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn should_keep_order_when_a_member_dies_with_a_full_prefetch() {
    let memory = server(partitions(1)).await;
    let (dying, heir) = (memory.connect(), memory.connect());
    let few = membership(1).with_prefetch(NonZeroUsize::new(5).unwrap());
    let first = dying.subscribe(&few).await.unwrap();
    send(&memory, (0..20).map(|n| keyed(n, "k"))).await;
    let held = receive(&*first, 100).await;
    assert_eq!(numbers(&held), [0, 1, 2, 3, 4], "no more than the prefetch");
    settle(&*first, Settlement::Ack(held[2].token)).await.unwrap();
    assert_eq!(numbers(&receive(&*first, 100).await), [5]);

    let second = member(&heir, 2).await;
    dying.sever();
    assert!(
        second.receive(100, 29 * SECOND).await.unwrap().is_empty(),
        "the hold has not lapsed"
    );
    let taken = second.receive(100, 2 * SECOND).await.unwrap().deliveries;
    assert_eq!(
        numbers(&taken),
        [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
    );
    for (n, delivery) in taken.iter().enumerate() {
        let expected = if n < 5 {
            Redelivery::Again(1)
        } else {
            Redelivery::First
        };
        assert_eq!(delivery.redelivery, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn should_move_partitions_in_order_when_a_member_joins() {
    let memory = server(partitions(4)).await;
    let old = member(&memory, 1).await;
    send(&memory, (0..80).map(|n| keyed(n, &format!("k{}", n % 8)))).await;
    let held = receive(&*old, 10).await;
    let new = member(&memory, 2).await;
    assert!(receive(&*new, 100).await.is_empty(), "nothing was given up yet");

    let moved = old.receive(100, NOW).await.unwrap();
    assert!(moved.deliveries.is_empty());
    let given_up = partitions_of(&moved.revoked);
    assert_eq!(given_up.len(), 2, "an equal share");

    let taken = receive(&*new, 100).await;
    let kept = receive(&*old, 100).await;
    assert!(read(&taken).is_subset(&given_up));
    assert!(read(&kept).is_disjoint(&given_up));
    for key in 0..8 {
        let of_key = |deliveries: &[Delivery]| -> Vec<u32> {
            numbers(deliveries).into_iter().filter(|n| n % 8 == key).collect()
        };
        let (first, taken, kept) = (of_key(&held), of_key(&taken), of_key(&kept));
        let all: Vec<u32> = (0..10).map(|n| n * 8 + key).collect();
        if taken.is_empty() {
            assert_eq!([first, kept].concat(), all, "key {key} stayed");
        } else {
            assert_eq!(taken, all, "key {key} moved, with what was unsettled");
        }
    }
    for delivery in &held {
        let expected = if given_up.contains(&delivery.partition.unwrap().get()) {
            Err(ErrorKind::LeaseLost)
        } else {
            Ok(())
        };
        assert_eq!(
            settle(&*old, Settlement::Ack(delivery.token))
                .await
                .map_err(|e| e.kind()),
            expected
        );
    }
}

#[tokio::test(start_paused = true)]
async fn should_wake_a_pending_receive_when_partitions_are_to_move() {
    let memory = server(partitions(2)).await;
    let old = member(&memory, 1).await;
    assert!(receive(&*old, 1).await.is_empty());
    let joining = async {
        sleep(SECOND).await;
        let new = member(&memory, 2).await;
        send(&memory, (0..20).map(|n| keyed(n, &format!("k{n}")))).await;
        (new.receive(100, SECOND).await.unwrap(), new)
    };
    let (revoked, (taken, _new)) = tokio::join!(promptly(old.receive(0, MINUTE)), joining);
    assert_eq!(partitions_of(&revoked.unwrap().revoked), read(&taken.deliveries));
}

#[tokio::test(start_paused = true)]
async fn should_lose_nothing_when_receive_is_dropped() {
    let memory = server(partitions(2)).await;
    let old = member(&memory, 1).await;
    assert!(receive(&*old, 1).await.is_empty());
    let new = member(&memory, 2).await;
    // Created and never polled, then polled until it waits, then dropped.
    drop(old.receive(100, MINUTE));
    assert!(timeout(SECOND, new.receive(100, MINUTE)).await.is_err());
    send(&memory, (0..20).map(|n| keyed(n, &format!("k{n}")))).await;
    assert!(
        receive(&*new, 100).await.is_empty(),
        "the old member has not said that it gave up"
    );
    assert_eq!(old.receive(0, NOW).await.unwrap().revoked.len(), 1);
    let all = [receive(&*new, 100).await, receive(&*old, 100).await].concat_numbers();
    assert_eq!(all, (0..20).collect::<Vec<_>>());
}

trait ConcatNumbers {
    fn concat_numbers(&self) -> Vec<u32>;
}

impl<const N: usize> ConcatNumbers for [Vec<Delivery>; N] {
    fn concat_numbers(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.iter().flat_map(|deliveries| numbers(deliveries)).collect();
        all.sort_unstable();
        all
    }
}

#[tokio::test(start_paused = true)]
async fn should_fence_a_member_when_it_comes_back_after_its_hold_lapsed() {
    let memory = server(partitions(1)).await;
    let frozen = member(&memory, 1).await;
    send(&memory, (0..3).map(|n| keyed(n, "k"))).await;
    let held = receive(&*frozen, 2).await;
    let heir = member(&memory, 2).await;
    sleep(LAPSE).await;
    // The heir's hold has lapsed as well; the first that looks is the one that takes over.
    let taken = heir.receive(100, NOW).await.unwrap().deliveries;
    assert_eq!(numbers(&taken), [0, 1, 2]);
    for late in [
        Settlement::Ack(held[0].token),
        Settlement::Reject(held[1].token),
        requeue(held[1].token, None),
    ] {
        assert_eq!(kind(settle(&*frozen, late).await), ErrorKind::LeaseLost);
    }
    assert_eq!(
        kinds(frozen.extend(&[held[0].token], MINUTE).await),
        [Err(ErrorKind::LeaseLost)]
    );
    assert_eq!(lag(&memory).await, 3, "nothing was settled");
    assert_eq!(
        frozen.receive(100, NOW).await.unwrap().revoked.len(),
        1,
        "it is told what it lost"
    );
    ack_all(&*heir, &taken).await;
    assert_eq!(lag(&memory).await, 0);
}

#[tokio::test(start_paused = true)]
async fn should_keep_the_hold_when_receive_is_pending_or_paused() {
    let memory = server(partitions(1)).await;
    let holder = member(&memory, 1).await;
    send(&memory, [keyed(0, "k")]).await;
    let held = receive(&*holder, 1).await;
    let other = memory
        .subscribe(&membership(2).with_visibility(10 * MINUTE))
        .await
        .unwrap();
    // Whichever of the two is to have the partition: let it settle down first.
    let moved = holder.receive(0, NOW).await.unwrap().revoked;
    let (keeper, held) = if moved.is_empty() {
        (&holder, held)
    } else {
        (&other, receive(&*other, 1).await)
    };
    keeper.pause().await.unwrap();
    assert!(keeper.receive(1, 3 * MINUTE).await.unwrap().is_empty());
    settle(&**keeper, Settlement::Ack(held[0].token)).await.unwrap();
    send(&memory, [keyed(1, "k")]).await;
    assert!(
        keeper.receive(1, MINUTE).await.unwrap().is_empty(),
        "it is paused"
    );
    keeper.resume().await.unwrap();
    assert_eq!(numbers(&receive(&**keeper, 1).await), [1]);
}

#[tokio::test(start_paused = true)]
async fn should_hold_the_partition_back_when_a_delivery_is_requeued_with_a_delay() {
    let memory = server(partitions(1)).await;
    let reader = member(&memory, 1).await;
    send(&memory, (0..4).map(|n| keyed(n, "k"))).await;
    let held = receive(&*reader, 2).await;
    settle(&*reader, requeue(held[0].token, Some(5 * SECOND)))
        .await
        .unwrap();
    assert!(reader.receive(10, 4 * SECOND).await.unwrap().is_empty());
    let again = reader.receive(10, 2 * SECOND).await.unwrap().deliveries;
    assert_eq!(numbers(&again), [0, 2, 3]);
    assert_eq!(again[0].redelivery, Redelivery::Again(1));
}

#[tokio::test(start_paused = true)]
async fn should_give_a_delayed_message_its_place_when_it_becomes_due() {
    let memory = server(partitions(1)).await;
    let delayed = altered(keyed(0, "k"), |m| m.deliver_after = Some(5 * SECOND));
    send(&memory, [delayed, keyed(1, "k")]).await;
    sleep(6 * SECOND).await;
    send(&memory, [keyed(2, "k")]).await;
    let reader = member(&memory, 1).await;
    assert_eq!(numbers(&receive(&*reader, 10).await), [1, 0, 2]);
}

#[tokio::test(start_paused = true)]
async fn should_bound_each_partition_by_the_prefetch_when_there_are_several() {
    let memory = server(partitions(3)).await;
    let few = membership(1).with_prefetch(NonZeroUsize::MIN);
    let reader = memory.subscribe(&few).await.unwrap();
    send(&memory, (0..60).map(|n| keyed(n, &format!("k{n}")))).await;
    let first = receive(&*reader, 100).await;
    assert_eq!(read(&first).len(), 3);
    assert_eq!(first.len(), 3);
    let settled = async {
        sleep(SECOND).await;
        ack_all(&*reader, &first).await;
    };
    let (next, ()) = tokio::join!(promptly(reader.receive(100, MINUTE)), settled);
    assert_eq!(next.unwrap().deliveries.len(), 3, "settling makes room");
}

#[tokio::test(start_paused = true)]
async fn should_take_turns_when_topics_and_partitions_are_read_one_by_one() {
    let memory = server(partitions(2)).await;
    let other = TopicName::parse("other").unwrap();
    let second = TopicSpec::new(other.clone(), partitions(2));
    let wider = Topology::new()
        .with_topic(second)
        .with_group(GroupSpec::new(group(), other.clone()));
    memory.declare(&wider).await.unwrap();
    let reader = memory
        .subscribe(&membership(1).with_topic(other.clone()))
        .await
        .unwrap();
    for n in 0..100 {
        let message = keyed(n, &format!("k{n}"));
        send(
            &memory,
            [message.clone(), altered(message, |m| m.topic = other.clone())],
        )
        .await;
    }
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        let next = receive(&*reader, 1).await.remove(0);
        seen.insert((next.message.topic, next.partition));
    }
    assert_eq!(seen.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn should_deliver_again_when_the_only_member_was_away_for_too_long() {
    let memory = server(partitions(1)).await;
    let reader = member(&memory, 1).await;
    send(&memory, [keyed(0, "k")]).await;
    let before = receive(&*reader, 1).await;
    sleep(LAPSE).await;
    let Received {
        deliveries, revoked, ..
    } = reader.receive(1, NOW).await.unwrap();
    assert_eq!((deliveries.len(), revoked.len()), (0, 1));
    let again = receive(&*reader, 1).await;
    assert_eq!(again[0].redelivery, Redelivery::Again(1));
    assert_eq!(
        kind(settle(&*reader, Settlement::Ack(before[0].token)).await),
        ErrorKind::LeaseLost
    );
    settle(&*reader, Settlement::Ack(again[0].token)).await.unwrap();
}
