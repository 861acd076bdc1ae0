//! Another order for a topic: in the middle of it, and beside what else is under way.

use std::{collections::BTreeSet, num::NonZeroUsize, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use headless_abstractions::{
    ErrorKind, GroupName, GroupSpec, Message, MessageId, Owner, PartitionKey, Partitions, Result, Settlement,
    Subscriber, Subscription, TopicName, TopicOrder, TopicSpec, Topology, Transport,
};
use headless_postgres::Postgres;
use sqlx::{Connection, PgConnection, Row};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::world::{World, eventually};

const WAITS: &str = include_str!("sql/repartition_waits.sql");
const HOLD_SEGMENT: &str = include_str!("sql/repartition_hold_segment.sql");
const IN_SEGMENT: &str = include_str!("sql/repartition_in_segment.sql");
const BEGIN_SEND: &str = include_str!("sql/transport_begin.sql");
const SEND_FOREIGN: &str = include_str!("sql/transport_send_foreign.sql");

const WAIT: Duration = Duration::from_secs(5);

fn orders() -> TopicName {
    TopicName::parse("orders").unwrap()
}

fn partitions(count: u16) -> TopicOrder {
    TopicOrder::Partitioned(Partitions::new(count).unwrap())
}

async fn declare(postgres: &Postgres, order: TopicOrder) -> Result<()> {
    let group = GroupSpec::new(GroupName::parse("billing").unwrap(), orders());
    let topology = Topology::new().with_topic(TopicSpec::new(orders(), order));
    postgres.declare(&topology.with_group(group)).await
}

fn message(n: u128) -> Message {
    let id = MessageId::from_uuid(Uuid::from_u128(n + 1));
    let key = PartitionKey::parse(format!("key-{}", n % 7)).unwrap();
    Message::new(id, orders(), DateTime::UNIX_EPOCH, Bytes::from_static(b"x")).with_key(key)
}

async fn join(postgres: &Postgres) -> Box<dyn Subscriber> {
    let to = Subscription::new(
        GroupName::parse("billing").unwrap(),
        orders(),
        Owner::from_bits(7),
    )
    .with_prefetch(NonZeroUsize::new(1_000).unwrap());
    postgres.subscribe(&to).await.unwrap()
}

/// Takes and acks this many; their ids.
async fn work(member: &dyn Subscriber, count: usize) -> Vec<MessageId> {
    let mut ids = Vec::new();
    let mut looks = 0;
    while ids.len() < count {
        let received = member.receive(count - ids.len(), WAIT).await.unwrap();
        looks += 1;
        assert!(looks < 1_000, "{} of {count} came", ids.len());
        let acks: Vec<Settlement> = received
            .deliveries
            .iter()
            .map(|one| Settlement::Ack(one.token))
            .collect();
        for answer in member.settle(&acks).await {
            answer.unwrap();
        }
        ids.extend(received.deliveries.iter().map(|one| one.message.id));
    }
    ids
}

fn repartition(postgres: &Postgres, order: TopicOrder) -> JoinHandle<Result<TopicOrder>> {
    let postgres = postgres.clone();
    tokio::spawn(async move { postgres.repartition(&orders(), order).await })
}

/// The session that repartitions and waits for a lock.
async fn waiting(world: &World) -> i32 {
    eventually("it waits", async || {
        world.rows(WAITS).await.first().map(|row| row.get("pid"))
    })
    .await
}

/// A connection in the middle of a transaction that has done this.
async fn amid(world: &World, sql: &str) -> PgConnection {
    let mut conn = world.conn().await;
    sqlx::raw_sql(world.sql(sql)).execute(&mut conn).await.unwrap();
    conn
}

async fn end(mut conn: PgConnection, how: &'static str) {
    sqlx::raw_sql(how).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn should_have_changed_nothing_when_it_is_killed_in_the_middle() {
    World::run(async |world| {
        let (postgres, other) = (world.connect().await, world.connect().await);
        declare(&postgres, partitions(4)).await.unwrap();
        other.send(&[message(0)]).await.remove(0).unwrap();
        let member = join(&postgres).await;
        work(&*member, 1).await;

        // The old parts are deleted by then, and the new ones made.
        let holds = amid(world, HOLD_SEGMENT).await;
        let asked = repartition(&postgres, partitions(9));
        let pid = waiting(world).await;
        let sending = {
            let other = other.clone();
            tokio::spawn(async move { other.send(&[message(1)]).await.remove(0) })
        };
        let mut killer = world.conn().await;
        let killed = sqlx::query_scalar::<_, bool>("select pg_terminate_backend($1)").bind(pid);
        assert!(killed.fetch_one(&mut killer).await.unwrap());
        let error = asked.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.is_outcome_unknown(), "{error}");
        end(holds, "rollback").await;

        // What waited for it is sent by the count that is still the one there is.
        sending.await.unwrap().unwrap();
        declare(&other, partitions(4)).await.unwrap();
        assert_eq!(work(&*member, 1).await, [message(1).id]);
        assert_eq!(
            repartition(&other, partitions(9)).await.unwrap().unwrap(),
            partitions(4)
        );
        other.send(&[message(2)]).await.remove(0).unwrap();
        assert_eq!(work(&*member, 1).await, [message(2).id]);
    })
    .await;
}

#[tokio::test]
async fn should_wait_for_a_send_that_has_begun_and_see_what_became_of_it() {
    World::run(async |world| {
        let config = world.config().with_lock_timeout(Duration::from_millis(300));
        let (postgres, hasty) = (
            world.connect().await,
            Postgres::connect_with(config).await.unwrap(),
        );
        declare(&postgres, TopicOrder::Unordered).await.unwrap();

        let send = amid(world, BEGIN_SEND).await;
        let error = hasty.repartition(&orders(), partitions(3)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        let asked = repartition(&postgres, partitions(3));
        waiting(world).await;
        end(send, "commit").await;
        let error = asked.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.to_string().contains("billing 1"), "{error}");
        declare(&postgres, TopicOrder::Unordered).await.unwrap();
        let member = join(&postgres).await;
        work(&*member, 1).await;

        let send = amid(world, BEGIN_SEND).await;
        let asked = repartition(&postgres, partitions(3));
        waiting(world).await;
        end(send, "rollback").await;
        assert_eq!(asked.await.unwrap().unwrap(), TopicOrder::Unordered);
        postgres.send(&[message(0)]).await.remove(0).unwrap();
        assert_eq!(work(&*member, 1).await, [message(0).id]);
    })
    .await;
}

#[tokio::test]
async fn should_give_no_place_twice_when_an_order_comes_and_goes() {
    World::run(async |world| {
        let postgres = world.connect().await;
        declare(&postgres, TopicOrder::Unordered).await.unwrap();
        let member = join(&postgres).await;
        let mut ids = BTreeSet::new();
        for round in 1..=3 {
            for _ in 0..8 {
                world.raw(SEND_FOREIGN).await;
            }
            ids.extend(work(&*member, 8).await);
            assert_eq!(ids.len(), 8 * round, "an id is given to one message alone");
            for order in [partitions(5), TopicOrder::Unordered] {
                postgres.repartition(&orders(), order).await.unwrap();
                // How full the segment is, is still known.
                let messages: i64 = world.rows(IN_SEGMENT).await[0].get("messages");
                assert_eq!(messages, 8 * round as i64);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn should_lose_no_delayed_message_when_the_count_changes_meanwhile() {
    const COUNT: u128 = 120;
    World::run(async |world| {
        let (postgres, other) = (world.connect().await, world.connect().await);
        declare(&postgres, partitions(2)).await.unwrap();
        let sending = {
            let postgres = postgres.clone();
            tokio::spawn(async move {
                for n in 0..COUNT {
                    let mut delayed = message(n);
                    delayed.deliver_after = Some(Duration::from_millis(5));
                    postgres.send(&[delayed]).await.remove(0).unwrap();
                }
            })
        };
        let changing = {
            let other = other.clone();
            tokio::spawn(async move {
                let mut changes = 0;
                for count in [3, 1, 4].into_iter().cycle() {
                    while let Err(error) = other.repartition(&orders(), partitions(count)).await {
                        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
                        tokio::task::yield_now().await;
                    }
                    changes += 1;
                    if changes == 5 {
                        return;
                    }
                }
            })
        };
        let member = join(&other).await;
        let mut ids = work(&*member, COUNT as usize).await;
        ids.sort_unstable();
        let all: Vec<MessageId> = (0..COUNT).map(|n| message(n).id).collect();
        assert_eq!(ids, all);
        sending.await.unwrap();
        changing.await.unwrap();
    })
    .await;
}
