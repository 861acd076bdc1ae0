//! Long walks of random calls: after each the indexes agree with the rows, and what must happen once happens once.

use std::collections::{BTreeMap, BTreeSet};

use headless_abstractions::{
    Abandon, Admission, AttemptUse, Bury, ClaimOutbox, DeadLetterFilter, DeadLetterQueries, DeadLetterStore,
    InFlight, InboxStore, Marked, OutboxStore, OwnedTx, PulseStore, Redrive, StoreTx, UnitOfWorkStore,
};

use super::{super::View, *};
use crate::store::MemoryTx;

const STEPS: usize = 1_500;
const SEEDS: u64 = 12;

/// xorshift64*, Vigna 2014: a walk needs nothing better.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn owner(&mut self) -> Owner {
        if self.one_in(2) { ANN } else { BOB }
    }

    /// The same message for the same number, so that its key and operation never change.
    fn message(&mut self, ids: u64) -> Message {
        let n = u128::from(self.below(ids));
        let mut message = message(n);
        message.key = keyed(0, ["a", "b", "c"][(n % 3) as usize])
            .key
            .filter(|_| n % 4 != 3);
        message.idempotency_key = operation(0, ["x", "y"][(n % 2) as usize])
            .idempotency_key
            .filter(|_| n % 5 < 3);
        message
    }
}

fn assert_consistent(memory: &Memory) {
    memory.server.database.read(|state, now| {
        state.outbox.assert_consistent();
        state.inbox.assert_consistent(&View {
            now,
            locks: &state.locks,
            me: None,
        });
    });
}

#[tokio::test(start_paused = true)]
async fn should_keep_the_order_of_each_key_when_the_outbox_is_used_at_random() {
    for seed in 1..=SEEDS {
        let (memory, mut chance) = (Memory::new(), Chance(seed));
        let mut held: BTreeMap<Owner, Vec<Claim>> = BTreeMap::new();
        let mut open: Vec<MemoryTx> = Vec::new();
        for _ in 0..STEPS {
            let owner = chance.owner();
            let claims = held.entry(owner).or_default();
            let some: Vec<Claim> = claims.iter().filter(|_| chance.one_in(2)).copied().collect();
            match chance.below(12) {
                0 | 1 => {
                    let mut message = chance.message(40);
                    message.deliver_after = chance.one_in(4).then_some(Duration::from_secs(3));
                    memory.append(&[message]).await.unwrap();
                }
                2 => {
                    let mut tx = memory.begin().await.unwrap();
                    // Ids that are out of the others' reach: nothing here waits for a lock.
                    tx.append(&[keyed(1_000 + u128::from(chance.below(1 << 30)), "a")])
                        .await
                        .unwrap();
                    open.push(tx);
                }
                3 if !open.is_empty() => {
                    let tx = Box::new(open.swap_remove(chance.below(open.len() as u64) as usize));
                    if chance.one_in(3) {
                        tx.rollback().await
                    } else {
                        tx.commit().await
                    }
                    .unwrap();
                }
                4 | 5 => {
                    let in_flight = if chance.one_in(2) {
                        InFlight::RunPerKey
                    } else {
                        InFlight::OnePerKey
                    };
                    let request =
                        ClaimOutbox::new(owner, 1 + chance.below(5) as usize, Duration::from_secs(5));
                    let request = request.with_in_flight(in_flight).with_ack(some);
                    let rows = OutboxStore::claim(&memory, &request).await.unwrap().rows;
                    let keys: Vec<_> = rows.iter().filter_map(|row| row.message.key.as_ref()).collect();
                    if in_flight == InFlight::OnePerKey {
                        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
                    }
                    claims.extend(rows.iter().map(|row| row.claim));
                }
                6 => drop(memory.ack(owner, &some).await.unwrap()),
                7 => {
                    let how = Abandon::unused().with_after(Duration::from_secs(chance.below(4)));
                    drop(OutboxStore::abandon(&memory, owner, &some, &how).await.unwrap());
                }
                8 => drop(OutboxStore::renew(&memory, owner, &some, LEASE).await.unwrap()),
                9 if chance.one_in(4) => drop(memory.fail(owner, &some, &failure()).await.unwrap()),
                10 if chance.one_in(8) => {
                    OutboxStore::release_owner(&memory, owner).await.unwrap();
                    memory.pulse().await.unwrap();
                }
                _ => elapse(chance.below(3)).await,
            }
            assert_consistent(&memory);
        }
        drop(open);
        drain_outbox(&memory).await;
    }
}

/// Whatever a walk has left can be claimed and sent, once all leases and delays are over.
async fn drain_outbox(memory: &Memory) {
    elapse(1_000).await;
    let mut request = ClaimOutbox::new(ANN, 3, LEASE).with_in_flight(InFlight::RunPerKey);
    loop {
        let rows = OutboxStore::claim(memory, &request).await.unwrap().rows;
        if rows.is_empty() {
            break;
        }
        request.ack = rows.iter().map(|row| row.claim).collect();
    }
    memory
        .server
        .database
        .read(|state, _| assert_eq!(state.outbox.rows_after(None).count(), 0));
}

