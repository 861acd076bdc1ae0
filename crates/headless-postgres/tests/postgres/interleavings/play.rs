//! Steps, and how a world answers to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use chrono::DateTime;
use futures::{FutureExt, future::join_all};
use headless_abstractions::{
    Abandon, Admission, Arrival, Bury, Claim, ClaimParked, DeadLetterStore, Failure, FailureCause, GroupName,
    Hold, IdempotencyKey, InboxQueries, InboxState, InboxStore, Marked, Message, MessageId, OwnedTx, Owner,
    Park, ParkLimits, Parked, ParkedStore, PartitionKey, StoreTx, TopicName, UnitOfWorkStore,
};
use headless_postgres::{Postgres, PostgresTx};
use uuid::Uuid;

use crate::world::World;

const OWNER: Owner = Owner::from_bits(7);
const LEASE: Duration = Duration::from_secs(600);
/// Who waits for an open transaction waits for so long: whatever it waits for, it does not come before.
const WAIT: Duration = Duration::from_millis(4);
/// How many orders are played side by side.
const LANES: usize = 4;

/// What a session does with the message of this number. A hold that any session has gained is every session's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Begin,
    Mark(usize),
    Commit,
    Rollback,
    Admit(usize),
    ParkFailed(usize),
    ParkBehind(usize),
    Claim,
    Finish(usize),
    Bury(usize),
    Abandon(usize),
}

/// What was before, and what three sessions do.
pub(super) struct Scenario {
    before: Vec<Step>,
    sessions: [Vec<Step>; 3],
}

impl Scenario {
    pub(super) fn of(before: Vec<Step>, sessions: [Vec<Step>; 3]) -> Self {
        Self { before, sessions }
    }

    /// Plays every order of the steps of each of these.
    pub(super) async fn play_all(scenarios: Vec<Self>) {
        World::run(async |world| Self::play_in(world, scenarios).await).await;
    }

    /// Plays them with a function of the schema broken: of its text, `from` is replaced. Returns what was noticed.
    pub(super) async fn play_broken(function: &str, from: &str, to: &str, scenarios: Vec<Self>) -> String {
        const MIGRATION: &str = include_str!("../../../migrations/0003_inbox.sql");
        let mut noticed = None;
        World::run(async |world| {
            Postgres::migrate(&world.config()).await.unwrap();
            let start = MIGRATION
                .find(&format!("create function {{schema}}.{function}("))
                .unwrap();
            let end = start + MIGRATION[start..].find("end $$;").unwrap();
            let text = format!("{}end $$;", &MIGRATION[start..end]);
            assert!(text.contains(from), "{function} has no {from:?} to be broken");
            let broken = text
                .replace("create function", "create or replace function")
                .replace(from, to);
            world.raw(&broken).await;
            let played = AssertUnwindSafe(Self::play_in(world, scenarios))
                .catch_unwind()
                .await;
            noticed = Some(played);
        })
        .await;
        match noticed {
            Some(Err(panic)) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
            Some(Ok(())) => panic!("{function} without {from:?} was not noticed"),
            // There is no server.
            None => String::new(),
        }
    }

    async fn play_in(world: &World, scenarios: Vec<Self>) {
        let stores: Vec<Postgres> = join_all((0..LANES).map(|_| async {
            let config = world.config().with_lock_timeout(WAIT);
            Postgres::connect_with(config).await.unwrap()
        }))
        .await;
        let runs: Vec<(usize, Arc<Self>, Vec<usize>)> = scenarios
            .into_iter()
            .map(Arc::new)
            .flat_map(|scenario| {
                let orders = orders(&scenario.sessions.each_ref().map(Vec::len));
                orders.into_iter().map(move |order| (scenario.clone(), order))
            })
            .enumerate()
            .map(|(n, (scenario, order))| (n, scenario, order))
            .collect();
        let lanes = stores.iter().enumerate().map(|(lane, store)| {
            let mine: Vec<_> = runs.iter().filter(|(n, ..)| n % LANES == lane).cloned().collect();
            let store = store.clone();
            tokio::spawn(async move {
                for (n, scenario, order) in mine {
                    Play::new(store.clone(), n).run(&scenario, &order).await;
                }
            })
        });
        for lane in join_all(lanes).await {
            if let Err(failed) = lane {
                std::panic::resume_unwind(failed.into_panic());
            }
        }
    }
}

