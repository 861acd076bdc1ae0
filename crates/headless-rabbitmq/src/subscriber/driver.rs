//! The driver: the task that reads a member's queues, times what it holds, and shares partitions with other members.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::join_all,
    stream::{BoxStream, SelectAll},
};
use headless_abstractions::{ErrorKind, Redelivery, Result};
use lapin::{
    Consumer,
    message::Delivery,
    types::{AMQPValue, ShortString},
};
use tokio::{
    task::yield_now,
    time::{sleep_until, timeout},
};

use super::{
    Member,
    members::Group,
    state::{Item, far},
};
use crate::{
    channel::Chan,
    clock::{self, Moment},
    connection::Live,
    envelope,
    error::overdue,
    talk::Say,
};

/// How long a member goes on reading unordered topics when no receive waits. What comes then is held back from others.
pub(super) const GRACE: Duration = Duration::from_millis(250);
/// The longest sleep of a driver that waits for nothing.
const IDLE: Duration = Duration::from_secs(3600);
/// How many deliveries are taken in at a time before anything else is looked at.
const BURST: usize = 1_000;

/// Where something came from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A lane, by its number, through the channel with this serial, by the consumer with this tag.
    Lane(usize, u64, ShortString),
    /// The queue over which members talk.
    Talk,
    /// The queue whose consumers are the members.
    Members,
}

/// What came.
#[derive(Debug)]
pub(super) enum Event {
    Delivery(Box<Delivery>),
    Failed,
    /// The consumer was cancelled, by us or by the server.
    Ended,
}

pub(super) struct Driver {
    pub(super) member: Arc<Member>,
    pub(super) live: Option<Arc<Live>>,
    /// The channel of what is not a lane's.
    pub(super) channel: Option<Chan>,
    /// The queue in which others find this member.
    pub(super) inbox: Option<ShortString>,
    pub(super) events: SelectAll<BoxStream<'static, (Source, Event)>>,
    /// The consumer of each lane that has one.
    pub(super) consumers: BTreeMap<usize, ShortString>,
    /// What was said and is not answered yet, with where the answer goes.
    pub(super) said: Vec<(Say, Option<ShortString>)>,
    pub(super) group: Group,
}

impl Driver {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Self {
            group: Group::new(&member),
            member,
            live: None,
            channel: None,
            inbox: None,
            events: SelectAll::new(),
            consumers: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let member = self.member.clone();
        let at_most = member.shared.config.call_timeout;
        while !member.is_leaving() {
            let reacted = timeout(at_most, self.react()).await;
            if let Err(error) = reacted.unwrap_or_else(|_elapsed| Err(overdue("receive", "call_timeout"))) {
                self.disconnect();
                member.state().error = Some(error);
            }
            member.changed.notify_one();
            let due = self.next_due();
            tokio::select! {
                biased;
                () = member.leaving.cancelled() => {}
                () = member.shared.closing.cancelled() => {}
                Some((source, event)) = self.events.next() => self.note(source, event),
                () = member.stirred.notified() => {}
                () = sleep_until(due) => {}
            }
            self.take_in();
        }
        if timeout(at_most, self.leave()).await.is_err() {
            tracing::debug!(
                "a member could not say good-bye in time: what it holds goes back with its connection"
            );
        }
    }

    /// Takes in what has come already, up to a burst; answers whether there may be more.
    fn take_in(&mut self) -> bool {
        for _ in 0..BURST {
            match self.events.next().now_or_never() {
                Some(Some((source, event))) => self.note(source, event),
                _ => return false,
            }
        }
        true
    }

    /// Takes in all that has come already.
    pub(super) async fn take_in_all(&mut self) {
        while self.take_in() {
            // So that a time-out is heeded, however much comes.
            yield_now().await;
        }
    }

    /// Takes in what comes until this consumer has ended, with all that it brought.
    pub(super) async fn take_in_until_ended(&mut self, consumer: &ShortString) {
        while let Some((source, event)) = self.events.next().await {
            let is_end = matches!(
                (&source, &event),
                (Source::Lane(_, _, tag), Event::Ended) if tag == consumer
            );
            self.note(source, event);
            if is_end {
                return;
            }
        }
    }

    fn note(&mut self, source: Source, event: Event) {
        match (source, event) {
            (Source::Lane(at, serial, _), Event::Delivery(delivery)) => self.arrived(at, serial, *delivery),
            (Source::Talk, Event::Delivery(delivery)) => {
                if let Some(say) = Say::parse(&delivery.data) {
                    self.said.push((say, delivery.properties.reply_to().clone()));
                }
            }
            (Source::Members, Event::Delivery(_)) => {}
            (Source::Lane(at, serial, tag), Event::Ended | Event::Failed) => {
                self.lost_lane(at, serial, &tag);
            }
            (Source::Members, Event::Ended) if self.is_up() => {
                // Nothing but the removal of the group deletes this queue.
                self.member.state().gone = true;
            }
            (Source::Talk | Source::Members, Event::Ended | Event::Failed) => self.lost_connection(),
        }
    }

    fn arrived(&mut self, at: usize, serial: u64, delivery: Delivery) {
        let mut state = self.member.state();
        let Some(lane) = state.lanes.get(at) else { return };
        let redelivery = redelivery(&delivery, lane.is_ordered());
        let (message, malformed) = envelope::message(lane.topic.clone(), &delivery.properties, delivery.data);
        let item = Item::new(message, malformed, redelivery, clock::now());
        state.arrived(at, serial, delivery.delivery_tag, item);
    }

