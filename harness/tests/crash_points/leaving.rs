//! Handlers and a broker that take longer than leases, and a member that leaves in the middle of its work.

use std::{borrow::Cow, collections::BTreeSet, future::pending, time::Duration};

use headless::{Builder, Context, Event, HandlerError, HandlerResult, Inbox, Ordered, Runtime};
use headless_core::CrashPoint;
use serde::{Deserialize, Serialize};

use crate::{
    action::{Action, Spot},
    part::{self, APART, OF_A_FAULT, Part, Role, lines, publish_once, until_it_succeeds},
    place::{BoxError, Effect, Place},
    slow::Slow,
    workload::{AUDIT, Note},
};

/// The group that works in units of work, in the order of each key.
pub(crate) const CARRY: &str = "carry";
/// How many parcels there are, and notes.
pub(crate) const PARCELS: u32 = 6;
pub(crate) const NOTES: u32 = 4;

/// The parcel that takes longer than a lease.
const LONG: u32 = 0;
/// The parcel and the note with which the one who leaves is not done.
const STAYS: u32 = 1;
/// The parcel that fails in its first two rounds, so that what was claimed behind it is given back.
const FAILS_TWICE: u32 = 2;
/// The note that the broker has no time for at first, and the one that it takes longer for than a lease.
const REFUSED: u32 = 2;
const DELAYED: u32 = 3;

/// How long the one who leaves waits for its handlers.
const SOON: Duration = Duration::from_millis(50);

/// In the order of its key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Parcel {
    line: u32,
}

impl Parcel {
    const fn which(self) -> u32 {
        self.line % APART
    }

    fn key(self) -> String {
        format!("key-{}", self.which() % 3)
    }
}

impl Event for Parcel {
    const TOPIC: &'static str = "trial.parcels";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Self::key(*self).into())
    }

    fn idempotency_key(&self) -> Option<Cow<'_, str>> {
        Some(self.line.to_string().into())
    }
}

/// The most calls with a message: one for each round that it needs, one more where it may be called before the store says
/// that it stands behind one that is parked, and what a fault costs.
pub(crate) fn most_calls(group: &str, line: u32) -> u64 {
    let needed = match (group, line) {
        (CARRY, FAILS_TWICE) => 3,
        (_, STAYS) => 2,
        (CARRY, line) if line % 3 == FAILS_TWICE => 2,
        _ => 1,
    };
    needed + OF_A_FAULT
}

/// The first member leaves when all is done but what it does not end; whoever comes then, it does the rest.
pub(crate) async fn serve(place: &Place, lease: Duration, part: Part) -> Result<(), BoxError> {
    if part.role == Role::First {
        let runtime = builder(place, lease, true).start().await?;
        publish_all(place, &runtime, part.trial).await;
        until_the_rest_is_done(place, part.trial).await;
        let left = runtime.shutdown(SOON).await;
        if !fails_at_its_stop(part.spot) {
            left?;
        }
    }
    let place = place.again().await?;
    let runtime = builder(&place, lease, false).start().await?;
    if part.role == Role::Successor {
        publish_all(&place, &runtime, part.trial).await;
    }
    runtime.settled(Duration::from_mins(1)).await?;
    runtime.shutdown(Duration::from_secs(20)).await?;
    Ok(())
}

/// Whether the caller of the shutdown is told of an error.
fn fails_at_its_stop(spot: Option<Spot>) -> bool {
    let at_stop = [
        CrashPoint::StopReleasingOutbox,
        CrashPoint::StopReleasedOutbox,
        CrashPoint::StopReleasingInbox,
        CrashPoint::StopReleasedInbox,
        CrashPoint::StopLeaving,
        CrashPoint::StopLeft,
    ];
    spot.is_some_and(|spot| spot.action == Action::Error && at_stop.contains(&spot.point))
}

fn builder(place: &Place, lease: Duration, leaves: bool) -> Builder {
    // Without a renewal it is over before they are done; with one, it is not.
    let long = lease * 6 / 5;
    let transport = Slow::new(place.driver(), long, |message| {
        let line: u32 = message.idempotency_key.as_ref()?.as_str().parse().ok()?;
        (message.topic.as_str() == Note::TOPIC).then_some(line % APART)
    });
    let (carry_in, audit_in) = (place.clone(), place.clone());
    let carry = part::group(CARRY, lease).ordered_by_key();
    let carry = carry.on(move |parcel: Parcel, cx| {
        let place = carry_in.clone();
        async move { carry_one(&place, parcel, &cx, leaves, long).await }
    });
    let audit = part::group(AUDIT, lease).inbox(Inbox::Around);
    let audit = audit.on(move |note: Note, _| {
        let place = audit_in.clone();
        async move {
            place.count_call(AUDIT, &[note.line]).await?;
            if leaves && note.line % APART == STAYS {
                return pending().await;
            }
            let effect = effect(AUDIT, note.line, String::new());
            place.write_alone(&effect).await.map_err(HandlerError::retry)
        }
    });
    part::builder(place, lease)
        .transport(transport.refusing(REFUSED).delaying(DELAYED))
        .topic::<Parcel>(Ordered::partitions(2))
        .topic::<Note>(Ordered::no())
        .consumer(carry)
        .consumer(audit)
}

async fn carry_one(
    place: &Place,
    parcel: Parcel,
    cx: &Context,
    leaves: bool,
    long: Duration,
) -> HandlerResult {
    place.count_call(CARRY, &[parcel.line]).await?;
    match parcel.which() {
        LONG => tokio::time::sleep(long).await,
        STAYS if leaves => return pending().await,
        // Until what is behind it is parked too.
        FAILS_TWICE if cx.attempt().round == 1 => {
            return Err(HandlerError::retry_after(long * 2 / 3, "as planned"));
        }
        FAILS_TWICE if cx.attempt().round == 2 => return Err(HandlerError::retry("as planned")),
        _ => {}
    }
    part::commit_effect(place, cx, &effect(CARRY, parcel.line, parcel.key())).await
}

fn effect(group: &str, line: u32, key: String) -> Effect {
    Effect {
        group: group.to_owned(),
        line,
        key,
    }
}

async fn publish_all(place: &Place, runtime: &Runtime, trial: u32) {
    for line in lines(trial, PARCELS) {
        until_it_succeeds(async || publish_once(place, runtime, line, &Parcel { line }).await).await;
    }
    let publisher = runtime.publisher();
    for line in lines(trial, NOTES) {
        until_it_succeeds(async || Ok(publisher.publish(&Note { line }).await.map(drop)?)).await;
    }
}

/// Waits until all is done but what stays, and what stands behind it.
async fn until_the_rest_is_done(place: &Place, trial: u32) {
    let parcels = lines(trial, PARCELS)
        .filter(|line| line % APART % 3 != STAYS)
        .map(|line| (CARRY.to_owned(), line));
    let notes = lines(trial, NOTES)
        .filter(|line| line % APART != STAYS)
        .map(|line| (AUDIT.to_owned(), line));
    let wanted: BTreeSet<(String, u32)> = parcels.chain(notes).collect();
    loop {
        let effects = place.effects().await.into_iter();
        let done: BTreeSet<_> = effects.map(|effect| (effect.group, effect.line)).collect();
        if wanted.is_subset(&done) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
