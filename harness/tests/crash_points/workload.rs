//! What is published and handled: small, and through every point.

use std::{
    borrow::Cow,
    num::NonZeroUsize,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use headless::{
    Backoff, BatchContext, Builder, Consumer, Context, Environment, Event, HandlerError, HandlerResult,
    Headless, Inbox, Memory, Ordered, Postgres, Preset, PublishExt, Retry, Runtime, Spawner,
};
use serde::{Deserialize, Serialize};

use crate::{
    action::Style,
    place::{
        BoxError, Effect, Place, publish_in_memory, publish_in_postgres, write_in_memory, write_in_postgres,
    },
};

/// The group that works in units of work, in the order of each key.
pub(crate) const WORK: &str = "work";
/// The group whose messages are marked after its handler.
pub(crate) const AUDIT: &str = "audit";
/// The group without a store, which sends what it cannot handle to the dead topic.
pub(crate) const SCRAP: &str = "scrap";
/// Where that waits for somebody.
pub(crate) const DEAD_LETTERS: &str = "dead-letters";

/// How many orders there are, and notes.
pub(crate) const ORDERS: u32 = 12;
pub(crate) const NOTES: u32 = 4;
/// Lines of different trials on the same servers are this far apart.
const APART: u32 = 1_000;
const PREFETCH: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// The most orders of a batch: few, so that not every one has an order in it which cannot be handled in company.
const TWO: usize = 2;
/// How long a batch waits for company.
const GATHERED: Duration = Duration::from_millis(20);

/// The calls of handlers where nothing happens: each order and note, the order that fails once, the two that stand behind
/// it, which are called before the store says so, and the scrap.
///
/// Several at a time: at most one call more for each order, whose batch has failed and which goes alone then.
const CALLS: u64 = (ORDERS + NOTES) as u64 + 1 + 2 + 1;
/// The most calls for the one fault: all that a member may have in its hands of each of its three subscriptions comes again,
/// and is called before the store says where it stands; and who publishes again publishes notes and scrap a second time.
pub(crate) const MOST_CALLS: u64 = CALLS + 2 * 3 * PREFETCH.get() as u64 + NOTES as u64 + 1;

static TOGETHER: AtomicU64 = AtomicU64::new(0);

/// What becomes of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fate {
    Handled,
    /// Handled in its second round, after it was parked.
    FailsOnce,
    Dead,
    Discarded,
}

/// In the order of its key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) line: u32,
}

impl Order {
    pub(crate) fn all(trial: u32) -> impl Iterator<Item = Self> {
        lines(trial, ORDERS).map(|line| Self { line })
    }

    /// One that is published in a unit of work which is given up. Nothing of it may ever be seen.
    pub(crate) const fn rolled_back(trial: u32) -> Self {
        Self {
            line: trial * APART + ORDERS,
        }
    }

    pub(crate) fn fate(self) -> Fate {
        match self.line % APART {
            4 => Fate::FailsOnce,
            7 => Fate::Dead,
            9 => Fate::Discarded,
            _ => Fate::Handled,
        }
    }

    pub(crate) fn key(self) -> String {
        format!("key-{}", self.line % APART % 3)
    }
}

impl Event for Order {
    const TOPIC: &'static str = "trial.orders";

    fn key(&self) -> Option<Cow<'_, str>> {
        Some(Order::key(*self).into())
    }

    fn idempotency_key(&self) -> Option<Cow<'_, str>> {
        Some(self.line.to_string().into())
    }
}

/// The first lines of a trial.
pub(crate) fn lines(trial: u32, count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(move |line| trial * APART + line)
}

/// Whether a line is of this trial.
pub(crate) const fn is_of(trial: u32, line: u32) -> bool {
    line / APART == trial
}

macro_rules! unordered {
    ($($(#[$doc:meta])* $event:ident $topic:literal)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
        struct $event {
            line: u32,
        }

        impl Event for $event {
            const TOPIC: &'static str = $topic;

            fn idempotency_key(&self) -> Option<Cow<'_, str>> {
                Some(self.line.to_string().into())
            }
        }
    )*};
}

unordered! {
    /// Handled without a unit of work.
    Note "trial.notes"
    /// Refused by the broker: nobody takes it, and it is required.
    Stray "trial.strays"
    /// Never handled, by a group that has no store.
    Scrap "trial.scrap"
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
}

