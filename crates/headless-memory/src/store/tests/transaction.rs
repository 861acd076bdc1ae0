use headless_abstractions::{
    Admission, Appended, ErrorKind, InboxQueries, InboxState, InboxStore, Marked, OutboxQueries, OutboxStore,
    OwnedTx, Parked, RetryAdvice, StoreTx, UnitOfWorkStore,
};
use tokio::task::yield_now;

use super::*;

const HELD: Marked = Marked::Busy {
    lease_left: Duration::from_millis(50),
};

/// Marks `second` in a transaction that has to wait for `first`, which is ended by `commits`.
async fn race(first: &Message, second: &Message, commits: bool) -> Marked {
    let memory = Memory::new();
    let mut tx = memory.begin().await.unwrap();
    assert_eq!(tx.mark_processed(&[absent(first)]).await.unwrap(), [Marked::Now]);
    let (other, mark) = (memory.connect(), absent(second));
    let waiter = tokio::spawn(async move {
        let mut tx = other.begin().await.unwrap();
        tx.mark_processed(&[mark]).await.unwrap()[0]
    });
    yield_now().await;
    elapse(1).await;
    assert!(!waiter.is_finished(), "it waits for the first");
    if commits {
        Box::new(tx).commit().await.unwrap();
    } else {
        Box::new(tx).rollback().await.unwrap();
    }
    waiter.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn should_have_one_winner_when_two_transactions_mark_one_message() {
    assert_eq!(
        race(&message(1), &message(1), true).await,
        Marked::Already(InboxState::Processed)
    );
    assert_eq!(race(&message(1), &message(1), false).await, Marked::Now);
}

#[tokio::test(start_paused = true)]
async fn should_have_one_winner_when_two_transactions_mark_one_operation() {
    for (first, second) in [(1, 2), (2, 1)] {
        let (first, second) = (operation(first, "pay"), operation(second, "pay"));
        assert_eq!(
            race(&first, &second, true).await,
            Marked::Already(InboxState::Processed)
        );
        assert_eq!(race(&first, &second, false).await, Marked::Now);
    }
}

#[tokio::test(start_paused = true)]
async fn should_not_deadlock_when_two_batches_name_the_same_rows_in_opposite_orders() {
    let memory = Memory::new();
    let mut tx = memory.begin().await.unwrap();
    tx.mark_processed(&[absent(&message(2))]).await.unwrap();
    let waiters: Vec<_> = [[1, 2, 3], [3, 2, 1]]
        .into_iter()
        .map(|order| {
            let memory = memory.connect();
            tokio::spawn(async move {
                let mut tx = memory.begin().await.unwrap();
                let marks = order.map(|n| absent(&message(n)));
                let answers = tx.mark_processed(&marks).await.unwrap();
                Box::new(tx).commit().await.unwrap();
                answers.iter().filter(|answer| **answer == Marked::Now).count()
            })
        })
        .collect();
    yield_now().await;
    Box::new(tx).rollback().await.unwrap();
    let mut wins = 0;
    for waiter in waiters {
        wins += waiter.await.unwrap();
    }
    assert_eq!(wins, 3);
}

#[tokio::test(start_paused = true)]
async fn should_be_busy_when_the_lock_time_out_passes() {
    let memory = Memory::new();
    let mut tx = memory.begin().await.unwrap();
    tx.mark_processed(&[absent(&message(1))]).await.unwrap();
    tx.put("t", "k", "v").await.unwrap();
    let mut other = memory.begin().await.unwrap();
    let marks = [absent(&message(1)), absent(&message(2))];
    assert_eq!(other.mark_processed(&marks).await.unwrap(), [HELD, Marked::Now]);
    let error = other.put("t", "k", "w").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.advice()),
        (ErrorKind::Conflict, RetryAdvice::Transient)
    );
    assert_eq!(
        Box::new(other).commit().await.unwrap_err().kind(),
        ErrorKind::Conflict,
        "doomed"
    );
    assert_eq!(InboxQueries::get(&memory, &group(), id(2)).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn should_hold_the_rows_it_has_marked_when_others_come() {
    let memory = Memory::new();
    let (a, b) = (operation(1, "pay"), operation(2, "pay"));
    memory.admit(ANN, LEASE, &[arrival(&message(3))]).await.unwrap();
    let hold = Hold::Running {
        owner: ANN,
        epoch: epoch(1),
    };
    let mut tx = memory.begin().await.unwrap();
    let marks = [absent(&a), (arrival(&message(3)), hold)];
    assert_eq!(tx.mark_processed(&marks).await.unwrap(), [Marked::Now; 2]);
    let again = tx.mark_processed(&[absent(&a), absent(&b)]).await.unwrap();
    assert_eq!(
        again,
        [Marked::Already(InboxState::Processed); 2],
        "its own marks count"
    );

    elapse(60).await;
    let busy = Admission::Busy {
        lease_left: Duration::from_millis(50),
    };
    let arrivals = [arrival(&a), arrival(&b), arrival(&message(3))];
    assert_eq!(memory.admit(BOB, LEASE, &arrivals).await.unwrap(), [busy; 3]);
    assert_eq!(memory.mark(&marks).await.unwrap(), [HELD; 2]);
    assert_eq!(memory.discard(&marks).await.unwrap(), [HELD; 2]);
    assert_eq!(
        park(&memory, parked_for(&a, Hold::Absent, 0)).await,
        Parked::LeaseLost
    );
    assert_eq!(
        park(&memory, behind(&b)).await,
        Parked::Now,
        "it waits for the transaction"
    );
    assert_eq!(claim_parked(&memory, BOB, 10).await, []);
    let claim = Claim::new(id(3), epoch(1));
    assert!(
        InboxStore::renew(&memory, &group(), ANN, &[claim], LEASE)
            .await
            .unwrap()
            .is_complete()
    );
    assert_eq!(InboxStore::release_owner(&memory, ANN).await.unwrap(), 0);
    assert_eq!(
        InboxQueries::get(&memory, &group(), id(1)).await.unwrap(),
        None,
        "not seen before the commit"
    );

    Box::new(tx).rollback().await.unwrap();
    assert_eq!(parked_ids(&claim_parked(&memory, BOB, 10).await), [id(2)]);
    assert_eq!(memory.mark(&[absent(&a)]).await.unwrap(), [Marked::Behind]);
}

#[tokio::test(start_paused = true)]
async fn should_let_a_batch_go_on_when_it_finishes_the_earlier_rows_itself() {
    let memory = Memory::new();
    park(&memory, parked_for(&keyed(1, "k"), Hold::Absent, 0)).await;
    park(&memory, behind(&keyed(2, "k"))).await;
    let run = claim_parked(&memory, ANN, 10).await;
    let marks: Vec<_> = run
        .iter()
        .map(|row| (row.arrival.clone(), held(ANN, row.claim)))
        .collect();
    let mut tx = memory.begin().await.unwrap();
    assert_eq!(
        tx.mark_processed(&[absent(&keyed(3, "k"))]).await.unwrap(),
        [Marked::Behind]
    );
    assert_eq!(tx.mark_processed(&marks).await.unwrap(), [Marked::Now; 2]);
    assert_eq!(
        tx.mark_processed(&[absent(&keyed(3, "k"))]).await.unwrap(),
        [Marked::Now]
    );
    Box::new(tx).commit().await.unwrap();
    assert_eq!(InboxQueries::stats(&memory, None).await.unwrap().processed, 3);
}

#[tokio::test(start_paused = true)]
async fn should_show_everything_or_nothing_when_it_ends() {
    let memory = Memory::new();
    for commits in [false, true] {
        let mut tx = memory.begin().await.unwrap();
        tx.put("t", "b", "1").await.unwrap();
        tx.push("log", "2").await.unwrap();
        tx.push("log", "3").await.unwrap();
        assert!(tx.put_if_absent("t", "a", "4").await.unwrap());
        assert!(!tx.put_if_absent("t", "a", "5").await.unwrap());
        assert_eq!(tx.get("t", "b").await.unwrap(), Some("1".into()));
        tx.append(&[message(1)]).await.unwrap();
        tx.mark_processed(&[absent(&message(9))]).await.unwrap();
        assert_eq!((memory.rows("t"), memory.stats_total().await), (vec![], 0));
        if commits {
            Box::new(tx).commit().await.unwrap();
        } else {
            drop(tx);
            assert_eq!((memory.rows("t"), memory.stats_total().await), (vec![], 0));
        }
    }
    assert_eq!(
        memory.rows("t"),
        [("a".to_owned(), "4".into()), ("b".to_owned(), "1".into())]
    );
    let log: Vec<_> = memory.rows("log").into_iter().map(|(_, value)| value).collect();
    assert_eq!(log, ["2", "3"]);
    assert_eq!(memory.stats_total().await, 1);
    assert_eq!(
        memory.mark(&[absent(&message(9))]).await.unwrap(),
        [Marked::Already(InboxState::Processed)]
    );
}

#[tokio::test(start_paused = true)]
async fn should_free_everything_and_never_answer_when_severed() {
    let memory = Memory::new();
    let doomed = memory.connect();
    let mut tx = doomed.begin().await.unwrap();
    tx.put("t", "k", "lost").await.unwrap();
    tx.append(&[message(1)]).await.unwrap();
    tx.mark_processed(&[absent(&message(2))]).await.unwrap();
    let other = memory.connect();
    let waiter = tokio::spawn(async move {
        let mut tx = other.begin().await.unwrap();
        tx.put("t", "k", "kept").await.unwrap();
        let appended = tx.append(&[message(1)]).await.unwrap();
        let marked = tx.mark_processed(&[absent(&message(2))]).await.unwrap();
        Box::new(tx).commit().await.unwrap();
        (appended, marked)
    });
    yield_now().await;
    let at = memory.server.clock.monotonic();
    doomed.sever();
    assert_eq!(waiter.await.unwrap(), (vec![Appended::Stored], vec![Marked::Now]));
    assert_eq!(memory.server.clock.monotonic(), at, "at once, not by a time-out");
    assert_eq!(memory.row("t", "k"), Some("kept".into()));
    let commit = tokio::time::timeout(Duration::from_hours(1), Box::new(tx).commit());
    assert!(commit.await.is_err(), "a crashed process gets no answer");
    assert_eq!(memory.row("t", "k"), Some("kept".into()));
}

#[tokio::test(start_paused = true)]
async fn should_not_leave_a_lock_when_severed_while_it_waits() {
    let memory = Memory::new();
    let mut tx = memory.begin().await.unwrap();
    tx.put("t", "k", "1").await.unwrap();
    let doomed = memory.connect();
    let handle = doomed.clone();
    let waiter = tokio::spawn(async move {
        let mut tx = handle.begin().await.unwrap();
        tx.put("t", "k", "2").await
    });
    yield_now().await;
    doomed.sever();
    Box::new(tx).commit().await.unwrap();
    elapse(10).await;
    assert!(!waiter.is_finished());
    let mut tx = memory.begin().await.unwrap();
    tx.put("t", "k", "3").await.unwrap();
    waiter.abort();
}

#[tokio::test(start_paused = true)]
async fn should_only_roll_back_when_doomed() {
    let memory = Memory::new();
    let mut tx = memory.begin().await.unwrap();
    tx.append(&[message(1)]).await.unwrap();
    assert_eq!(tx.put("", "k", "v").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(
        tx.append(&[message(2)]).await.unwrap_err().kind(),
        ErrorKind::Conflict
    );
    assert_eq!(
        Box::new(tx).commit().await.unwrap_err().kind(),
        ErrorKind::Conflict
    );
    assert_eq!(
        memory.append(&[message(1)]).await.unwrap(),
        [Appended::Stored],
        "its id is free"
    );
}

impl Memory {
    async fn stats_total(&self) -> u64 {
        OutboxQueries::stats(self).await.unwrap().total()
    }
}
