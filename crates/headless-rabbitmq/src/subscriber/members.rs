//! Who else is in the group, and which partitions are this member's share.
//!
//! Members learn of each other by talking, and of a death by the number of consumers of the group's members' queue. All of
//! this is for a fair share. That one member at a time has a partition, and that it is handed on in order, is the
//! server's doing, whatever members believe of each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use headless_abstractions::{Result, TopicName};
use lapin::{
    BasicProperties,
    options::{
        BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{FieldTable, ShortString},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Member, assign,
    driver::{Driver, Source, events},
    state::far,
};
use crate::{
    clock::{self, Moment},
    connection::passive,
    error::{fault, overdue},
    talk::{Answer, Peer, Say},
};

#[cfg(test)]
mod tests;

/// How long members have to say that they are there.
const ROUND: Duration = Duration::from_secs(1);
/// How long it may take to say something, and after how long it is tried again.
const TALK: Duration = Duration::from_secs(1);
/// How often the number of members is looked at: an eighth of the visibility time, between these.
const BEAT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// What a member knows of its group.
#[derive(Debug)]
pub(super) struct Group {
    /// Whether it reads ordered topics at all.
    has_partitions: bool,
    beat: Duration,
    /// It shares in the partitions: its hold has not lapsed.
    is_in: bool,
    /// It has heard of the others, and may take its share.
    is_settled: bool,
    peers: BTreeMap<Uuid, Peer>,
    /// The lanes that are its share, until it learns of another member or misses one.
    share: Option<Arc<BTreeSet<usize>>>,
    round: Option<Round>,
    next_beat: Moment,
    /// When to tell the group of this member again: it could not be told.
    untold: Option<Moment>,
    /// Until then nothing is said: it could not be said just now.
    mute_until: Moment,
}

/// A question for who is there.
#[derive(Debug)]
struct Round {
    /// How many others there are.
    expected: usize,
    heard: BTreeSet<Uuid>,
    until: Moment,
}

impl Group {
    pub(super) fn new(member: &Member) -> Self {
        let (least, most) = BEAT;
        Self {
            has_partitions: member.topics.iter().any(|(_, order)| order.is_ordered()),
            beat: (member.to.visibility / 8).clamp(least, most),
            is_in: false,
            is_settled: false,
            peers: BTreeMap::new(),
            share: None,
            round: None,
            next_beat: clock::now(),
            untold: None,
            mute_until: clock::now(),
        }
    }

    /// It is alone again, as far as it knows.
    pub(super) fn forget(&mut self) {
        self.is_in = false;
        self.is_settled = false;
        self.peers.clear();
        self.share = None;
        self.round = None;
    }

    /// Whether it is among the members and knows the others: it then takes and hands on partitions.
    pub(super) const fn shares(&self) -> bool {
        self.is_in && self.is_settled
    }

    pub(super) const fn is_in(&self) -> bool {
        self.is_in
    }

    /// The end of the round, or the next beat: there is none while a round is open.
    pub(super) fn next_due(&self) -> Option<Moment> {
        let next = match &self.round {
            Some(round) => Some(round.until),
            None => self.is_in.then_some(self.next_beat),
        };
        next.into_iter().chain(self.untold).min()
    }

    fn hear(&mut self, peer: Peer) {
        if let Some(round) = &mut self.round {
            round.heard.insert(peer.session);
        }
        if self.peers.get(&peer.session) != Some(&peer) {
            self.share = None;
            self.peers.insert(peer.session, peer);
        }
    }

    fn miss(&mut self, session: Uuid) {
        if self.peers.remove(&session).is_some() {
            self.share = None;
        }
    }

    /// Ends a round that everybody has answered, or whose time has passed.
    fn end_round(&mut self, now: Moment) {
        let Some(round) = &self.round else { return };
        let is_complete = round.heard.len() >= round.expected;
        if is_complete {
            // Whoever did not answer does not exist.
            let before = self.peers.len();
            self.peers.retain(|session, _| round.heard.contains(session));
            if self.peers.len() != before {
                self.share = None;
            }
        }
        if is_complete || now >= round.until {
            self.round = None;
            self.is_settled = true;
        }
    }
}

impl Driver {
    /// Connects, and becomes one of the group's members.
    pub(super) async fn enter(&mut self) -> Result<()> {
        let member = self.member.clone();
        let namespace = &member.shared.config.namespace;
        let live = member.shared.consume.live(&member.shared.config).await?;
        let channel = live.channel().await?;
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare("".into(), options, FieldTable::default())
            .await
            .map_err(fault)?;
        let inbox = queue.name().clone();
        let group: ShortString = member.to.group.as_str().into();
        let (bind, none) = (QueueBindOptions::default(), FieldTable::default());
        channel
            .queue_bind(inbox.clone(), namespace.talk(), group, bind, none)
            .await
            .map_err(fault)?;
        let no_ack = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let talk = channel
            .consume(inbox.clone(), no_ack, FieldTable::default())
            .await?;
        // Counted as a member only once it can be talked to.
        let members = channel
            .consume(namespace.members(&member.to.group), no_ack, FieldTable::default())
            .await?;
        self.events.push(events(Source::Talk, talk));
        self.events.push(events(Source::Members, members));
        self.live = Some(live);
        self.channel = Some(channel);
        self.inbox = Some(inbox);
        Ok(())
    }

    /// Says something to the group; answers whether it could.
    pub(super) async fn say(&mut self, say: &Say, asks: bool) -> Result<bool> {
        let exchange = self.member.shared.config.namespace.talk();
        let group = self.member.to.group.as_str().into();
        Ok(self.publish(exchange, group, &say.to_bytes()?, asks).await)
    }

    /// Tells the group of this member, now or as soon as it can: until then others share as if nothing had changed.
    async fn tell(&mut self, asks: bool) -> Result<()> {
        let is_told = self.say(&Say::Here(self.me()), asks).await?;
        self.group.untold = (!is_told).then(|| far(clock::now(), TALK));
        Ok(())
    }

    /// Publishes on the connection that publishes: one that is held back must not hold back acknowledgements. What members
    /// say are hints: that one cannot be given ends nothing, and holds nothing up for long.
    async fn publish(&mut self, exchange: ShortString, key: ShortString, bytes: &[u8], asks: bool) -> bool {
        if clock::now() < self.group.mute_until {
            return false;
        }
        // Long enough to connect, and short enough that its channels are seen to within the call.
        let at_most = self.member.shared.config.call_timeout / 4;
        let published = timeout(at_most, self.try_publish(exchange, key, bytes, asks)).await;
        match published.unwrap_or_else(|_elapsed| Err(overdue("receive", "call_timeout"))) {
            Ok(is_published) => is_published,
            Err(error) => {
                tracing::debug!(%error, "a member could not say something to its group");
                self.group.mute_until = far(clock::now(), TALK);
                false
            }
        }
    }

    async fn try_publish(
        &mut self,
        exchange: ShortString,
        key: ShortString,
        bytes: &[u8],
        asks: bool,
    ) -> Result<bool> {
        let shared = &self.member.shared;
        let live = shared.publish.live(&shared.config).await?;
        // It would wait for as long as the server holds publishers back.
        if live.is_blocked() {
            return Ok(false);
        }
        let mut properties = BasicProperties::default();
        if let Some(inbox) = self.inbox.clone().filter(|_| asks) {
            properties = properties.with_reply_to(inbox);
        }
        let options = BasicPublishOptions::default();
        let publishing = async {
            let talker = live.talker().await?;
            let published = talker.basic_publish(exchange, key, options, bytes, properties);
            published.await.map_err(fault)
        };
        match timeout(TALK, publishing).await {
            Ok(published) => published.map(|_unconfirmed| true),
            Err(_elapsed) => Err(overdue("receive", "call_timeout")),
        }
    }

    fn me(&self) -> Peer {
        let topics = self
            .member
            .topics
            .iter()
            .filter(|(_, order)| self.group.is_in && order.is_ordered());
        let topics = topics.map(|(topic, _)| topic.as_str().to_owned()).collect();
        Peer::new(self.member.session, self.member.to.member, topics)
    }

    /// Answers what others have said.
    pub(super) async fn answer(&mut self) -> Result<()> {
        for (say, reply_to) in std::mem::take(&mut self.said) {
            match say {
                Say::Here(peer) if peer.session == self.member.session => {}
                Say::Here(peer) => {
                    self.group.hear(peer);
                    if let Some(asker) = reply_to {
                        let here = Say::Here(self.me()).to_bytes()?;
                        // Unheard, it is asked again.
                        self.publish("".into(), asker, &here, false).await;
                    }
                }
                Say::Gone(session) => self.group.miss(session),
                Say::Count => {
                    if let Some(asker) = reply_to {
                        let answer = self.count().await?;
                        self.publish("".into(), asker, &answer.to_bytes()?, false).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// How many messages the server waits for here, once all that it has sent so far was taken in.
    async fn count(&mut self) -> Result<Answer> {
        let prefetch = self.member.prefetch();
        let channels: Vec<_> = {
            let state = self.member.state();
            state
                .lanes
                .iter()
                .filter_map(|lane| lane.channel.clone())
                .collect()
        };
        let asked = channels
            .iter()
            .map(|channel| channel.basic_qos(prefetch, BasicQosOptions::default()));
        // A channel that has gone holds nothing.
        join_all(asked).await;
        self.take_in_all().await;
        Ok(Answer {
            session: self.member.session,
            held: self.member.state().held() as u64,
        })
    }

    /// Holds, takes and hands on partitions.
    pub(super) async fn see_to_partitions(&mut self) -> Result<()> {
        if !self.group.has_partitions {
            return Ok(());
        }
        let now = clock::now();
        if self.group.untold.is_some_and(|again| now >= again) {
            self.tell(self.group.is_in).await?;
        }
        let is_held = {
            let state = self.member.state();
            state.receiving > 0 || now < far(state.received_at, self.member.to.visibility)
        };
        match (is_held, self.group.is_in) {
            (false, true) => return self.lapse().await,
            (false, false) => return Ok(()),
            (true, false) => {
                self.group.is_in = true;
                self.group.share = None;
                self.ask_round().await?;
            }
            (true, true) => {
                if now >= self.group.next_beat && self.group.round.is_none() {
                    self.beat().await?;
                }
            }
        }
        self.group.end_round(now);
        if self.group.is_settled {
            self.take_share(now).await
        } else {
            Ok(())
        }
    }

    /// Nobody has received for the visibility time: others may have its partitions.
    async fn lapse(&mut self) -> Result<()> {
        self.group.forget();
        let channels: Vec<_> = {
            let mut state = self.member.state();
            let ordered: Vec<usize> = (0..state.lanes.len())
                .filter(|at| state.lanes.get(*at).is_some_and(super::state::Lane::is_ordered))
                .collect();
            for at in &ordered {
                self.consumers.remove(at);
            }
            ordered.into_iter().filter_map(|at| state.shut(at)).collect()
        };
        join_all(channels.iter().map(|channel| channel.end())).await;
        self.tell(false).await
    }

    /// Looks whether there are as many members as it knows.
    async fn beat(&mut self) -> Result<()> {
        self.group.next_beat = far(clock::now(), self.group.beat);
        if self.others().await? == self.group.peers.len() {
            return Ok(());
        }
        self.ask_round().await
    }

    async fn ask_round(&mut self) -> Result<()> {
        let now = clock::now();
        self.group.next_beat = far(now, self.group.beat);
        self.group.round = Some(Round {
            expected: self.others().await?,
            heard: BTreeSet::new(),
            until: far(now, ROUND),
        });
        self.tell(true).await
    }

    /// How many other members the server knows.
    async fn others(&mut self) -> Result<usize> {
        let Some(channel) = &self.channel else {
            return Ok(0);
        };
        let members = self.member.shared.config.namespace.members(&self.member.to.group);
        let queue = channel
            .queue_declare(members, passive(), FieldTable::default())
            .await
            .map_err(fault)?;
        Ok((queue.consumer_count() as usize).saturating_sub(1))
    }

    /// Opens the partitions that are to be its own, and marks those that are not as to be handed on.
    async fn take_share(&mut self, now: Moment) -> Result<()> {
        let mine = match self.group.share.clone() {
            Some(share) => share,
            None => {
                let share = Arc::new(self.share());
                self.group.share = Some(share.clone());
                share
            }
        };
        let longest = self.member.longest_partition_hold();
        let missing: Vec<usize> = {
            let mut state = self.member.state();
            state.wanted.clear();
            let mut missing = Vec::new();
            for at in 0..state.lanes.len() {
                let Some(lane) = state.lanes.get(at).filter(|lane| lane.is_ordered()) else {
                    continue;
                };
                // Before the server closes the channel: the first of it is held the longest.
                let is_overdue = lane
                    .items
                    .values()
                    .next()
                    .is_some_and(|item| now >= far(item.since, longest));
                let is_open = lane.channel.is_some();
                if is_open && (!mine.contains(&at) || is_overdue) {
                    state.wanted.insert(at);
                } else if !is_open && mine.contains(&at) {
                    missing.push(at);
                }
            }
            missing
        };
        self.open(missing).await
    }

    /// The lanes that are its share.
    fn share(&self) -> BTreeSet<usize> {
        let me = self.me();
        let is_of = |peer: &&Peer, topic: &TopicName| peer.topics.iter().any(|name| name == topic.as_str());
        let mut mine = BTreeSet::new();
        let state = self.member.state();
        for (topic, order) in &self.member.topics {
            let Some(partitions) = order.partitions() else {
                continue;
            };
            let members: Vec<&Peer> = self
                .group
                .peers
                .values()
                .chain([&me])
                .filter(|peer| is_of(peer, topic))
                .collect();
            let share = assign::share(me.session, topic, partitions, &members);
            mine.extend(state.lanes.iter().enumerate().filter_map(|(at, lane)| {
                let partition = lane.partition.filter(|_| lane.topic == *topic)?;
                share.contains(&partition).then_some(at)
            }));
        }
        mine
    }
}
