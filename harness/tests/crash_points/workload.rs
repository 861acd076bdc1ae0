//! What is published and handled, one by one or several at a time: small, and through every point of that.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use headless::{
    BatchContext, Builder, Context, Event, HandlerError, HandlerResult, Inbox, Memory, Ordered, Postgres,
    PublishExt, Retry, Runtime,
};
use serde::{Deserialize, Serialize};

use crate::{
    action::Style,
    part::{self, APART, Manner, OF_A_FAULT, PREFETCH, Part, lines, until_it_succeeds},
    place::{BoxError, Effect, Place, publish_in_memory, write_in_memory, write_in_postgres},
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
/// The most orders of a batch: few, so that not every one has an order in it which cannot be handled in company.
const TWO: usize = 2;
/// How long a batch waits for company.
const GATHERED: Duration = Duration::from_millis(20);

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

macro_rules! unordered {
    ($($(#[$doc:meta])* $event:ident $topic:literal)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Serialize, Deserialize)]
        pub(crate) struct $event {
            pub(crate) line: u32,
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

/// The most calls with a message: one for each round that it needs, one more where it may be called before the store says
/// that it stands behind one that is parked, and what a [fault costs](OF_A_FAULT).
///
/// Several at a time: each call in company may be followed by one alone, since it fails for the company's sake.
pub(crate) fn most_calls(style: Style, group: &str, line: u32) -> u64 {
    let needed = match group {
        WORK => {
            let order = Order { line };
            let key = order.key();
            let stands_behind = (0..line)
                .map(|line| Order { line })
                .any(|before| before.fate() == Fate::FailsOnce && before.key() == key);
            1 + u64::from(order.fate() == Fate::FailsOnce) + u64::from(stands_behind)
        }
        // Who publishes again publishes it a second time, and without an inbox nobody knows.
        SCRAP => 2,
        _ => 1,
    };
    let ways = match style {
        Style::Batch if group != SCRAP => 2,
        _ => 1,
    };
    ways * (needed + OF_A_FAULT)
}

/// Runs a member.
pub(crate) async fn serve(place: &Place, lease: Duration, part: Part) -> Result<(), BoxError> {
    let runtime = builder(place, lease, part).start().await?;
    if part.publishes() {
        publish_all(place, &runtime, part).await;
    }
    runtime.settled(Duration::from_mins(1)).await?;
    runtime.shutdown(Duration::from_secs(20)).await?;
    Ok(())
}

fn builder(place: &Place, lease: Duration, Part { manner, style, .. }: Part) -> Builder {
    let group = |name| {
        let group = part::group(name, lease);
        if manner == Manner::Insist {
            // Fewer calls than one fault costs over all messages.
            let at_once = Duration::from_millis(1);
            group.retry(Retry::exponential(at_once, at_once).inline(9).rounds(2))
        } else {
            group
        }
    };
    let (work_in, audit_in, scrap_in) = (place.clone(), place.clone(), place.clone());
    let in_order = if manner == Manner::OutOfOrder {
        group(WORK)
    } else {
        group(WORK).ordered_by_key()
    };
    let work = match style {
        Style::Batch => in_order.batch(TWO, GATHERED, move |orders: Vec<Order>, cx| {
            let place = work_in.clone();
            async move { work_together(&place, &orders, &cx, manner).await }
        }),
        _ => in_order.on(move |order: Order, cx| {
            let place = work_in.clone();
            async move { work(&place, order, &cx, manner).await }
        }),
    };
    let around = group(AUDIT).inbox(Inbox::Around);
    let audit = match style {
        Style::Batch => around.batch(PREFETCH.get(), GATHERED, move |notes: Vec<Note>, _| {
            let place = audit_in.clone();
            async move { audit(&place, &notes).await }
        }),
        _ => around.on(move |note: Note, _| {
            let place = audit_in.clone();
            async move { audit(&place, &[note]).await }
        }),
    };
    let scrap = group(SCRAP).inbox(Inbox::Off).on(move |scrap: Scrap, _| {
        let place = scrap_in.clone();
        async move {
            place.count_call(SCRAP, &[scrap.line]).await?;
            Err(HandlerError::permanent("as planned"))
        }
    });
    part::builder(place, lease)
        .any_transport(&place.transport)
        .topic::<Order>(Ordered::partitions(2))
        .topic::<Note>(Ordered::no())
        .topic::<Scrap>(Ordered::no())
        .required_topic::<Stray>(Ordered::no())
        .consumer(work)
        .consumer(audit)
        .consumer(scrap)
}

async fn audit(place: &Place, notes: &[Note]) -> HandlerResult {
    let lines: Vec<u32> = notes.iter().map(|note| note.line).collect();
    place.count_call(AUDIT, &lines).await?;
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
    place.count_call(WORK, &[order.line]).await?;
    match order.fate() {
        Fate::FailsOnce if cx.attempt().round == 1 => return Err(HandlerError::retry("as planned")),
        Fate::Dead if manner == Manner::Swallow => return Ok(()),
        Fate::Dead if manner == Manner::Insist => return Err(HandlerError::retry("as planned")),
        Fate::Dead => return Err(HandlerError::permanent("as planned")),
        Fate::Discarded => return Err(HandlerError::discard("as planned")),
        Fate::FailsOnce | Fate::Handled => {}
    }
    let effect = effect_of(order);
    if manner == Manner::EffectApart {
        let work = cx.begin::<Memory>().await?;
        place.write_alone(&effect).await.map_err(HandlerError::retry)?;
        work.commit().await?;
        return Ok(());
    }
    part::commit_effect(place, cx, &effect).await
}

/// Several in one unit of work. Who cannot be handled takes its company down with it, and then stands alone.
async fn work_together(place: &Place, orders: &[Order], cx: &BatchContext, manner: Manner) -> HandlerResult {
    let lines: Vec<u32> = orders.iter().map(|order| order.line).collect();
    place.count_call(WORK, &lines).await?;
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
        until_it_succeeds(async || publish_order(place, runtime, order, manner).await).await;
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

async fn publish_order(
    place: &Place,
    runtime: &Runtime,
    order: Order,
    manner: Manner,
) -> Result<(), BoxError> {
    if manner != Manner::NoteFirst {
        return part::publish_once(place, runtime, order.line, &order).await;
    }
    let mut work = runtime.begin::<Memory>().await?;
    if publish_in_memory(&mut work, order.line).await? {
        work.commit().await?;
        runtime.publisher().publish(&order).await?;
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
