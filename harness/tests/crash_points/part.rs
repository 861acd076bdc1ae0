//! What a member does in a trial, and what all of them have in common.

use std::{num::NonZeroUsize, time::Duration};

use headless::{
    Backoff, Builder, Consumer, Environment, Event, Headless, Memory, Postgres, Preset, PublishExt, Retry,
    Runtime, Spawner,
};

use crate::{
    action::{Action, Spot, Style},
    leaving, operator,
    place::{BoxError, Effect, Place, publish_in_memory, publish_in_postgres, write_in_memory},
    place::{Calls, write_in_postgres},
    purging, workload,
};

/// Lines of different trials on the same servers are this far apart.
pub(crate) const APART: u32 = 1_000;
/// The most deliveries that a subscription has in its hands.
pub(crate) const PREFETCH: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// The calls of a handler with one message that the one fault of a trial may cost. What a relay had in its hands is sent
/// again, and what a consumer had in its hands is delivered again: one message may be in both, and neither comes a third
/// time, since what sends and delivers it then has no fault.
pub(crate) const OF_A_FAULT: u64 = 2;

/// How many leases a trial takes at most on a machine that has time for it, and how many more are allowed for.
const USUAL: u128 = 5;
const MOST_LAPSES: u64 = 6;

/// How often what is held may have ended though nothing is broken, in a trial that took this long: where the machine is
/// busy with something else, once in a lease at most. Not more often than a few times, so that who tries again and again
/// is found however slowly that goes.
pub(crate) fn lapses(took: Duration, lease: Duration) -> u64 {
    let leases = (took.as_nanos() / lease.as_nanos()).saturating_sub(USUAL);
    u64::try_from(leases).map_or(MOST_LAPSES, |leases| leases.min(MOST_LAPSES))
}

/// How an application uses what there is: as it should, or so that the trials have to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Careful,
    /// Its effects are outside of their unit of work.
    EffectApart,
    /// It notes that it has published, and publishes then.
    NoteFirst,
    /// It commits what it was to give up.
    RollBackLate,
    /// It does not ask for the order of keys.
    OutOfOrder,
    /// It takes what cannot be handled for done.
    Swallow,
    /// It tries again, and at once, what cannot be handled.
    Insist,
    /// Of several at a time it handles the first alone.
    FirstAlone,
    /// It does not look whether a dead letter was redriven, and sends its message anew.
    SendAnew,
}

impl Manner {
    pub(crate) fn parse(name: &str) -> Self {
        match name {
            "effect_apart" => Self::EffectApart,
            "note_first" => Self::NoteFirst,
            "out_of_order" => Self::OutOfOrder,
            "swallow" => Self::Swallow,
            "insist" => Self::Insist,
            "first_alone" => Self::FirstAlone,
            "roll_back_late" => Self::RollBackLate,
            "send_anew" => Self::SendAnew,
            _ => Self::Careful,
        }
    }
}

/// Which of the members of a trial it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one to which something happens.
    First,
    /// It does what the first one has not done, which was taken away.
    Successor,
    /// It is there while the first one stands still.
    Helper,
}

impl Role {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Successor => "successor",
            Self::Helper => "helper",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::First, Self::Successor, Self::Helper]
            .into_iter()
            .find(|role| role.name() == name)
    }

    /// Of the second member, when this happens to the first one.
    pub(crate) const fn second(spot: Option<Spot>) -> Self {
        match spot {
            Some(Spot {
                action: Action::Abort,
                ..
            }) => Self::Successor,
            _ => Self::Helper,
        }
    }
}

/// What a member does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The number of the trial on its servers.
    pub(crate) trial: u32,
    pub(crate) role: Role,
    pub(crate) manner: Manner,
    pub(crate) style: Style,
    /// What happens to it.
    pub(crate) spot: Option<Spot>,
}

impl Part {
    pub(crate) fn publishes(self) -> bool {
        self.role != Role::Helper
    }
}

