//! A trial on servers: its members are processes.

use std::{
    env,
    io::{Write, stdout},
    process,
    time::{Duration, Instant},
};

use headless::{
    Providers, Sandbox,
    testing::{Ended, in_process},
};
use tokio::{process::Command, sync::mpsc, time::timeout};

use crate::{
    PATIENCE,
    action::{Action, Spot},
    judge::judge,
    place::{BoxError, Place},
    report::{Told, hits},
    workload::{Manner, serve},
};

const LEASE: Duration = Duration::from_secs(1);
/// Longer than the lease, and than it takes to start a member.
const DELAY: Duration = Duration::from_millis(2_500);
/// What a member says when it has reached its point.
const REACHED: &str = "reached";

/// One process of a trial: connects, does its part and says how often it has reached each point.
pub(crate) async fn member(urls: &[String; 2], spot: Option<Spot>, publishes: bool) -> Result<(), BoxError> {
    let place = Place::connect(&Providers::builtin(), urls).await?;
    if let Some(Spot { point, action }) = spot {
        let reached = || {
            // Without a listener there is no trial.
            if writeln!(stdout(), "{REACHED}").is_err() {
                process::exit(1);
            }
        };
        action.at(point, DELAY, reached, || process::abort());
    }
    serve(&place, LEASE, publishes, Manner::Careful).await?;
    writeln!(stdout(), "{}", serde_json::to_string(&hits())?)?;
    Ok(())
}

/// Runs a trial on these servers, and leaves nothing on them.
pub(crate) async fn run(servers: &[String; 2], spot: Option<Spot>) -> Result<Told, BoxError> {
    let sandbox = Sandbox::new();
    let [store, transport] = servers;
    let bounds = "max_connections=2&control_connections=1";
    let sign = if store.contains('?') { '&' } else { '?' };
    let store = sandbox.url(&format!("{store}{sign}{bounds}"));
    let transport = if transport == &servers[0] {
        store.clone()
    } else {
        sandbox.url(transport)
    };
    let urls = [store, transport];
    let told = timeout(PATIENCE, play(&urls, spot)).await;
    for url in &urls {
        sandbox.remove(url).await?;
    }
    told.map_err(|_| format!("not done within {PATIENCE:?}"))?
}

async fn play(urls: &[String; 2], spot: Option<Spot>) -> Result<Told, BoxError> {
    let place = Place::connect(&Providers::builtin(), urls).await?;
    place.open().await;
    let (told, mut is_told) = mpsc::unbounded_channel();
    let mut first = command(urls, spot, true)?;
    let first = in_process(&mut first, async {}, move |line| {
        if line == REACHED {
            // Nobody may listen any more.
            let _told = told.send(now());
        }
        false
    });
    let aborts = spot.is_some_and(|spot| spot.action == Action::Abort);
    let mut second = command(urls, None, aborts)?;
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
        ..Told::of(judge(&place).await, recovered)
    })
}

fn command(
    [store, transport]: &[String; 2],
    spot: Option<Spot>,
    publishes: bool,
) -> Result<Command, BoxError> {
    let mut command = Command::new(env::current_exe()?);
    let spot = spot.map_or_else(|| "nothing".to_owned(), |spot| spot.to_string());
    let publishes = if publishes { "publishes" } else { "helps" };
    command.args(["member", store, transport, &spot, publishes]);
    Ok(command)
}

#[expect(clippy::disallowed_methods, reason = "a measurement of the test's own")]
fn now() -> Instant {
    Instant::now()
}
