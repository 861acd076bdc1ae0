use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use futures::FutureExt;
use headless_abstractions::{Buried, NodeState, Owner};

use super::*;
use crate::{SeededRandom, Spawner, SystemClock};

const SECOND: Duration = Duration::from_secs(1);

/// A store that answers what it is told to.
#[derive(Debug, Default)]
struct Told {
    registered: AtomicU64,
    /// How many registrations fail.
    refuses: AtomicU64,
    beats: Mutex<VecDeque<Result<Beat>>>,
    facts: Mutex<Vec<String>>,
    left: AtomicU64,
    burials: AtomicU64,
    /// How many claims the next sweep frees.
    sweeps: AtomicU64,
    living: Mutex<Vec<LivingNode>>,
    buries: std::sync::atomic::AtomicBool,
    /// Whether everybody lives: there is nobody to bury.
    lives: std::sync::atomic::AtomicBool,
    registering: Duration,
    silent: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl MembershipStore for Told {
    async fn register(&self, registration: &Registration) -> Result<Incarnation> {
        assert_eq!(registration.dead_after, 60 * SECOND);
        tokio::time::sleep(self.registering).await;
        let refuses = &self.refuses;
        if refuses
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok()
        {
            return Err(Error::new(ErrorKind::Unavailable, "away"));
        }
        Ok(Incarnation::new(
            self.registered.fetch_add(1, Ordering::SeqCst) + 1,
        ))
    }

    async fn heartbeat(&self, _: Owner, incarnation: Incarnation, facts: &NodeFacts) -> Result<Beat> {
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        assert_eq!(incarnation.get(), self.registered.load(Ordering::SeqCst));
        lock(&self.facts).push(facts.as_str().to_owned());
        lock(&self.beats).pop_front().unwrap_or(Ok(Beat::Accepted))
    }

    async fn leave(&self, _: Owner, incarnation: Incarnation) -> Result<bool> {
        self.left.store(incarnation.get(), Ordering::SeqCst);
        Ok(true)
    }

    async fn bury(&self, limit: usize) -> Result<Vec<Buried>> {
        assert!(limit > 0);
        self.burials.fetch_add(1, Ordering::SeqCst);
        if self.buries.load(Ordering::SeqCst) {
            // Behind a lock that nobody gives back.
            std::future::pending::<()>().await;
        }
        let bob = Buried::new(Incarnation::new(7), Owner::from_bits(7), "bob", 1);
        Ok(if self.lives.load(Ordering::SeqCst) {
            Vec::new()
        } else {
            vec![bob]
        })
    }

    async fn forget(&self, older_than: Duration, _: usize) -> Result<u64> {
        assert_eq!(older_than, Duration::from_hours(24));
        Ok(0)
    }

    async fn sweep(&self, limit: usize) -> Result<u64> {
        assert!(limit > 0);
        Ok(self.sweeps.swap(0, Ordering::SeqCst))
    }

    async fn list(&self, _: Option<&Cursor>, _: usize) -> Result<Page<NodeEntry>> {
        unreachable!("who watches over others does not read what they say")
    }

    async fn living(&self, after: Option<&Cursor>, limit: usize) -> Result<Page<LivingNode>> {
        let after: usize = after.map_or(0, |cursor| cursor.as_str().parse().unwrap());
        let living = lock(&self.living);
        let end = living.len().min(after + limit);
        let next = (end < living.len()).then(|| Cursor::new(end.to_string()));
        Ok(Page::new(living[after..end].to_vec(), next))
    }
}

fn environment() -> Environment {
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(1)));
    Environment::new(clock, random, Spawner::current(), "node-1")
}

async fn joined() -> (Environment, Arc<Told>, Membership) {
    joined_to(Told::default()).await
}

async fn joined_to(store: Told) -> (Environment, Arc<Told>, Membership) {
    let (environment, store) = (environment(), Arc::new(store));
    let config = MembershipConfig::default();
    let membership = Membership::join(&environment, store.clone(), "orders", config)
        .await
        .unwrap();
    (environment, store, membership)
}

fn left(environment: &Environment) -> Duration {
    environment
        .life
        .until()
        .saturating_sub(environment.clock.monotonic())
}

