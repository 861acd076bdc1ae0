//! What a look at a server says of clocks. Everything else that may be wrong is broken for `headless doctor`, in its tests.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use headless_abstractions::{Check, Clock, Condition};
use headless_postgres::Postgres;

use crate::world::World;

/// A clock that is wrong by this much.
#[derive(Debug)]
struct Wrong(headless::SystemClock, TimeDelta);

impl Clock for Wrong {
    fn now(&self) -> DateTime<Utc> {
        self.0.now() + self.1
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

#[tokio::test]
async fn should_tell_how_far_the_clocks_are_apart_when_they_are() {
    World::run(async |world| {
        Postgres::migrate(&world.config()).await.unwrap();
        for (off, condition, text) in [
            (TimeDelta::zero(), Condition::Good, "within 1s"),
            (TimeDelta::hours(1), Condition::Doubtful, "behind ours"),
            (TimeDelta::days(-1), Condition::Doubtful, "ahead of ours"),
        ] {
            let clock = Wrong(headless::SystemClock::new(), off);
            let findings = Postgres::examine(&world.config(), &clock).await;
            let clock = findings.iter().find(|one| one.check == Check::Clock).unwrap();
            assert_eq!(clock.condition, condition, "{findings:#?}");
            assert!(clock.found.contains(text), "{clock:?}");
            assert_eq!(clock.fix.is_some(), condition == Condition::Doubtful);
            let others = findings.iter().filter(|one| one.check != Check::Clock);
            assert!(others.clone().count() >= 6, "{findings:#?}");
            for other in others {
                // Room for connections is the machine's: this server is shared with other tests.
                assert!(
                    other.check == Check::Capacity || other.condition == Condition::Good,
                    "{other:?}"
                );
            }
        }
    })
    .await;
}
