//! A trial on servers: its members are processes.

use std::{
    env,
    io::{Write, stdout},
    process,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use headless::{
    Providers, Sandbox,
    testing::{Ended, in_process},
};
use tokio::{process::Command, sync::mpsc, time::timeout};

use crate::{
    PATIENCE,
    action::{Action, Spot, Style},
    judge::{Before, judge},
    part::{Part, Role, lapses, serve},
    place::{BoxError, Place},
    report::{Told, hits},
};

const LEASE: Duration = Duration::from_secs(1);
/// Longer than the lease, and than it takes to start a member.
const DELAY: Duration = Duration::from_millis(2_500);
/// The most trials of one point.
const TRIES: u32 = 3;
/// What a member says when it has reached its point.
const REACHED: &str = "reached";

/// One process of a trial: connects, does its part and says how often it has reached each point.
pub(crate) async fn member(urls: &[String; 2], part: Part) -> Result<(), BoxError> {
    let place = Place::connect(&Providers::builtin(), urls).await?;
    let arm = || {
        let Some(Spot { point, action }) = part.spot else {
            return;
        };
        let reached = || {
            // Without a listener there is no trial.
            if writeln!(stdout(), "{REACHED}").is_err() {
                process::exit(1);
            }
        };
        action.at(point, DELAY, reached, || process::abort());
    };
    serve(&place, LEASE, part, arm).await?;
    writeln!(stdout(), "{}", serde_json::to_string(&hits())?)?;
    Ok(())
}

/// A place on servers, in which one trial follows the other: making one takes longer than most trials.
pub(crate) struct World {
    sandbox: Sandbox,
    urls: [String; 2],
    trials: u32,
}

/// The worlds that no trial is in.
#[derive(Default)]
pub(crate) struct Worlds(Mutex<Vec<World>>);

impl Worlds {
    /// Runs a trial on these servers. A world in which one has failed is used no more.
    pub(crate) async fn run(
        &self,
        servers: &[String; 2],
        style: Style,
        spot: Option<Spot>,
    ) -> Result<Told, BoxError> {
        let free = self.lock().pop();
        let mut world = match free {
            Some(world) => world,
            None => World::make(servers).await?,
        };
        let mut tries = 0;
        let played = loop {
            world.trials += 1;
            tries += 1;
            let played = match timeout(PATIENCE, play(&world.urls, world.trials, style, spot)).await {
                Ok(played) => played,
                Err(_elapsed) => Err(format!("not done within {PATIENCE:?}").into()),
            };
            // Where the servers were slow, what leads to the point may not have come about: such a trial proves nothing.
            let has_missed = |told: &Told| told.is_sound() && !told.missed(style, spot).is_empty();
            if tries == TRIES || !played.as_ref().is_ok_and(has_missed) {
                break played;
            }
        };
        match &played {
            Ok(told) if told.judged(style, spot).is_ok() => self.lock().push(world),
            _ => world.remove().await?,
        }
        played
    }

    /// Leaves nothing on the servers.
    pub(crate) async fn remove(&self) -> Result<(), BoxError> {
        let worlds = std::mem::take(&mut *self.lock());
        for world in worlds {
            world.remove().await?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<World>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    async fn make(servers: &[String; 2]) -> Result<Self, BoxError> {
        let sandbox = Sandbox::new();
        let [store, transport] = servers;
        let bounds = "max_connections=2&control_connections=1";
        let sign = if store.contains('?') { '&' } else { '?' };
        let bounded = sandbox.url(&format!("{store}{sign}{bounds}"));
        let transport = if transport == store {
            bounded.clone()
        } else {
            sandbox.url(transport)
        };
        let urls = [bounded, transport];
        let place = Place::connect(&Providers::builtin(), &urls).await?;
        place.open().await;
        Ok(Self {
            sandbox,
            urls,
            trials: 0,
        })
    }

    async fn remove(&self) -> Result<(), BoxError> {
        for url in &self.urls {
            self.sandbox.remove(url).await?;
        }
        Ok(())
    }
}

async fn play(urls: &[String; 2], trial: u32, style: Style, spot: Option<Spot>) -> Result<Told, BoxError> {
    let place = Place::connect(&Providers::builtin(), urls).await?;
    let before = Before::look(&place).await;
    let began = now();
    let (told, mut is_told) = mpsc::unbounded_channel();
    let mut first = command(urls, trial, style, spot, Role::First)?;
    let first = in_process(&mut first, async {}, move |line| {
        if line == REACHED {
            // Nobody may listen any more.
            let _told = told.send(now());
        }
        false
    });
    let aborts = spot.is_some_and(|spot| spot.action == Action::Abort);
    let mut second = command(urls, trial, style, None, Role::second(spot))?;
    let second = async {
        let Some(at) = is_told.recv().await else {
            return Ok::<_, BoxError>(None);
        };
        in_process(&mut second, async {}, |_| false).await?;
        Ok(Some(at))
    };
    let (first, second) = tokio::join!(first, second);
    let recovered = second?.map(|at| at.elapsed());
    let hits = match first {
        Ok(Ended::Done(said)) => serde_json::from_str(&said)?,
        // As it was to.
        Err(_aborted) if aborts && recovered.is_some() => Vec::new(),
        Err(failed) => return Err(failed.into()),
        Ok(Ended::TakenAway) => return Err("the first member was killed".into()),
    };
    Ok(Told {
        hits,
        ..Told::of(
            judge(&place, trial, style, &before, lapses(began.elapsed(), LEASE)).await,
            recovered,
        )
    })
}

fn command(
    [store, transport]: &[String; 2],
    trial: u32,
    style: Style,
    spot: Option<Spot>,
    role: Role,
) -> Result<Command, BoxError> {
    let mut command = Command::new(env::current_exe()?);
    let spot = spot.map_or_else(|| "nothing".to_owned(), |spot| spot.to_string());
    let trial = trial.to_string();
    let role = role.name();
    command.args(["member", store, transport, &trial, style.name(), &spot, role]);
    Ok(command)
}

#[expect(clippy::disallowed_methods, reason = "a measurement of the test's own")]
fn now() -> Instant {
    Instant::now()
}
