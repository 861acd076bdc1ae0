use headless_abstractions::{
    Admission, AttemptUse, Bury, DeadLetterFilter, DeadLetterQueries, DeadLetterStore, InboxQueries,
    InboxState, InboxStore, Marked, Redrive, Redriven,
};

use super::*;

async fn admit(memory: &Memory, owner: Owner, message: &Message) -> Admission {
    memory.admit(owner, LEASE, &[arrival(message)]).await.unwrap()[0]
}

async fn mark(memory: &Memory, message: &Message, hold: Hold) -> Marked {
    memory.mark(&[(arrival(message), hold)]).await.unwrap()[0]
}

async fn bury(memory: &Memory, message: &Message, hold: Hold) -> Marked {
    let burial = Bury::new(message.clone(), arrival(message), hold, vec![failure()]);
    memory.bury(&[burial]).await.unwrap()[0]
}

async fn letters(memory: &Memory) -> Vec<headless_abstractions::DeadLetter> {
    DeadLetterQueries::list(memory, &DeadLetterFilter::open(), None, 10)
        .await
        .unwrap()
        .items
}

const fn running(owner: Owner, n: u64) -> Hold {
    Hold::Running {
        owner,
        epoch: epoch(n),
    }
}

#[tokio::test(start_paused = true)]
async fn should_count_the_round_when_an_ended_lease_is_taken_over() {
    let memory = Memory::new();
    let m = message(1);
    assert_eq!(
        admit(&memory, ANN, &m).await,
        Admission::Run {
            epoch: epoch(1),
            rounds: 1
        }
    );
    assert_eq!(
        admit(&memory, BOB, &m).await,
        Admission::Busy { lease_left: LEASE }
    );
    elapse(30).await;
    assert_eq!(
        mark(&memory, &m, Hold::Absent).await,
        Marked::Busy {
            lease_left: Duration::ZERO
        }
    );
    assert_eq!(
        admit(&memory, BOB, &m).await,
        Admission::Run {
            epoch: epoch(2),
            rounds: 2
        }
    );
    assert_eq!(mark(&memory, &m, running(ANN, 1)).await, Marked::LeaseLost);
    assert_eq!(mark(&memory, &m, running(BOB, 2)).await, Marked::Now);
    assert_eq!(
        mark(&memory, &m, running(BOB, 2)).await,
        Marked::Already(InboxState::Processed)
    );
    assert_eq!(
        admit(&memory, ANN, &m).await,
        Admission::Settled(InboxState::Processed)
    );
}

#[tokio::test(start_paused = true)]
async fn should_be_good_still_when_the_lease_has_ended_and_nobody_took_the_row() {
    let memory = Memory::new();
    admit(&memory, ANN, &message(1)).await;
    elapse(100).await;
    assert_eq!(mark(&memory, &message(1), running(ANN, 1)).await, Marked::Now);
}

#[tokio::test(start_paused = true)]
async fn should_be_admitted_at_once_when_released() {
    let memory = Memory::new();
    let (m, claim) = (message(1), Claim::new(id(1), epoch(1)));
    admit(&memory, ANN, &m).await;
    let settled = memory
        .release(&group(), BOB, &[claim], AttemptUse::Return)
        .await
        .unwrap();
    assert_eq!(settled.lost, [claim], "not the owner");
    assert!(
        memory
            .release(&group(), ANN, &[claim, claim], AttemptUse::Return)
            .await
            .unwrap()
            .is_complete()
    );
    assert_eq!(
        memory.renew(&group(), ANN, &[claim], LEASE).await.unwrap().lost,
        [claim]
    );
    assert_eq!(
        admit(&memory, BOB, &m).await,
        Admission::Run {
            epoch: epoch(3),
            rounds: 1
        }
    );
}

#[tokio::test(start_paused = true)]
async fn should_be_a_duplicate_when_another_id_of_the_operation_was_processed() {
    let memory = Memory::new();
    let (a, b) = (operation(1, "pay"), operation(2, "pay"));
    admit(&memory, ANN, &a).await;
    assert_eq!(admit(&memory, BOB, &b).await, Admission::Behind);
    assert_eq!(mark(&memory, &b, Hold::Absent).await, Marked::Behind);
    mark(&memory, &a, running(ANN, 1)).await;
    assert_eq!(
        admit(&memory, BOB, &b).await,
        Admission::Settled(InboxState::Processed)
    );
    assert_eq!(
        mark(&memory, &b, Hold::Absent).await,
        Marked::Already(InboxState::Processed)
    );
    assert_eq!(
        InboxQueries::get(&memory, &group(), id(2)).await.unwrap(),
        None,
        "nothing is stored"
    );

    assert_eq!(
        InboxStore::purge(&memory, Duration::from_secs(1), 10)
            .await
            .unwrap(),
        0
    );
    elapse(1).await;
    assert_eq!(
        InboxStore::purge(&memory, Duration::from_secs(1), 10)
            .await
            .unwrap(),
        1
    );
    assert!(
        matches!(admit(&memory, BOB, &b).await, Admission::Run { .. }),
        "the operation is free again"
    );
}

