//! The transport's log, while segments are closed and emptied: no message that was accepted is lost, and what is missing is
//! never passed over.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    GroupName, GroupSpec, Message, MessageId, Owner, Settlement, Subscriber, Subscription, TopicName,
    TopicOrder, TopicSpec, Topology, Transport,
};
use headless_postgres::Postgres;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::pause::{Pause, commit, open, until_waits};
use crate::world::{World, eventually};

const AGE: &str = include_str!("../sql/transport_age.sql");
const CLOSE: &str = include_str!("../sql/transport_close.sql");
const DAMAGE: &str = include_str!("../sql/transport_damage.sql");
const FENCES: &str = include_str!("../sql/transport_fences.sql");
const LOG: &str = include_str!("../sql/transport_log.sql");
const PAUSE_SEND: &str = include_str!("../sql/pause_send.sql");
const SEND_FOREIGN: &str = include_str!("../sql/transport_send_foreign.sql");
const UNEVEN: &str = include_str!("../sql/transport_uneven.sql");

const WAIT: Duration = Duration::from_secs(5);

fn group() -> GroupName {
    GroupName::parse("billing").unwrap()
}

fn orders() -> TopicName {
    TopicName::parse("orders").unwrap()
}

/// A member of a group of an unordered topic.
async fn member(postgres: &Postgres) -> Box<dyn Subscriber> {
    let topology = Topology::new()
        .with_topic(TopicSpec::new(orders(), TopicOrder::Unordered))
        .with_group(GroupSpec::new(group(), orders()));
    postgres.declare(&topology).await.unwrap();
    let to = Subscription::new(group(), orders(), Owner::from_bits(7));
    postgres.subscribe(&to).await.unwrap()
}

async fn send(postgres: &Postgres, count: u128) {
    let messages: Vec<Message> = (1..=count)
        .map(|n| {
            let id = MessageId::from_uuid(Uuid::from_u128(n));
            Message::new(id, orders(), DateTime::UNIX_EPOCH, Bytes::from_static(b"x"))
        })
        .collect();
    for answer in postgres.send(&messages).await {
        answer.unwrap();
    }
}

/// Settles as many.
async fn work_off(member: &dyn Subscriber, count: usize) {
    let mut done = 0;
    while done < count {
        let received = member.receive(count, WAIT).await.unwrap();
        assert!(!received.is_empty(), "{done} of {count} came");
        done += received.deliveries.len();
        let acks: Vec<Settlement> = received
            .deliveries
            .iter()
            .map(|delivery| Settlement::Ack(delivery.token))
            .collect();
        for answer in member.settle(&acks).await {
            answer.unwrap();
        }
    }
}

/// The oldest segment and the one that is written.
async fn segments(world: &World) -> (i64, i64) {
    let row = world.rows(LOG).await.remove(0);
    (row.get("oldest"), row.get("current"))
}

#[tokio::test]
async fn should_keep_what_is_sent_when_the_sender_has_looked_for_its_segment_before_it_is_closed() {
    World::run_alone(async |world| {
        let postgres = world.connect().await;
        let billing = member(&postgres).await;
        send(&postgres, 3).await;
        work_off(&*billing, 3).await;
        let pause = Pause::at(world, PAUSE_SEND).await;
        // The closing is older than the sender, and commits after the sender has looked.
        let closes = open(world, CLOSE).await;
        let ((), ()) = tokio::join!(world.raw(SEND_FOREIGN), async {
            until_waits(world, "send_foreign").await;
            commit(closes).await;
            assert_eq!(segments(world).await, (0, 1));
            for _ in 0..3 {
                world.raw(AGE).await;
            }
            assert_eq!(segments(world).await.0, 0, "emptied under a sender");
            pause.end().await;
        });
        work_off(&*billing, 1).await;
        postgres.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_empty_segments_when_their_fences_are_of_another_server() {
    World::run_alone(async |world| {
        let postgres = world.connect().await;
        let billing = member(&postgres).await;
        send(&postgres, 3).await;
        work_off(&*billing, 3).await;
        world.raw(AGE).await;
        world.raw(FENCES).await;
        eventually("the segment is emptied", async || {
            world.raw(AGE).await;
            (segments(world).await.0 > 0).then_some(())
        })
        .await;
        postgres.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_refuse_a_sender_when_its_statements_do_not_see_what_is_committed() {
    World::run(async |world| {
        let postgres = world.connect().await;
        let _billing = member(&postgres).await;
        for level in ["repeatable read", "serializable"] {
            let mut conn = open(world, &format!("begin isolation level {level}")).await;
            let refused = sqlx::raw_sql(world.sql(SEND_FOREIGN))
                .execute(&mut conn)
                .await
                .unwrap_err();
            let code = refused.as_database_error().unwrap().code().unwrap().into_owned();
            assert_eq!(code, "25001", "{refused}");
            conn.close().await.unwrap();
        }
        assert_eq!(postgres.lag(&group()).await.unwrap(), 0);
        postgres.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_say_so_and_stay_when_a_place_of_the_log_is_missing() {
    for (flags, lost) in [("", 0), ("", 1), ("", 2), (UNEVEN, 0), (UNEVEN, 1), (UNEVEN, 2)] {
        World::run(async |world| {
            let postgres = world.connect().await;
            let billing = member(&postgres).await;
            send(&postgres, 3).await;
            world.raw(flags).await;
            world.raw(&DAMAGE.replace("{place}", &lost.to_string())).await;
            for _ in 0..2 {
                let error = billing.receive(3, WAIT).await.unwrap_err();
                assert!(error.to_string().contains("lacks a message"), "{error}");
            }
            assert_eq!(
                postgres.lag(&group()).await.unwrap(),
                3,
                "nothing was passed over"
            );
            postgres.close().await.unwrap();
        })
        .await;
    }
}
