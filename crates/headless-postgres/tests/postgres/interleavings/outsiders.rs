//! What others have done to the rows or to the transaction, and what an operator does meanwhile.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    Arrival, ClaimOutbox, ClaimParked, DeadId, DeadLetterStore, ErrorKind, Failure, FailureCause, GroupName,
    GroupSpec, Hold, Message, MessageId, OutboxStore, Owner, ParkedStore, Redrive, Redriven, StoreTx,
    Subscription, TopicName, TopicOrder, TopicSpec, Topology, Transport,
};
use headless_postgres::Postgres;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::pause::open;
use crate::world::World;

const DEAD_LETTERS: &str = include_str!("../sql/dead_letters.sql");
const PROBE: &str = include_str!("../sql/inbox_probe.sql");
const SPOIL: &str = include_str!("../sql/transport_spoil.sql");
const UNREADABLE: &str = include_str!("../sql/outbox_unreadable.sql");
const WAITING: &str = include_str!("../sql/inbox_waiting.sql");

const LONG: Duration = Duration::from_secs(600);
const ME: Owner = Owner::from_bits(7);

fn message(n: u128, payload: &'static [u8]) -> Message {
    let id = MessageId::from_uuid(Uuid::from_u128(n));
    let topic = TopicName::parse("orders").unwrap();
    Message::new(id, topic, DateTime::UNIX_EPOCH, Bytes::from_static(payload))
}

async fn claim(postgres: &Postgres) -> Vec<(headless_abstractions::Claim, Bytes)> {
    let claimed = OutboxStore::claim(postgres, &ClaimOutbox::new(ME, 10, LONG))
        .await
        .unwrap();
    let rows = claimed.rows.into_iter();
    rows.map(|row| (row.claim, row.message.payload)).collect()
}

#[tokio::test]
async fn should_bury_a_row_alone_when_it_cannot_be_read() {
    World::run(async |world| {
        let postgres = world.connect().await;
        world.raw(UNREADABLE).await;
        postgres.append(&[message(1, b"good")]).await.unwrap();
        let rows = claim(&postgres).await;
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0].1, "good");
        let settled = postgres.ack(ME, &[rows[0].0]).await.unwrap();
        assert!(settled.is_complete());
        // Nothing of it is held or waits.
        assert_eq!(postgres.release_owner(ME).await.unwrap(), 0);
        assert!(claim(&postgres).await.is_empty());
        let letters: Vec<(String, String)> = world
            .rows(DEAD_LETTERS)
            .await
            .iter()
            .map(|row| (row.get("topic"), row.get("failures")))
            .collect();
        assert_eq!(letters.len(), 4, "{letters:?}");
        for said in ["not json", "nor this", "Not a topic", "many"] {
            assert!(
                letters.iter().any(|(_, failures)| failures.contains(said)),
                "{said}: {letters:?}"
            );
        }
        // And an operator can read and redrive them.
        let ids: Vec<DeadId> = world
            .rows(DEAD_LETTERS)
            .await
            .iter()
            .map(|row| DeadId::from_uuid(row.get("dead_letter_id")))
            .collect();
        let answers = postgres.redrive(&Redrive::new(ids, "test")).await.unwrap();
        assert_eq!(answers, [Redriven::Now; 4]);
        assert_eq!(claim(&postgres).await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn should_deliver_a_row_as_malformed_when_its_headers_cannot_be_read() {
    World::run(async |world| {
        let postgres = world.connect().await;
        let topic = TopicName::parse("orders").unwrap();
        let group = GroupName::parse("billing").unwrap();
        let topology = Topology::new()
            .with_topic(TopicSpec::new(topic.clone(), TopicOrder::Unordered))
            .with_group(GroupSpec::new(group.clone(), topic.clone()));
        postgres.declare(&topology).await.unwrap();
        for answer in postgres.send(&[message(1, b"bad"), message(2, b"good")]).await {
            answer.unwrap();
        }
        world.raw(SPOIL).await;
        let to = Subscription::new(group, topic, ME);
        let member = postgres.subscribe(&to).await.unwrap();
        let received = member.receive(2, LONG).await.unwrap().deliveries;
        let malformed: Vec<bool> = received.iter().map(|one| one.malformed.is_some()).collect();
        assert_eq!(malformed, [true, false]);
        postgres.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_refuse_a_payload_when_the_message_is_on_its_way_without_it() {
    World::run(async |world| {
        let postgres = world.connect().await;
        postgres.append(&[message(1, b"bad")]).await.unwrap();
        let rows = claim(&postgres).await;
        let failure = Failure::new(FailureCause::Refused, "no", "node", DateTime::UNIX_EPOCH);
        let failed = postgres.fail(ME, &[rows[0].0], &failure).await.unwrap();
        assert!(failed.is_complete());
        postgres.append(&[message(1, b"again")]).await.unwrap();

        let letter = world.rows(DEAD_LETTERS).await[0].get("dead_letter_id");
        let ids = vec![DeadId::from_uuid(letter)];
        let edited = Redrive::new(ids.clone(), "test").with_payload(Bytes::from_static(b"edited"));
        let error = postgres.redrive(&edited).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains("published again"), "{error}");
        assert_eq!(
            world.rows(DEAD_LETTERS).await.len(),
            1,
            "the letter is open still"
        );
        let rows = claim(&postgres).await;
        assert_eq!(rows[0].1, "again");
        assert!(postgres.ack(ME, &[rows[0].0]).await.unwrap().is_complete());
        assert_eq!(postgres.redrive(&edited).await.unwrap(), [Redriven::Now]);
        assert_eq!(claim(&postgres).await[0].1, "edited");
    })
    .await;
}

#[tokio::test]
async fn should_refuse_a_mark_when_the_transaction_does_not_see_what_is_committed() {
    World::run(async |world| {
        let postgres = world.connect().await;
        for level in ["repeatable read", "serializable"] {
            let mut conn = open(world, &format!("begin isolation level {level}")).await;
            let mut tx = postgres.enlist(&mut conn);
            tx.append(&[message(1, b"x")]).await.unwrap();
            let arrival = Arrival::of(&GroupName::parse("billing").unwrap(), &message(2, b"x"), true);
            let error = tx.mark_processed(&[(arrival, Hold::Absent)]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains("read committed"), "{error}");
            conn.close().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn should_look_at_a_bounded_number_when_very_many_wait_for_idempotency_keys() {
    World::run(async |world| {
        let postgres = world.connect().await;
        world.raw(WAITING).await;
        let request = ClaimParked::new(ME, GroupName::parse("billing").unwrap(), 10, LONG);
        let mut looks = 0;
        let found = loop {
            let rows = ParkedStore::claim(&postgres, &request).await.unwrap();
            looks += 1;
            if !rows.is_empty() {
                break rows;
            }
            let after: Option<String> = world.rows(PROBE).await[0].get("after");
            assert_eq!(
                after.unwrap(),
                format!("{:04}", looks * 500),
                "where the next look goes on"
            );
        };
        assert_eq!((found.len(), looks), (1, 3));
        // From the beginning again.
        let after: Option<String> = world.rows(PROBE).await[0].get("after");
        assert_eq!(after, None);
    })
    .await;
}
