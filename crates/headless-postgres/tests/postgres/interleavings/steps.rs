//! Steps of members: they wait for no sender, look at a bounded number of rows, and leave no member behind that has left.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use futures::poll;
use headless_abstractions::{
    ErrorKind, GroupName, GroupSpec, Message, MessageId, Owner, Partitions, Subscriber, Subscription,
    TopicName, TopicOrder, TopicSpec, Topology, Transport,
};
use headless_postgres::Postgres;
use sqlx::Row;
use uuid::Uuid;

use super::pause::{commit, open, until_waits};
use crate::world::{World, eventually, few};

const AGE: &str = include_str!("../sql/transport_age.sql");
const EXPIRED: &str = include_str!("../sql/transport_expired.sql");
const LOCKED: &str = include_str!("../sql/transport_locked.sql");
const LOCK_PARTS: &str = include_str!("../sql/transport_lock_parts.sql");
const MEMBERS: &str = include_str!("../sql/members.sql");
const MEMBERS_GONE: &str = include_str!("../sql/members_gone.sql");
const REACHED: &str = include_str!("../sql/transport_reached.sql");
const REQUEUED: &str = include_str!("../sql/transport_requeued.sql");

const WAIT: Duration = Duration::from_secs(5);

fn orders() -> TopicName {
    TopicName::parse("orders").unwrap()
}

async fn member(postgres: &Postgres, order: TopicOrder) -> Box<dyn Subscriber> {
    let group = GroupName::parse("billing").unwrap();
    let topology = Topology::new()
        .with_topic(TopicSpec::new(orders(), order))
        .with_group(GroupSpec::new(group.clone(), orders()));
    postgres.declare(&topology).await.unwrap();
    let to = Subscription::new(group, orders(), Owner::from_bits(7));
    postgres.subscribe(&to).await.unwrap()
}

fn message(n: u128) -> Message {
    let id = MessageId::from_uuid(Uuid::from_u128(n));
    Message::new(id, orders(), DateTime::UNIX_EPOCH, Bytes::from_static(b"x"))
}

/// How many members there are, and how many partitions they hold.
async fn members(world: &World) -> (i64, i64) {
    let row = world.rows(MEMBERS).await.remove(0);
    (row.get("members"), row.get("held"))
}

#[tokio::test]
async fn should_be_gone_when_it_has_left_with_a_step_under_way() {
    World::run(async |world| {
        let config = world.config().with_control_connections(few(1));
        let postgres = Postgres::connect_with(config).await.unwrap();
        let member = member(&postgres, TopicOrder::Unordered).await;
        assert_eq!(members(world).await.0, 1);
        let mut receiving = pin!(member.receive(1, WAIT));
        // Its step begins with the next turn of this thread, behind the one that leaves.
        assert!(poll!(&mut receiving).is_pending());
        member.close().await.unwrap();
        assert_eq!(receiving.await.unwrap_err().kind(), ErrorKind::Closed);
        // Whatever is under way ends first.
        postgres.close().await.unwrap();
        assert_eq!(members(world).await.0, 0, "a member that has left");
    })
    .await;
}

#[tokio::test]
async fn should_forget_members_when_they_have_long_been_gone() {
    for order in [
        TopicOrder::Unordered,
        TopicOrder::Partitioned(Partitions::new(2).unwrap()),
    ] {
        World::run(async |world| {
            let postgres = world.connect().await;
            let gone = member(&postgres, order).await;
            assert!(gone.receive(1, Duration::ZERO).await.unwrap().is_empty());
            // As a crash leaves it: nothing of it is run any more.
            std::mem::forget(gone);
            world.raw(AGE).await;
            assert_eq!(members(world).await.0, 1, "one that has only just been seen");
            world.raw(MEMBERS_GONE).await;
            world.raw(AGE).await;
            assert_eq!(members(world).await, (0, 0));
        })
        .await;
    }
}

#[tokio::test]
async fn should_not_wait_when_a_sender_has_the_part_of_a_delayed_message() {
    World::run(async |world| {
        let config = world.config().with_call_timeout(Duration::from_secs(2));
        let postgres = Postgres::connect_with(config).await.unwrap();
        let member = member(&postgres, TopicOrder::Unordered).await;
        let mut delayed = message(1);
        delayed.deliver_after = Some(Duration::from_millis(1));
        for answer in postgres.send(&[delayed]).await {
            answer.unwrap();
        }
        let sender = open(world, LOCK_PARTS).await;
        let received = member.receive(1, Duration::from_millis(100)).await.unwrap();
        assert!(received.is_empty(), "it cannot have a place yet");
        commit(sender).await;
        assert_eq!(member.receive(1, WAIT).await.unwrap().deliveries.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn should_leave_a_connection_to_others_when_sends_wait() {
    World::run(async |world| {
        let config = world.config().with_acquire_timeout(Duration::from_secs(1));
        let postgres = Postgres::connect_with(config).await.unwrap();
        let _member = member(&postgres, TopicOrder::Unordered).await;
        // What topic it is, is asked for once.
        for answer in postgres.send(&[message(1)]).await {
            answer.unwrap();
        }
        let sender = open(world, LOCK_PARTS).await;
        let messages = [message(2), message(3), message(4)];
        let sends = messages.map(|message| {
            let postgres = postgres.clone();
            tokio::spawn(async move { postgres.send(&[message]).await.remove(0) })
        });
        until_waits(world, "transport_send").await;
        for _ in 0..3 {
            postgres.ping().await.unwrap();
        }
        commit(sender).await;
        for send in sends {
            // One that had to wait for its turn for too long says that nothing has happened.
            if let Err(error) = send.await.unwrap() {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert!(!error.is_outcome_unknown(), "{error}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn should_look_at_few_rows_when_very_many_come_back() {
    World::run(async |world| {
        let postgres = world.connect().await;
        let member = member(&postgres, TopicOrder::Unordered).await;
        let messages: Vec<Message> = (1..=3_000).map(message).collect();
        for answer in postgres.send(&messages).await {
            answer.unwrap();
        }
        world.raw(REQUEUED).await;
        let received = member.receive(10, WAIT).await.unwrap();
        assert_eq!(received.deliveries.len(), 10);
        let locked: i64 = world.rows(LOCKED).await[0].get("rows");
        assert!(locked <= 30, "{locked} rows were locked for 10 deliveries");
        let mut rest = 10;
        while rest < 90 {
            rest += member.receive(100, WAIT).await.unwrap().deliveries.len();
        }
    })
    .await;
}

#[tokio::test]
async fn should_pass_over_a_bounded_number_when_very_many_have_expired() {
    World::run(async |world| {
        let postgres = world.connect().await;
        let member = member(&postgres, TopicOrder::Unordered).await;
        world.raw(EXPIRED).await;
        assert!(member.receive(1, Duration::ZERO).await.unwrap().is_empty());
        let reached: i64 = world.rows(REACHED).await[0].get("reached");
        assert!(
            (5_000..=11_000).contains(&reached),
            "one step passed over {reached}"
        );
        eventually("all of them are passed over", async || {
            assert!(member.receive(1, Duration::ZERO).await.unwrap().is_empty());
            let reached: i64 = world.rows(REACHED).await[0].get("reached");
            (reached == 30_000).then_some(())
        })
        .await;
    })
    .await;
}
