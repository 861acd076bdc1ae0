//! What is old is removed, and what was handled stays so.

use std::{borrow::Cow, time::Duration};

use headless::{
    Builder, Context, DeadLetterFilter, Event, GroupName, HandlerError, HandlerResult, Ordered, TopicName,
};
use serde::{Deserialize, Serialize};

use crate::{
    part::{self, APART, OF_A_FAULT, Part, Role, lines, publish_once, until_it_succeeds},
    place::{BoxError, Effect, Place},
};

/// The group that works in units of work.
pub(crate) const SHRED: &str = "shred";
/// How many papers there are; the last one dies.
pub(crate) const PAPERS: u32 = 3;
/// When something is old.
const OLD: Duration = Duration::from_millis(10);

/// One that is handled, and old soon.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Paper {
    line: u32,
}

impl Event for Paper {
    const TOPIC: &'static str = "trial.papers";

    fn idempotency_key(&self) -> Option<Cow<'_, str>> {
        Some(self.line.to_string().into())
    }
}

/// The most calls with a message: one, and what a fault costs. Whoever was taken away had settled everything.
pub(crate) const fn most_calls(_line: u32) -> u64 {
    1 + OF_A_FAULT
}

/// The papers of a trial that are handled, each once.
pub(crate) fn handled(trial: u32) -> impl Iterator<Item = u32> {
    lines(trial, PAPERS - 1)
}

/// Everything is handled and settled first; then it is old, and removed.
pub(crate) async fn serve(
    place: &Place,
    lease: Duration,
    part: Part,
    arm: impl FnOnce(),
) -> Result<(), BoxError> {
    let runtime = builder(place, lease).start().await?;
    if part.publishes() {
        for line in lines(part.trial, PAPERS) {
            until_it_succeeds(async || publish_once(place, &runtime, line, &Paper { line }).await).await;
        }
    }
    runtime.settled(Duration::from_mins(1)).await?;
    runtime.shutdown(Duration::from_secs(20)).await?;
    // What has shut down has closed its handles.
    let place = place.again().await?;
    let left = kept(&place).await?;
    if part.role == Role::First && left != (u64::from(PAPERS), 1) {
        return Err(format!("what is young was purged: {left:?} are left").into());
    }

    arm();
    let purging = builder(&place, lease)
        .purge_interval(Duration::from_millis(50))
        .keep_marks(OLD)
        .keep_outbox_history(OLD)
        .keep_dead_letters(OLD);
    let runtime = purging.start().await?;
    while kept(&place).await? != (0, 0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    runtime.settled(Duration::from_mins(1)).await?;
    runtime.shutdown(Duration::from_secs(20)).await?;
    Ok(())
}

fn builder(place: &Place, lease: Duration) -> Builder {
    let shred_in = place.clone();
    let shred = part::group(SHRED, lease).on(move |paper: Paper, cx: Context| {
        let place = shred_in.clone();
        async move { shred(&place, paper, &cx).await }
    });
    part::builder(place, lease)
        .any_transport(&place.transport)
        .topic::<Paper>(Ordered::no())
        .consumer(shred)
}

async fn shred(place: &Place, paper: Paper, cx: &Context) -> HandlerResult {
    place.count_call(SHRED, &[paper.line]).await?;
    if paper.line % APART == PAPERS - 1 {
        return Err(HandlerError::permanent("as planned"));
    }
    let effect = Effect {
        group: SHRED.to_owned(),
        line: paper.line,
        key: String::new(),
    };
    part::commit_effect(place, cx, &effect).await
}

/// How many rows the inbox has of the group, and how many of its messages are dead letters.
async fn kept(place: &Place) -> Result<(u64, usize), BoxError> {
    let group = GroupName::parse(SHRED)?;
    let stats = place.inbox().queries.stats(Some(&group)).await?;
    let mut filter = DeadLetterFilter::open().with_topic(TopicName::parse(Paper::TOPIC)?);
    filter.with_closed = true;
    let letters = place.store.dead_letters()?.list(&filter, None, 1_000).await?;
    let rows = stats.running + stats.parked + stats.processed + stats.dead + stats.discarded;
    Ok((rows, letters.items.len()))
}
