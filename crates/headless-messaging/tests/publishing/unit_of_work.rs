//! Publishing within a unit of work.

use std::time::Duration;

use headless_abstractions::{ErrorKind, UnitOfWorkStore};
use headless_core::{State, UnitOfWork, metric};
use headless_messaging::PublishExt;

use crate::{
    counters::Counters,
    publishing::process::{OrderPlaced, Process, assert_error, id, order},
};

#[tokio::test(start_paused = true)]
async fn should_commit_and_wake_together_when_published_in_a_unit_of_work() {
    let process = Process::start().await;
    let mut work = process.begin().await;
    let first = work.publish(&order("o-1")).await.unwrap();
    let more = work.publish_all(&["o-2", "o-3"].map(order)).await.unwrap();
    let last = work
        .message("ledger", &1)
        .key("k")
        .delay(Duration::from_secs(1))
        .send()
        .await
        .unwrap();
    assert!(work.publish_all::<OrderPlaced>(&[]).await.unwrap().is_empty());
    assert!(process.stored().await.is_empty());
    assert!(!process.relay_was_woken().await);
    work.commit().await.unwrap();
    assert!(process.relay_was_woken().await);
    let ids: Vec<_> = process
        .stored()
        .await
        .into_iter()
        .map(|entry| entry.message.id)
        .collect();
    assert_eq!(ids, [first.id, more[0].id, more[1].id, last.id]);
}

#[tokio::test(start_paused = true)]
async fn should_publish_nothing_when_the_unit_of_work_is_rolled_back() {
    let process = Process::start().await;
    let mut work = process.begin().await;
    work.publish(&order("o-1")).await.unwrap();
    work.rollback().await.unwrap();
    assert!(process.stored().await.is_empty());
    assert!(!process.relay_was_woken().await);
}

#[tokio::test(start_paused = true)]
async fn should_doom_the_unit_of_work_when_any_publish_fails() {
    let process = Process::start().await;
    for way in 0..3 {
        let mut work = process.begin().await;
        work.publish(&order("o-1")).await.unwrap();
        let error = match way {
            0 => work.publish(&order("")).await.unwrap_err(),
            1 => work.publish_all(&["o-2", ""].map(order)).await.unwrap_err(),
            _ => work.message("ledger", &1).send().await.unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let error = work.publish(&order("o-3")).await.unwrap_err();
        assert_error(&error, ErrorKind::Conflict, &["doomed", "publish"], "after");
        assert_eq!(work.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
        assert!(process.stored().await.is_empty(), "way {way}");
    }
}

#[tokio::test(start_paused = true)]
async fn should_say_how_to_begin_when_a_unit_of_work_knows_no_publisher() {
    let process = Process::start().await;
    let tx = process.memory.begin().await.unwrap();
    let mut work = UnitOfWork::begun(tx, State::new(), &process.environment);
    let error = work.message("orders.placed", &1).send().await.unwrap_err();
    assert_error(&error, ErrorKind::Invalid, &["runtime.begin"], "begin");
    assert!(work.check().is_err());
}

#[tokio::test(start_paused = true)]
async fn should_count_its_messages_when_a_unit_of_work_has_committed_and_not_before() {
    let counters = Counters::default();
    let _guard = counters.install();
    let process = Process::start().await;
    let published = |topic| counters.read(&format!("{}{{topic={topic}}}", metric::PUBLISHED));

    let mut work = process.begin().await;
    work.publish_all(&["o-1", "o-2"].map(order)).await.unwrap();
    for _ in 0..2 {
        work.message("nobody", &1).id(id(1)).send().await.unwrap();
    }
    assert_eq!(published("orders.placed") + published("nobody"), 0, "written");
    work.commit().await.unwrap();
    assert_eq!(published("orders.placed"), 2, "committed");
    assert_eq!(published("nobody"), 1, "a duplicate is not published");

    let mut undone = process.begin().await;
    undone.publish(&order("o-3")).await.unwrap();
    undone.rollback().await.unwrap();
    let mut dropped = process.begin().await;
    dropped.publish(&order("o-4")).await.unwrap();
    drop(dropped);
    let mut doomed = process.begin().await;
    doomed.publish(&order("o-5")).await.unwrap();
    doomed.publish(&order("")).await.unwrap_err();
    doomed.commit().await.unwrap_err();
    assert_eq!(published("orders.placed"), 2, "rolled back");

    let mut lent = process.enlist().await;
    lent.publish(&order("o-6")).await.unwrap();
    let wake = lent.detach().unwrap();
    assert_eq!(published("orders.placed"), 2, "its owner has yet to commit");
    wake.wake();
    assert_eq!(
        published("orders.placed"),
        3,
        "its owner says that it has committed"
    );
}

#[tokio::test(start_paused = true)]
async fn should_refuse_to_detach_a_unit_of_work_that_has_a_transaction_of_its_own() {
    let process = Process::start().await;
    let mut work = process.begin().await;
    work.publish(&order("o")).await.unwrap();
    let error = work.detach().unwrap_err();
    assert_error(
        &error,
        ErrorKind::Invalid,
        &["commit it"],
        "a transaction of its own",
    );
    assert!(process.stored().await.is_empty(), "it was rolled back");
}
