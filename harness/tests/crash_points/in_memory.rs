//! A trial in memory, in a process of its own: its members are threads.

use std::time::{Duration, Instant};

use headless::{
    Providers,
    testing::{Ended, on_thread},
};
use tokio::sync::mpsc;

use crate::{
    action::{Spot, Style},
    judge::{Before, judge},
    part::{Manner, Part, Role, lapses, serve},
    place::{BoxError, Place},
    report::Told,
    workload::together,
};

const LEASE: Duration = Duration::from_millis(300);
const DELAY: Duration = Duration::from_millis(900);

/// Runs a trial; says how it went.
pub(crate) async fn run(style: Style, spot: Option<Spot>, manner: Manner) -> Result<Told, BoxError> {
    let providers = Providers::builtin();
    let urls = ["memory:trial".to_owned(), "memory:trial".to_owned()];
    let part = move |role, spot| Part {
        trial: 0,
        role,
        manner,
        style,
        spot,
    };
    let place = Place::connect(&providers, &urls).await?;
    let before = Before::look(&place).await;
    let began = now();
    let (reached, mut is_reached) = mpsc::unbounded_channel();
    let first = {
        let (providers, urls) = (providers.clone(), urls.clone());
        on_thread(async move |crash| {
            let place = Place::connect(&providers, &urls).await?;
            let held = place.clone();
            let arm = || {
                let Some(Spot { point, action }) = spot else {
                    return;
                };
                let end = move || {
                    held.sever();
                    crash.now();
                };
                // Nobody may listen any more.
                let reached = move || {
                    let _told = reached.send(now());
                };
                action.at(point, DELAY, reached, end);
            };
            let served = serve(&place, LEASE, part(Role::First, spot), arm).await;
            if let Some(Spot { point, .. }) = spot {
                // So that nobody waits for a point that is not reached.
                fail::remove(point.name());
            }
            served
        })
    };
    // What the first member had in hand is the second one's.
    let second = async {
        let Some(at) = is_reached.recv().await else {
            return Ok::<_, BoxError>(None);
        };
        let ended = on_thread(async move |_| {
            let place = Place::connect(&providers, &urls).await?;
            serve(&place, LEASE, part(Role::second(spot), None), || ()).await
        });
        match ended.await? {
            Ended::Done(done) => done?,
            Ended::TakenAway => return Err("the second member was taken away".into()),
        }
        Ok(Some(at))
    };
    let (first, second) = tokio::join!(first, second);
    let at = second?;
    if let Ended::Done(done) = first? {
        done?;
    }
    let recovered = at.map(|at| at.elapsed());
    let mut judgement = judge(&place, 0, style, &before, lapses(began.elapsed(), LEASE)).await;
    if style == Style::Batch && together() == 0 {
        judgement
            .broken
            .push("no batch of several was committed".to_owned());
    }
    Ok(Told::of(judgement, recovered))
}

#[expect(clippy::disallowed_methods, reason = "a measurement of the test's own")]
fn now() -> Instant {
    Instant::now()
}