/// What a member does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The number of the trial on its servers.
    pub(crate) trial: u32,
    pub(crate) publishes: bool,
    pub(crate) manner: Manner,
    pub(crate) style: Style,
}

/// Runs a member until everything is settled that it publishes, or that waits already.
pub(crate) async fn serve(place: &Place, lease: Duration, part: Part) -> Result<(), BoxError> {
    let runtime = builder(place, lease, part).start().await?;
    if part.publishes {
        publish_all(place, &runtime, part).await;
    }
    runtime.settled(Duration::from_mins(1)).await?;
    runtime.shutdown(Duration::from_secs(20)).await?;
    Ok(())
}

/// Even its renewals run on the runtime of the caller, and stop with it.
fn builder(place: &Place, lease: Duration, Part { manner, style, .. }: Part) -> Builder {
    let soon = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(50));
    let retry = Retry::exponential(Duration::from_millis(50), Duration::from_millis(100));
    let retry = if manner == Manner::Insist {
        retry.inline(20).rounds(2)
    } else {
        retry.inline(0)
    };
    let group = |name| {
        Consumer::group(name)
            .lease(lease)
            .visibility(lease)
            .prefetch(PREFETCH)
            .park_poll(Duration::from_millis(100))
            .retry(retry)
    };
    let (work_in, audit_in, scrap_in) = (place.clone(), place.clone(), place.clone());
    let in_order = if manner == Manner::OutOfOrder {
        group(WORK)
    } else {
        group(WORK).ordered_by_key()
    };
    let work = match style {
        Style::Single => in_order.on(move |order: Order, cx| {
            let place = work_in.clone();
            async move { work(&place, order, &cx, manner).await }
        }),
        Style::Batch => in_order.batch(TWO, GATHERED, move |orders: Vec<Order>, cx| {
            let place = work_in.clone();
            async move { work_together(&place, &orders, &cx, manner).await }
        }),
    };
    let around = group(AUDIT).inbox(Inbox::Around);
    let audit = match style {
        Style::Single => around.on(move |note: Note, _| {
            let place = audit_in.clone();
            async move { audit(&place, &[note]).await }
        }),
        Style::Batch => around.batch(PREFETCH.get(), GATHERED, move |notes: Vec<Note>, _| {
            let place = audit_in.clone();
            async move { audit(&place, &notes).await }
        }),
    };
    let scrap = group(SCRAP).inbox(Inbox::Off).on(move |_: Scrap, _| {
        let place = scrap_in.clone();
        async move {
            place.count_call().await.map_err(HandlerError::retry)?;
            Err(HandlerError::permanent("as planned"))
        }
    });
    Headless::builder("trial")
        .environment(Environment::system(Spawner::current(), "trial"))
        .any_store(&place.store)
        .any_transport(&place.transport)
        .topic::<Order>(Ordered::partitions(2))
        .topic::<Note>(Ordered::no())
        .topic::<Scrap>(Ordered::no())
        .required_topic::<Stray>(Ordered::no())
        .consumer(work)
        .consumer(audit)
        .consumer(scrap)
        .preset(Preset::Development)
        .relay_lease(lease)
        .relay_attempts(2)
        .relay_backoff(soon)
}

async fn audit(place: &Place, notes: &[Note]) -> HandlerResult {
    place.count_call().await.map_err(HandlerError::retry)?;
    for note in notes {
        let effect = Effect {
            group: AUDIT.to_owned(),
            line: note.line,
            key: String::new(),
        };
        place.write_alone(&effect).await.map_err(HandlerError::retry)?;
    }
    Ok(())
}

async fn work(place: &Place, order: Order, cx: &Context, manner: Manner) -> HandlerResult {
    place.count_call().await.map_err(HandlerError::retry)?;
    match order.fate() {
        Fate::FailsOnce if cx.attempt().round == 1 => return Err(HandlerError::retry("as planned")),
        Fate::Dead if manner == Manner::Swallow => return Ok(()),
        Fate::Dead if manner == Manner::Insist => return Err(HandlerError::retry("as planned")),
        Fate::Dead => return Err(HandlerError::permanent("as planned")),
        Fate::Discarded => return Err(HandlerError::discard("as planned")),
        Fate::FailsOnce | Fate::Handled => {}
    }
    let effect = effect_of(order);
    if place.postgres().is_some() {
        let mut work = cx.begin::<Postgres>().await?;
        let written = write_in_postgres(place, &mut work, &effect).await;
        written.map_err(HandlerError::retry)?;
        work.commit().await?;
    } else {
        let mut work = cx.begin::<Memory>().await?;
        if manner == Manner::EffectApart {
            place.write_alone(&effect).await.map_err(HandlerError::retry)?;
        } else {
            write_in_memory(&mut work, &effect).await?;
        }
        work.commit().await?;
    }
    Ok(())
}

