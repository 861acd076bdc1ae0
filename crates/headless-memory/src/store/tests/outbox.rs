use std::num::NonZeroUsize;

use headless_abstractions::{
    Abandon, Appended, ClaimOutbox, DeadLetterFilter, DeadLetterQueries, DeadLetterStore, ErrorKind,
    InFlight, Origin, OutboxFilter, OutboxQueries, OutboxRow, OutboxState, OutboxStore, OwnedTx, Priority,
    Redrive, Redriven, StoreTx, UnitOfWorkStore,
};

use super::*;
use crate::MemoryConfig;

async fn claim(memory: &Memory, owner: Owner, limit: usize, in_flight: InFlight) -> Vec<OutboxRow> {
    let request = ClaimOutbox::new(owner, limit, LEASE).with_in_flight(in_flight);
    OutboxStore::claim(memory, &request).await.unwrap().rows
}

async fn heads(memory: &Memory) -> Vec<OutboxRow> {
    claim(memory, ANN, 100, InFlight::OnePerKey).await
}

fn ids(rows: &[OutboxRow]) -> Vec<MessageId> {
    rows.iter().map(|row| row.claim.id).collect()
}

fn claims(rows: &[OutboxRow]) -> Vec<Claim> {
    rows.iter().map(|row| row.claim).collect()
}

#[tokio::test(start_paused = true)]
async fn should_hand_out_the_late_committers_row_first_when_it_appended_first() {
    let memory = Memory::new();
    let mut late = memory.begin().await.unwrap();
    late.append(&[keyed(1, "k")]).await.unwrap();
    memory.append(&[keyed(2, "k"), keyed(3, "k")]).await.unwrap();

    let first = heads(&memory).await;
    assert_eq!(ids(&first), [id(2)], "what is not committed holds nobody up");
    Box::new(late).commit().await.unwrap();
    assert_eq!(heads(&memory).await, [], "a row of the key is with a relay");

    assert!(memory.ack(ANN, &claims(&first)).await.unwrap().is_complete());
    let run = claim(&memory, BOB, 100, InFlight::RunPerKey).await;
    assert_eq!(ids(&run), [id(1), id(3)]);
}