#[tokio::test(start_paused = true)]
async fn should_live_for_as_long_as_the_last_accepted_heartbeat_allows() {
    let (environment, store, membership) = joined().await;
    assert_eq!(
        left(&environment),
        54 * SECOND,
        "a margin before the store's 60 s"
    );
    tokio::time::sleep(20 * SECOND).await;
    membership.beat().await.unwrap();
    assert_eq!(left(&environment), 54 * SECOND);
    lock(&store.beats).push_back(Err(Error::new(ErrorKind::Unavailable, "away")));
    tokio::time::sleep(20 * SECOND).await;
    membership.beat().await.unwrap_err();
    assert_eq!(left(&environment), 34 * SECOND, "what failed prolongs nothing");
    tokio::time::sleep(34 * SECOND).await;
    assert!(environment.life.is_over(environment.clock.monotonic()));
}

#[tokio::test(start_paused = true)]
async fn should_leave_and_register_anew_when_it_is_heard_after_its_life_was_over() {
    let (environment, store, membership) = joined().await;
    let asked = environment.ask();
    tokio::time::sleep(54 * SECOND).await;
    assert!(!environment.is_alive());
    // Nobody has given it up: what it held, and has dropped, would be its own for as long as its leases last.
    membership.beat().await.unwrap();
    assert_eq!(store.left.load(Ordering::SeqCst), 1, "which frees what it held");
    assert_eq!(membership.incarnation(), Incarnation::new(2));
    assert_eq!(left(&environment), 54 * SECOND);
    let now = environment.clock.monotonic();
    assert!(!environment.life.allows(asked, now), "a claim of its former life");
    assert!(environment.life.allows(environment.ask(), now));
}

