//! Settings and values that cannot be right: a clear error each, and nothing lost.

use std::{error::Error as _, time::Duration};

use chrono::DateTime;
use headless::{Consumer, Context, Event, HandlerResult, Headless, Memory, PublishExt};
use headless_abstractions::{
    Appended, Arrival, Bury, ClaimParked, DeadLetterFilter, Edit, Edited, Error, ErrorKind, Failure,
    FailureCause, GroupName, Hold, Marked, Message, MessageId, OwnedTx, Owner, Park, ParkLimits, Parked,
    Redrive, Store, StoreTx, TopicName, UnitOfWorkStore,
};
use headless_harness::{
    FaultProxy,
    services::{PrivatePostgres, private_postgres, private_postgres_standby},
};
use headless_postgres::{Migrate, Postgres, PostgresConfig};

use uuid::Uuid;

use crate::world::{PATIENCE, World, few, present};

/// The error, with everything that it shows of itself and its sources.
fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text} {error} {error:?}");
        source = error.source();
    }
    text
}

/// The error and its sources, as a command prints them.
fn chain(error: &Error) -> String {
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

async fn refused(config: PostgresConfig) -> Error {
    tokio::time::timeout(PATIENCE, Postgres::connect_with(config))
        .await
        .unwrap_or_else(|_| panic!("it is refused soon"))
        .unwrap_err()
}

/// The URL with another part in place of this one.
fn with(url: &str, part: &str, other: &str) -> PostgresConfig {
    assert!(url.contains(part), "{url}");
    PostgresConfig::new(&url.replace(part, other)).unwrap()
}

#[tokio::test]
async fn should_connect_with_a_hard_password_and_say_so_when_it_is_wrong() {
    let password = "p@ss:/%?#";
    let Some(server) = present(PrivatePostgres::builder().password(password).start()) else {
        return;
    };
    World::run_at(server.url(), async |world| {
        let postgres = world.connect().await;
        assert!(!format!("{postgres:?} {:?}", postgres.config()).contains("p@ss"));

        let url = url::Url::parse(&world.url).unwrap();
        for wrong in ["other", ""] {
            let mut url = url.clone();
            url.set_password(Some(wrong)).unwrap();
            let error = refused(world.config_at(url.as_str())).await;
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.to_string().contains("password"), "{error}");
            assert!(!error.is_retryable());
        }
        let mut url = url.clone();
        url.set_username("nobody").unwrap();
        let error = refused(world.config_at(url.as_str())).await;
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(!shown(&error).contains("p@ss"), "{}", shown(&error));
    })
    .await;
}

#[tokio::test]
async fn should_name_what_is_not_there_when_database_or_host_is_unknown() {
    World::run(async |world| {
        let error = refused(with(&world.url, "/test", "/no_such_database")).await;
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("no_such_database"), "{error}");
        let said = chain(&error);
        assert_eq!(said.matches("does not exist").count(), 1, "{said}");

        let error = refused(with(&world.url, "127.0.0.1", "no-such-host.invalid")).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");

        let error = refused(with(&world.url, "127.0.0.1:5432", "127.0.0.1:1")).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_retryable() && !error.is_outcome_unknown());
        let said = chain(&error);
        assert_eq!(said.matches("refused").count(), 1, "{said}");
    })
    .await;
}

#[tokio::test]
async fn should_give_up_in_time_when_whoever_accepts_says_nothing() {
    World::run(async |world| {
        let proxy = FaultProxy::in_front_of(&world.url).unwrap();
        let config = world
            .config_at(&proxy.url_for(&world.url).unwrap())
            .with_acquire_timeout(Duration::from_millis(300))
            .with_call_timeout(Duration::from_millis(300));
        Postgres::migrate(&config).await.unwrap();
        proxy.black_hole();
        for config in [config.clone(), config.clone().with_migrate(Migrate::Check)] {
            let error = refused(config).await;
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.to_string().contains("acquire_timeout"), "{error}");
        }

        // The same of a handle that is connected, and of a server that goes silent in the middle of a call.
        proxy.pass();
        let postgres = Postgres::connect_with(config).await.unwrap();
        let outbox = postgres.parts().outbox.unwrap();
        outbox.queries.stats().await.unwrap();
        proxy.black_hole();
        let answered = tokio::time::timeout(PATIENCE, outbox.queries.stats()).await;
        let error = answered.unwrap().unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable),
            "{error}"
        );
    })
    .await;
}

#[tokio::test]
async fn should_say_tls_when_the_server_has_none() {
    let Some(server) = present(private_postgres()) else {
        return;
    };
    World::run_at(server.url(), async |world| {
        let error = refused(world.config_at(&format!("{}?sslmode=require", world.url))).await;
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("TLS"), "{error}");
        assert!(!error.is_retryable());
    })
    .await;
}

