use headless_abstractions::Epoch;
use headless_core::{Environment, Membership, MembershipConfig, SeededRandom, Spawner, SystemClock};
use headless_memory::Memory;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_mins(10);

fn claim(environment: &Environment) -> Claim {
    Claim::new(environment.new_message_id(), Epoch::new(1))
}

/// A watch that runs, on a node that lives for 54 s from now.
async fn watch() -> (Watch, Environment, Membership) {
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SeededRandom::new(1)));
    let environment = Environment::new(clock, random, Spawner::current(), "ann");
    let store = Arc::new(Memory::new());
    let membership = Membership::join(&environment, store, "orders", MembershipConfig::default());
    let membership = membership.await.unwrap();
    let (clock, life) = (environment.clock.clone(), environment.life.clone());
    let watch = Watch::new(clock, life, LEASE, Planted::default());
    let group = GroupName::parse("billing").unwrap();
    let running = watch
        .clone()
        .run(group, environment.owner, None, CancellationToken::new());
    tokio::spawn(running);
    (watch, environment, membership)
}

#[tokio::test(start_paused = true)]
async fn should_end_a_hold_with_its_life_when_it_was_added_while_the_watch_slept() {
    let (watch, environment, _) = watch().await;
    tokio::time::sleep(30 * SECOND).await;
    let hold = watch.hold(claim(&environment), environment.ask());
    tokio::time::sleep(23 * SECOND).await;
    assert!(!hold.is_lost() && !hold.lost().is_cancelled());
    tokio::time::sleep(SECOND + Duration::from_millis(2)).await;
    assert!(hold.lost().is_cancelled(), "by the watch, in time");
}

#[tokio::test(start_paused = true)]
async fn should_go_on_with_a_hold_when_its_life_is_prolonged() {
    let (watch, environment, membership) = watch().await;
    let hold = watch.hold(claim(&environment), environment.ask());
    tokio::time::sleep(30 * SECOND).await;
    membership.beat().await.unwrap();
    tokio::time::sleep(50 * SECOND).await;
    assert!(!hold.is_lost());
}

#[tokio::test(start_paused = true)]
async fn should_have_lost_a_hold_at_once_when_it_was_asked_for_in_a_former_life() {
    let (watch, environment, membership) = watch().await;
    let asked = environment.ask();
    tokio::time::sleep(61 * SECOND).await;
    // The store has given it up; it registers anew.
    membership.beat().await.unwrap();
    assert!(environment.is_alive());
    let former = watch.hold(claim(&environment), asked);
    assert!(former.is_lost());
    let hold = watch.hold(claim(&environment), environment.ask());
    assert!(!hold.is_lost());
}
