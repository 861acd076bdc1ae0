//! An operator mends and discards dead letters; and messages go straight to the broker.

use std::{borrow::Cow, time::Duration};

use headless::{
    Builder, Change, Context, DeadLetter, DeadLetterFilter, DeadLetters, Edit, Event, GroupName,
    HandlerError, HandlerResult, Ordered, Redrive, Runtime, TopicName,
};
use headless_abstractions::InboxState;
use serde::{Deserialize, Serialize};

use crate::{
    part::{self, APART, Manner, OF_A_FAULT, Part, Role, is_of, lines, publish_once, until_it_succeeds},
    place::{BoxError, Effect, Place},
};

/// The group that works in units of work.
pub(crate) const MEND: &str = "mend";
const OPERATOR: &str = "ann";

/// How many tasks go through the outbox, and which of them die.
const STORED: u32 = 5;
const MENDED: [u32; 2] = [1, 2];
const DISCARDED: [u32; 2] = [3, 4];
/// The ones that go straight to the broker.
const DIRECT: [u32; 2] = [5, 6];

/// One that can be handled once it is mended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Task {
    line: u32,
    mended: bool,
}

impl Task {
    const fn new(line: u32) -> Self {
        Self { line, mended: false }
    }

    fn read(letter: &DeadLetter) -> Result<Self, BoxError> {
        Ok(serde_json::from_slice(&letter.message.payload)?)
    }

    fn which(self) -> u32 {
        self.line % APART
    }
}

impl Event for Task {
    const TOPIC: &'static str = "trial.tasks";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some((self.which() % 2).to_string().into())
    }

    fn idempotency_key(&self) -> Option<Cow<'_, str>> {
        Some(self.line.to_string().into())
    }
}

/// The most calls with a message: one, one more after it was redriven, and what a fault costs.
pub(crate) fn most_calls(line: u32) -> u64 {
    1 + u64::from(MENDED.contains(&line)) + OF_A_FAULT
}

/// The tasks of a trial that are handled, each once.
pub(crate) fn handled(trial: u32) -> impl Iterator<Item = u32> {
    let which = [0].into_iter().chain(MENDED).chain(DIRECT);
    which.map(move |line| trial * APART + line)
}