#[tokio::test(start_paused = true)]
async fn should_stop_a_run_at_a_gap_when_a_row_of_the_key_is_retrying() {
    let memory = Memory::new();
    let batch = [
        keyed(1, "k"),
        keyed(2, "k"),
        keyed(3, "k"),
        keyed(4, "other"),
        message(5),
    ];
    memory.append(&batch).await.unwrap();
    let run = claim(&memory, ANN, 3, InFlight::RunPerKey).await;
    assert_eq!(
        ids(&run),
        [id(1), id(2), id(3)],
        "the oldest first, in order of the key"
    );

    let how = Abandon::failed(Duration::from_secs(10), failure());
    assert!(
        OutboxStore::abandon(&memory, ANN, &claims(&run)[1..2], &how)
            .await
            .unwrap()
            .is_complete()
    );
    assert!(
        OutboxStore::abandon(&memory, ANN, &claims(&run)[2..], &Abandon::unused())
            .await
            .unwrap()
            .is_complete()
    );
    assert_eq!(
        ids(&claim(&memory, BOB, 100, InFlight::RunPerKey).await),
        [id(4), id(5)],
        "1 is leased still"
    );
    assert!(memory.ack(ANN, &claims(&run)[..1]).await.unwrap().is_complete());
    assert_eq!(heads(&memory).await, [], "2 is retrying and 3 waits for it");

    elapse(10).await;
    let again = claim(&memory, BOB, 100, InFlight::RunPerKey).await;
    assert_eq!(ids(&again), [id(2), id(3)]);
    assert_eq!(again.iter().map(|row| row.attempts).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(again[0].claim.epoch, epoch(2));
}

#[tokio::test(start_paused = true)]
async fn should_let_the_former_owner_settle_when_nobody_has_taken_the_row_since() {
    let memory = Memory::new();
    memory
        .append(&[message(1), message(2), message(3)])
        .await
        .unwrap();
    let rows = claims(&heads(&memory).await);
    elapse(30).await;
    assert_eq!(OutboxQueries::stats(&memory).await.unwrap().ready, 3);

    assert!(memory.ack(ANN, &rows[..1]).await.unwrap().is_complete());
    assert!(memory.renew(ANN, &rows[1..2], LEASE).await.unwrap().is_complete());
    assert_eq!(
        ids(&claim(&memory, BOB, 9, InFlight::OnePerKey).await),
        [id(3)],
        "2 is held again"
    );
    assert_eq!(memory.ack(ANN, &rows).await.unwrap().lost, [rows[0], rows[2]]);
    assert_eq!(OutboxStore::reap_expired(&memory, 10).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn should_lose_the_former_owners_claim_when_it_was_reaped() {
    let memory = Memory::new();
    memory.append(&[message(1), message(2)]).await.unwrap();
    let rows = claims(&claim(&memory, ANN, 1, InFlight::OnePerKey).await);
    elapse(29).await;
    assert_eq!(OutboxStore::reap_expired(&memory, 10).await.unwrap(), 0);
    elapse(1).await;
    assert_eq!(OutboxStore::reap_expired(&memory, 10).await.unwrap(), 1);
    assert_eq!(memory.ack(ANN, &rows).await.unwrap().lost, rows);
    assert_eq!(memory.renew(ANN, &rows, LEASE).await.unwrap().lost, rows);
    assert_eq!(
        heads(&memory).await[0].attempts,
        0,
        "nobody knows that the dead one's attempt failed"
    );
}

#[tokio::test(start_paused = true)]
async fn should_free_everything_of_an_owner_when_it_is_released() {
    let memory = Memory::new();
    memory
        .append(&[keyed(1, "k"), keyed(2, "k"), message(3)])
        .await
        .unwrap();
    let rows = claims(&claim(&memory, ANN, 2, InFlight::RunPerKey).await);
    claim(&memory, BOB, 1, InFlight::OnePerKey).await;
    assert_eq!(OutboxStore::release_owner(&memory, ANN).await.unwrap(), 2);
    assert_eq!(memory.fail(ANN, &rows, &failure()).await.unwrap().lost, rows);
    let again = claim(&memory, BOB, 9, InFlight::RunPerKey).await;
    assert_eq!(ids(&again), [id(1), id(2)]);
    assert_eq!(again[0].attempts, 0, "the attempt was given back");
}

#[tokio::test(start_paused = true)]
async fn should_give_a_delayed_row_a_fresh_place_when_it_becomes_due() {
    let memory = Memory::new();
    let mut delayed = keyed(1, "k");
    delayed.deliver_after = Some(Duration::from_secs(5));
    memory.append(&[delayed, keyed(2, "k")]).await.unwrap();
    let first = heads(&memory).await;
    assert_eq!(ids(&first), [id(2)], "a delayed row is not in its key's way");
    memory.append(&[keyed(3, "k")]).await.unwrap();
    elapse(4).await;
    assert_eq!(
        OutboxQueries::get(&memory, id(1)).await.unwrap().unwrap().state,
        OutboxState::Delayed
    );
    elapse(1).await;
    assert!(memory.ack(ANN, &claims(&first)).await.unwrap().is_complete());
    let run = claim(&memory, ANN, 9, InFlight::RunPerKey).await;
    assert_eq!(ids(&run), [id(3), id(1)]);
    assert_eq!(run[1].message.deliver_after, None, "its delay is over");
}

#[tokio::test(start_paused = true)]
async fn should_take_higher_priorities_first_when_claiming_heads() {
    let memory = Memory::new();
    let mut urgent = keyed(3, "k");
    urgent.priority = Priority::MAX;
    let mut quick = message(4);
    quick.priority = Priority::new(5).unwrap();
    memory
        .append(&[message(1), keyed(2, "k"), urgent, quick])
        .await
        .unwrap();
    let run = claim(&memory, ANN, 9, InFlight::RunPerKey).await;
    assert_eq!(
        ids(&run),
        [id(4), id(1), id(2), id(3)],
        "3 is urgent, but behind 2"
    );
}

#[tokio::test(start_paused = true)]
async fn should_bury_and_redrive_when_a_row_cannot_be_sent() {
    let memory = Memory::new();
    memory.append(&[keyed(1, "k"), keyed(2, "k")]).await.unwrap();
    let rows = claims(&heads(&memory).await);
    assert!(memory.fail(ANN, &rows, &failure()).await.unwrap().is_complete());
    assert_eq!(memory.fail(ANN, &rows, &failure()).await.unwrap().lost, rows);
    let open = DeadLetterFilter::open().with_origin(Origin::Relay);
    let letters = DeadLetterQueries::list(&memory, &open, None, 10)
        .await
        .unwrap()
        .items;
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].failures.as_slice(), letters[0].rounds),
        ([failure()].as_slice(), 1)
    );

    let redrive = Redrive::new(vec![letters[0].id], "operator");
    assert_eq!(memory.redrive(&redrive).await.unwrap(), [Redriven::Now]);
    assert_eq!(memory.redrive(&redrive).await.unwrap(), [Redriven::Closed]);
    let run = claim(&memory, ANN, 9, InFlight::RunPerKey).await;
    assert_eq!(ids(&run), [id(2), id(1)], "its place is fresh");
    assert!(
        memory
            .fail(ANN, &claims(&run)[1..], &failure())
            .await
            .unwrap()
            .is_complete()
    );
    let again = DeadLetterQueries::list(&memory, &open, None, 10)
        .await
        .unwrap()
        .items;
    assert_eq!((again[0].previous, again[0].redrives), (Some(letters[0].id), 1));
}