/// Runs a member until everything is settled that it publishes, or that waits already. `arm` is called where its point is
/// to be broken from.
pub(crate) async fn serve(
    place: &Place,
    lease: Duration,
    part: Part,
    arm: impl FnOnce(),
) -> Result<(), BoxError> {
    match part.style {
        Style::Single | Style::Batch => {
            arm();
            workload::serve(place, lease, part).await
        }
        Style::Leaving => {
            arm();
            leaving::serve(place, lease, part).await
        }
        Style::Operator => {
            arm();
            operator::serve(place, lease, part).await
        }
        Style::Purging => purging::serve(place, lease, part, arm).await,
    }
}

/// What was called more often than its messages were to be, in words. The bound is one of each message, so that none can
/// be tried again and again where others need few calls.
pub(crate) fn called_too_often(style: Style, calls: &Calls, lapses: u64) -> Vec<String> {
    let too_often = calls.iter().filter_map(|((group, line), count)| {
        let line = line % APART;
        let most = match style {
            Style::Single | Style::Batch => workload::most_calls(style, group, line),
            Style::Leaving => leaving::most_calls(group, line),
            Style::Operator => operator::most_calls(line),
            Style::Purging => purging::most_calls(line),
        };
        let most = most + lapses;
        (*count > most)
            .then(|| format!("{group} was called {count} times with line {line}, the most are {most}"))
    });
    too_often.collect()
}

/// A group of the trial, without its handlers.
pub(crate) fn group(name: &str, lease: Duration) -> Consumer {
    Consumer::group(name)
        .lease(lease)
        .visibility(lease)
        .prefetch(PREFETCH)
        .park_poll(Duration::from_millis(100))
        .retry(Retry::exponential(Duration::from_millis(50), Duration::from_millis(100)).inline(0))
}

/// Even its renewals run on the runtime of the caller, and stop with it.
pub(crate) fn builder(place: &Place, lease: Duration) -> Builder {
    let soon = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(50));
    Headless::builder("trial")
        .environment(Environment::system(Spawner::current(), "trial"))
        .any_store(&place.store)
        .preset(Preset::Development)
        .relay_lease(lease)
        .relay_attempts(2)
        .relay_backoff(soon)
}

/// Publishes an event in a unit of work, whoever does it: once.
pub(crate) async fn publish_once<M: Event>(
    place: &Place,
    runtime: &Runtime,
    line: u32,
    event: &M,
) -> Result<(), BoxError> {
    if place.postgres().is_some() {
        let mut work = runtime.begin::<Postgres>().await?;
        if publish_in_postgres(place, &mut work, line).await? {
            work.publish(event).await?;
            work.commit().await?;
        }
    } else {
        let mut work = runtime.begin::<Memory>().await?;
        if publish_in_memory(&mut work, line).await? {
            work.publish(event).await?;
            work.commit().await?;
        }
    }
    Ok(())
}

/// Writes an effect in the unit of work of its handler, and commits it.
pub(crate) async fn commit_effect(
    place: &Place,
    cx: &headless::Context,
    effect: &Effect,
) -> headless::HandlerResult {
    if place.postgres().is_some() {
        let mut work = cx.begin::<Postgres>().await?;
        let written = write_in_postgres(place, &mut work, effect).await;
        written.map_err(headless::HandlerError::retry)?;
        work.commit().await?;
    } else {
        let mut work = cx.begin::<Memory>().await?;
        write_in_memory(&mut work, effect).await?;
        work.commit().await?;
    }
    Ok(())
}

/// The first lines of a trial.
pub(crate) fn lines(trial: u32, count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(move |line| trial * APART + line)
}

/// Whether a line is of this trial.
pub(crate) const fn is_of(trial: u32, line: u32) -> bool {
    line / APART == trial
}

pub(crate) async fn until_it_succeeds(what: impl AsyncFn() -> Result<(), BoxError>) {
    while what().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
