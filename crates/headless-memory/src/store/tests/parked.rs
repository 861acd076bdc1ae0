use std::num::NonZeroUsize;

use headless_abstractions::{
    Abandon, Admission, InboxQueries, InboxState, InboxStore, Marked, Parked, TopicName,
};

use super::*;

async fn mark(memory: &Memory, row: &ParkedRow, owner: Owner) -> Marked {
    memory
        .mark(&[(row.arrival.clone(), held(owner, row.claim))])
        .await
        .unwrap()[0]
}

async fn due_in(memory: &Memory, n: u128) -> Option<Duration> {
    InboxQueries::get(memory, &group(), id(n))
        .await
        .unwrap()
        .unwrap()
        .due_in
}

#[tokio::test(start_paused = true)]
async fn should_keep_its_place_when_the_head_fails_again() {
    let memory = Memory::new();
    let (a, b, c) = (keyed(1, "k"), keyed(2, "k"), keyed(3, "k"));
    assert_eq!(park(&memory, parked_for(&a, Hold::Absent, 10)).await, Parked::Now);
    assert_eq!(
        park(&memory, parked_for(&a, Hold::Absent, 10)).await,
        Parked::Already(InboxState::Parked)
    );
    assert_eq!(
        memory.admit(ANN, LEASE, &[arrival(&b)]).await.unwrap(),
        [Admission::Behind]
    );
    assert_eq!(park(&memory, behind(&b)).await, Parked::Now);
    assert_eq!(park(&memory, behind(&c)).await, Parked::Now);
    assert_eq!(
        (due_in(&memory, 1).await, due_in(&memory, 2).await),
        (Some(Duration::from_secs(10)), None)
    );
    elapse(9).await;
    assert_eq!(claim_parked(&memory, ANN, 10).await, []);
    elapse(1).await;
    let run = claim_parked(&memory, ANN, 10).await;
    assert_eq!(parked_ids(&run), [id(1), id(2), id(3)]);
    assert_eq!((run[0].rounds, run[1].rounds), (2, 1));
    assert_eq!(claim_parked(&memory, BOB, 10).await, []);

    assert_eq!(
        park(&memory, parked_for(&a, held(ANN, run[0].claim), 10)).await,
        Parked::Now
    );
    assert_eq!(
        claim_parked(&memory, BOB, 10).await,
        [],
        "the key is with its owner until that gave the rest back"
    );
    let rest = [run[1].claim, run[2].claim];
    assert!(
        memory
            .abandon(&group(), ANN, &rest, &Abandon::unused())
            .await
            .unwrap()
            .is_complete()
    );
    assert_eq!(claim_parked(&memory, BOB, 10).await, []);
    elapse(10).await;
    let again = claim_parked(&memory, BOB, 2).await;
    assert_eq!(parked_ids(&again), [id(1), id(2)]);
    assert_eq!(
        (again[0].rounds, again[1].rounds),
        (3, 1),
        "what was given back does not count"
    );
    assert_eq!(again[0].failures.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn should_go_on_with_the_key_when_the_head_is_finished() {
    let memory = Memory::new();
    let (a, b) = (keyed(1, "k"), keyed(2, "k"));
    park(&memory, parked_for(&a, Hold::Absent, 0)).await;
    park(&memory, behind(&b)).await;
    let head = claim_parked(&memory, ANN, 1).await;
    assert_eq!(parked_ids(&head), [id(1)]);
    assert_eq!(claim_parked(&memory, BOB, 1).await, []);
    assert_eq!(mark(&memory, &head[0], ANN).await, Marked::Now);
    assert_eq!(due_in(&memory, 2).await, Some(Duration::ZERO));
    let next = claim_parked(&memory, BOB, 1).await;
    assert_eq!(mark(&memory, &next[0], BOB).await, Marked::Now);
    assert_eq!(park(&memory, behind(&keyed(3, "k"))).await, Parked::KeyFree);
    assert_eq!(
        memory.mark(&[absent(&keyed(3, "k"))]).await.unwrap(),
        [Marked::Now]
    );
}

#[tokio::test(start_paused = true)]
async fn should_be_parked_again_when_a_lease_from_the_park_ends() {
    let memory = Memory::new();
    let a = message(1);
    park(&memory, parked_for(&a, Hold::Absent, 0)).await;
    let row = claim_parked(&memory, ANN, 1).await.remove(0);
    elapse(30).await;
    let answer = memory.admit(BOB, LEASE, &[arrival(&a)]).await.unwrap();
    assert_eq!(answer, [Admission::Settled(InboxState::Parked)]);
    assert_eq!(mark(&memory, &row, ANN).await, Marked::LeaseLost);
    assert_eq!(claim_parked(&memory, BOB, 1).await[0].rounds, 3);
    elapse(30).await;
    assert_eq!(ParkedStore::reap_expired(&memory, 10).await.unwrap(), 1);
    assert_eq!(ParkedStore::reap_expired(&memory, 10).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn should_wait_for_the_operation_when_another_id_has_it() {
    let memory = Memory::new();
    let (a, b, c) = (operation(1, "pay"), operation(2, "pay"), operation(3, "pay"));
    memory.admit(ANN, LEASE, &[arrival(&a)]).await.unwrap();
    assert_eq!(park(&memory, behind(&b)).await, Parked::Now);
    assert_eq!(park(&memory, parked_for(&c, Hold::Absent, 0)).await, Parked::Now);
    assert_eq!(claim_parked(&memory, BOB, 10).await, []);
    assert_eq!(due_in(&memory, 2).await, None);

    let hold = Hold::Running {
        owner: ANN,
        epoch: epoch(1),
    };
    assert_eq!(
        memory.discard(&[(arrival(&a), hold)]).await.unwrap(),
        [Marked::Now]
    );
    let row = claim_parked(&memory, BOB, 10).await;
    assert_eq!(parked_ids(&row), [id(2)], "one of the two has taken it");
    assert_eq!(mark(&memory, &row[0], BOB).await, Marked::Now);
    assert_eq!(claim_parked(&memory, BOB, 10).await, []);
    let state = InboxQueries::get(&memory, &group(), id(3))
        .await
        .unwrap()
        .unwrap()
        .state;
    assert_eq!(
        state,
        InboxState::Processed,
        "finished as its duplicate, never handed out"
    );
    assert_eq!(
        park(&memory, behind(&operation(4, "pay"))).await,
        Parked::Already(InboxState::Processed)
    );
}

#[tokio::test(start_paused = true)]
async fn should_hand_out_what_follows_when_the_head_is_finished_as_a_duplicate() {
    let memory = Memory::new();
    let mut head = operation(2, "pay");
    head.key = keyed(0, "k").key;
    memory
        .admit(ANN, LEASE, &[arrival(&operation(1, "pay"))])
        .await
        .unwrap();
    park(&memory, behind(&head)).await;
    park(&memory, behind(&keyed(3, "k"))).await;
    assert_eq!(
        claim_parked(&memory, BOB, 10).await,
        [],
        "the key waits with its head"
    );
    let hold = Hold::Running {
        owner: ANN,
        epoch: epoch(1),
    };
    memory
        .mark(&[(arrival(&operation(1, "pay")), hold)])
        .await
        .unwrap();
    assert_eq!(parked_ids(&claim_parked(&memory, BOB, 10).await), [id(3)]);
}

#[tokio::test(start_paused = true)]
async fn should_free_the_operation_when_it_goes_back_behind_another() {
    let memory = Memory::new();
    let mut follower = operation(2, "pay");
    follower.key = keyed(0, "k").key;
    park(&memory, parked_for(&keyed(1, "k"), Hold::Absent, 0)).await;
    park(&memory, behind(&follower)).await;
    let run = claim_parked(&memory, ANN, 10).await;
    assert_eq!(parked_ids(&run), [id(1), id(2)]);
    let other = operation(3, "pay");
    assert_eq!(memory.mark(&[absent(&other)]).await.unwrap(), [Marked::Behind]);
    assert!(
        memory
            .abandon(&group(), ANN, &[run[1].claim], &Abandon::unused())
            .await
            .unwrap()
            .is_complete()
    );
    assert_eq!(memory.mark(&[absent(&other)]).await.unwrap(), [Marked::Now]);
}

#[tokio::test(start_paused = true)]
async fn should_be_full_when_a_bound_is_reached() {
    let memory = Memory::new();
    let two = NonZeroUsize::new(2).unwrap();
    let limits = ParkLimits::new(two, NonZeroUsize::new(3).unwrap());
    let parks = [
        parked_for(&keyed(1, "k"), Hold::Absent, 0),
        behind(&keyed(2, "k")),
        behind(&keyed(3, "k")),
        parked_for(&message(4), Hold::Absent, 0),
        parked_for(&message(5), Hold::Absent, 0),
    ];
    let answers = memory.park(&parks, limits).await.unwrap();
    assert_eq!(
        answers,
        [Parked::Now, Parked::Now, Parked::Full, Parked::Now, Parked::Full]
    );
    let row = claim_parked(&memory, ANN, 1).await.remove(0);
    let again = parked_for(&row.message, held(ANN, row.claim), 0);
    assert_eq!(
        memory.park(&[again], limits).await.unwrap(),
        [Parked::Now],
        "it has its place already"
    );
}

#[tokio::test(start_paused = true)]
async fn should_take_the_longest_due_first_when_topics_are_excepted() {
    let memory = Memory::new();
    let mut elsewhere = message(1);
    elsewhere.topic = TopicName::parse("refunds").unwrap();
    park(&memory, parked_for(&elsewhere, Hold::Absent, 1)).await;
    park(&memory, parked_for(&message(2), Hold::Absent, 3)).await;
    park(&memory, parked_for(&message(3), Hold::Absent, 2)).await;
    elapse(5).await;
    let request = ClaimParked::new(ANN, group(), 10, LEASE).with_except_topics(vec![elsewhere.topic]);
    assert_eq!(
        parked_ids(&ParkedStore::claim(&memory, &request).await.unwrap()),
        [id(3), id(2)]
    );
    assert_eq!(parked_ids(&claim_parked(&memory, ANN, 10).await), [id(1)]);
}

#[tokio::test(start_paused = true)]
async fn should_be_lost_when_an_admitted_row_is_abandoned_as_a_parked_one() {
    let memory = Memory::new();
    memory.admit(ANN, LEASE, &[arrival(&message(1))]).await.unwrap();
    let claim = Claim::new(id(1), epoch(1));
    assert_eq!(
        memory
            .abandon(&group(), ANN, &[claim], &Abandon::unused())
            .await
            .unwrap()
            .lost,
        [claim]
    );
    let hold = Hold::Running {
        owner: ANN,
        epoch: epoch(1),
    };
    assert_eq!(park(&memory, parked_for(&message(1), hold, 0)).await, Parked::Now);
    assert_eq!(claim_parked(&memory, BOB, 1).await[0].rounds, 2);
}
