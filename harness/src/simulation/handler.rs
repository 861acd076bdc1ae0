//! The handlers of a simulated group: they do what the script says.

use std::{future::pending, panic::resume_unwind, sync::Arc, time::Duration};

use headless_abstractions::MessageId;
use headless_core::{Backoff, Event, HandlerError, HandlerResult, Retry};
use headless_messaging::{CircuitBreaker, Consumer, Context, PublishExt};
use serde::{Deserialize, Serialize};

use super::{
    chance::Chance,
    history::History,
    label::Label,
    script::{Fate, Fault, NOTES, ORDERS, STOCK, Script},
    store::SimStore,
};

/// How long messages are held without renewal, by the store and by the transport: short, so that freezes and slow
/// handlers outlast it.
pub(super) const LEASE: Duration = Duration::from_millis(1_000);
const VISIBILITY: Duration = Duration::from_millis(1_500);
/// Longer than the slowest handler, so that only those time out that never end.
const TIMEOUT: Duration = Duration::from_millis(3_000);

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
    pub(super) script: Arc<Script>,
    pub(super) chance: Arc<Chance>,
    pub(super) history: Arc<History>,
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
        let breaker = CircuitBreaker::after(6).open_for(Backoff::exponential(
            Duration::from_millis(200),
            Duration::from_millis(800),
        ));
        let (orders, stock, notes) = (self.clone(), self.clone(), self.clone());
        Consumer::group(self.script.groups[self.group].as_str())
            .on(move |_: Order, cx| orders.clone().handle(cx))
            .on(move |_: Stock, cx| stock.clone().handle(cx))
            .on(move |_: Note, cx| notes.clone().handle(cx))
            .ordered_by_key()
            .concurrency(4)
            .retry(retry)
            .circuit_breaker(breaker)
            .timeout(TIMEOUT)
            .lease(LEASE)
            .visibility(VISIBILITY)
            .park_poll(Duration::from_millis(500))
    }

    async fn handle(self, cx: Context) -> HandlerResult {
        let id = cx.id();
        let call = self.script.called(self.group, id);
        let fate = self.script.fate(self.group, id);
        self.history.count(|stats| stats.handler_calls += 1);
        self.note(id, &format!("call {call} {:?} {fate:?}", cx.attempt()));
        let outcome = self.act(&cx, id, call, fate).await;
        let ended = match &outcome {
            Ok(()) => "succeeded".to_owned(),
            Err(error) => format!("failed: {error}"),
        };
        self.note(id, &format!("call {call} {ended}"));
        outcome
    }

    async fn act(&self, cx: &Context, id: MessageId, call: u32, fate: Fate) -> HandlerResult {
        self.work().await;
        let fault = match fate {
            Fate::Nothing => return Ok(()),
            Fate::Discard => return Err(HandlerError::discard("of no use")),
            Fate::Fails(times, fault) if call <= times => Some(fault),
            _ => None,
        };
        let fails_early = fault != Some(Fault::ForgetCommit) && self.chance.happens(5_000);
        if let Some(fault) = fault
            && fails_early
        {
            return fail(fault).await;
        }
        if fate == Fate::Permanent && fails_early {
            return Err(HandlerError::permanent("hopeless"));
        }
        if let Fate::Slow(time) = fate
            && fails_early
        {
            tokio::time::sleep(time).await;
        }
        let mut work = cx.begin::<SimStore>().await?;
        self.work().await;
        work.handled(&self.script.groups[self.group], id).await?;
        if let Some(follow_up) = self.script.follow_up(self.group, id) {
            work.message(NOTES, &Note).id(follow_up).send().await?;
        }
        match fate {
            Fate::Slow(time) if !fails_early => tokio::time::sleep(time).await,
            Fate::Permanent => return Err(HandlerError::permanent("hopeless after all")),
            _ => {}
        }
        if let Some(fault) = fault {
            return fail(fault).await;
        }
        work.commit().await?;
        match fate {
            Fate::CommitThenFail => Err(HandlerError::retry("failed after the commit")),
            _ => Ok(()),
        }
    }

    async fn work(&self) {
        let time = self.chance.millis(0, 30);
        if time > Duration::from_millis(10) {
            tokio::time::sleep(time).await;
        }
    }

    fn note(&self, id: MessageId, what: &str) {
        let group = &self.script.groups[self.group];
        self.history
            .note(&self.node, format_args!("{group} {}: {what}", Label(id)));
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
