//! What a publisher promises, over the memory provider.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "relay/counters.rs"]
mod counters;
#[path = "relay/faulty.rs"]
mod faulty;
mod publishing {
    pub(crate) mod process;
    pub(crate) mod unit_of_work;
}

use std::{num::NonZeroUsize, time::Duration};

use headless_abstractions::{
    Error, ErrorKind, GroupName, Message, OrderingGuarantee, Store, Transport, TransportCapabilities,
};
use headless_core::metric;
use headless_messaging::{MessageBuilder, OutgoingLimits, PublishExt, PublishOutcome, Publisher};

use crate::{
    counters::Counters,
    publishing::process::{OrderPlaced, Process, assert_error, id, order},
};

#[tokio::test(start_paused = true)]
async fn should_store_the_whole_envelope_and_wake_the_relay_when_an_event_is_published() {
    let process = Process::start().await;
    let published = process.publisher.publish(&order("o-1")).await.unwrap();
    assert_eq!(published.outcome, PublishOutcome::Stored);
    assert!(process.relay_was_woken().await);
    assert!(process.transport.sent().is_empty());
    let message = process.stored().await.remove(0).message;
    assert_eq!(message.id, published.id);
    assert_eq!(message.id.as_uuid().get_version_num(), 7);
    assert_eq!(message.topic.as_str(), "orders.placed");
    assert_eq!(message.message_type.unwrap().as_str(), "order-placed");
    assert_eq!(message.key.unwrap().as_str(), "o-1");
    assert_eq!(message.idempotency_key.unwrap().as_str(), "place/o-1");
    assert_eq!(message.content_type.unwrap().as_str(), "application/json");
    assert_eq!(message.payload, r#"{"order":"o-1","note":"gift"}"#);
    assert_eq!(message.occurred_at, Message::microseconds(message.occurred_at));
    assert_eq!((message.causation_id, message.correlation_id), (None, None));
}

#[tokio::test(start_paused = true)]
async fn should_carry_everything_that_was_said_when_built_fluently() {
    let process = Process::start().await;
    process
        .publisher
        .message("orders.placed", &42)
        .key(7)
        .idempotency_key("place/7")
        .header("x-source", "shop")
        .message_type("order.v2")
        .correlation_id("basket-9")
        .tenant("acme")
        .priority(3)
        .delay(Duration::from_secs(60))
        .expires_after(Duration::from_secs(3_600))
        .id(id(5))
        .send()
        .await
        .unwrap();
    let message = process.stored().await.remove(0).message;
    assert_eq!(message.id, id(5));
    assert_eq!(message.key.unwrap().as_str(), "7");
    assert_eq!(message.idempotency_key.unwrap().as_str(), "place/7");
    assert_eq!(message.headers.get("x-source"), Some("shop"));
    assert_eq!(message.message_type.unwrap().as_str(), "order.v2");
    assert_eq!(message.correlation_id.unwrap().as_str(), "basket-9");
    assert_eq!(message.tenant.unwrap().as_str(), "acme");
    assert_eq!(message.priority.get(), 3);
    assert_eq!(message.deliver_after, Some(Duration::from_secs(60)));
    assert_eq!(
        message.expires_at.unwrap() - message.occurred_at,
        chrono::TimeDelta::hours(1)
    );
    assert_eq!(message.payload, "42");
}

#[tokio::test(start_paused = true)]
async fn should_store_once_when_an_id_is_published_again() {
    let process = Process::start().await;
    let publish = || process.publisher.message("orders.placed", &1).id(id(1)).send();
    assert_eq!(publish().await.unwrap().outcome, PublishOutcome::Stored);
    assert_eq!(publish().await.unwrap().outcome, PublishOutcome::Duplicate);
    assert_eq!(process.stored().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn should_ask_the_broker_alone_when_published_directly() {
    let process = Process::start().await;
    let direct = process.publisher.direct();
    let accepted = direct.publish(&order("o-1")).await.unwrap();
    assert_eq!(accepted.outcome, PublishOutcome::Accepted);
    let unrouted = direct.message("nobody", &1).send().await.unwrap();
    assert_eq!(unrouted.outcome, PublishOutcome::Unrouted);
    let durable = direct.message("nobody", &1).durable().send().await.unwrap();
    assert_eq!(durable.outcome, PublishOutcome::Stored);
    assert_eq!(process.stored().await.len(), 1);
    assert_eq!(process.transport.sent().len(), 2);
    assert_eq!(
        process
            .memory
            .lag(&GroupName::parse("billing").unwrap())
            .await
            .unwrap(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn should_answer_for_each_when_some_of_a_batch_are_refused() {
    for direct in [false, true] {
        let process = Process::start().await;
        let publisher = if direct {
            process.publisher.direct()
        } else {
            process.publisher.clone()
        };
        let events = ["a", "", "b", &"x".repeat(600), "c"].map(order);
        let answers = publisher.publish_all(&events).await;
        let ok: Vec<bool> = answers.iter().map(Result::is_ok).collect();
        assert_eq!(ok, [true, false, true, false, true]);
        assert_error(
            answers[1].as_ref().unwrap_err(),
            ErrorKind::Invalid,
            &["partition key is empty"],
            "1",
        );
        assert_error(
            answers[3].as_ref().unwrap_err(),
            ErrorKind::TooLarge,
            &["512"],
            "3",
        );
        let arrived: Vec<Message> = if direct {
            process.transport.sent()
        } else {
            process
                .stored()
                .await
                .into_iter()
                .map(|entry| entry.message)
                .collect()
        };
        let (ids, keys): (Vec<_>, Vec<_>) = arrived
            .into_iter()
            .map(|message| (message.id, message.key.unwrap().to_string()))
            .unzip();
        assert_eq!(keys, ["a", "b", "c"]);
        assert_eq!(
            ids,
            answers
                .into_iter()
                .flatten()
                .map(|published| published.id)
                .collect::<Vec<_>>()
        );
        assert!(publisher.publish_all::<OrderPlaced>(&[]).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn should_answer_for_each_when_the_broker_refuses_some() {
    let process = Process::start().await;
    process.transport.fail(|message| {
        let key = message?.key.as_ref()?.as_str();
        (key == "b").then(|| Error::new(ErrorKind::Denied, "no right to publish"))
    });
    let answers = process
        .publisher
        .direct()
        .publish_all(&["a", "b", "c"].map(order))
        .await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    let parts = ["publish", "topic orders.placed", "no right to publish"];
    assert_error(answers[1].as_ref().unwrap_err(), ErrorKind::Denied, &parts, "b");
}

#[tokio::test(start_paused = true)]
async fn should_fail_each_when_the_store_takes_none() {
    let process = Process::start().await;
    Transport::close(&process.memory).await.unwrap();
    let answers = process.publisher.publish_all(&["a", "b"].map(order)).await;
    assert_eq!(answers.len(), 2);
    for answer in answers {
        assert_error(&answer.unwrap_err(), ErrorKind::Closed, &["memory"], "closed");
    }
}

type Build = fn(MessageBuilder<Publisher>) -> MessageBuilder<Publisher>;

#[tokio::test(start_paused = true)]
async fn should_name_field_and_limit_and_publish_nothing_when_input_is_wrong() {
    use ErrorKind::{Invalid, TooLarge};
    let table: &[(&str, Build, ErrorKind, &[&str])] = &[
        (
            "orders.placed",
            |m| m.key(""),
            Invalid,
            &["partition key is empty"],
        ),
        (
            "orders.placed",
            |m| m.key("x".repeat(513)),
            TooLarge,
            &["partition key is 513 bytes", "limit is 512"],
        ),
        (
            "orders.placed",
            |m| m.key("a\0b"),
            Invalid,
            &["partition key", "U+0000"],
        ),
        (
            "orders.placed",
            |m| m.idempotency_key(""),
            Invalid,
            &["idempotency key is empty"],
        ),
        (
            "orders.placed",
            |m| m.idempotency_key("x".repeat(513)),
            TooLarge,
            &["idempotency key", "512"],
        ),
        (
            "orders.placed",
            |m| m.header("hl-id", "x"),
            Invalid,
            &["hl-id", "reserved"],
        ),
        (
            "orders.placed",
            |m| m.header("X", "x"),
            Invalid,
            &["header name \"X\""],
        ),
        (
            "orders.placed",
            |m| m.header("note", "a\r\nb"),
            Invalid,
            &["header note", "U+000D"],
        ),
        (
            "orders.placed",
            |m| m.header("note", &"x".repeat(16_385)),
            TooLarge,
            &["header note", "16385", "16384"],
        ),
        (
            "orders.placed",
            |m| (0..65).fold(m, |m, n| m.header(&format!("h{n}"), "")),
            TooLarge,
            &["headers", "64"],
        ),
        (
            "orders.placed",
            |m| m.message_type(""),
            Invalid,
            &["message type is empty"],
        ),
        (
            "orders.placed",
            |m| m.correlation_id("x".repeat(257)),
            TooLarge,
            &["correlation id", "257", "256"],
        ),
        (
            "orders.placed",
            |m| m.tenant("\n"),
            Invalid,
            &["tenant", "U+000A"],
        ),
        (
            "orders.placed",
            |m| m.priority(10),
            Invalid,
            &["priority is 10", "9"],
        ),
        (
            "orders.placed",
            |m| m.delay(Message::MAX_DELAY + Duration::from_secs(1)),
            Invalid,
            &["delay is 3162240001 s", "limit is 3162240000 s"],
        ),
        ("orders.placed", |m| m.delay(Duration::MAX), Invalid, &["delay"]),
        (
            "orders.placed",
            |m| m.expires_after(Duration::MAX),
            Invalid,
            &["expires_after", "3162240000"],
        ),
        (
            "orders.placed",
            |m| {
                m.delay(Duration::from_secs(9))
                    .expires_after(Duration::from_secs(8))
            },
            Invalid,
            &["expires before its delay"],
        ),
        ("ledger", |m| m, Invalid, &["topic ledger", "no key", ".key(..)"]),
        (
            "ledger",
            |m| m.key("k").priority(1),
            Invalid,
            &["topic ledger", "priority", "order"],
        ),
        ("", |m| m, Invalid, &["topic", "is empty"]),
        ("Orders", |m| m.key("k"), Invalid, &["topic \"Orders\""]),
        (
            "orders.dead",
            |m| m.priority(99),
            Invalid,
            &["reserved for dead letters"],
        ),
        (
            "orders.placed",
            |m| m.tenant("").priority(99).key(""),
            Invalid,
            &["tenant is empty"],
        ),
    ];
    let process = Process::start().await;
    for (topic, build, kind, parts) in table {
        for publisher in [process.publisher.clone(), process.publisher.direct()] {
            let error = build(publisher.message(topic, &1)).send().await.unwrap_err();
            assert_error(&error, *kind, parts, topic);
            assert_error(&error, *kind, &["publish"], topic);
        }
    }
    assert!(process.stored().await.is_empty() && process.transport.sent().is_empty());
    assert!(!process.relay_was_woken().await);
}

#[tokio::test(start_paused = true)]
async fn should_hold_the_smaller_payload_limit_when_publishing() {
    let capabilities =
        |bytes| TransportCapabilities::none().with_max_payload(NonZeroUsize::new(bytes).unwrap());
    let limits = |bytes| OutgoingLimits::default().with_max_payload(bytes);
    for (theirs, ours) in [(10, 1_000), (1_000, 10)] {
        let process = Process::with(capabilities(theirs), limits(ours)).await;
        for publisher in [process.publisher.clone(), process.publisher.direct()] {
            publisher
                .message("orders.placed", "12345678")
                .send()
                .await
                .unwrap();
            let error = publisher
                .message("orders.placed", "123456789")
                .send()
                .await
                .unwrap_err();
            let parts = ["topic orders.placed", "payload is 11 bytes", "limit is 10"];
            assert_error(&error, ErrorKind::TooLarge, &parts, "payload");
        }
    }
    assert_eq!(OutgoingLimits::default().max_payload, 1_048_576);
}

#[tokio::test(start_paused = true)]
async fn should_refuse_before_any_effect_when_the_transport_can_not() {
    let process = Process::with(TransportCapabilities::none(), OutgoingLimits::default()).await;
    let hour = Duration::from_secs(3_600);
    let direct = process.publisher.direct();
    let delay = direct
        .message("orders.placed", &1)
        .delay(hour)
        .send()
        .await
        .unwrap_err();
    assert_error(
        &delay,
        ErrorKind::Unsupported,
        &["faulty", "`delayed_send`", "durably"],
        "delay",
    );
    for publisher in [&direct, &process.publisher] {
        let priority = publisher
            .message("orders.placed", &1)
            .priority(1)
            .send()
            .await
            .unwrap_err();
        assert_error(
            &priority,
            ErrorKind::Unsupported,
            &["faulty", "`priority`", "leave"],
            "priority",
        );
        let ordered = publisher.message("ledger", &1).key("k").send().await.unwrap_err();
        assert_error(
            &ordered,
            ErrorKind::Unsupported,
            &["faulty", "`ordering`", "Ordered::no()"],
            "ordering",
        );
    }
    assert!(process.stored().await.is_empty() && process.transport.sent().is_empty());
    // The outbox holds it back itself; and a delay of nothing is none.
    process
        .publisher
        .message("orders.placed", &1)
        .delay(hour)
        .send()
        .await
        .unwrap();
    direct
        .message("orders.placed", &1)
        .delay(Duration::ZERO)
        .send()
        .await
        .unwrap();

    let ordering = TransportCapabilities::none().with_ordering(OrderingGuarantee::PerKey);
    let process = Process::with(ordering, OutgoingLimits::default()).await;
    process
        .publisher
        .message("ledger", &1)
        .key("k")
        .send()
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn should_say_what_to_register_when_a_part_is_missing() {
    let process = Process::start().await;
    let wakeups = process.environment.wakeups.clone();
    let without_store = Publisher::new(
        process.outgoing.clone(),
        None,
        Some(process.transport.clone()),
        wakeups.clone(),
    );
    assert_eq!(
        without_store.publish(&order("o")).await.unwrap().outcome,
        PublishOutcome::Accepted
    );
    let error = without_store
        .message("orders.placed", &1)
        .durable()
        .send()
        .await
        .unwrap_err();
    assert_error(
        &error,
        ErrorKind::Unsupported,
        &["outbox", ".direct()"],
        "no store",
    );
    let outbox = process.memory.parts().outbox.unwrap().store;
    let without_transport = Publisher::new(process.outgoing.clone(), Some(outbox), None, wakeups);
    let error = without_transport
        .message("orders.placed", &1)
        .direct()
        .send()
        .await
        .unwrap_err();
    assert_error(
        &error,
        ErrorKind::Unsupported,
        &["transport", ".durable()"],
        "no transport",
    );
    assert!(process.stored().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn should_keep_the_outcome_unknown_when_a_confirm_is_lost() {
    let process = Process::start().await;
    process
        .transport
        .fail(|_| Some(Error::new(ErrorKind::Timeout, "no confirm").with_outcome_unknown()));
    let error = process
        .publisher
        .direct()
        .publish(&order("o-1"))
        .await
        .unwrap_err();
    assert!(error.is_outcome_unknown() && error.is_retryable());
    assert_eq!(process.transport.sent().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn should_inherit_from_the_cause_when_correlated() {
    let process = Process::start().await;
    let first = process
        .publisher
        .message("orders.placed", &1)
        .tenant("acme")
        .send()
        .await
        .unwrap();
    let cause = process.stored().await.remove(0).message;
    process
        .publisher
        .correlated_to(&cause)
        .publish(&order("o-1"))
        .await
        .unwrap();
    let effect = process.stored().await.remove(1).message;
    assert_eq!(effect.causation_id, Some(first.id));
    assert_eq!(
        effect.correlation_id.as_ref().unwrap().as_str(),
        first.id.to_string()
    );
    assert_eq!(effect.tenant.as_ref().unwrap().as_str(), "acme");
    let later = process.publisher.correlated_to(&effect);
    later
        .message("orders.placed", &2)
        .tenant("other")
        .send()
        .await
        .unwrap();
    let later = process.stored().await.remove(2).message;
    assert_eq!(later.causation_id, Some(effect.id));
    assert_eq!(later.correlation_id, effect.correlation_id);
    assert_eq!(later.tenant.unwrap().as_str(), "other");
}

#[tokio::test(start_paused = true)]
async fn should_count_what_was_taken_when_published() {
    let counters = Counters::default();
    let _guard = counters.install();
    let process = Process::start().await;
    process.publisher.publish_all(&["a", "", "b"].map(order)).await;
    for _ in 0..2 {
        process
            .publisher
            .message("nobody", &1)
            .id(id(1))
            .send()
            .await
            .unwrap();
    }
    process
        .publisher
        .message("nobody", &1)
        .direct()
        .send()
        .await
        .unwrap();
    let mut work = process.begin().await;
    work.publish(&order("c")).await.unwrap();
    work.commit().await.unwrap();
    let read = |name, topic| counters.read(&format!("{name}{{topic={topic}}}"));
    assert_eq!(read(metric::PUBLISHED, "orders.placed"), 3);
    assert_eq!(read(metric::PUBLISHED, "nobody"), 2);
    assert_eq!(read(metric::UNROUTED, "nobody"), 1);
}