#[tokio::test(start_paused = true)]
async fn should_try_again_to_register_at_its_start_when_the_store_is_away_for_a_moment() {
    let (environment, store, membership) = joined_to(Told {
        refuses: AtomicU64::new(4),
        ..Told::default()
    })
    .await;
    assert_eq!(store.refuses.load(Ordering::SeqCst), 0);
    assert_eq!(membership.incarnation(), Incarnation::new(1));
    assert_eq!(left(&environment), 54 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn should_give_up_its_start_when_the_store_stays_away() {
    let environment = environment();
    let store = Arc::new(Told {
        refuses: AtomicU64::new(u64::MAX),
        ..Told::default()
    });
    let config = MembershipConfig::default();
    let began = environment.clock.monotonic();
    let joining = Membership::join(&environment, store, "orders", config);
    assert_eq!(joining.await.unwrap_err().kind(), ErrorKind::Unavailable);
    let took = environment.clock.monotonic() - began;
    assert!((49 * SECOND..=54 * SECOND).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn should_lose_what_it_held_and_register_anew_when_the_store_gave_it_up() {
    let (environment, store, membership) = joined().await;
    let mut listener = environment.life.listen();
    tokio::time::sleep(SECOND).await;
    let asked = environment.ask();
    assert!(environment.life.allows(asked, asked.at()));
    tokio::time::sleep(SECOND).await;
    lock(&store.beats).push_back(Ok(Beat::Ended));
    membership.beat().await.unwrap();
    listener.woken().await;
    let now = environment.clock.monotonic();
    assert!(!environment.life.allows(asked, now), "a claim of its former life");
    assert!(
        environment.life.allows(environment.ask(), now),
        "what it claims from here on"
    );
    assert_eq!(membership.incarnation(), Incarnation::new(2));
    membership.leave().await.unwrap();
    assert_eq!(store.left.load(Ordering::SeqCst), 2);
    assert!(!environment.is_alive(), "it claims nothing more");
}

#[tokio::test(start_paused = true)]
async fn should_beat_at_its_interval_and_say_what_it_does_when_it_runs() {
    let (environment, store, membership) = joined().await;
    membership.say(|| NodeFacts::new("{\"in_flight\":1}").unwrap());
    let stop = CancellationToken::new();
    let running = membership.run(stop.clone());
    tokio::time::sleep(101 * SECOND).await;
    stop.cancel();
    running.await.unwrap();
    let beats = lock(&store.facts).clone();
    // Each wait is between half of the interval and the whole.
    assert!((11..=21).contains(&beats.len()), "{} heartbeats", beats.len());
    assert!(
        beats.iter().all(|facts| facts == "{\"in_flight\":1}"),
        "{beats:?}"
    );
    assert!(environment.background.statuses()["heartbeat"].is_healthy());
}

#[tokio::test(start_paused = true)]
async fn should_lose_what_was_asked_for_while_it_registered() {
    let (environment, store, membership) = joined_to(Told {
        registering: 5 * SECOND,
        ..Told::default()
    })
    .await;
    assert_eq!(
        left(&environment),
        49 * SECOND,
        "from when the registration was sent"
    );
    lock(&store.beats).push_back(Ok(Beat::Ended));
    let beating = tokio::spawn(async move { membership.beat().await });
    tokio::time::sleep(2 * SECOND).await;
    assert!(!environment.is_alive(), "nothing is to be claimed meanwhile");
    let meanwhile = environment.ask();
    environment.alive().await;
    beating.await.unwrap().unwrap();
    let now = environment.clock.monotonic();
    assert!(!environment.life.allows(meanwhile, now));
    environment.lost(meanwhile).await;
    assert!(environment.life.allows(environment.ask(), now));
}

#[tokio::test(start_paused = true)]
async fn should_beat_on_when_a_burial_takes_for_ever() {
    let (environment, store, membership) = joined().await;
    store.buries.store(true, Ordering::SeqCst);
    let stop = CancellationToken::new();
    let _running = (membership.run(stop.clone()), membership.run_burials(stop.clone()));
    tokio::time::sleep(101 * SECOND).await;
    let beats = lock(&store.facts).len();
    assert!((11..=21).contains(&beats), "{beats} heartbeats");
    assert!(store.burials.load(Ordering::SeqCst) > 1, "it is tried again");
    let tasks = environment.background.statuses();
    assert!(tasks["heartbeat"].is_healthy());
    let error = tasks["burial"].last_error.clone().unwrap();
    assert!(error.contains("did not answer"), "{error}");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn should_wake_who_waits_for_the_dead_when_it_buries() {
    let (environment, _, membership) = joined().await;
    let mut freed = environment.wakeups.freed().listen();
    membership.bury().await.unwrap();
    freed.woken().await;
}

#[tokio::test(start_paused = true)]
async fn should_wake_who_waits_for_the_dead_when_it_frees_what_was_locked() {
    let (environment, store, membership) = joined().await;
    membership.bury().await.unwrap();
    let mut freed = environment.wakeups.freed().listen();
    store.lives.store(true, Ordering::SeqCst);
    membership.bury().await.unwrap();
    assert!(freed.woken().now_or_never().is_none(), "nothing was freed");
    store.sweeps.store(1, Ordering::SeqCst);
    membership.bury().await.unwrap();
    freed.woken().await;
}

#[tokio::test(start_paused = true)]
async fn should_look_at_every_living_node_when_there_are_more_than_one_page() {
    let (environment, store, membership) = joined().await;
    let living = |number: u64, state| {
        let owner = match number {
            0 => environment.owner,
            other => Owner::from_bits(other.into()),
        };
        LivingNode::new(Incarnation::new(number), owner, "a node", state)
    };
    *lock(&store.living) = (0..2_500)
        .map(|number| living(number, NodeState::Alive))
        .collect();
    membership.bury().await.unwrap();
    assert_eq!(membership.living().await.unwrap().len(), 2_500);
    lock(&store.living)[2_400] = living(2_400, NodeState::Suspected);
    let nodes = membership.living().await.unwrap();
    let told = membership.0.watched.look(environment.owner, &nodes);
    let told: Vec<_> = told
        .iter()
        .map(|(change, node)| (*change, node.incarnation.get()))
        .collect();
    assert_eq!(told, [(Change::Suspected, 2_400)]);
}

#[tokio::test(start_paused = true)]
async fn should_give_up_a_heartbeat_when_the_store_does_not_answer() {
    let (environment, store, membership) = joined().await;
    store.silent.store(true, Ordering::SeqCst);
    let began = environment.clock.monotonic();
    let error = membership.beat().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(environment.clock.monotonic() - began, 10 * SECOND);
}

#[test]
fn should_refuse_times_when_one_is_not_longer_than_the_one_before() {
    MembershipConfig::default().check().unwrap();
    let error = MembershipConfig::default()
        .with_heartbeat(40 * SECOND)
        .with_silence(30 * SECOND, 30 * SECOND)
        .check()
        .unwrap_err();
    for problem in [
        "membership.suspect_after is 30s, it must be longer than membership.heartbeat (40s)",
        "membership.dead_after is 30s, it must be longer than membership.suspect_after (30s)",
    ] {
        assert!(error.to_string().contains(problem), "{error}");
    }
    let four = MembershipConfig::default().with_heartbeat(15 * SECOND);
    four.check().unwrap();
    let error = four
        .with_heartbeat(15 * SECOND + Duration::from_millis(1))
        .check()
        .unwrap_err();
    let problem = "membership.dead_after is 60s, it must be at least 4 times membership.heartbeat (15.001s), which is \
                   60.004s";
    assert!(error.to_string().contains(problem), "{error}");
    let error = MembershipConfig::default()
        .with_heartbeat(Duration::ZERO)
        .check()
        .unwrap_err();
    assert!(error.to_string().contains("the least is 10ms"), "{error}");
}