#[tokio::test(start_paused = true)]
async fn should_free_the_operation_when_its_message_is_dead() {
    let memory = Memory::new();
    let (a, b) = (operation(1, "pay"), operation(2, "pay"));
    admit(&memory, ANN, &a).await;
    assert_eq!(
        bury(&memory, &a, Hold::Absent).await,
        Marked::Busy { lease_left: LEASE }
    );
    assert_eq!(bury(&memory, &a, running(ANN, 1)).await, Marked::Now);
    assert_eq!(
        bury(&memory, &a, running(ANN, 1)).await,
        Marked::Already(InboxState::Dead)
    );
    assert_eq!(letters(&memory).await.len(), 1);

    assert_eq!(mark(&memory, &b, Hold::Absent).await, Marked::Now);
    let redrive = Redrive::new(vec![letters(&memory).await[0].id], "operator");
    assert_eq!(memory.redrive(&redrive).await.unwrap(), [Redriven::Superseded]);
    assert_eq!(
        admit(&memory, ANN, &a).await,
        Admission::Settled(InboxState::Dead)
    );
}

#[tokio::test(start_paused = true)]
async fn should_start_anew_behind_its_key_when_redriven() {
    let memory = Memory::new();
    let (a, b) = (keyed(1, "k"), keyed(2, "k"));
    assert_eq!(bury(&memory, &a, Hold::Absent).await, Marked::Now);
    park(&memory, parked_for(&b, Hold::Absent, 0)).await;
    assert_eq!(bury(&memory, &keyed(3, "k"), Hold::Absent).await, Marked::Behind);

    let dead = letters(&memory).await[0].clone();
    let edited = Redrive::new(vec![dead.id], "operator").with_payload(Bytes::from_static(b"edited"));
    assert_eq!(memory.redrive(&edited).await.unwrap(), [Redriven::Now]);
    let run = claim_parked(&memory, ANN, 10).await;
    assert_eq!(parked_ids(&run), [id(2), id(1)]);
    assert_eq!(
        (run[1].rounds, run[1].failures.len(), &run[1].message.payload[..]),
        (1, 0, &b"edited"[..])
    );

    assert_eq!(mark(&memory, &b, held(ANN, run[0].claim)).await, Marked::Now);
    assert_eq!(
        bury(&memory, &run[1].message, held(ANN, run[1].claim)).await,
        Marked::Now
    );
    let again = letters(&memory).await;
    assert_eq!(
        (again[0].previous, again[0].redrives, again[0].failures.len()),
        (Some(dead.id), 1, 1)
    );
    let capped = Redrive::new(vec![again[0].id], "operator").with_max_redrives(1);
    assert_eq!(memory.redrive(&capped).await.unwrap(), [Redriven::CapReached]);

    elapse(10).await;
    let old = Redrive::new(vec![again[0].id], "operator").with_max_age(Some(Duration::from_secs(9)));
    assert_eq!(memory.redrive(&old).await.unwrap(), [Redriven::TooOld]);
    assert_eq!(
        DeadLetterStore::purge(&memory, Duration::from_secs(10), 10)
            .await
            .unwrap(),
        2
    );
    assert_eq!(InboxQueries::get(&memory, &group(), id(1)).await.unwrap(), None);
    assert_eq!(memory.redrive(&old).await.unwrap(), [Redriven::NotFound]);
}

#[tokio::test(start_paused = true)]
async fn should_keep_the_row_when_its_first_dead_letter_is_purged() {
    let memory = Memory::new();
    bury(&memory, &message(1), Hold::Absent).await;
    let redrive = Redrive::new(vec![letters(&memory).await[0].id], "operator");
    memory.redrive(&redrive).await.unwrap();
    assert_eq!(
        DeadLetterStore::purge(&memory, Duration::ZERO, 10).await.unwrap(),
        1
    );
    assert_eq!(parked_ids(&claim_parked(&memory, ANN, 1).await), [id(1)]);
}
