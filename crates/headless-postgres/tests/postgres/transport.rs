//! The transport: its log over time, answers that are lost, and a server that crashes.

use std::{num::NonZeroUsize, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    Delivery, GroupName, GroupSpec, Message, MessageId, Owner, PartitionKey, Partitions, Redelivery,
    Settlement, StartFrom, Subscriber, Subscription, TopicName, TopicOrder, TopicSpec, Topology, Transport,
};
use headless_harness::{
    FaultProxy,
    services::{Stop, private_postgres},
};
use headless_postgres::{Postgres, PostgresConfig};
use sqlx::{Connection, Row};
use uuid::Uuid;

use crate::world::{World, eventually, few, present};

const AGE: &str = include_str!("sql/transport_age.sql");
const LOG: &str = include_str!("sql/transport_log.sql");

/// A visibility time that does not end within a test.
const LONG: Duration = Duration::from_secs(3_600);
const WAIT: Duration = Duration::from_secs(5);

fn orders() -> TopicName {
    TopicName::parse("orders").unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

async fn declare(postgres: &Postgres, order: TopicOrder, groups: &[(&str, StartFrom)]) {
    let topology = groups.iter().fold(
        Topology::new().with_topic(TopicSpec::new(orders(), order)),
        |topology, (name, start)| {
            topology.with_group(GroupSpec::new(group(name), orders()).with_start(*start))
        },
    );
    postgres.declare(&topology).await.unwrap();
}

fn messages(numbers: std::ops::Range<u128>) -> Vec<Message> {
    numbers
        .map(|n| {
            let id = MessageId::from_uuid(Uuid::from_u128(n + 1));
            let key = PartitionKey::parse(format!("key-{}", n % 7)).unwrap();
            let payload = Bytes::from(n.to_string().repeat(200));
            Message::new(id, orders(), DateTime::UNIX_EPOCH, payload).with_key(key)
        })
        .collect()
}

async fn send(postgres: &Postgres, numbers: std::ops::Range<u128>) {
    for answer in postgres.send(&messages(numbers)).await {
        answer.unwrap();
    }
}

async fn join(postgres: &Postgres, name: &str) -> Box<dyn Subscriber> {
    let to = Subscription::new(group(name), orders(), Owner::from_bits(7))
        .with_visibility(LONG)
        .with_prefetch(NonZeroUsize::new(10_000).unwrap());
    postgres.subscribe(&to).await.unwrap()
}

/// Takes this many deliveries.
async fn take(member: &dyn Subscriber, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let received = member.receive(count - taken.len(), WAIT).await.unwrap();
        assert!(!received.is_empty(), "{} of {count} came", taken.len());
        taken.extend(received.deliveries);
    }
    taken
}

async fn ack(member: &dyn Subscriber, deliveries: &[Delivery]) {
    let acks: Vec<Settlement> = deliveries.iter().map(|d| Settlement::Ack(d.token)).collect();
    for answer in member.settle(&acks).await {
        answer.unwrap();
    }
}