pub(crate) async fn serve(place: &Place, lease: Duration, part: Part) -> Result<(), BoxError> {
    if part.role == Role::Successor {
        // What was taken away in the middle of a change has made it whole, or not at all.
        let _letters = whole(place, part.trial).await?;
    }
    let runtime = builder(place, lease).start().await?;
    if part.publishes() {
        publish_all(place, &runtime, part.trial).await;
    }
    let letters = runtime.dead_letters().ok_or("the store keeps dead letters")?;
    loop {
        match operate(&letters, &runtime, part).await {
            Ok(true) => break,
            // An operator who was told of an error looks again.
            Ok(false) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    runtime.settled(Duration::from_mins(1)).await?;
    runtime.shutdown(Duration::from_secs(20)).await?;
    // What has shut down has closed its handles.
    closed(&place.again().await?, part.trial).await
}

fn builder(place: &Place, lease: Duration) -> Builder {
    let mend_in = place.clone();
    let mend = part::group(MEND, lease).on(move |task: Task, cx: Context| {
        let place = mend_in.clone();
        async move { mend(&place, task, &cx).await }
    });
    part::builder(place, lease)
        .any_transport(&place.transport)
        .topic::<Task>(Ordered::no())
        .consumer(mend)
}

async fn mend(place: &Place, task: Task, cx: &Context) -> HandlerResult {
    place.count_call(MEND, &[task.line]).await?;
    let dies = MENDED.contains(&task.which()) || DISCARDED.contains(&task.which());
    if dies && !task.mended {
        return Err(HandlerError::permanent("as planned"));
    }
    let effect = Effect {
        group: MEND.to_owned(),
        line: task.line,
        key: String::new(),
    };
    part::commit_effect(place, cx, &effect).await
}

async fn publish_all(place: &Place, runtime: &Runtime, trial: u32) {
    for line in lines(trial, STORED) {
        until_it_succeeds(async || publish_once(place, runtime, line, &Task::new(line)).await).await;
    }
    let direct = runtime.publisher().direct();
    for line in DIRECT.map(|line| trial * APART + line) {
        until_it_succeeds(async || Ok(direct.publish(&Task::new(line)).await.map(drop)?)).await;
    }
}

/// All dead letters of a trial.
async fn of_trial(letters: &DeadLetters, trial: u32) -> Result<Vec<DeadLetter>, BoxError> {
    let mut filter = DeadLetterFilter::open().with_topic(TopicName::parse(Task::TOPIC)?);
    filter.with_closed = true;
    let mut found = Vec::new();
    for letter in letters.list(&filter, None, 1_000).await?.items {
        if is_of(trial, Task::read(&letter)?.line) {
            found.push(letter);
        }
    }
    Ok(found)
}

/// Does what there is to do now; true when nothing is left.
async fn operate(letters: &DeadLetters, runtime: &Runtime, part: Part) -> Result<bool, BoxError> {
    let found = of_trial(letters, part.trial).await?;
    let (mut redriven, mut discarded) = (Vec::new(), Vec::new());
    for letter in found.iter().filter(|letter| letter.is_open()) {
        let task = Task::read(letter)?;
        if DISCARDED.contains(&task.which()) {
            discarded.push(letter.id);
        } else if letter.edits == 0 {
            let payload = serde_json::to_vec(&Task { mended: true, ..task })?;
            let edit = Edit::new(letter.id, payload.into(), OPERATOR).with_seen(0);
            letters.edit(&edit).await?;
        } else {
            redriven.push(letter.id);
            if part.manner == Manner::SendAnew {
                let mut anew = runtime.publisher().direct().message(Task::TOPIC, &task);
                anew = anew.key(task.which() % 2);
                anew.send().await?;
            }
        }
    }
    if !redriven.is_empty() {
        letters.redrive(&Redrive::new(redriven, OPERATOR)).await?;
    }
    if !discarded.is_empty() {
        letters.discard(&discarded, OPERATOR).await?;
    }
    let closed = found.iter().filter(|letter| !letter.is_open()).count();
    Ok(closed == MENDED.len() + DISCARDED.len())
}

/// Each change of a dead letter is whole: its payload, its history and the row of its message say the same.
async fn whole(place: &Place, trial: u32) -> Result<Vec<(DeadLetter, InboxState)>, BoxError> {
    let letters = place.store.dead_letters()?;
    let group = GroupName::parse(MEND)?;
    let mut found = Vec::new();
    for letter in of_trial(&letters, trial).await? {
        let history = letters.history(letter.id, None, 1_000).await?.items;
        let count = |is: fn(&Change) -> bool| history.iter().filter(|change| is(&change.what)).count();
        let edited = count(|change| matches!(change, Change::Edited { .. }));
        let redriven = count(|change| matches!(change, Change::Redriven { .. }));
        let discarded = count(|change| matches!(change, Change::Discarded));
        let entry = place.inbox().queries.get(&group, letter.message.id).await?;
        let state = entry.ok_or("a dead letter's message has no row")?.state;
        let is_dead = state == InboxState::Dead;
        let says = (
            Task::read(&letter)?.mended,
            letter.edits,
            letter.redriven.is_some(),
            letter.discarded.is_some(),
            is_dead,
        );
        let wanted = (
            edited == 1,
            u32::try_from(edited)?,
            redriven == 1,
            discarded == 1,
            redriven == 0,
        );
        if says != wanted || edited.max(redriven).max(discarded) > 1 || redriven + discarded > 1 {
            return Err(
                format!("a change is not whole: {letter:?}, {history:?}, its row is {state:?}").into(),
            );
        }
        found.push((letter, state));
    }
    Ok(found)
}

/// Every dead letter was changed once, as the operator wanted it, and none died again.
async fn closed(place: &Place, trial: u32) -> Result<(), BoxError> {
    let mut found = Vec::new();
    for (letter, state) in whole(place, trial).await? {
        let task = Task::read(&letter)?;
        let is_right = if MENDED.contains(&task.which()) {
            (letter.edits, state) == (1, InboxState::Processed) && letter.redriven.is_some()
        } else {
            (letter.edits, state) == (0, InboxState::Dead) && letter.discarded.is_some()
        };
        if !is_right {
            return Err(format!("not as the operator wants it: {letter:?}, its row is {state:?}").into());
        }
        found.push(task.which());
    }
    found.sort_unstable();
    let wanted: Vec<u32> = MENDED.into_iter().chain(DISCARDED).collect();
    if found != wanted {
        return Err(format!("of {wanted:?} these are dead letters: {found:?}").into());
    }
    Ok(())
}
