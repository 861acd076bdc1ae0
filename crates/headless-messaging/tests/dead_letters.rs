//! Dead letters as an operator handles them.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    Change, ClaimOutbox, Clock, DeadLetterFilter, Edit, Edited, Failure, FailureCause, Message, MessageId,
    Origin, Owner, Redrive, Redriven, Store, TopicName,
};
use headless_core::{Environment, Event, HandlerError, SeededRandom, Spawner, State, SystemClock};
use headless_memory::Memory;
use headless_messaging::{Consumer, Context, DeadLetters, DiscardMatching, Messaging, Plan, RedriveMatching};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    number: u32,
}

impl Event for Order {
    const TOPIC: &'static str = "orders";
}

/// A consumer that refuses everything until it is mended, with this many orders dead.
async fn with_dead(count: u32) -> (Messaging, Arc<AtomicBool>) {
    let memory = Memory::new();
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = mended.clone();
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(1)));
    let mut plan = Plan::new(Environment::new(clock, random, Spawner::current(), "node"));
    plan.store = Some(memory.parts());
    plan.transport = Some(Arc::new(memory.clone()));
    plan.state = State::new().with(memory.clone());
    plan.consumer(Consumer::group("billing").on(move |order: Order, _: Context| {
        let mended = is_mended.load(Ordering::SeqCst);
        async move {
            if mended {
                Ok(())
            } else {
                Err(HandlerError::permanent(format!("order {}", order.number)))
            }
        }
    }));
    let messaging = Messaging::start(plan).await.unwrap();
    for number in 0..count {
        messaging.publisher().publish(&Order { number }).await.unwrap();
    }
    eventually("all are dead", || {
        messaging.consumers()[0].stats().dead == u64::from(count)
    })
    .await;
    (messaging, mended)
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in time: {what}");
}