#[tokio::test(start_paused = true)]
async fn should_refuse_a_payload_when_the_message_is_on_its_way_without_it() {
    let memory = Memory::new();
    memory.append(&[message(1)]).await.unwrap();
    let rows = claims(&heads(&memory).await);
    assert!(memory.fail(ANN, &rows, &failure()).await.unwrap().is_complete());
    memory.append(&[message(1)]).await.unwrap();
    let letters = DeadLetterQueries::list(&memory, &DeadLetterFilter::open(), None, 10)
        .await
        .unwrap()
        .items;
    let redrive = Redrive::new(vec![letters[0].id], "operator");
    let edited = redrive.clone().with_payload(Bytes::from_static(b"edited"));
    let error = memory.redrive(&edited).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(
        memory.redrive(&redrive).await.unwrap(),
        [Redriven::Now],
        "without one it is on its way"
    );
}

#[tokio::test(start_paused = true)]
async fn should_store_all_or_none_when_the_outbox_is_full() {
    let memory =
        Memory::with_config(MemoryConfig::default().with_outbox_capacity(NonZeroUsize::new(2).unwrap()));
    let mut tx = memory.begin().await.unwrap();
    assert_eq!(
        tx.append(&[message(1), message(1)]).await.unwrap(),
        [Appended::Stored, Appended::Duplicate]
    );
    let error = memory.append(&[message(2), message(3)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "what is staged counts");
    assert_eq!(memory.append(&[message(2)]).await.unwrap(), [Appended::Stored]);
    Box::new(tx).rollback().await.unwrap();
    assert_eq!(
        memory.append(&[message(2), message(3)]).await.unwrap(),
        [Appended::Duplicate, Appended::Stored]
    );
    assert_eq!(OutboxQueries::stats(&memory).await.unwrap().total(), 2);
}

#[tokio::test(start_paused = true)]
async fn should_list_each_row_once_when_a_page_ends_before_rows_move() {
    let memory = Memory::new();
    let mut delayed = message(1);
    delayed.deliver_after = Some(Duration::from_secs(5));
    memory.append(&[delayed, message(2), message(3)]).await.unwrap();
    let all = OutboxFilter::all();
    let first = OutboxQueries::list(&memory, &all, None, 2).await.unwrap();
    elapse(5).await;
    heads(&memory).await;
    let rest = OutboxQueries::list(&memory, &all, first.next.as_ref(), 2)
        .await
        .unwrap();
    let seen: Vec<_> = first
        .items
        .iter()
        .chain(&rest.items)
        .map(|entry| entry.message.id)
        .collect();
    assert_eq!((seen, rest.next), (vec![id(1), id(2), id(3)], None));
}
