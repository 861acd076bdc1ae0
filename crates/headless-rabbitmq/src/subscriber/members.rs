//! Who else is in the group, and which partitions are this member's share.
//!
//! Members learn of each other by talking, and of a death by the number of consumers of the group's members' queue. All of
//! this is for a fair share. That one member at a time has a partition, and that it is handed on in order, is the
//! server's doing, whatever members believe of each other.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

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

use super::{
    assign,
    driver::{Driver, Source, events},
    state::far,
};
use crate::{
    clock::{self, Moment},
    connection::passive,
    error::{fault, overdue},
    talk::{Answer, Peer, Say},
};

mod group;

pub(super) use self::group::Group;
use self::group::{ROUND, Round};

/// How long it may take to say something, and after how long it is tried again.
const TALK: Duration = Duration::from_secs(1);

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
