//! The handlers of a simulated group: they do what the script says.

use std::{future::pending, panic::resume_unwind, sync::Arc, time::Duration};

use headless_abstractions::{MessageId, Redelivery, UnitOfWorkStore};
use headless_core::{Backoff, Event, HandlerError, HandlerResult, Retry, State, UnitOfWork};
use headless_messaging::{BatchContext, Consumer, Context, Inbox, PublishExt};
use serde::{Deserialize, Serialize};

use super::{
    chance::Chance,
    history::{Fact, History},
    label::{Label, list},
    regime::Regime,
    script::{End, Fate, Fault, NOTES, ORDERS, STOCK, Script},
    store::{SimStore, SimTx},
};

/// How long messages are held without renewal, by the store and by the transport: short, so that freezes and slow
/// handlers outlast it.
pub(super) const LEASE: Duration = Duration::from_millis(1_000);
const VISIBILITY: Duration = Duration::from_millis(1_500);
/// Longer than the slowest handler, so that only those time out that never end.
const TIMEOUT: Duration = Duration::from_millis(3_000);
/// The most messages of a batch, and how long it waits for them.
const BATCH: (usize, Duration) = (5, Duration::from_millis(30));

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident on $topic:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize, Deserialize)]
        pub(super) struct $name;

        impl Event for $name {
            const TOPIC: &'static str = $topic;
        }
    )*};
}

events! {
    /// An order.
    Order on ORDERS;
    /// A change of stock.
    Stock on STOCK;
    /// A note.
    Note on NOTES;
}

/// The handlers of one group on one node.
#[derive(Clone)]
pub(super) struct Handlers {
    pub(super) group: usize,
    pub(super) node: Arc<str>,
    pub(super) regime: Regime,
    pub(super) script: Arc<Script>,
    pub(super) chance: Arc<Chance>,
    pub(super) history: Arc<History>,
}

/// A call of a handler, of one message or of several.
enum Call {
    Single(Context),
    Batch(BatchContext),
}

impl Call {
    fn ids(&self) -> Vec<MessageId> {
        match self {
            Self::Single(cx) => vec![cx.id()],
            Self::Batch(cx) => cx.messages().iter().map(|message| message.id).collect(),
        }
    }

    /// A unit of work with the marks of the call, or under another form one of its own.
    async fn begin(&self, form: Inbox) -> Result<UnitOfWork<SimTx>, HandlerError> {
        let (store, publisher) = match self {
            Self::Single(cx) if form == Inbox::Transactional => return cx.begin::<SimStore>().await,
            Self::Batch(cx) if form == Inbox::Transactional => return cx.begin::<SimStore>().await,
            Self::Single(cx) => (cx.state::<SimStore>()?, cx.publisher()),
            Self::Batch(cx) => (cx.state::<SimStore>()?, cx.publisher()),
        };
        let outgoing = publisher.outgoing();
        let state = State::new().with(outgoing.clone());
        Ok(UnitOfWork::begun(
            store.begin().await?,
            state,
            outgoing.environment(),
        ))
    }
}

/// A call while it runs, in the eyes of the checker.
struct Acting(Arc<History>, u64);

impl Drop for Acting {
    fn drop(&mut self) {
        self.0.fact(Fact::Ended(self.1));
    }
}

impl Handlers {
    /// The group's consumer. The limits are so high that no message dies that the script did not mean to.
    pub(super) fn consumer(&self) -> Consumer {
        let retry = Retry::exponential(Duration::from_millis(100), Duration::from_millis(800))
            .inline(1)
            .inline_backoff(Backoff::exponential(
                Duration::from_millis(20),
                Duration::from_millis(200),
            ))
            .rounds(200);
        let (orders, stock, notes) = (self.clone(), self.clone(), self.clone());
        let consumer = Consumer::group(self.script.groups[self.group].as_str())
            .on(move |_: Order, cx| orders.clone().handle(Call::Single(cx)))
            .on(move |_: Note, cx| notes.clone().handle(Call::Single(cx)));
        let consumer = if self.regime.batches[self.group] {
            let (most, wait) = BATCH;
            consumer.batch(most, wait, move |_: Vec<Stock>, cx| {
                stock.clone().handle(Call::Batch(cx))
            })
        } else {
            consumer.on(move |_: Stock, cx| stock.clone().handle(Call::Single(cx)))
        };
        let consumer = consumer
            .ordered_by_key()
            .retry(retry)
            .timeout(TIMEOUT)
            .lease(self.regime.lease)
            .visibility(VISIBILITY)
            .park_poll(Duration::from_millis(500));
        self.regime.applied_to(consumer, self.group)
    }

