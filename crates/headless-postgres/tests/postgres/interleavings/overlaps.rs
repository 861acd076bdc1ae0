//! Calls about some of what one claim took, while another call is about others of it: what is held is never called lost,
//! and never handed out.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    Claim, ClaimOutbox, Delivery, GroupName, GroupSpec, Message, MessageId, OutboxRow, OutboxStore, Owner,
    Settlement, Subscriber, Subscription, TopicName, TopicOrder, TopicSpec, Topology, Transport,
};
use headless_postgres::Postgres;
use uuid::Uuid;

use super::pause::{Pause, commit, open, until_waits};
use crate::world::World;

const EXTEND_FIRST: &str = include_str!("../sql/transport_extend_first.sql");
const OVER: &str = include_str!("../sql/outbox_over.sql");
const PAUSE_LET_GO: &str = include_str!("../sql/pause_let_go.sql");
const RENEW_FIRST: &str = include_str!("../sql/outbox_renew_first.sql");

const LONG: Duration = Duration::from_secs(3_600);
const LONGER: Duration = Duration::from_secs(3 * 3_600);
const ME: Owner = Owner::from_bits(7);
const OTHER: Owner = Owner::from_bits(8);

fn messages(count: u128) -> Vec<Message> {
    let topic = TopicName::parse("orders").unwrap();
    (1..=count)
        .map(|n| {
            let id = MessageId::from_uuid(Uuid::from_u128(n));
            Message::new(id, topic.clone(), DateTime::UNIX_EPOCH, Bytes::from_static(b"x"))
        })
        .collect()
}

/// A member that has three deliveries of one step.
async fn member(postgres: &Postgres) -> (Box<dyn Subscriber>, Vec<Delivery>) {
    let topic = TopicName::parse("orders").unwrap();
    let group = GroupName::parse("billing").unwrap();
    let topology = Topology::new()
        .with_topic(TopicSpec::new(topic.clone(), TopicOrder::Unordered))
        .with_group(GroupSpec::new(group.clone(), topic.clone()));
    postgres.declare(&topology).await.unwrap();
    for answer in postgres.send(&messages(3)).await {
        answer.unwrap();
    }
    let to = Subscription::new(group, topic, ME).with_visibility(LONG);
    let member = postgres.subscribe(&to).await.unwrap();
    let received = member.receive(3, LONG).await.unwrap();
    assert_eq!(received.deliveries.len(), 3);
    (member, received.deliveries)
}

/// The rows of one claim.
async fn claimed(postgres: &Postgres, owner: Owner) -> Vec<OutboxRow> {
    let request = ClaimOutbox::new(owner, 10, LONG);
    postgres.claim(&request).await.unwrap().rows
}

fn claims(rows: &[OutboxRow]) -> Vec<Claim> {
    rows.iter().map(|row| row.claim).collect()
}

#[tokio::test]
async fn should_settle_what_is_held_when_others_of_the_step_are_extended_meanwhile() {
    World::run(async |world| {
        for back in [false, true] {
            let postgres = world.connect().await;
            let (member, held) = member(&postgres).await;
            let extends = open(world, EXTEND_FIRST).await;
            let first = if back {
                Settlement::Requeue {
                    token: held[0].token,
                    after: None,
                }
            } else {
                Settlement::Ack(held[0].token)
            };
            let batch = [first, Settlement::Ack(held[1].token)];
            let (answers, ()) = tokio::join!(member.settle(&batch), async {
                until_waits(world, "member_settle").await;
                commit(extends).await;
            });
            for answer in answers {
                answer.unwrap();
            }
            let left = if back { 2 } else { 1 };
            let group = GroupName::parse("billing").unwrap();
            assert_eq!(postgres.lag(&group).await.unwrap(), left);
            postgres.remove_group(&group).await.unwrap();
            postgres.close().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn should_extend_what_is_held_when_others_of_the_step_are_extended_meanwhile() {
    World::run(async |world| {
        let postgres = world.connect().await;
        let (member, held) = member(&postgres).await;
        let extends = open(world, EXTEND_FIRST).await;
        let tokens = [held[0].token, held[1].token];
        let (answers, ()) = tokio::join!(member.extend(&tokens, LONGER), async {
            until_waits(world, "member_extend").await;
            commit(extends).await;
        });
        for answer in answers {
            answer.unwrap();
        }
        postgres.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_ack_what_is_held_when_others_of_the_batch_are_renewed_meanwhile() {
    World::run(async |world| {
        let postgres = world.connect().await;
        postgres.append(&messages(3)).await.unwrap();
        let rows = claimed(&postgres, ME).await;
        assert_eq!(rows.len(), 3);
        let renews = open(world, RENEW_FIRST).await;
        let named = claims(&rows);
        let (settled, ()) = tokio::join!(postgres.ack(ME, &named), async {
            until_waits(world, "outbox_ack").await;
            commit(renews).await;
        });
        assert!(settled.unwrap().is_complete(), "what is held was called lost");
        assert_eq!(
            postgres.release_owner(ME).await.unwrap(),
            0,
            "holds of rows that are gone"
        );
        assert!(
            claimed(&postgres, OTHER).await.is_empty(),
            "what was sent is claimed again"
        );
    })
    .await;
}

#[tokio::test]
async fn should_release_all_of_an_owner_when_some_of_it_is_renewed_meanwhile() {
    World::run(async |world| {
        let postgres = world.connect().await;
        postgres.append(&messages(3)).await.unwrap();
        assert_eq!(claimed(&postgres, ME).await.len(), 3);
        let renews = open(world, RENEW_FIRST).await;
        let (released, ()) = tokio::join!(postgres.release_owner(ME), async {
            until_waits(world, "outbox_release").await;
            commit(renews).await;
        });
        assert_eq!(released.unwrap(), 3);
        assert_eq!(claimed(&postgres, OTHER).await.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn should_not_hand_out_what_its_owner_renews_when_the_rest_of_its_batch_is_over() {
    World::run(async |world| {
        let postgres = world.connect().await;
        postgres.append(&messages(2)).await.unwrap();
        let rows = claimed(&postgres, ME).await;
        assert_eq!(rows.len(), 2);
        world.raw(OVER).await;
        let pause = Pause::at(world, PAUSE_LET_GO).await;
        let (taken, renewed) = tokio::join!(claimed(&postgres, OTHER), async {
            until_waits(world, "outbox_claim").await;
            let renewed = postgres.renew(ME, &[rows[1].claim], LONG).await.unwrap();
            pause.end().await;
            renewed
        });
        assert!(renewed.is_complete(), "its owner had it still");
        let taken: Vec<MessageId> = taken.iter().map(|row| row.claim.id).collect();
        assert_eq!(taken, [rows[0].claim.id], "what is with another owner");
    })
    .await;
}