/// Several in one unit of work. Who cannot be handled takes its company down with it, and then stands alone.
async fn work_together(place: &Place, orders: &[Order], cx: &BatchContext, manner: Manner) -> HandlerResult {
    place.count_call().await.map_err(HandlerError::retry)?;
    match orders {
        [alone] if alone.fate() == Fate::Dead => return Err(HandlerError::permanent("as planned")),
        [alone] if alone.fate() == Fate::Discarded => return Err(HandlerError::discard("as planned")),
        [_] => {}
        _ if orders.iter().any(|order| order.fate() != Fate::Handled) => {
            return Err(HandlerError::retry("not in company"));
        }
        _ => {}
    }
    if place.postgres().is_some() {
        let mut work = cx.begin::<Postgres>().await?;
        for order in orders {
            let written = write_in_postgres(place, &mut work, &effect_of(*order)).await;
            written.map_err(HandlerError::retry)?;
        }
        work.commit().await?;
    } else {
        let mut work = cx.begin::<Memory>().await?;
        let most = if manner == Manner::FirstAlone {
            1
        } else {
            orders.len()
        };
        for order in orders.iter().take(most) {
            write_in_memory(&mut work, &effect_of(*order)).await?;
        }
        work.commit().await?;
    }
    if orders.len() > 1 {
        TOGETHER.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// How many batches of several this process has committed.
pub(crate) fn together() -> u64 {
    TOGETHER.load(Relaxed)
}

fn effect_of(order: Order) -> Effect {
    Effect {
        group: WORK.to_owned(),
        line: order.line,
        key: order.key(),
    }
}

/// Publishes everything, each until it succeeds. Orders are published once, whoever does it; of the others a second one
/// is known by its idempotency key, where there is somebody to know it.
async fn publish_all(place: &Place, runtime: &Runtime, Part { trial, manner, .. }: Part) {
    until_it_succeeds(async || give_up(place, runtime, Order::rolled_back(trial), manner).await).await;
    for order in Order::all(trial) {
        until_it_succeeds(async || publish_once(place, runtime, order, manner).await).await;
    }
    let publisher = runtime.publisher();
    for line in lines(trial, NOTES) {
        until_it_succeeds(async || Ok(publisher.publish(&Note { line }).await.map(drop)?)).await;
    }
    for line in lines(trial, 1) {
        until_it_succeeds(async || Ok(publisher.publish(&Stray { line }).await.map(drop)?)).await;
        until_it_succeeds(async || Ok(publisher.publish(&Scrap { line }).await.map(drop)?)).await;
    }
}

async fn publish_once(
    place: &Place,
    runtime: &Runtime,
    order: Order,
    manner: Manner,
) -> Result<(), BoxError> {
    if place.postgres().is_some() {
        let mut work = runtime.begin::<Postgres>().await?;
        if publish_in_postgres(place, &mut work, order.line).await? {
            work.publish(&order).await?;
            work.commit().await?;
        }
    } else {
        let mut work = runtime.begin::<Memory>().await?;
        let is_new = publish_in_memory(&mut work, order.line).await?;
        if is_new && manner == Manner::NoteFirst {
            work.commit().await?;
            runtime.publisher().publish(&order).await?;
        } else if is_new {
            work.publish(&order).await?;
            work.commit().await?;
        }
    }
    Ok(())
}

/// Publishes in a unit of work that is given up.
async fn give_up(place: &Place, runtime: &Runtime, order: Order, manner: Manner) -> Result<(), BoxError> {
    if place.postgres().is_some() {
        let mut work = runtime.begin::<Postgres>().await?;
        work.publish(&order).await?;
        work.rollback().await?;
    } else {
        let mut work = runtime.begin::<Memory>().await?;
        work.publish(&order).await?;
        if manner == Manner::RollBackLate {
            work.commit().await?;
        } else {
            work.rollback().await?;
        }
    }
    Ok(())
}

async fn until_it_succeeds(what: impl AsyncFn() -> Result<(), BoxError>) {
    while what().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