#[tokio::test(start_paused = true)]
async fn should_process_each_message_and_operation_once_when_the_inbox_is_used_at_random() {
    for seed in 1..=SEEDS {
        let (memory, mut chance) = (Memory::new(), Chance(seed));
        let mut holds: BTreeMap<MessageId, Hold> = BTreeMap::new();
        let mut processed = BTreeSet::new();
        let mut operations = BTreeSet::new();
        let mut open: Option<(MemoryTx, Vec<Message>)> = None;
        for _ in 0..STEPS {
            let message = chance.message(24);
            let owner = chance.owner();
            let hold = holds
                .get(&message.id)
                .copied()
                .filter(|_| !chance.one_in(4))
                .unwrap_or(Hold::Absent);
            let claim = match hold {
                Hold::Running { epoch, .. } => Claim::new(message.id, epoch),
                Hold::Absent => Claim::new(message.id, epoch(0)),
            };
            let mut done = Vec::new();
            match chance.below(14) {
                0 | 1 => {
                    let answer = memory.admit(owner, LEASE, &[arrival(&message)]).await.unwrap()[0];
                    if let Admission::Run { epoch, .. } = answer {
                        holds.insert(message.id, Hold::Running { owner, epoch });
                    }
                }
                2 => {
                    if memory.mark(&[(arrival(&message), hold)]).await.unwrap()[0] == Marked::Now {
                        done.push(message);
                    }
                }
                3 if open.is_none() => {
                    let mut tx = memory.begin().await.unwrap();
                    let marks = [(arrival(&message), hold), absent(&chance.message(24))];
                    let answers = tx.mark_processed(&marks).await.unwrap();
                    if answers[0] == Marked::Now && answers[1] != Marked::Now {
                        open = Some((tx, vec![message]));
                    }
                }
                4 | 5 => {
                    if let Some((tx, marked)) = open.take() {
                        if chance.one_in(3) {
                            drop(tx);
                        } else {
                            Box::new(tx).commit().await.unwrap();
                            done.extend(marked);
                        }
                    }
                }
                6 => drop(park(&memory, parked_for(&message, hold, chance.below(5))).await),
                7 => {
                    let mut behind = behind(&message);
                    behind.hold = hold;
                    park(&memory, behind).await;
                }
                8 | 9 => {
                    let limit = 1 + chance.below(6) as usize;
                    for row in claim_parked(&memory, owner, limit).await {
                        holds.insert(row.claim.id, held(owner, row.claim));
                    }
                }
                10 => {
                    let how = Abandon::unused().with_after(Duration::from_secs(chance.below(4)));
                    drop(
                        ParkedStore::abandon(&memory, &group(), owner, &[claim], &how)
                            .await
                            .unwrap(),
                    );
                }
                11 => {
                    drop(
                        memory
                            .release(&group(), owner, &[claim], AttemptUse::Return)
                            .await
                            .unwrap(),
                    );
                    drop(
                        InboxStore::renew(&memory, &group(), owner, &[claim], LEASE)
                            .await
                            .unwrap(),
                    );
                }
                12 if chance.one_in(3) => {
                    let burial = Bury::new(message.clone(), arrival(&message), hold, vec![failure()]);
                    memory.bury(&[burial]).await.unwrap();
                    let letters = DeadLetterQueries::list(&memory, &DeadLetterFilter::open(), None, 5)
                        .await
                        .unwrap();
                    let ids = letters.items.iter().map(|letter| letter.id).collect();
                    memory
                        .redrive(&Redrive::new(ids, "walk").with_max_redrives(99))
                        .await
                        .unwrap();
                }
                _ => elapse(chance.below(20)).await,
            }
            for message in done {
                assert!(processed.insert(message.id), "{} was processed twice", message.id);
                if let Some(operation) = message.idempotency_key {
                    assert!(operations.insert(operation), "an operation took effect twice");
                }
            }
            assert_consistent(&memory);
        }
        drop(open);
        drain_park(&memory).await;
    }
}

/// Whatever a walk has left parked can be claimed and finished, once what was admitted is finished too.
async fn drain_park(memory: &Memory) {
    InboxStore::release_owner(memory, ANN).await.unwrap();
    InboxStore::release_owner(memory, BOB).await.unwrap();
    elapse(1_000).await;
    let mut chance = Chance(1);
    for _ in 0..500 {
        let message = chance.message(24);
        let answer = memory.admit(ANN, LEASE, &[arrival(&message)]).await.unwrap()[0];
        if let Admission::Run { epoch, .. } = answer {
            let hold = Hold::Running { owner: ANN, epoch };
            assert_eq!(
                memory.mark(&[(arrival(&message), hold)]).await.unwrap(),
                [Marked::Now]
            );
        }
        for row in claim_parked(memory, ANN, 5).await {
            let hold = held(ANN, row.claim);
            assert_eq!(memory.mark(&[(row.arrival, hold)]).await.unwrap(), [Marked::Now]);
        }
    }
    let left = memory
        .server
        .database
        .read(|state, _| state.inbox.parked_of_group(&group()));
    assert_eq!(left, 0, "something waits for ever");
    assert_consistent(memory);
}