    /// The channel of a lane has gone, or the server has cancelled its consumer: what it held goes to others.
    fn lost_lane(&mut self, at: usize, serial: u64, tag: &ShortString) {
        let is_ours = self.consumers.get(&at) == Some(tag);
        let mut state = self.member.state();
        if is_ours && state.lanes.get(at).is_some_and(|lane| lane.serial == serial) {
            // Dropping the channel closes it, if it is open.
            drop(state.shut(at));
            drop(state);
            self.consumers.remove(&at);
        }
    }

    fn lost_connection(&mut self) {
        self.disconnect();
        let mut state = self.member.state();
        // A receive that waits is worth an attempt at once.
        state.asked |= state.receiving > 0;
    }

    /// Everything that was there through the connection is not there any more.
    fn disconnect(&mut self) {
        self.live = None;
        self.channel = None;
        self.events = SelectAll::new();
        self.consumers.clear();
        self.said.clear();
        self.group.forget();
        let mut state = self.member.state();
        for at in 0..state.lanes.len() {
            drop(state.shut(at));
        }
    }

    pub(super) fn is_up(&self) -> bool {
        let channel_is_up = self
            .channel
            .as_ref()
            .is_some_and(|channel| channel.status().connected());
        channel_is_up && self.live.as_ref().is_some_and(|live| live.is_up())
    }

    /// Brings what is there into line with what is to be.
    async fn react(&mut self) -> Result<()> {
        if self.channel.is_some() && !self.is_up() {
            self.lost_connection();
        }
        {
            let mut state = self.member.state();
            state.lapse(clock::now(), self.member.longest_hold());
            if state.gone {
                for at in 0..state.lanes.len() {
                    drop(state.shut(at));
                }
                drop(state);
                self.consumers.clear();
                return Ok(());
            }
            if self.channel.is_none() && !std::mem::take(&mut state.asked) {
                return Ok(());
            }
        }
        match self.bring_about().await {
            // A queue of the group is missing: as good as its removal.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tracing::debug!(%error, "a queue of the group has gone");
                self.member.state().gone = true;
                Ok(())
            }
            other => other,
        }
    }

    async fn bring_about(&mut self) -> Result<()> {
        if self.channel.is_none() {
            self.enter().await?;
        }
        self.let_go().await;
        self.answer().await?;
        self.see_to_partitions().await?;
        self.see_to_shared_queues().await
    }

    /// When there is something to do, whatever comes.
    fn next_due(&self) -> Moment {
        let now = clock::now();
        let state = self.member.state();
        let mut due = far(now, IDLE);
        if state.gone || self.channel.is_none() {
            return due;
        }
        due = due.min(state.next_lapse(self.member.longest_hold()).unwrap_or(due));
        // The server would close the channel of a partition before the next beat, where its time-out is short.
        if self.group.shares() {
            let longest = self.member.longest_partition_hold();
            due = due.min(state.next_overdue(longest).unwrap_or(due));
        }
        if state.receiving == 0 {
            let is_reading = self.consumers.keys().any(|at| {
                let lane = state.lanes.get(*at);
                lane.is_some_and(|lane| !lane.is_ordered())
            });
            if is_reading {
                due = due.min(far(state.received_at, GRACE));
            }
            if self.group.is_in() {
                due = due.min(far(state.received_at, self.member.to.visibility));
            }
        }
        due.min(self.group.next_due().unwrap_or(due))
    }

    /// Gives back what is unsettled, at once and in place, and says so.
    async fn leave(&mut self) {
        let channels: Vec<Chan> = {
            let mut state = self.member.state();
            (0..state.lanes.len()).filter_map(|at| state.shut(at)).collect()
        };
        join_all(channels.iter().map(|channel| channel.end())).await;
        let said = self.say(&Say::Gone(self.member.session), false).await;
        if let (Some(channel), Ok(_)) = (self.channel.take(), said) {
            channel.end().await;
        }
    }
}

/// What a consumer gives, with where it came from, to its end.
pub(super) fn events(source: Source, consumer: Consumer) -> BoxStream<'static, (Source, Event)> {
    let last = (source.clone(), Event::Ended);
    consumer
        .map(move |came| {
            let event = match came {
                Ok(delivery) => Event::Delivery(Box::new(delivery)),
                Err(error) => {
                    tracing::debug!(%error, "a consumer has failed");
                    Event::Failed
                }
            };
            (source.clone(), event)
        })
        .chain(futures::stream::once(async { last }))
        .boxed()
}

/// Quorum queues count; classic ones have a mark.
fn redelivery(delivery: &Delivery, is_ordered: bool) -> Redelivery {
    let count = delivery
        .properties
        .headers()
        .as_ref()
        .and_then(|headers| headers.inner().get("x-delivery-count"))
        .and_then(number);
    match (is_ordered, delivery.redelivered, count) {
        // Whatever the headers say then, it was not the server that wrote it.
        (_, false, _) => Redelivery::First,
        (false, _, Some(before)) if before > 0 => Redelivery::Again(before),
        _ => Redelivery::Unknown,
    }
}

fn number(value: &AMQPValue) -> Option<u32> {
    let number = match value {
        AMQPValue::LongLongInt(number) => *number,
        AMQPValue::LongInt(number) => i64::from(*number),
        AMQPValue::LongUInt(number) => i64::from(*number),
        AMQPValue::ShortInt(number) => i64::from(*number),
        AMQPValue::ShortUInt(number) => i64::from(*number),
        AMQPValue::ShortShortInt(number) => i64::from(*number),
        AMQPValue::ShortShortUInt(number) => i64::from(*number),
        _ => return None,
    };
    u32::try_from(number).ok()
}