#[tokio::test]
async fn should_be_unavailable_when_the_database_is_in_recovery() {
    let Some(primary) = present(private_postgres()) else {
        return;
    };
    World::run_at(primary.url(), async |world| {
        Postgres::migrate(&world.config()).await.unwrap();
        let standby = present(private_postgres_standby(&primary)).unwrap();
        let config = world.config_at(&standby.url());

        // All is there already: connecting writes nothing.
        let postgres = Postgres::connect_with(config.clone()).await.unwrap();
        let mut tx = postgres.begin().await.unwrap();
        let error = sqlx::raw_sql(world.sql(include_str!("sql/write.sql")))
            .execute(tx.conn())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("read-only"), "{error}");
        Box::new(tx).rollback().await.unwrap();

        World::run_at(primary.url(), async |other| {
            let error = refused(other.config_at(&standby.url())).await;
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.to_string().contains("recovery"), "{error}");
            let check = other.config_at(&standby.url()).with_migrate(Migrate::Check);
            assert_eq!(refused(check).await.kind(), ErrorKind::NotFound);
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn should_name_the_setting_when_all_connections_are_in_use() {
    World::run(async |world| {
        let config = world
            .config()
            .with_max_connections(few(1))
            .with_control_connections(few(1))
            .with_acquire_timeout(Duration::from_millis(300));
        let postgres = Postgres::connect_with(config).await.unwrap();
        let open = postgres.begin().await.unwrap();
        let error = postgres.begin().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("raise max_connections"), "{error}");
        assert!(error.is_retryable() && !error.is_outcome_unknown());

        Box::new(open).commit().await.unwrap();
        let again = postgres.begin().await.unwrap();
        Box::new(again).rollback().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn should_say_that_the_server_is_gone_and_not_that_the_pool_is_small() {
    let Some(mut server) = present(private_postgres()) else {
        return;
    };
    let world = server.url();
    let config = PostgresConfig::new(&world)
        .unwrap()
        .with_acquire_timeout(Duration::from_millis(300));
    let postgres = Postgres::connect_with(config).await.unwrap();
    server.stop(headless_harness::services::Stop::Immediate).unwrap();
    let error = postgres.begin().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.to_string().contains("max_connections"), "{error}");
    assert!(error.to_string().contains("server"), "{error}");
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Noted {}

impl Event for Noted {
    const TOPIC: &'static str = "notes.noted";
}

async fn read(_: Noted, cx: Context) -> HandlerResult {
    let work = cx.begin::<Postgres>().await?;
    Ok(work.commit().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_do_all_its_work_with_one_connection_of_each_kind() {
    World::run(async |world| {
        let config = world
            .config()
            .with_max_connections(few(1))
            .with_control_connections(few(1));
        let postgres = Postgres::connect_with(config).await.unwrap();
        let runtime = Headless::builder("small")
            .store(&postgres)
            .transport(Memory::new())
            .consumer(Consumer::group("readers").on(read).concurrency(8))
            .consumer(Consumer::group("writers").on(read).concurrency(8))
            .start()
            .await
            .unwrap();
        let mut work = runtime.begin::<Postgres>().await.unwrap();
        for _ in 0..50 {
            work.publish(&Noted {}).await.unwrap();
        }
        work.commit().await.unwrap();
        runtime.settled(PATIENCE).await.unwrap();
        let backlog = runtime.backlog().await.unwrap();
        assert_eq!((backlog.outbox, backlog.dead), (0, 0));
        runtime.shutdown(PATIENCE).await.unwrap();
    })
    .await;
}

fn message(payload: usize) -> Message {
    Message::new(
        MessageId::from_uuid(Uuid::new_v4()),
        TopicName::parse("notes.noted").unwrap(),
        DateTime::UNIX_EPOCH,
        vec![b'x'; payload].into(),
    )
}

#[tokio::test]
async fn should_refuse_a_payload_over_the_limit_and_keep_what_was_stored_before() {
    World::run(async |world| {
        let config = world.config().with_max_payload(1000.try_into().unwrap());
        let postgres = Postgres::connect_with(config).await.unwrap();
        let outbox = postgres.parts().outbox.unwrap();
        let (fits, does_not) = (message(1000), message(1001));
        assert_eq!(
            outbox.store.append(std::slice::from_ref(&fits)).await.unwrap(),
            [Appended::Stored]
        );

        let batch = [message(1), does_not.clone()];
        let error = outbox.store.append(&batch).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        let text = error.to_string();
        assert!(
            text.contains(&does_not.id.to_string()) && text.contains("1001") && text.contains("1000"),
            "{text}"
        );
        assert!(!error.is_retryable() && !error.is_outcome_unknown());

        let mut tx = postgres.begin().await.unwrap();
        assert_eq!(
            tx.append(&[does_not]).await.unwrap_err().kind(),
            ErrorKind::TooLarge
        );
        assert!(
            Box::new(tx).commit().await.is_err(),
            "half of what was asked for is not committed"
        );
        assert!(outbox.queries.get(fits.id).await.unwrap().is_some());
        assert_eq!(outbox.queries.stats().await.unwrap().total(), 1);
    })
    .await;
}

#[tokio::test]
async fn should_park_and_bury_what_was_delivered_whatever_may_be_published() {
    World::run(async |world| {
        let config = world.config().with_max_payload(1000.try_into().unwrap());
        let inbox = Postgres::connect_with(config)
            .await
            .unwrap()
            .parts()
            .inbox
            .unwrap();
        let group = GroupName::parse("readers").unwrap();
        let failure = Failure::new(FailureCause::Error, "no", "node", DateTime::UNIX_EPOCH);
        let (parked, buried) = (message(100_000), message(100_000));
        let of = |message: &Message| Arrival::of(&group, message, false);
        let park = Park::failed(
            parked.clone(),
            of(&parked),
            Hold::Absent,
            Duration::ZERO,
            vec![failure.clone()],
        );
        let limits = ParkLimits::default();
        assert_eq!(inbox.parked.park(&[park], limits).await.unwrap(), [Parked::Now]);
        let bury = Bury::new(buried.clone(), of(&buried), Hold::Absent, vec![failure]);
        assert_eq!(inbox.dead_letters.bury(&[bury]).await.unwrap(), [Marked::Now]);
        let request = ClaimParked::new(Owner::from_bits(1), group.clone(), 10, PATIENCE);
        let rows = inbox.parked.claim(&request).await.unwrap();
        assert_eq!(rows[0].message.payload.len(), 100_000);
    })
    .await;
}

#[tokio::test]
async fn should_lose_nothing_when_a_text_has_what_the_server_cannot_store() {
    World::run(async |world| {
        let postgres = world.connect().await;
        let inbox = postgres.parts().inbox.unwrap();
        let message = message(1);
        let arrival = Arrival::of(&GroupName::parse("readers").unwrap(), &message, false);
        // What a failing handler and the label of a machine say is kept, but for what cannot be.
        let failure = Failure::new(FailureCause::Error, "a\0b", "node\0 1", DateTime::UNIX_EPOCH);
        let bury = Bury::new(message.clone(), arrival, Hold::Absent, vec![failure]);
        assert_eq!(inbox.dead_letters.bury(&[bury]).await.unwrap(), [Marked::Now]);
        let letters = inbox
            .dead_letter_queries
            .list(&DeadLetterFilter::default(), None, 10)
            .await
            .unwrap();
        let [letter] = letters.items.as_slice() else {
            panic!("{letters:?}")
        };
        assert_eq!(letter.failures[0].message, "a\u{fffd}b");
        assert_eq!(letter.failures[0].node, "node\u{fffd} 1");

        for by in ["a\0b", "", &"x".repeat(201)] {
            let redrive = Redrive::new(vec![letter.id], by);
            let edit = Edit::new(letter.id, "x".into(), by);
            for error in [
                inbox.dead_letters.edit(&edit).await.unwrap_err(),
                inbox.dead_letters.redrive(&redrive).await.unwrap_err(),
                inbox.dead_letters.discard(&[letter.id], by).await.unwrap_err(),
            ] {
                assert!(
                    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLarge),
                    "{error}"
                );
                assert!(error.to_string().contains("by"), "{error}");
            }
        }
        let letter = inbox.dead_letter_queries.get(letter.id).await.unwrap().unwrap();
        assert!(letter.is_open() && letter.edits == 0, "it is where it was");

        // Bytes are not text: an edit may hold any.
        let any = Edit::new(letter.id, b"\0\xff"[..].into(), "ada");
        assert_eq!(inbox.dead_letters.edit(&any).await.unwrap(), Edited::Now);
        let nowhere = DeadLetterFilter::open().with_error_shape("a\0b");
        assert!(
            inbox
                .dead_letter_queries
                .tally(&nowhere, 10)
                .await
                .unwrap()
                .is_empty()
        );
        let most = postgres.config().max_payload.get();
        let large = Edit::new(letter.id, vec![0; most + 1].into(), "ada");
        let error = inbox.dead_letters.edit(&large).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    })
    .await;
}