/// The head of a key ends while others park behind it and claims look at the key, all at once and so often.
pub(super) async fn race(rounds: usize) {
    World::run(async |world| {
        let stores: Vec<Postgres> =
            join_all((0..3).map(|_| async { Postgres::connect_with(world.config()).await.unwrap() })).await;
        for round in 0..rounds {
            let mut play = Play::new(stores[0].clone(), round);
            play.step(0, Step::ParkFailed(0)).await;
            play.step(0, Step::Claim).await;
            let (head, follower) = (play.arrival(0), play.arrival(1));
            let hold = play.hold(0);
            let mut tx = stores[0].begin().await.unwrap();
            assert_eq!(
                tx.mark_processed(&[(head, hold)]).await.unwrap(),
                vec![Marked::Now]
            );
            let park = Park::behind(play.messages[1].clone(), follower, Hold::Absent);
            let request = ClaimParked::new(OWNER, play.group.clone(), 10, LEASE);
            let (committed, parked, first, second) = tokio::join!(
                Box::new(tx).commit(),
                stores[1].park(std::slice::from_ref(&park), ParkLimits::default()),
                ParkedStore::claim(&stores[1], &request),
                ParkedStore::claim(&stores[2], &request),
            );
            committed.unwrap();
            play.took_effect(0);
            let parked = parked.unwrap()[0];
            if parked == Parked::Now {
                play.parked.push(1);
            }
            for row in first.unwrap().into_iter().chain(second.unwrap()) {
                let epoch = row.claim.epoch;
                let before = play.holds.insert(1, Hold::Running { owner: OWNER, epoch });
                assert_eq!(before, None, "round {round}: the follower has two holders");
            }
            play.log.push(format!("parking behind: {parked:?}"));
            play.finish().await;
        }
    })
    .await;
}

/// Every order in which steps of so many sessions can follow each other, as the numbers of the sessions.
fn orders(left: &[usize; 3]) -> Vec<Vec<usize>> {
    if left.iter().all(|left| *left == 0) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for session in 0..3 {
        let mut rest = *left;
        if rest[session] == 0 {
            continue;
        }
        rest[session] -= 1;
        for mut order in orders(&rest) {
            order.insert(0, session);
            all.push(order);
        }
    }
    all
}

/// One order being played, in a group of its own, and the books that are kept of it.
pub(super) struct Play {
    store: Postgres,
    group: GroupName,
    messages: Vec<Message>,
    holds: BTreeMap<usize, Hold>,
    transactions: [Option<Open>; 3],
    /// Messages that were parked, in the order in which that was answered, and are unfinished as far as anybody was told.
    parked: Vec<usize>,
    effects: BTreeMap<usize, u32>,
    log: Vec<String>,
}

struct Open {
    tx: PostgresTx,
    marked: Vec<usize>,
    refused: bool,
}