    async fn handle(self, call: Call) -> HandlerResult {
        let ids = call.ids();
        let _acting = self.begin(&call, &ids);
        let outcome = match &*ids {
            [id] => {
                let count = self.script.called(self.group, *id);
                let fate = self.script.fate(self.group, *id);
                self.note(&ids, &format!("call {count} {fate:?}"));
                self.act(&call, *id, count, fate).await
            }
            _ => {
                self.note(&ids, "call");
                self.act_together(&call, &ids).await
            }
        };
        match &outcome {
            Ok(()) => self.note(&ids, "succeeded"),
            Err(error) => self.note(&ids, &format!("failed: {error}")),
        }
        outcome
    }

    fn begin(&self, call: &Call, ids: &[MessageId]) -> Acting {
        let mut number = 0;
        self.history.count(|stats| {
            stats.handler_calls += 1;
            number = stats.handler_calls;
        });
        // Under the transactional form the first deliveries are not held by anybody, and those of batches do not say which
        // they are.
        let must_hold = self.regime.forms[self.group] != Inbox::Transactional
            || matches!(call, Call::Single(cx) if cx.redelivery() != Redelivery::First);
        let group = self.script.groups[self.group].clone();
        let node = self.node.clone();
        self.history
            .fact(Fact::Began(node, group, ids.to_vec(), must_hold, number));
        Acting(self.history.clone(), number)
    }

    async fn act(&self, call: &Call, id: MessageId, count: u32, fate: Fate) -> HandlerResult {
        self.work().await;
        let fault = match fate {
            Fate::Nothing => return Ok(()),
            Fate::Discard => return Err(HandlerError::discard("of no use")),
            Fate::Fails(times, fault) if count <= times => Some(fault),
            _ => None,
        };
        let is_early = fault != Some(Fault::ForgetCommit) && self.chance.happens(5_000);
        match (fault, fate) {
            (Some(fault), _) if is_early => return fail(fault).await,
            (_, Fate::Permanent) if is_early => return Err(HandlerError::permanent("hopeless")),
            (_, Fate::Slow(time)) if is_early => tokio::time::sleep(time).await,
            _ => {}
        }
        let mut work = call.begin(self.regime.forms[self.group]).await?;
        self.work().await;
        work.handled(&self.script.groups[self.group], id).await?;
        if let Some(follow_up) = self.script.follow_up(self.group, id) {
            work.message(NOTES, &Note).id(follow_up).send().await?;
        }
        match (fault, fate) {
            (Some(Fault::ForgetCommit), _) if self.regime.forms[self.group] != Inbox::Transactional => {
                // Nobody but the transactional form can tell that this was forgotten.
                return fail(Fault::Error).await;
            }
            (Some(fault), _) => return fail(fault).await,
            (_, Fate::Permanent) => return Err(HandlerError::permanent("hopeless after all")),
            (_, Fate::Slow(time)) if !is_early => tokio::time::sleep(time).await,
            _ => {}
        }
        work.commit().await?;
        match fate {
            Fate::CommitThenFail if self.regime.forms[self.group] == Inbox::Transactional => {
                Err(HandlerError::retry("failed after the commit"))
            }
            _ => Ok(()),
        }
    }

    /// Several messages go together only if none of them is to be anything but handled.
    async fn act_together(&self, call: &Call, ids: &[MessageId]) -> HandlerResult {
        self.work().await;
        let fates = || ids.iter().map(|id| self.script.fate(self.group, *id));
        if fates().any(|fate| fate.end() != End::Effect || matches!(fate, Fate::Fails(..))) {
            return Err(HandlerError::retry("not all of them together"));
        }
        let mut work = call.begin(self.regime.forms[self.group]).await?;
        for id in ids {
            work.handled(&self.script.groups[self.group], *id).await?;
        }
        let slow = fates().find_map(|fate| match fate {
            Fate::Slow(time) => Some(time),
            _ => None,
        });
        if let Some(time) = slow {
            tokio::time::sleep(time).await;
        }
        work.commit().await?;
        Ok(())
    }

    async fn work(&self) {
        let time = self.chance.millis(0, 30);
        if time > Duration::from_millis(10) {
            tokio::time::sleep(time).await;
        }
    }

    fn note(&self, ids: &[MessageId], what: &str) {
        let group = &self.script.groups[self.group];
        let ids = list(ids.iter().map(|id| Label(*id)));
        self.history
            .note(&self.node, format_args!("{group} {ids}: {what}"));
    }
}

async fn fail(fault: Fault) -> HandlerResult {
    match fault {
        Fault::Error => Err(HandlerError::retry("by the script")),
        Fault::RetryAfter => Err(HandlerError::retry_after(Duration::from_millis(150), "later")),
        // Without the panic hook, which would print every one of them.
        Fault::Panic => resume_unwind(Box::new("by the script")),
        Fault::Timeout => pending().await,
        Fault::ForgetCommit => Ok(()),
    }
}
