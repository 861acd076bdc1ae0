//! Opening and closing the channels of a member's queues.

use futures::future::join_all;
use headless_abstractions::{Error, Result};
use lapin::{
    Consumer,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};

use super::{
    driver::{Driver, GRACE, Source, events},
    state::far,
};
use crate::{channel::Chan, clock, connection::Live, error::fault};

impl Driver {
    /// Closes the channels of partitions of which a receive has told: whoever waits for them gets what was unsettled, in
    /// place.
    pub(super) async fn let_go(&mut self) {
        let channels: Vec<Chan> = {
            let mut state = self.member.state();
            let given_up: Vec<usize> = state.given_up.iter().copied().collect();
            for at in &given_up {
                self.consumers.remove(at);
            }
            given_up.into_iter().filter_map(|at| state.shut(at)).collect()
        };
        // One that cannot be closed has gone already.
        join_all(channels.iter().map(|channel| channel.end())).await;
    }

    /// Opens these lanes, at once.
    pub(super) async fn open(&mut self, lanes: Vec<usize>) -> Result<()> {
        let Some(live) = self.live.clone() else {
            return Ok(());
        };
        let queues: Vec<(usize, ShortString)> = {
            let state = self.member.state();
            let name = |at: usize| {
                let lane = state.lanes.get(at)?;
                let namespace = &self.member.shared.config.namespace;
                Some((
                    at,
                    namespace.queue(&self.member.to.group, &lane.topic, lane.partition),
                ))
            };
            lanes.into_iter().filter_map(name).collect()
        };
        let prefetch = self.member.prefetch();
        let opened = queues.into_iter().map(async |(at, queue)| {
            let opened = open_one(&live, queue, prefetch).await?;
            Ok::<_, Error>((at, opened))
        });
        for opened in join_all(opened).await {
            let (at, (channel, consumer)) = opened?;
            let serial = self.member.state().open(at, channel);
            self.follow(at, serial, consumer);
        }
        Ok(())
    }

    fn follow(&mut self, at: usize, serial: u64, consumer: Consumer) {
        let tag = consumer.tag();
        self.consumers.insert(at, tag.clone());
        self.events.push(events(Source::Lane(at, serial, tag), consumer));
    }

    /// Reads the queues of unordered topics while a receive waits, and a moment longer. A member that nobody asks for
    /// deliveries holds none back from others.
    pub(super) async fn see_to_shared_queues(&mut self) -> Result<()> {
        let (is_wanted, shut, open) = {
            let state = self.member.state();
            let is_here = state.receiving > 0 || clock::now() < far(state.received_at, GRACE);
            let mut shut = Vec::new();
            let mut open = Vec::new();
            for (at, lane) in state
                .lanes
                .iter()
                .enumerate()
                .filter(|(_, lane)| !lane.is_ordered())
            {
                match &lane.channel {
                    None => shut.push(at),
                    Some(channel) => open.push((at, lane.serial, channel.clone())),
                }
            }
            (is_here && !state.paused, shut, open)
        };
        if !is_wanted {
            for (at, _, channel) in open {
                self.stop_reading(at, &channel).await?;
            }
            return Ok(());
        }
        for (at, serial, channel) in open {
            if !self.consumers.contains_key(&at) {
                let queue = {
                    let state = self.member.state();
                    let namespace = &self.member.shared.config.namespace;
                    state
                        .lanes
                        .get(at)
                        .map(|lane| namespace.queue(&self.member.to.group, &lane.topic, None))
                };
                if let Some(queue) = queue {
                    let consumer = consume(&channel, queue).await?;
                    self.follow(at, serial, consumer);
                }
            }
        }
        self.open(shut).await
    }

    /// Cancels a consumer and gives back what it has brought that nobody has received. What is in hand stays so.
    async fn stop_reading(&mut self, at: usize, channel: &Chan) -> Result<()> {
        let Some(tag) = self.consumers.remove(&at) else {
            return Ok(());
        };
        channel.cancel(&tag).await?;
        // Before the channel brings anything else, and however much it was: nobody else gets what is not given back.
        self.take_in_until_ended(&tag).await;
        self.member.state().return_ready(at);
        Ok(())
    }
}

async fn open_one(live: &Live, queue: ShortString, prefetch: u16) -> Result<(Chan, Consumer)> {
    let channel = live.channel().await?;
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await
        .map_err(fault)?;
    let consumer = consume(&channel, queue).await?;
    Ok((channel, consumer))
}

async fn consume(channel: &Chan, queue: ShortString) -> Result<Consumer> {
    channel
        .consume(queue, BasicConsumeOptions::default(), FieldTable::default())
        .await
}