impl Play {
    pub(super) fn new(store: Postgres, n: usize) -> Self {
        let messages = (0..6).map(|number| message(n, number)).collect();
        Self {
            store,
            group: GroupName::parse(&format!("group-{n}")).unwrap(),
            messages,
            holds: BTreeMap::new(),
            transactions: [None, None, None],
            parked: Vec::new(),
            effects: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    async fn run(mut self, scenario: &Scenario, order: &[usize]) {
        for step in &scenario.before {
            self.step(0, *step).await;
        }
        let mut next = [0; 3];
        for session in order {
            let step = scenario.sessions[*session][next[*session]];
            next[*session] += 1;
            self.step(*session, step).await;
        }
        self.finish().await;
    }

    async fn step(&mut self, session: usize, step: Step) {
        let answer = match step {
            Step::Begin => {
                self.transactions[session] = Some(Open {
                    tx: self.store.begin().await.unwrap(),
                    marked: Vec::new(),
                    refused: false,
                });
                String::new()
            }
            Step::Mark(n) => self.mark_in_transaction(session, n).await,
            Step::Commit => self.end(session, true).await,
            Step::Rollback => self.end(session, false).await,
            Step::Admit(n) => self.admit(n).await,
            Step::ParkFailed(n) => self.park(n, false).await,
            Step::ParkBehind(n) => self.park(n, true).await,
            Step::Claim => self.claim().await,
            Step::Finish(n) => self.finish_one(n).await,
            Step::Bury(n) => self.bury(n).await,
            Step::Abandon(n) => self.abandon(n).await,
        };
        self.log.push(format!("{session}: {step:?} {answer}"));
    }

    async fn mark_in_transaction(&mut self, session: usize, n: usize) -> String {
        let mark = (self.arrival(n), self.hold(n));
        let mut open = self.transactions[session].take().unwrap();
        let answer = open.tx.mark_processed(&[mark]).await.unwrap()[0];
        if answer == Marked::Now {
            self.nothing_stands_before(n, &open.marked);
            open.marked.push(n);
        } else {
            open.refused = true;
        }
        self.transactions[session] = Some(open);
        format!("{answer:?}")
    }

    async fn end(&mut self, session: usize, commit: bool) -> String {
        let open = self.transactions[session].take().unwrap();
        if commit && !open.refused {
            Box::new(open.tx).commit().await.unwrap();
            for n in open.marked {
                self.took_effect(n);
            }
            "committed".to_owned()
        } else {
            Box::new(open.tx).rollback().await.unwrap();
            "rolled back".to_owned()
        }
    }

    async fn admit(&mut self, n: usize) -> String {
        let answer = self.store.admit(OWNER, LEASE, &[self.arrival(n)]).await.unwrap()[0];
        if let Admission::Run { epoch, .. } = answer {
            self.holds.insert(n, Hold::Running { owner: OWNER, epoch });
        }
        format!("{answer:?}")
    }

    async fn park(&mut self, n: usize, behind: bool) -> String {
        let (message, arrival, hold) = (self.messages[n].clone(), self.arrival(n), self.hold(n));
        let park = if behind {
            Park::behind(message, arrival, hold)
        } else {
            Park::failed(message, arrival, hold, Duration::ZERO, vec![failure()])
        };
        let answer = self.store.park(&[park], ParkLimits::default()).await.unwrap()[0];
        if answer == Parked::Now {
            self.holds.remove(&n);
            if !self.parked.contains(&n) {
                self.parked.push(n);
            }
        }
        format!("{answer:?}")
    }

    pub(super) async fn claim(&mut self) -> String {
        let request = ClaimParked::new(OWNER, self.group.clone(), 10, LEASE);
        let rows = ParkedStore::claim(&self.store, &request).await.unwrap();
        let mut numbers = Vec::new();
        for row in rows {
            let n = self.messages.iter().position(|m| m.id == row.message.id).unwrap();
            assert_eq!(self.messages[n], row.message, "{:#?}", self.log);
            assert!(
                !self.holds.contains_key(&n),
                "{n} has two holders: {:#?}",
                self.log
            );
            let epoch = row.claim.epoch;
            self.holds.insert(n, Hold::Running { owner: OWNER, epoch });
            numbers.push(n);
        }
        format!("{numbers:?}")
    }

    async fn finish_one(&mut self, n: usize) -> String {
        let mark = (self.arrival(n), self.hold(n));
        let answer = InboxStore::mark(&self.store, &[mark]).await.unwrap()[0];
        if answer == Marked::Now {
            self.nothing_stands_before(n, &[]);
            self.took_effect(n);
        }
        format!("{answer:?}")
    }

    async fn bury(&mut self, n: usize) -> String {
        let burial = Bury::new(
            self.messages[n].clone(),
            self.arrival(n),
            self.hold(n),
            vec![failure()],
        );
        let answer = self.store.bury(&[burial]).await.unwrap()[0];
        if answer == Marked::Now {
            self.nothing_stands_before(n, &[]);
            self.holds.remove(&n);
            self.parked.retain(|parked| *parked != n);
        }
        format!("{answer:?}")
    }

    async fn abandon(&mut self, n: usize) -> String {
        let Hold::Running { epoch, .. } = self.hold(n) else {
            return "holds nothing".to_owned();
        };
        let claims = [Claim::new(self.messages[n].id, epoch)];
        let settled = self
            .store
            .abandon(&self.group, OWNER, &claims, &Abandon::unused())
            .await
            .unwrap();
        if settled.is_complete() {
            self.holds.remove(&n);
        }
        format!("{settled:?}")
    }

    /// Of the key of a message that was marked, nothing that was parked before is unfinished, unless by this very
    /// transaction.
    fn nothing_stands_before(&self, n: usize, marked: &[usize]) {
        let before = self.parked.iter().take_while(|parked| **parked != n);
        let of_key =
            before.filter(|parked| self.arrival(n).key.is_some() && self.arrival(**parked).key.is_some());
        let unfinished: Vec<_> = of_key.filter(|parked| !marked.contains(parked)).collect();
        assert!(
            unfinished.is_empty(),
            "{n} was marked past {unfinished:?}: {:#?}",
            self.log
        );
    }

    fn took_effect(&mut self, n: usize) {
        *self.effects.entry(n).or_default() += 1;
        self.holds.remove(&n);
        self.parked.retain(|parked| *parked != n);
    }

    /// Works off what is left, and checks the books.
    pub(super) async fn finish(mut self) {
        for session in 0..3 {
            if self.transactions[session].is_some() {
                self.step(session, Step::Rollback).await;
            }
        }
        // In rounds, since one of them may make room for the next; each claims what it can and ends it in order.
        for _ in 0..4 {
            self.step(0, Step::Claim).await;
            let held: BTreeSet<usize> = self.holds.keys().copied().collect();
            let in_place = self.parked.clone().into_iter().chain(held.iter().copied());
            for n in in_place.filter(|n| held.contains(n)).collect::<Vec<_>>() {
                if self.holds.contains_key(&n) {
                    self.step(0, Step::Finish(n)).await;
                }
            }
        }
        let mut processed = Vec::new();
        for (n, message) in self.messages.iter().enumerate() {
            let entry = InboxQueries::get(&self.store, &self.group, message.id)
                .await
                .unwrap();
            let state = entry.as_ref().map(|entry| entry.state);
            assert!(
                !matches!(state, Some(InboxState::Parked | InboxState::Running)),
                "{n} is stranded: {entry:?} {:#?}",
                self.log
            );
            if state == Some(InboxState::Processed) {
                processed.push(n);
            }
        }
        for (n, times) in &self.effects {
            assert_eq!(*times, 1, "how often {n} took effect: {:#?}", self.log);
            assert!(
                processed.contains(n),
                "{n} took effect and is not processed: {:#?}",
                self.log
            );
        }
        let operation = self.effects.keys().filter(|n| **n >= 3).count();
        assert!(
            operation <= 1,
            "the operation took effect {operation} times: {:#?}",
            self.log
        );
        if processed.iter().any(|n| *n >= 3) {
            assert_eq!(operation, 1, "an operation is done by nobody: {:#?}", self.log);
        }
    }

    fn arrival(&self, n: usize) -> Arrival {
        Arrival::of(&self.group, &self.messages[n], true)
    }

    fn hold(&self, n: usize) -> Hold {
        self.holds.get(&n).copied().unwrap_or(Hold::Absent)
    }
}

fn message(run: usize, number: usize) -> Message {
    let id = MessageId::from_uuid(Uuid::from_u128(((run as u128) << 32) + number as u128 + 1));
    let topic = TopicName::parse("orders").unwrap();
    let message = Message::new(id, topic, DateTime::UNIX_EPOCH, "payload".into());
    if number < 3 {
        message.with_key(PartitionKey::parse("a").unwrap())
    } else {
        message.with_idempotency_key(IdempotencyKey::parse("pay order 7").unwrap())
    }
}

fn failure() -> Failure {
    Failure::new(FailureCause::Error, "failed", "node", DateTime::UNIX_EPOCH)
}