fn numbers(deliveries: &[Delivery]) -> Vec<u128> {
    let mut numbers: Vec<u128> = deliveries
        .iter()
        .map(|delivery| delivery.message.id.as_uuid().as_u128() - 1)
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The oldest segment, the one that is written, and how many messages there are in all of them.
async fn log(world: &World) -> (i64, i64, i64) {
    let row = world.rows(LOG).await.remove(0);
    (row.get("oldest"), row.get("current"), row.get("messages"))
}

/// Looks after the log as if every segment were old and large, until it is written here. Any transaction that is open
/// on the server holds that up, so these tests have one of their own.
async fn age_to(world: &World, what: &str, there: impl Fn((i64, i64, i64)) -> bool) {
    eventually(what, async || {
        world.raw(AGE).await;
        there(log(world).await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn should_lose_nothing_when_segments_are_closed_and_emptied_under_way() {
    World::run_alone(async |world| {
        let postgres = world.connect().await;
        let order = TopicOrder::Partitioned(Partitions::new(3).unwrap());
        declare(
            &postgres,
            order,
            &[("billing", StartFrom::Now), ("audit", StartFrom::Now)],
        )
        .await;
        let (billing, audit) = (join(&postgres, "billing").await, join(&postgres, "audit").await);
        let mut unsettled = Vec::new();
        let mut seen = Vec::new();
        // More rounds than there are tables, so that each is used again.
        for round in 0..12_u128 {
            send(&postgres, round * 20..round * 20 + 20).await;
            let taken = take(&*billing, 20).await;
            ack(&*billing, &taken).await;
            seen.extend(numbers(&taken));
            if round < 3 {
                // It takes some of the first segments, and settles them much later.
                unsettled.extend(take(&*audit, 20).await);
            }
            world.raw(AGE).await;
        }
        let (oldest, current, _) = log(world).await;
        assert_eq!(oldest, 0, "what is unsettled was dropped");
        assert!(current > 0, "no segment was closed");
        assert_eq!(seen, (0..240).collect::<Vec<u128>>(), "what billing has seen");
        assert_eq!(postgres.lag(&group("billing")).await.unwrap(), 0);
        assert_eq!(postgres.lag(&group("audit")).await.unwrap(), 240);

        // What was given back is read from its segment again.
        let back: Vec<Settlement> = unsettled
            .drain(..)
            .map(|d| Settlement::Requeue {
                token: d.token,
                after: None,
            })
            .collect();
        for answer in audit.settle(&back).await {
            answer.unwrap();
        }
        let taken = take(&*audit, 240).await;
        assert_eq!(
            numbers(&taken),
            (0..240).collect::<Vec<u128>>(),
            "what audit has seen"
        );
        ack(&*audit, &taken).await;
        age_to(
            world,
            "every segment but the last is emptied",
            |(oldest, current, messages)| oldest == current && messages <= 20,
        )
        .await;

        // The log goes on in tables that were used before.
        for round in 12..30_u128 {
            send(&postgres, round * 20..round * 20 + 20).await;
            let taken = take(&*billing, 20).await;
            assert_eq!(
                numbers(&taken),
                (round * 20..round * 20 + 20).collect::<Vec<u128>>()
            );
            ack(&*billing, &taken).await;
            let taken = take(&*audit, 20).await;
            assert_eq!(
                numbers(&taken),
                (round * 20..round * 20 + 20).collect::<Vec<u128>>()
            );
            ack(&*audit, &taken).await;
            let before = log(world).await.1;
            age_to(world, "another segment", |(oldest, current, _)| {
                current > before && oldest >= before - 1
            })
            .await;
        }
        let (_, current, _) = log(world).await;
        assert!(current > 8, "no table was used again: segment {current}");
        postgres.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_replay_what_is_left_when_older_segments_are_gone() {
    World::run_alone(async |world| {
        let postgres = world.connect().await;
        declare(&postgres, TopicOrder::Unordered, &[("billing", StartFrom::Now)]).await;
        let billing = join(&postgres, "billing").await;
        send(&postgres, 0..20).await;
        let taken = take(&*billing, 20).await;
        ack(&*billing, &taken).await;
        age_to(world, "the first segment is emptied", |(oldest, _, _)| oldest > 0).await;
        send(&postgres, 20..40).await;
        declare(&postgres, TopicOrder::Unordered, &[("late", StartFrom::Oldest)]).await;
        assert_eq!(postgres.lag(&group("late")).await.unwrap(), 20, "what is left");
        let late = join(&postgres, "late").await;
        assert_eq!(numbers(&take(&*late, 20).await), (20..40).collect::<Vec<u128>>());
        postgres.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_give_again_at_once_what_a_lost_answer_has_taken() {
    for order in [
        TopicOrder::Unordered,
        TopicOrder::Partitioned(Partitions::new(4).unwrap()),
    ] {
        World::run(async |world| {
            let way = FaultProxy::in_front_of(&world.url).unwrap();
            let postgres = Postgres::connect_with(world.config_at(&way.url_for(&world.url).unwrap()))
                .await
                .unwrap();
            declare(&postgres, order, &[("billing", StartFrom::Now)]).await;
            let member = join(&postgres, "billing").await;
            // Whatever is to be prepared is, so that the answer alone is lost.
            assert!(
                member
                    .receive(1, Duration::ZERO)
                    .await
                    .unwrap()
                    .deliveries
                    .is_empty()
            );
            send(&postgres, 0..50).await;

            way.cut_answers_after(4_000);
            let error = member.receive(50, WAIT).await.unwrap_err();
            assert!(error.is_retryable(), "{error}");
            way.pass();
            // Its visibility time is an hour.
            let taken = take(&*member, 50).await;
            assert_eq!(numbers(&taken), (0..50).collect::<Vec<u128>>());
            assert!(
                taken
                    .iter()
                    .all(|delivery| delivery.redelivery == Redelivery::Again(1)),
                "the answer was not lost after the server had given them out"
            );
            ack(&*member, &taken).await;
            assert_eq!(postgres.lag(&group("billing")).await.unwrap(), 0);
            postgres.close().await.unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn should_keep_what_was_confirmed_and_settled_when_the_server_crashes() {
    let Some(mut server) = present(private_postgres()) else {
        return;
    };
    World::run_at(server.url(), async |world| {
        let postgres = world.connect().await;
        declare(&postgres, TopicOrder::Unordered, &[("billing", StartFrom::Now)]).await;
        send(&postgres, 0..100).await;
        let member = join(&postgres, "billing").await;
        let held = take(&*member, 10).await;
        ack(&*member, &held[..5]).await;
        drop(held);

        server.stop(Stop::Immediate).unwrap();
        server.start().unwrap();
        // The same handle and member go on: what they hold is theirs still.
        let mut left = eventually("the member receives again", async || {
            let received = member.receive(90, WAIT).await.ok()?;
            (!received.deliveries.is_empty()).then_some(received.deliveries)
        })
        .await;
        left.extend(take(&*member, 90 - left.len()).await);
        assert_eq!(postgres.lag(&group("billing")).await.unwrap(), 95);
        ack(&*member, &left).await;
        assert_eq!(postgres.lag(&group("billing")).await.unwrap(), 5);
        member.close().await.unwrap();
        let next = join(&postgres, "billing").await;
        assert_eq!(numbers(&take(&*next, 5).await).len(), 5);
        postgres.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_lose_nothing_when_a_sender_commits_after_its_segment_was_closed() {
    World::run_alone(async |world| {
        let postgres = world.connect().await;
        declare(&postgres, TopicOrder::Unordered, &[("billing", StartFrom::Now)]).await;
        let billing = join(&postgres, "billing").await;
        send(&postgres, 0..10).await;
        let taken = take(&*billing, 10).await;
        ack(&*billing, &taken).await;

        // Nobody else sends meanwhile, so nobody waits for the part that it has locked.
        let mut conn = world.conn().await;
        let late = [
            include_str!("sql/transport_begin.sql"),
            include_str!("sql/transport_commit.sql"),
        ];
        sqlx::raw_sql(world.sql(late[0]))
            .execute(&mut conn)
            .await
            .unwrap();
        let before = log(world).await.1;
        for _ in 0..4 {
            world.raw(AGE).await;
        }
        let (oldest, current, _) = log(world).await;
        assert!(
            current > before,
            "the segment was not closed while the sender was at it"
        );
        assert_eq!(
            oldest, before,
            "a segment was emptied that a sender still writes into"
        );
        sqlx::raw_sql(world.sql(late[1]))
            .execute(&mut conn)
            .await
            .unwrap();
        conn.close().await.unwrap();

        // Its message is there, and holds the segment until it is settled.
        world.raw(AGE).await;
        let late = take(&*billing, 1).await;
        world.raw(AGE).await;
        assert_eq!(log(world).await.0, before, "what is unsettled was dropped");
        ack(&*billing, &late).await;
        age_to(world, "the segment is emptied at last", |(oldest, _, _)| {
            oldest > before
        })
        .await;
        postgres.close().await.unwrap();
    })
    .await;
}

/// Lets another process look after the log, with these settings, as each does that has not done so lately.
async fn look_after(world: &World, configure: impl FnOnce(PostgresConfig) -> PostgresConfig) {
    let config = configure(world.config());
    let postgres = Postgres::connect_with(config).await.unwrap();
    let member = join(&postgres, "billing").await;
    let received = member.receive(1, Duration::ZERO).await.unwrap();
    assert!(received.deliveries.is_empty());
    postgres.close().await.unwrap();
}

#[tokio::test]
async fn should_cut_and_keep_the_log_as_it_is_set() {
    const HOUR: Duration = Duration::from_hours(1);
    let few_messages = |config: PostgresConfig| config.with_segment_messages(few(1_000));
    World::run_alone(async |world| {
        let postgres = world.connect().await;
        declare(&postgres, TopicOrder::Unordered, &[("billing", StartFrom::Now)]).await;
        send(&postgres, 0..1_000).await;
        let billing = join(&postgres, "billing").await;
        let taken = take(&*billing, 1_000).await;
        ack(&*billing, &taken).await;
        postgres.close().await.unwrap();

        // With the defaults it is neither large nor old.
        look_after(world, |config| config).await;
        assert_eq!(log(world).await, (0, 0, 1_000), "with the defaults");
        look_after(world, few_messages).await;
        assert_eq!(log(world).await.1, 1, "the segment that is large enough");

        // Nobody needs it now, and it is kept all the same.
        for _ in 0..4 {
            look_after(world, |config| few_messages(config).with_keep_replay(HOUR)).await;
        }
        assert_eq!(log(world).await, (0, 1, 1_000), "what is to be kept");
        let postgres = world.connect().await;
        declare(&postgres, TopicOrder::Unordered, &[("late", StartFrom::Oldest)]).await;
        let late = join(&postgres, "late").await;
        let replayed = take(&*late, 1_000).await;
        assert_eq!(numbers(&replayed), (0..1_000).collect::<Vec<u128>>());
        ack(&*late, &replayed).await;
        postgres.close().await.unwrap();
        eventually("the segment is emptied without the setting", async || {
            look_after(world, few_messages).await;
            (log(world).await.2 == 0).then_some(())
        })
        .await;

        // Ten seconds are ten seconds for who says so.
        let postgres = world.connect().await;
        send(&postgres, 1_000..1_001).await;
        let billing = join(&postgres, "billing").await;
        let taken = take(&*billing, 1).await;
        ack(&*billing, &taken).await;
        postgres.close().await.unwrap();
        world.raw(include_str!("sql/transport_older.sql")).await;
        let current = log(world).await.1;
        look_after(world, |config| config).await;
        assert_eq!(log(world).await.1, current, "an hour is not over");
        look_after(world, |config| config.with_segment_age(Duration::from_secs(10))).await;
        assert_eq!(log(world).await.1, current + 1, "ten seconds are");
    })
    .await;
}