#[tokio::test(start_paused = true)]
async fn should_be_handled_when_redriven_by_filter_at_a_limited_rate() {
    let (messaging, mended) = with_dead(25).await;
    let dead = messaging.dead_letters().unwrap();
    let stats = dead.stats().await.unwrap();
    assert_eq!(
        (stats.len(), stats[0].count, stats[0].cause),
        (1, 25, FailureCause::Permanent)
    );

    mended.store(true, Ordering::SeqCst);
    let request = RedriveMatching::new(DeadLetterFilter::open(), "ann")
        .with_most(20)
        .with_per_second(NonZeroU32::new(5).unwrap());
    let clock = SystemClock::new();
    let answers = dead.redrive_matching(&request).await.unwrap();
    assert!(
        clock.monotonic() >= Duration::from_secs(3),
        "twenty at five a second"
    );
    assert!(answers.more, "five are left");
    assert_eq!(Vec::from_iter(answers.answers), [("redriven", 20)]);
    eventually("twenty are handled", || {
        messaging.consumers()[0].stats().handled == 20
    })
    .await;
    assert_eq!(dead.stats().await.unwrap()[0].count, 5);
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_answer_closed_when_redriven_or_discarded_before() {
    let (messaging, _) = with_dead(2).await;
    let dead = messaging.dead_letters().unwrap();
    let page = dead
        .list(
            &DeadLetterFilter::open().with_error_containing("order 1"),
            None,
            10,
        )
        .await
        .unwrap();
    let id = page.items[0].id;
    assert_eq!(page.items.len(), 1);
    assert_eq!(dead.discard(&[id], "ann").await.unwrap(), 1);
    assert_eq!(
        dead.redrive(&Redrive::new(vec![id], "bob")).await.unwrap(),
        [Redriven::Closed]
    );
    let (by, _) = dead.get(id).await.unwrap().unwrap().discarded.unwrap();
    assert_eq!(by, "ann");
    assert!(dead.discard(&[id], "").await.is_err(), "a change says who");
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_redrive_each_once_when_it_dies_again_meanwhile() {
    let (messaging, _still_broken) = with_dead(6).await;
    let dead = messaging.dead_letters().unwrap();
    let request =
        RedriveMatching::new(DeadLetterFilter::open(), "ann").with_per_second(NonZeroU32::new(2).unwrap());
    let mut pages = Vec::new();
    let answers = dead
        .redrive_matching_with(&request, |so_far| pages.push(so_far["redriven"]))
        .await
        .unwrap();
    assert!(!answers.more, "what died again is none that is left");
    assert_eq!(Vec::from_iter(answers.answers), [("redriven", 6)]);
    assert_eq!(pages, [2, 4, 6]);
    eventually("all are dead again", || {
        messaging.consumers()[0].stats().dead == 12
    })
    .await;
    assert_eq!(dead.stats().await.unwrap()[0].count, 6);
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_reach_what_may_be_redriven_when_what_is_refused_stands_before_it() {
    let (messaging, mended) = with_dead(10).await;
    let dead = messaging.dead_letters().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    for number in 10..30 {
        messaging.publisher().publish(&Order { number }).await.unwrap();
    }
    eventually("the others are dead", || {
        messaging.consumers()[0].stats().dead == 30
    })
    .await;
    mended.store(true, Ordering::SeqCst);
    let some = RedriveMatching::new(DeadLetterFilter::open(), "ann")
        .with_most(5)
        .with_max_age(Some(Duration::from_secs(30)));
    let done = dead.redrive_matching(&some).await.unwrap();
    assert!(done.more, "fifteen are left");
    assert_eq!(Vec::from_iter(done.answers), [("redriven", 5), ("too_old", 10)]);
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_count_look_edit_and_discard_when_many_died_of_the_same() {
    let (messaging, mended) = with_dead(250).await;
    let dead = messaging.dead_letters().unwrap();
    let tallies = dead.tally(&DeadLetterFilter::open(), 10).await.unwrap();
    assert_eq!(
        (tallies.len(), tallies[0].count, &*tallies[0].error),
        (1, 250, "order #")
    );
    let last = dead.get(tallies[0].sample).await.unwrap().unwrap();

    // One is mended by hand, and handled.
    mended.store(true, Ordering::SeqCst);
    let edit = Edit::new(last.id, r#"{"number":7}"#.into(), "ann").with_seen(0);
    assert_eq!(dead.edit(&edit).await.unwrap(), Edited::Now);
    assert_eq!(dead.edit(&edit).await.unwrap(), Edited::Changed);
    assert_eq!(
        dead.redrive(&Redrive::new(vec![last.id], "bob")).await.unwrap(),
        [Redriven::Now]
    );
    eventually("it is handled", || messaging.consumers()[0].stats().handled == 1).await;
    let history = dead.history(last.id, None, 10).await.unwrap().items;
    assert_eq!(history.len(), 2, "{history:?}");
    assert_eq!(
        history[0].what,
        Change::Edited {
            before: last.message.payload.clone()
        }
    );
    assert_eq!((&*history[0].by, &*history[1].by), ("ann", "bob"));

    // The others are not worth it, some of them first.
    let some = DiscardMatching::new(DeadLetterFilter::like(&last), "ann").with_most(120);
    let discarded = dead.discard_matching(&some).await.unwrap();
    assert_eq!((discarded.answers["discarded"], discarded.more), (120, true));
    let all = DiscardMatching::new(DeadLetterFilter::open(), "ann");
    let discarded = dead.discard_matching(&all.with_most(129)).await.unwrap();
    assert_eq!((discarded.answers["discarded"], discarded.more), (129, false));
    assert!(
        dead.tally(&DeadLetterFilter::open(), 10)
            .await
            .unwrap()
            .is_empty()
    );
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_answer_for_each_when_more_are_named_than_go_into_one_request() {
    let (messaging, _) = with_dead(230).await;
    let dead = messaging.dead_letters().unwrap();
    let all = dead
        .list(&DeadLetterFilter::open(), None, 1_000)
        .await
        .unwrap()
        .items;
    let mut ids: Vec<_> = all.iter().map(|letter| letter.id).collect();
    let answers = dead.redrive(&Redrive::new(ids.clone(), "ann")).await.unwrap();
    assert_eq!(answers, [Redriven::Now; 230]);
    ids.reverse();
    let answers = dead.redrive(&Redrive::new(ids.clone(), "ann")).await.unwrap();
    assert_eq!(answers, [Redriven::Closed; 230]);
    assert_eq!(dead.discard(&ids, "ann").await.unwrap(), 0);
    for request in [
        Redrive::new(ids, "ann").with_payload("{}".into()),
        Redrive::new(Vec::new(), "ann").with_payload("{}".into()),
        Redrive::new(Vec::new(), ""),
    ] {
        assert!(dead.redrive(&request).await.is_err(), "{request:?}");
    }
    messaging.shutdown(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test]
async fn should_go_on_with_the_others_when_one_was_edited_and_waits_in_the_outbox_again() {
    let memory = Memory::new();
    let parts = memory.parts();
    let outbox = parts.outbox.clone().unwrap().store;
    let message = |n: u8| {
        let id: MessageId = format!("00000000-0000-4000-8000-00000000000{n}").parse().unwrap();
        let topic = TopicName::parse("orders").unwrap();
        Message::new(id, topic, DateTime::UNIX_EPOCH, Bytes::from_static(b"{}"))
    };
    let (owner, minute) = (Owner::from_bits(1), Duration::from_mins(1));
    let messages = [message(1), message(2), message(3)];
    outbox.append(&messages).await.unwrap();
    let rows = outbox.claim(&ClaimOutbox::new(owner, 3, minute)).await.unwrap();
    let claims: Vec<_> = rows.rows.iter().map(|row| row.claim).collect();
    let refused = Failure::new(FailureCause::Refused, "too large", "node", DateTime::UNIX_EPOCH);
    let failed = outbox.fail(owner, &claims, &refused).await.unwrap();
    assert!(failed.lost.is_empty(), "{failed:?}");

    let dead = DeadLetters::of(&parts).unwrap();
    let letters = dead
        .list(&DeadLetterFilter::open(), None, 10)
        .await
        .unwrap()
        .items;
    for letter in &letters[..2] {
        dead.edit(&Edit::new(letter.id, "{}".into(), "ann"))
            .await
            .unwrap();
    }
    outbox.append(&messages[..1]).await.unwrap();
    let all = RedriveMatching::new(DeadLetterFilter::open().with_origin(Origin::Relay), "ann");
    let answers = dead.redrive_matching(&all).await.unwrap();
    assert_eq!(
        Vec::from_iter(answers.answers),
        [("conflict", 1), ("redriven", 2)]
    );
}
